"""The whole predictor: one fine-tuned ensemble per seed and, for a share of its score, a Gaussian process.

S seeds, m members of each, M = S m, B cells.
"""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.metrics import spearman_rho
from models.predictor.background import Background, reference_cells
from models.predictor.ensemble import Ensemble
from models.predictor.gaussian_process import MEAN, GaussianProcess
from runtime.threads import on_pieces

SHIFTED = 50  # of n labels of another kind than the space the process has the share SHIFTED / n
MOST = 0.9  # its share, at most, if there are networks


class BlendedPredictor(nn.Module):
    """forward(batch) -> score [S, B]: a weighted sum of each seed's ensemble and the Gaussian process's mean.

    The process has the weight `share`, or more (`shares`). Both scores are first brought to mean 0 over
    unlabelled cells, and to such a variance that the weights come out (`fit_scale`). Without a process, the
    score is the ensemble's alone; with a share of 1, the process's.
    """

    def __init__(self, ensemble: Ensemble | None, seeds: int, background: Background,
                 process: GaussianProcess | None = None, share: float = 0.0):
        """Members of one seed are neighbours in the ensemble, None = there are none.

        background: what is known of a cell without labels, for the process and the prior.
        """
        super().__init__()
        self.ensemble, self.seeds, self.background = ensemble, seeds, background
        self.process, self.share = process, share
        # of both scores, [S] each: the mean, and the std by the factor that makes `share` that of `shares`
        scale = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 2, seeds)
        self.register_buffer("scale", scale.clone())
        # a seed's networks learn what is missing to offset[0] + offset[1] times the prior's score
        self.register_buffer("offset", torch.zeros(2, seeds))

    @torch.no_grad()
    def fit_scale(self, table: Batch) -> BlendedPredictor:
        """Measures mean and std of both scores over cells of the table, without their labels.

        Only where the process was fitted: a file does not hold its labels.
        """
        if self.process is None or self.ensemble is None:
            return self
        some = reference_cells(table)
        pieces = torch.arange(some.num_graphs, device=table.ops.device).split(some.piece)
        scores = torch.cat(on_pieces(lambda piece: self.both_scores(some.rows(piece)), pieces,
                                     self.ensemble.accepts_stacked_parameters), dim=-1)  # [2, S, R]
        mean, std = scores.mean(-1), scores.std(-1).clamp(min=1e-6)  # [2, S] each
        share = self.shares(scores).to(std)
        # a seed's two scores are multiplied by these, so that its share is not `share`
        weights = torch.stack([(1 - share) / (1 - self.share), share / self.share])  # [2, S]
        self.scale = torch.stack([mean, std / weights])  # [2, 2, S]
        return self

    def shares(self, scores: torch.Tensor) -> torch.Tensor:
        """float[S]: the share of the process in each seed's score, at least `share`.

        scores: float[2, S, R], of networks and process, of unlabelled cells. Networks do not see which
        operation stands at which place. If the process finds that this decides, and errs no more than the two
        differ, so that it is the networks that err, more of the score is the process's. And networks learn
        nothing of cells of another kind than the labelled ones, if these are few; the process has the prior
        there.
        """
        pairs = scores.detach().cpu().numpy().swapaxes(0, 1)  # [S, 2, R]
        differ = 1 - torch.tensor([spearman_rho(*pair) for pair in pairs])  # [S]
        errs = 1 - torch.tensor(self.process.foresight())  # [S]
        right = (2 - errs / differ.clamp(min=1e-6)).clamp(0, 1)  # 0: it errs twice as much as they differ
        unseen = self.share + (1 - self.share) * right * self.process.placed.cpu()
        shifted = SHIFTED * torch.tensor(self.process.shifts) / self.process.weight.shape[1]
        return torch.maximum(unseen, shifted).clamp(max=max(MOST, self.share)).clamp(min=self.share)

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.ensemble is None:
            return self.process(self.background(batch))
        if self.process is None:
            return self.ensemble_scores(batch, self.background.offset(batch))
        mean, std = self.scale[..., None]  # [2, S, 1] each
        own, other = (self.both_scores(batch) - mean) / std
        return (1 - self.share) * own + self.share * other

    def both_scores(self, batch: Batch) -> torch.Tensor:
        """float[2, S, B]: the scores of the ensemble and of the Gaussian process."""
        known = self.background(batch)
        prior = known[MEAN][:, 0] if MEAN in known else None
        return torch.stack([self.ensemble_scores(batch, prior), self.process(known)])

    def ensemble_scores(self, batch: Batch, prior: torch.Tensor | None) -> torch.Tensor:
        """float[S, B]: the mean score of a seed's members, above the offset by the prior's score [B]."""
        scores = self.member_scores(batch).mean(1)
        return scores if prior is None else scores + self.offset[0, :, None] + self.offset[1, :, None] * prior

    def member_scores(self, batch: Batch) -> torch.Tensor:
        """float[S, m, B]: the score of every member, without the offset."""
        rows = torch.arange(batch.num_graphs, device=batch.ops.device)
        scores = [self.ensemble(batch.rows(piece).expand(self.ensemble.size))
                  for piece in rows.split(max(1, batch.piece // self.ensemble.size))]
        return torch.cat(scores, dim=-1).view(self.seeds, -1, batch.num_graphs)
