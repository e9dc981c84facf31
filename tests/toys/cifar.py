"""Tiny pictures and trainings in the manner of CIFAR-10: what the tests of cifar/ and train.py share."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cifar.images import Images
from cifar.training import CifarRecipe

SMALL = {"layers": 3, "init_channels": 2, "batch_size": 16, "epochs": 3, "auxiliary": False}


class Killed(Exception):
    """What a killed run raises here."""


def pictures(n: int, seed: int) -> Images:
    """Noise whose brightness gives the class away."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 10
    noise = torch.randint(30, (n, 32, 32, 3), generator=draw)
    return Images((20 * labels[:, None, None, None] + noise).to(torch.uint8), labels)


def write(path: Path, train: Images, test: Images) -> Path:
    """Writes an .npz as train.py reads it."""
    arrays = {f"{kind}_{part}": field.numpy() for part, content in (("train", train), ("test", test))
              for kind, field in zip("xy", (content.pixels, content.labels))}
    np.savez(path, **arrays)
    return path


def parallel_recipe() -> CifarRecipe:
    """What two processes train together."""
    return CifarRecipe(**SMALL | {"auxiliary": True, "drop_path_prob": 0.3})
