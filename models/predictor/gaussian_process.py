"""Kernel regression, here a Gaussian process, on features of a cell that exist before any label.

The features are the embedding of the pre-trained encoder, before fine-tuning, and the cell's analytic
properties. Blended into the fine-tuned ensemble, the process helps most if labels are few.

S seeds, n labels, N cells of a table, B cells to score, P numbers of a kernel feature.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from models.batch import Batch
from models.features.properties import cell_properties
from models.features.vocabulary import Vocabulary
from models.metrics import normal_scores

NOISE = 0.1  # variance of a label's noise, for a function of variance 1, both in normal scores
REFERENCE = 2000  # unlabelled cells over which features and scores are standardised


def reference_cells(table: Batch) -> Batch:
    """At most REFERENCE cells of the table, evenly spaced over its rows."""
    some = torch.linspace(
        0, table.num_graphs - 1, min(REFERENCE, table.num_graphs), device=table.ops.device)  # [R]
    return table.rows(some.long())


@torch.no_grad()
def kernel_features(encoder: nn.Module | None, table: Batch, vocabulary: Vocabulary,
                    chunk: int = 1024) -> list[torch.Tensor]:
    """The features of N graphs over a vocabulary, [N, P] each: properties, and embedding if any."""
    seen = [cell_properties(table, vocabulary)]
    if encoder is not None:
        encoder.eval()
        rows = torch.arange(table.num_graphs, device=table.ops.device).split(chunk)
        seen.append(torch.cat([encoder.embed(table.rows(piece)) for piece in rows]))
    return seen


def length_scales(reference: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Features [R, P] of any cells -> mean [P] and scale [P] of each.

    The scale is the standard deviation times the median distance of two standardised cells.
    """
    found = []
    for feature in reference:
        feature = feature.cpu()  # MPS has no pdist
        std, mean = torch.std_mean(feature, dim=0)  # [P]
        std = torch.where(std > 1e-4, std, torch.inf)  # ignores constant columns
        found.append((mean, std * torch.pdist(feature / std).median().clamp(min=1e-4)))
    return found


class GaussianProcess(nn.Module):
    """S regressions that differ in their labelled cells only.

    The kernel is the mean of one Gaussian kernel per feature, as wide as the median distance of two cells.
    The target is the normal score of a label, so that outliers do not dominate.
    """

    def __init__(self, sizes: Sequence[int], seeds: int, n: int):
        """Registers empty buffers, for `fit` or load_state_dict. sizes: the P of the features."""
        super().__init__()
        self.sizes = list(sizes)
        for i, size in enumerate(sizes):
            self.register_buffer(f"mean{i}", torch.zeros(size))
            self.register_buffer(f"scale{i}", torch.ones(size))  # std times the median distance
            self.register_buffer(f"points{i}", torch.zeros(seeds, n, size))
        self.register_buffer("weight", torch.zeros(seeds, n))

    @classmethod
    def fit(cls, seen: Sequence[torch.Tensor], scales: Sequence[tuple[torch.Tensor, torch.Tensor]],
            label: np.ndarray) -> GaussianProcess:
        """Fits features `seen` [S, n, P] each to label float[S, n]. scales: of `length_scales`."""
        process = cls([feature.shape[-1] for feature in seen], *label.shape).to(seen[0].device)
        for i, (feature, (mean, scale)) in enumerate(zip(seen, scales)):
            getattr(process, f"mean{i}").copy_(mean)
            getattr(process, f"scale{i}").copy_(scale)
            getattr(process, f"points{i}").copy_(process.standard(feature, i))
        # one seed after another, to hold a single n x n matrix in memory
        for seed, target in enumerate(torch.as_tensor(normal_scores(label, label))):
            own = [points[seed] for points in process.points]  # [n, P] each
            process.weight[seed] = torch.cholesky_solve(target[:, None], process.cholesky(own))[:, 0]
        return process

    def forward(self, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        """seen [B, P] each -> the posterior mean [S, B], about standard normal."""
        shape = len(self.weight), -1, -1
        points = [self.standard(feature, i).expand(shape) for i, feature in enumerate(seen)]  # [S, B, P] each
        return (self.similarity(points, self.points) @ self.weight[..., None])[..., 0]  # [S, B]

    def posterior(self, seen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """seen [B, P] each -> mean and standard deviation [S, B] of the function, without label noise.

        The standard deviation is near 1 far from all labelled cells.
        """
        return self(seen), self.posterior_std(seen)

    def posterior_std(self, seen: Sequence[torch.Tensor]) -> torch.Tensor:
        """seen [B, P] each -> the posterior standard deviation [S, B]."""
        new, std = [self.standard(feature, i) for i, feature in enumerate(seen)], []  # [B, P] each
        for seed in range(len(self.weight)):
            own = [points[seed] for points in self.points]  # [n, P] each
            near = self.similarity(own, new).cpu().double()  # [n, B]
            told = torch.linalg.solve_triangular(
                self.cholesky(own), near, upper=False).square_().sum(0)  # [B]
            std.append((1 - told).clamp_(min=0).sqrt_())
        return torch.stack(std).to(self.weight)

    def cholesky(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """The Cholesky factor [n, n], in double precision, of the labels' covariance; points [n, P] each."""
        gram = self.similarity(points, points).cpu().double()  # MPS has no float64
        gram.diagonal().add_(NOISE)
        return torch.linalg.cholesky(gram)

    @property
    def points(self) -> list[torch.Tensor]:
        """The standardised features of the labelled cells, [S, n, P] each."""
        return [getattr(self, f"points{i}") for i in range(len(self.sizes))]

    @staticmethod
    def similarity(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> torch.Tensor:
        """The kernel of standardised points: [..., B, P] and [..., n, P] each -> [..., B, n]."""
        near = (torch.cdist(one, other).square_().div_(-2).exp_() for one, other in zip(some, others))
        return sum(near) / len(some)

    def standard(self, feature: torch.Tensor, i: int) -> torch.Tensor:
        return (feature - getattr(self, f"mean{i}")) / getattr(self, f"scale{i}")
