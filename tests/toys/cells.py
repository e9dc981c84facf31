"""Cells of NAS-Bench-201 with labels that a few counts explain, for tests of what learns from them."""
from __future__ import annotations

import numpy as np

import spaces
from models.batch import Batch

SPACE = spaces.get("nasbench201")
CELLS = 300
ARCHS = list(dict.fromkeys(SPACE.sample(2 * CELLS, np.random.default_rng(0))))[:CELLS]
KEYS = [SPACE.key(arch) for arch in ARCHS]


def toy(n: int = 60, seeds: int = 2) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray]:
    """Table of 300 cells, rows [S, n], label [S, n], and the function behind the labels [300]: convolutions
    are good."""
    rng = np.random.default_rng(0)
    truth = np.array([4.0 * a.count(3) + 2 * a.count(2) - a.count(4) for a in ARCHS])  # [300]
    rows = np.stack([rng.permutation(CELLS)[:n] for _ in range(seeds)])  # [S, n]
    return Batch.of(SPACE.encode(ARCHS)), rows, truth[rows] + rng.normal(size=rows.shape), truth
