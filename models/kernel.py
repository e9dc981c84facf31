"""Kernel ridge regression on what is known of a cell beforehand: the embedding of the pre-trained encoder, before any
label has moved it, and the cell's analytic properties. Blended into the fine-tuned ensemble it is a second opinion of
another kind, which matters most where labels are few.

S seeds, n labels, N cells of a table, B cells to score, P numbers of a view.
"""
from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import nn

from models.batch import Batch
from models.properties import cell_properties

NOISE = 0.1  # variance of a label beside the variance 1 of the function, both of normal scores
REFERENCE = 2000  # cells, unlabelled, by which views and opinions are standardised


def reference(table: Batch) -> Batch:
    """At most REFERENCE cells of the table, evenly spread over its rows."""
    some = torch.linspace(0, table.graphs - 1, min(REFERENCE, table.graphs), device=table.ops.device)  # [R]
    return table.rows(some.long())


@torch.no_grad()
def views(encoder: nn.Module | None, table: Batch, names: tuple[str, ...], chunk: int = 1024) -> list[torch.Tensor]:
    """What the kernel reads of N graphs over the vocabulary `names`: [N, P] each, embedding (if any) and properties."""
    seen = [cell_properties(table, names)]
    if encoder is not None:
        encoder.eval()
        rows = torch.arange(table.graphs, device=table.ops.device).split(chunk)
        seen.append(torch.cat([encoder.embed(table.rows(piece)) for piece in rows]))
    return seen


def widths(reference: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Views [R, P] of any cells -> mean [P] and scale [P] of each: the standard deviation times the median distance."""
    found = []
    for view in reference:
        view = view.cpu()  # MPS has no pdist
        std, mean = torch.std_mean(view, dim=0)  # [P]
        std = torch.where(std > 1e-4, std, torch.inf)  # what never varies says nothing
        found.append((mean, std * torch.pdist(view / std).median().clamp(min=1e-4)))
    return found


class KernelRidge(nn.Module):
    """S regressions that differ in their labels only. The kernel is the mean of a Gaussian kernel per view, as wide as the
    median distance of two cells; the target is the normal score of a label's rank, so that an outlier is an outlier and
    not all that counts.
    """

    def __init__(self, sizes: list[int], seeds: int, n: int):
        """Empty buffers, for `fit` or load_state_dict; sizes are the P of the views."""
        super().__init__()
        self.sizes = sizes
        for i, size in enumerate(sizes):
            self.register_buffer(f"mean{i}", torch.zeros(size))
            self.register_buffer(f"scale{i}", torch.ones(size))  # std times the median distance
            self.register_buffer(f"points{i}", torch.zeros(seeds, n, size))
        self.register_buffer("weight", torch.zeros(seeds, n))

    @classmethod
    def fit(cls, seen: list[torch.Tensor], widths: list[tuple[torch.Tensor, torch.Tensor]],
            label: np.ndarray) -> KernelRidge:
        """seen [S, n, P] each: the views of the cells with label float[S, n]; widths: see the function of that name."""
        kernel = cls([view.shape[-1] for view in seen], *label.shape).to(seen[0].device)
        for i, (view, (mean, scale)) in enumerate(zip(seen, widths)):
            getattr(kernel, f"mean{i}").copy_(mean)
            getattr(kernel, f"scale{i}").copy_(scale)
            getattr(kernel, f"points{i}").copy_(kernel.standard(view, i))
        score = stats.norm.ppf((stats.rankdata(label, axis=1) - 0.5) / label.shape[1])  # [S, n]
        for seed, target in enumerate(torch.as_tensor(score)):  # one after another: n x n numbers are many
            own = [points[seed] for points in kernel.points]  # [n, P] each
            kernel.weight[seed] = torch.cholesky_solve(target[:, None], kernel.cholesky(own))[:, 0]
        return kernel

    def forward(self, seen: list[torch.Tensor]) -> torch.Tensor:
        """seen [B, P] each -> score [S, B], about standard normal."""
        points = [self.standard(view, i).expand(len(self.weight), -1, -1) for i, view in enumerate(seen)]  # [S, B, P]
        return (self.similarity(points, self.points) @ self.weight[..., None])[..., 0]  # [S, B]

    def spread(self, seen: list[torch.Tensor]) -> torch.Tensor:
        """seen [B, P] each -> standard deviation [S, B] of the Gaussian process whose mean `forward` gives: of the function,
        without the noise of a label; near 1 far from all labelled cells."""
        new, spread = [self.standard(view, i) for i, view in enumerate(seen)], []  # [B, P] each
        for seed in range(len(self.weight)):
            own = [points[seed] for points in self.points]  # [n, P] each
            near = self.similarity(own, new).cpu().double()  # [n, B]
            told = torch.linalg.solve_triangular(self.cholesky(own), near, upper=False).square_().sum(0)  # [B]
            spread.append((1 - told).clamp_(min=0).sqrt_())
        return torch.stack(spread).to(self.weight)

    def cholesky(self, points: list[torch.Tensor]) -> torch.Tensor:
        """The factor [n, n], in double precision, of the covariance of the labels of points [n, P] each."""
        gram = self.similarity(points, points).cpu().double()  # MPS has no float64
        gram.diagonal().add_(NOISE)
        return torch.linalg.cholesky(gram)

    @property
    def points(self) -> list[torch.Tensor]:
        """[S, n, P] each: the labelled cells, standardised."""
        return [getattr(self, f"points{i}") for i in range(len(self.sizes))]

    @staticmethod
    def similarity(some: list[torch.Tensor], others: list[torch.Tensor]) -> torch.Tensor:
        """Standardised points [..., B, P] and [..., n, P] each -> [..., B, n]."""
        near = (torch.cdist(one, other).square_().div_(-2).exp_() for one, other in zip(some, others))
        return sum(near) / len(some)

    def standard(self, view: torch.Tensor, i: int) -> torch.Tensor:
        return (view - getattr(self, f"mean{i}")) / getattr(self, f"scale{i}")
