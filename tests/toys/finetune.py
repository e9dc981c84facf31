"""Runs of finetune.py of a second, for the tests of the script."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune
import spaces
from runtime.errors import InputError
from toys.labels import write_labels

TRAIN, SEEDS = 32, (0, 1)  # labels and seeds of a run
TINY = ["--width", "16", "--layers", "1", "--heads", "2", "--threads", "1", "--device", "cpu"]
PRETRAIN = [*TINY, "--tasks", "mask", "--iterations", "3", "--batch_size", "16", "--archs", "50",
            "--no-tensorboard"]
SHORT = [*TINY, "--members", "1", "--epochs", "5", "--finetune_train_samples", str(TRAIN), "--seeds", "0,1"]


def train(folder: Path, labels: str, *flags: str) -> tuple[dict, list[dict]]:
    """The result and the weights of every network."""
    result = finetune.main(["--labels", labels, "--save", str(folder), *SHORT, *flags])
    assert json.loads((folder / "result.json").read_text()) == result
    return result, torch.load(folder / "predictor.pt", weights_only=True)["weights"]


def refused(*flags: str) -> str:
    """The message with which finetune.py refuses the flags: one line."""
    with pytest.raises(InputError) as error:
        finetune.main([*TINY, "--epochs", "1", *flags])
    assert "\n" not in str(error.value)
    return str(error.value)


def darts_labels(path: Path, cells: int) -> str:
    """A label file of DARTS cells."""
    space, rng = spaces.get("darts"), np.random.default_rng(0)
    return write_labels(path, keys=[space.key(arch) for arch in space.sample(cells, rng)])
