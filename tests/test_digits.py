"""The worked example: its declaration is its trainer's networks, and its one command searches them."""
from __future__ import annotations

import importlib.util
import json
import shlex
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import search
import spaces

FOLDER = ROOT / "examples" / "digits"
SPACE = spaces.get(str(FOLDER / "space.json"))


@pytest.fixture(scope="module")
def trainer():
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("digits_train", FOLDER / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_trainer_is_short():
    assert len((FOLDER / "train.py").read_text().splitlines()) < 80


def test_the_declared_costs_are_those_of_the_networks(trainer):
    archs = SPACE.sample(40, np.random.default_rng(0))
    costs = SPACE.costs(archs)
    for arch, params in zip(archs, costs["params"]):
        network = trainer.network_of(SPACE.named(arch))
        assert sum(weights.numel() for weights in network.parameters()) == params
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.slow
def test_its_command_searches_real_images(tmp_path):
    oracle = shlex.join(["command:", sys.executable, str(FOLDER / "train.py"), "{json}", "--seed", "{seed}"])
    best = search.main([
        "--search_space", str(FOLDER / "space.json"), "--search_algo", "bo", "--N", "4", "--N0", "3",
        "--K", "1", "--jobs", "2", "--oracle", oracle, "--outdir", str(tmp_path / "s"), "--threads", "1"])
    assert 60 < best["validation"] <= 100 and 60 < best["test"] <= 100 and best["failed"] == 0
    assert all((tmp_path / "s" / name).exists() for name in ("curve.png", "best_cell.png"))
    lines = (tmp_path / "s" / "history.jsonl").read_text().splitlines()
    accuracies = [json.loads(line)["validation"] for line in lines]
    assert len(set(accuracies)) > 1
