"""The whole predictor: one fine-tuned ensemble per seed and, for a share of its score, a Gaussian process.

S seeds, m members of each, M = S m, B cells.
"""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.features.vocabulary import Vocabulary
from models.predictor.ensemble import Ensemble
from models.predictor.gaussian_process import GaussianProcess, kernel_features, reference_cells


class BlendedPredictor(nn.Module):
    """forward(batch) -> score [S, B]: a weighted sum of each seed's ensemble and the Gaussian process's mean.

    The process has the weight `share`. Both scores are first brought to mean 0 and variance 1 over unlabelled
    cells (`fit_scale`). Without a process, the score is the ensemble's alone.
    """

    def __init__(self, ensemble: Ensemble, seeds: int, process: GaussianProcess | None = None,
                 share: float = 0.0, encoder: nn.Module | None = None, vocabulary: Vocabulary | None = None):
        """Members of one seed are neighbours in the ensemble.

        encoder: the pre-trained one, not fine-tuned, whose embedding the process reads beside the properties.
        vocabulary: of the space, for the process.
        """
        super().__init__()
        self.ensemble, self.seeds, self.process, self.share = ensemble, seeds, process, share
        self.encoder, self.vocabulary = encoder, vocabulary
        # mean and std of both scores, [S] each
        scale = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 2, seeds)
        self.register_buffer("scale", scale.clone())

    @torch.no_grad()
    def fit_scale(self, table: Batch, chunk: int = 1024) -> BlendedPredictor:
        """Measures mean and std of both scores over cells of the table, without their labels.

        chunk: graphs x members at a time, at most.
        """
        some = reference_cells(table)
        pieces = torch.arange(some.num_graphs, device=table.ops.device).split(
            max(1, chunk // self.ensemble.size))
        scores = torch.cat([self.both_scores(some.rows(piece)) for piece in pieces], dim=-1)  # [2, S, R]
        self.scale = torch.stack([scores.mean(-1), scores.std(-1).clamp(min=1e-6)])  # [2, 2, S]
        return self

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.process is None:
            return self.member_scores(batch).mean(1)
        mean, std = self.scale[..., None]  # [2, S, 1] each
        own, other = (self.both_scores(batch) - mean) / std
        return (1 - self.share) * own + self.share * other

    def both_scores(self, batch: Batch) -> torch.Tensor:
        """float[2, S, B]: the scores of the ensemble and of the Gaussian process."""
        return torch.stack([self.member_scores(batch).mean(1),
                            self.process(kernel_features(self.encoder, batch, self.vocabulary))])

    def member_scores(self, batch: Batch) -> torch.Tensor:
        """float[S, m, B]: the score of every member."""
        return self.ensemble(batch.expand(self.ensemble.size)).view(self.seeds, -1, batch.num_graphs)
