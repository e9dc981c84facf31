"""The predictor of a search: networks and a Gaussian process, fitted anew to each history.

Letters: n queried architectures, C candidates, M members of the ensemble.
"""
from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Batch
from models.predictor.background import REFERENCE
from models.predictor.fit import (
    Examples,
    PredictorRecipe,
    background_of,
    fit_ensemble,
    new_networks,
    prior_offset,
    score_ensemble,
)
from models.predictor.gaussian_process import MEAN, GaussianProcess, length_scales
from runtime.seeding import mix
from spaces import Space
from strategies.base import Posterior, Predict, Query


@dataclass(frozen=True)
class PosteriorSettings:
    """The settings of a search's predictor.

    With a kernel_share of 1 no network is fitted; with 0 there is no Gaussian process. own: a strategy's own
    predictor, which replaces both.
    """

    recipe: PredictorRecipe
    seed: int
    own: Predict | None = None


class SearchPredictor:
    """Predicts the candidates of each round.

    The ensemble is fine-tuned from the checkpoint's weights, or trained from scratch without one. The
    Gaussian process reads the checkpoint's embedding, which stays as pre-trained, and analytic properties.
    """

    def __init__(
        self, settings: PosteriorSettings, space: Space, checkpoint: dict | None, device: torch.device
    ):
        self.settings, self.space, self.checkpoint, self.device = settings, space, checkpoint, device
        if settings.own is None:
            self.background = background_of(settings.recipe, space.vocabulary, checkpoint).to(device)
            anywhere = space.sample(REFERENCE, np.random.default_rng(0))
            self.length_scales = length_scales(self.background(self.encode(anywhere)))

    def __call__(self, t: int, history: list[Query], candidates: list) -> tuple[Posterior, float]:
        """The posterior of the candidates in round t, and the seconds of fitting."""
        settings = self.settings
        seeds = [mix(settings.seed, t, member) for member in range(settings.recipe.members)]
        table = self.encode([query.arch for query in history] + candidates)
        label = np.array([query.utility for query in history])  # [n]
        share, fitting, parts = settings.recipe.kernel_share, 0.0, []  # of (weight, mean [n+C], std [n+C])
        if settings.own or share < 1:
            scores, fitting = self.member_scores(table, label, seeds)
            parts.append((1.0 if settings.own else 1 - share, *agreement(scores)))
        if not settings.own and share:
            mean, std, seconds = self.process_posterior(table, label)
            parts.append((share, mean, std))
            fitting += seconds
        mean = sum(weight * mean for weight, mean, _ in parts)  # [n+C]
        # The errors of the parts are taken as independent.
        std = sum((weight * std) ** 2 for weight, _, std in parts) ** 0.5  # [n+C]
        n = len(history)
        return Posterior(mean[n:], std[n:], mean[:n].max()), fitting

    def member_scores(self, table: Batch, label: np.ndarray, seeds: list[int]) -> tuple[np.ndarray, float]:
        """The members' scores float[M, n+C], and the seconds of fitting."""
        started, recipe = time.perf_counter(), self.settings.recipe
        if self.settings.own:
            scores = self.settings.own(table, self.space.vocabulary, label, seeds)
            return scores, time.perf_counter() - started
        networks = new_networks(recipe, len(self.space.ops), self.checkpoint, seeds)
        rows = np.tile(np.arange(len(label)), (len(seeds), 1))  # [M, n]
        offset = self.offset(table)  # [n+C]
        ensemble = fit_ensemble(recipe, networks, Examples(
            table, rows, label[rows], seeds, offset[:len(label)].expand(len(seeds), -1)))
        fitting = time.perf_counter() - started
        return score_ensemble(ensemble, table) + offset.cpu().numpy(), fitting

    @property
    def has_prior(self) -> bool:
        return self.settings.own is None and self.background.prior is not None

    def prior_scores(self, archs: list) -> np.ndarray:
        """The prior's score float[B] of architectures."""
        return self.background.offset(self.encode(archs)).cpu().numpy()

    def offset(self, table: Batch) -> torch.Tensor:
        """The part [n+C] of a network's score that the prior decides; 0 without one."""
        if self.background.prior is None:
            return torch.zeros(table.num_graphs, device=self.device)
        (constant,), (slope,) = prior_offset(self.length_scales[MEAN], None, 1)
        return float(constant) + float(slope) * self.background.offset(table)

    def process_posterior(self, table: Batch, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean and std of the Gaussian process, float[n+C] each, and the seconds of fitting.

        The mean is standardised, and the std scaled with it.
        """
        # The history is embedded anew each round: in another batch floats round differently, and a resumed
        # search must end in the same bytes.
        seen = self.background(table)  # [n+C, P] each
        started = time.perf_counter()
        known = {name: feature[None, :len(label)] for name, feature in seen.items()}  # [1, n, P]: one seed
        process = GaussianProcess.fit(known, self.length_scales, label[None])
        fitting = time.perf_counter() - started
        mean, std = (x[0].cpu().double().numpy() for x in process.posterior(seen))  # [n+C] each
        scale = max(mean.std(), 1e-9)
        return (mean - mean.mean()) / scale, std / scale, fitting

    def encode(self, archs: list) -> Batch:
        return Batch.of(self.space.encode(archs)).to(self.device)


def agreement(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [B] and standard deviation [B] of the standardised scores [M, B] of M members.

    A ranking loss leaves scale and offset of a member's scores arbitrary. Standardised over the same
    architectures, members that rank alike score alike, and their standard deviation is their disagreement
    about the ranking.
    """
    scores = scores - scores.mean(1, keepdims=True, dtype=float)
    scores /= np.maximum(scores.std(1, keepdims=True), 1e-9)
    return scores.mean(0), scores.std(0)
