"""Pre-training by two processes that share each batch makes the steps of one."""
from __future__ import annotations

import json

import pytest
import torch

import pretrain
from models.pretext.shared import SharedEncoder
from toys.torchrun import free_port, run_two

FLAGS = ["--space", "nasbench101", "--archs", "120", "--batch_size", "33", "--iterations", "6",
         "--dropout", "0", "--device", "cpu", "--threads", "1", "--no-tensorboard", "--width", "16",
         "--layers", "2"]
RUNS = {"ours": ["--tasks", "mask,flow,signature,properties,edges,contrast"],
        "bgrl": ["--model_type", "bgrl", "--base_model", "gat"],
        "graphcl": ["--model_type", "graphcl", "--base_model", "gcn"]}
CODE = f"""
import os, sys
import pretrain
folder, *ports = sys.argv[1:]
for port, (name, flags) in zip(ports, {RUNS!r}.items(), strict=True):
    os.environ["MASTER_PORT"] = port
    pretrain.main([*{FLAGS!r}, *flags, "--save", folder + "/" + name])
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    run_two(CODE, str(folder), *(free_port() for _ in RUNS))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_have_the_losses_and_weights_of_one(tmp_path, together, name):
    """Also where graphs are compared, and with parts of 17 and 16 graphs."""
    pretrain.main([*FLAGS, *RUNS[name], "--save", str(tmp_path)])
    alone, both = (torch.load(folder / "last.pt", weights_only=False)
                   for folder in (tmp_path, together / name))
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for key, value in alone["weights"].items():
        torch.testing.assert_close(both["weights"][key], value, rtol=1e-3, atol=2e-4)
    assert json.loads((together / name / "result.json").read_text())["steps"] == 6


def test_a_shared_encoder_is_the_encoder_in_all_but_its_call():
    encoder = torch.nn.Linear(2, 3)
    assert SharedEncoder(encoder, 0, 2).weight is encoder.weight
