"""What a search knows of its candidates: networks and kernel regression, fitted anew to each history.

n architectures have been queried, C are candidates, M members are in the ensemble.
"""
from __future__ import annotations

import time

import numpy as np
import torch

import finetune
import runtime
from models.batch import Batch
from models.kernel import REFERENCE, KernelRidge, views, widths
from predictor_file import frozen_encoder
from spaces import Space
from strategies import Posterior, Predict, Query


class SearchPredictor:
    """Called once a round. The ensemble is fine-tuned from the checkpoint's weights, or from scratch without one; the kernel
    reads the checkpoint's embedding, which no label moves, and analytic properties.

    The config is that of search.py. With kernel_share = 1 no network is fitted, with 0 there is no kernel.
    """

    def __init__(self, config, space: Space, checkpoint: dict | None, device: torch.device, own: Predict | None = None):
        """own: a strategy's own predictor, which takes the place of both."""
        self.config, self.space, self.checkpoint, self.device, self.own = config, space, checkpoint, device, own
        if own is None and config.kernel_share:
            self.encoder = checkpoint and frozen_encoder(checkpoint, checkpoint["weights"]).to(device)
            anywhere = space.sample(REFERENCE, np.random.default_rng(0))
            self.widths = widths(self.views(self.encode(anywhere)))

    def __call__(self, t: int, history: list[Query], candidates: list) -> tuple[Posterior, float]:
        """What is to be expected of the candidates in round t, and the seconds that fitting took."""
        seeds = [runtime.mix(self.config.seed, t, member) for member in range(self.config.members)]
        table = self.encode([query.arch for query in history] + candidates)
        label = np.array([query.validation for query in history])  # [n]
        share, fitting, opinions = self.config.kernel_share, 0.0, []  # of (weight, mean [n+C], std [n+C])
        if self.own or share < 1:
            scores, fitting = self.members(table, label, seeds)
            opinions.append((1.0 if self.own else 1 - share, *agreement(scores)))
        if not self.own and share:
            mean, std, seconds = self.kernel(table, label)
            opinions.append((share, mean, std))
            fitting += seconds
        mean = sum(weight * mean for weight, mean, _ in opinions)  # [n+C]
        std = sum((weight * std)**2 for weight, _, std in opinions) ** 0.5  # [n+C]; their errors taken as independent
        n = len(history)
        return Posterior(mean[n:], std[n:], mean[:n].max()), fitting

    def members(self, table: Batch, label: np.ndarray, seeds: list[int]) -> tuple[np.ndarray, float]:
        """float[M, n+C], every member's scores, and the seconds of fitting."""
        started = time.perf_counter()
        if self.own:
            scores = self.own(table, self.space.ops, label, seeds)
            return scores, time.perf_counter() - started
        predictors = finetune.new_predictors(self.config, len(self.space.ops), self.checkpoint, seeds)
        rows = np.tile(np.arange(len(label)), (len(seeds), 1))  # [M, n]
        ensemble = finetune.fit(self.config, predictors, finetune.Examples(table, rows, label[rows], seeds))
        fitting = time.perf_counter() - started
        return finetune.score(ensemble, table), fitting

    def kernel(self, table: Batch, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean and standard deviation float[n+C] each of the kernel's posterior, the mean standardised, and the seconds of
        fitting."""
        # The history is embedded anew each round: in another batch floats round differently, and a resumed search must end in
        # the same bytes.
        seen = [view[None] for view in self.views(table)]  # [1, n+C, P] each: one seed
        started = time.perf_counter()
        kernel = KernelRidge.fit([view[:, :len(label)] for view in seen], self.widths, label[None])
        fitting = time.perf_counter() - started
        seen = [view[0] for view in seen]
        mean, std = (x[0].cpu().double().numpy() for x in (kernel(seen), kernel.spread(seen)))  # [n+C] each
        scale = max(mean.std(), 1e-9)
        return (mean - mean.mean()) / scale, std / scale, fitting

    def encode(self, archs: list) -> Batch:
        return Batch.of(self.space.encode(archs)).to(self.device)

    def views(self, table: Batch) -> list[torch.Tensor]:
        return views(self.encoder, table, self.space.ops)


def agreement(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores [M, B] of M members -> mean [B] and standard deviation [B] of what they say of the ranking.

    A ranking loss leaves scale and offset of a member's scores free; standardised over the same architectures, members
    that rank alike score alike, and their spread is disagreement about the ranking.
    """
    scores = scores - scores.mean(1, keepdims=True, dtype=float)
    scores /= np.maximum(scores.std(1, keepdims=True), 1e-9)
    return scores.mean(0), scores.std(0)
