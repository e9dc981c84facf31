"""The whole predictor: a fine-tuned ensemble for each seed and, for a share of its score, kernel regression.

S seeds, m members of each, M = S m, B cells.
"""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.ensemble import Ensemble
from models.kernel import KernelRidge, reference, views


class Blend(nn.Module):
    """forward(batch) -> score [S, B]: the mean of the seed's members, and `share` of the kernel's opinion.

    Before they are added both are brought to mean 0 and variance 1 over unlabelled cells (`settle`).
    """

    def __init__(self, ensemble: Ensemble, seeds: int, kernel: KernelRidge | None = None, share: float = 0.0,
                 encoder: nn.Module | None = None, names: tuple[str, ...] = ()):
        """Members of one seed are neighbours in the ensemble. encoder: the pre-trained one, untouched, that the kernel
        reads beside the properties; names: the vocabulary of the space. Without a kernel, the ensemble alone."""
        super().__init__()
        self.ensemble, self.seeds, self.kernel, self.share = ensemble, seeds, kernel, share
        self.encoder, self.names = encoder, tuple(names)
        level = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 2, seeds)  # mean and std of both opinions, [S] each
        self.register_buffer("level", level.clone())

    @torch.no_grad()
    def settle(self, table: Batch, chunk: int = 1024) -> Blend:
        """Measure the level of both opinions on cells of the table, whose labels it does not see; at most `chunk` graphs x
        members at a time."""
        some = reference(table)
        pieces = torch.arange(some.graphs, device=table.ops.device).split(max(1, chunk // self.ensemble.size))
        opinions = torch.cat([self.opinions(some.rows(piece)) for piece in pieces], dim=-1)  # [2, S, R]
        self.level = torch.stack([opinions.mean(-1), opinions.std(-1).clamp(min=1e-6)])  # [2, 2, S]
        return self

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.kernel is None:
            return self.members(batch).mean(1)
        mean, std = self.level[..., None]  # [2, S, 1] each
        own, other = (self.opinions(batch) - mean) / std
        return (1 - self.share) * own + self.share * other

    def opinions(self, batch: Batch) -> torch.Tensor:
        """float[2, S, B]: the ensemble's and the kernel's."""
        return torch.stack([self.members(batch).mean(1), self.kernel(views(self.encoder, batch, self.names))])

    def members(self, batch: Batch) -> torch.Tensor:
        """float[S, m, B]: the score of every member."""
        return self.ensemble(batch.expand(self.ensemble.size)).view(self.seeds, -1, batch.graphs)
