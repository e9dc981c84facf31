"""What a search knows of architectures before their labels: the features of its Gaussian process.

B architectures, P numbers of a feature.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from models.batch import Batch
from models.predictor.background import REFERENCE, Background, Features
from models.predictor.gaussian_process import (
    LINEAR,
    MEAN,
    SOURCE,
    TRUSTS,
    Beliefs,
    GaussianProcess,
    Scale,
    length_scales,
)
from spaces import Space

# The size of each kernel before any label. Those of what stands where are as large as the variance of the
# labels: a search must doubt what it has not seen.
SIZES = {"properties": 0.16, "embedding": 0.16, "facts": 0.01, "places": 1.0, "placement": 1.0,
         "additive": 1.0}
FADE = 10  # queries up to which the prior is trusted as among cells drawn at random

Archs = Mapping[str, Any]  # {key: architecture}


class Knowledge:
    """The features of a space's architectures.

    Those of `Background`, and what stands where in the terms of the space, `Space.placement`: for a Gaussian
    kernel, and for a linear one, `additive`, which values every position by itself. source: a ranking by old
    labels, if there is one.
    """

    def __init__(self, space: Space, background: Background, device: torch.device):
        self.space, self.background, self.device = space, background.to(device), device
        self.listing, self._ranking = None, None
        self.scales = self._measure()

    def add_ranking(self, ranking: Callable[[Features, Batch], torch.Tensor]) -> None:
        """ranking(features, table) -> [B, 1]: becomes the feature `source`."""
        self._ranking = ranking
        self.scales = self._measure()

    def _measure(self) -> dict:
        anywhere = self.space.sample(REFERENCE, np.random.default_rng(0))
        return length_scales(self.compute(self.encode(anywhere)))

    def learn(self, keys: Sequence[str]) -> None:
        """Computes the features of all these architectures, once per search: they are its `listing`.

        Floats round differently in another batch, and a resumed search must end in the same bytes: so the
        keys and their order may depend on nothing but the pool.
        """
        if self.listing is None:
            features = self.compute(Batch.of(self.space.encode_keys(keys)).to(self.device))
            self.listing = Listing(keys, features, self.scales)

    def of(self, archs: Archs) -> Features:
        """The features [B, P] of architectures; one may be None if `learn` had its key."""
        if self.listing is None or not self.listing.has(archs):
            return self.compute(self.encode(list(archs.values())))
        rows = self.listing.rows(archs).to(self.device)  # [B]
        return {name: feature[rows] for name, feature in self.listing.features.items()}

    def compute(self, table: Batch) -> Features:
        """The features [B, P] of architectures, given their graphs."""
        known = self.background(table)
        placement = torch.from_numpy(self.space.placement(table)).to(self.device)  # [B, P]
        known |= {"placement": placement, "additive": placement}
        return known | ({SOURCE: self._ranking(known, table)} if self._ranking else {})

    def expected(self, known: Features) -> torch.Tensor:
        """The mean [B] before any label: the rankings, each as far as it is trusted."""
        sizes = {name: feature.shape[1] for name, feature in known.items()}
        process = GaussianProcess(sizes, 1, 0, beliefs(0)).to(self.device)
        process.rescale(self.scales)
        return process(known)[0]

    def encode(self, archs: Sequence) -> Batch:
        return Batch.of(self.space.encode(archs)).to(self.device)


def beliefs(n: int) -> Beliefs:
    """What a search takes for probable of n labels.

    The prior ranks whole spaces. A search queries their top, and more so the longer it runs: there the prior
    says little, and cells that it dislikes are never looked at if it is trusted.
    """
    left = min(1.0, FADE / max(1, n))
    return Beliefs(SIZES, TRUSTS | {MEAN: tuple(left * number for number in TRUSTS[MEAN])}, None)


class Listing:
    """The features of all N architectures of a pool, and their nearness to those that were queried."""

    def __init__(self, keys: Sequence[str], features: Features, scales: Mapping[str, Scale]):
        self.features, self._row, self._near = features, {key: row for row, key in enumerate(keys)}, {}
        self.points = {}
        for name, feature in features.items():
            mean, scale = (part.to(feature) for part in scales[name])
            self.points[name] = (feature - mean) / scale
        self._square = {name: points.square().sum(1) for name, points in self.points.items()}  # [N] each

    def has(self, archs: Archs) -> bool:
        return archs.keys() <= self._row.keys()

    def rows(self, archs: Archs) -> torch.Tensor:
        """int64[B]."""
        return torch.tensor([self._row[key] for key in archs])

    def near(self, key: str, kernels: Sequence[str]) -> torch.Tensor:
        """float[C, N]: each kernel between one architecture and all, computed once.

        One at a time, so that a resumed search has the same numbers to the last bit.
        """
        if key not in self._near:
            self._near[key] = torch.stack([self._kernel(name, self._row[key]) for name in kernels])
        return self._near[key]

    def _kernel(self, name: str, row: int) -> torch.Tensor:
        """float[N]: `gaussian_process.kernel` by one product of matrix and vector."""
        points, square = self.points[name], self._square[name]
        inner = points @ points[row]
        return inner if name in LINEAR else (inner - (square + square[row]) / 2).clamp_(max=0).exp_()
