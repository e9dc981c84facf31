"""The predictor of a search: networks and a Gaussian process, fitted anew to each history.

    surrogate = predictor.fit(t, history, candidates)
    posterior = surrogate({key: architecture, ...})

Letters: n queried architectures, C candidates, B architectures of one call, M members of the ensemble.
"""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from models.batch import Batch
from models.predictor.fit import (
    Examples,
    PredictorRecipe,
    background_of,
    fit_ensemble,
    new_networks,
    prior_offset,
    score_ensemble,
)
from models.predictor.gaussian_process import MEAN, OFFSET, TRUSTS, GaussianProcess
from runtime.seeding import mix
from spaces import Space
from strategies.base import Posterior, Predict, Query
from strategies.knowledge import Archs, Knowledge, beliefs
from strategies.warm_start import OldLabels, Ranking

CHUNK = 20_000  # architectures that the Gaussian process is asked about at a time


@dataclass(frozen=True)
class PosteriorSettings:
    """The settings of a search's predictor.

    With a kernel_share of 1 no network is fitted; with 0 there is no Gaussian process. own: a strategy's own
    predictor, which replaces both. old: labels to start from.
    """

    recipe: PredictorRecipe
    seed: int
    own: Predict | None = None
    old: OldLabels | None = None


class SearchPredictor:
    """Fits a surrogate to the history of each round.

    The ensemble is fine-tuned from the checkpoint's weights, or trained from scratch without one. The
    Gaussian process reads the checkpoint's embedding, which stays as pre-trained, and analytic properties.
    """

    def __init__(
        self, settings: PosteriorSettings, space: Space, checkpoint: dict | None, device: torch.device
    ):
        self.settings, self.space, self.checkpoint, self.device = settings, space, checkpoint, device
        self.knowledge = None
        if settings.own is None:
            self.knowledge = Knowledge(
                space, background_of(settings.recipe, space.vocabulary, checkpoint), device)
            if settings.old:
                self.knowledge.add_ranking(Ranking(settings.old, self.knowledge))

    def fit(self, t: int, history: Sequence[Query], candidates: Archs) -> Surrogate:
        """The surrogate of round t. candidates: over these and the history scores are standardised."""
        started, settings, parts = time.perf_counter(), self.settings, []  # of (weight, part)
        known = {query.key: query.arch for query in history}
        label = np.array([query.utility for query in history])  # [n]
        seeds = [mix(settings.seed, t, member) for member in range(settings.recipe.members)]
        share = settings.recipe.kernel_share
        if settings.own:
            parts.append((1.0, Own(self, known, label, seeds)))
        elif share < 1:
            parts.append((1 - share, Networks(self, known, label, seeds, candidates)))
        if not settings.own and share:
            parts.append((share, Process(self, known, label, candidates if share < 1 else None)))
        return Surrogate(parts, time.perf_counter() - started)

    @property
    def is_quick(self) -> bool:
        """Whether the Gaussian process is all there is: it scores thousands of architectures in no time."""
        return self.settings.own is None and self.settings.recipe.kernel_share == 1

    @property
    def has_prior(self) -> bool:
        """Whether it can rank before there is a label."""
        return self.knowledge is not None and bool(TRUSTS.keys() & self.knowledge.scales)

    def prior_scores(self, archs: list) -> np.ndarray:
        """The expected utility float[B] of architectures before any label."""
        known = self.knowledge.compute(self.encode(archs))
        return self.knowledge.expected(known).cpu().numpy()

    def offset(self, table: Batch) -> torch.Tensor:
        """The part [B] of a network's score that the prior decides; 0 without one."""
        if self.knowledge.background.prior is None:
            return torch.zeros(table.num_graphs, device=self.device)
        (constant,), (slope,) = prior_offset(self.knowledge.scales[MEAN], None, 1)
        return float(constant) + float(slope) * self.knowledge.background.offset(table)

    def encode(self, archs: Sequence) -> Batch:
        return Batch.of(self.space.encode(archs)).to(self.device)


# The parts of a surrogate -----------------------------------------------------------------------------------

class Part(Protocol):
    """A regression on a history of n architectures."""

    known: np.ndarray  # float[n]: its mean of the history

    def __call__(self, archs: Archs) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float[B] each."""


class Own:
    """A strategy's own predictor. Its scores are standardised over the history and the architectures."""

    def __init__(self, predictor: SearchPredictor, known: Archs, label: np.ndarray, seeds: list[int]):
        self.predictor, self.history, self.label, self.seeds = predictor, known, label, seeds

    def __call__(self, archs: Archs) -> tuple[np.ndarray, np.ndarray]:
        table = self.predictor.encode([*self.history.values(), *archs.values()])
        own = self.predictor.settings.own(table, self.predictor.space.vocabulary, self.label, self.seeds)
        mean, std = agreement(own)  # [n+B] each
        n = len(self.label)
        self.known = mean[:n]
        return mean[n:], std[n:]


class Networks:
    """An ensemble; each member's scores are standardised over the history and the first candidates."""

    def __init__(self, predictor: SearchPredictor, known: Archs, label: np.ndarray, seeds: list[int],
                 candidates: Archs):
        self.predictor, recipe = predictor, predictor.settings.recipe
        networks = new_networks(recipe, len(predictor.space.ops), predictor.checkpoint, seeds)
        table = predictor.encode(list(known.values()))
        rows = np.tile(np.arange(len(label)), (len(seeds), 1))  # [M, n]
        self.ensemble = fit_ensemble(recipe, networks, Examples(
            table, rows, label[rows], seeds, predictor.offset(table).expand(len(seeds), -1)))
        scores = self.scores(known | dict(candidates))  # [M, n+C]
        self.mean, self.std = scale_of(scores)  # [M, 1] each
        self.known = ((scores[:, :len(label)] - self.mean) / self.std).mean(0)

    def scores(self, archs: Archs) -> np.ndarray:
        """float[M, B]."""
        table = self.predictor.encode(list(archs.values()))
        return score_ensemble(self.ensemble, table) + self.predictor.offset(table).cpu().numpy()

    def __call__(self, archs: Archs) -> tuple[np.ndarray, np.ndarray]:
        scores = (self.scores(archs) - self.mean) / self.std
        return scores.mean(0), scores.std(0)


class Process:
    """A Gaussian process; beside networks its mean is standardised like theirs, and its std scaled alike."""

    def __init__(self, predictor: SearchPredictor, known: Archs, label: np.ndarray, candidates: Archs | None):
        self.predictor, self.mean, self.std, self.history = predictor, 0.0, 1.0, known
        self.seen = {}  # {key: (features of a look, row)}
        # The history is embedded anew each round, unless the whole pool was: in another batch floats round
        # differently.
        seen = predictor.knowledge.of(known)  # [n, P] each
        self.process = GaussianProcess.fit({name: feature[None] for name, feature in seen.items()},
                                           predictor.knowledge.scales, label[None],
                                           beliefs(len(label)))
        if candidates is not None:
            (self.mean,), (self.std,) = scale_of(self(known | dict(candidates))[0])
        self.known = self(known)[0]

    def __call__(self, archs: Archs) -> tuple[np.ndarray, np.ndarray]:
        knowledge = self.predictor.knowledge
        if knowledge.listing is not None and knowledge.listing.has(archs):
            mean, std = self.of_listing[:, knowledge.listing.rows(archs)]  # [B] each
        else:
            features = knowledge.of(archs)
            self.seen |= {key: (features, row) for row, key in enumerate(archs)}
            mean, std = torch.cat(self.process.posterior(features)).double().cpu().numpy()
        return (mean - self.mean) / self.std, std / self.std

    @cached_property
    def of_listing(self) -> np.ndarray:
        """float[2, N]: mean and standard deviation of all architectures of the pool, for one pass per round.
        """
        listing, size = self.predictor.knowledge.listing, self.process.size[0]
        columns = [listing.near(key, self.process.kernels) for key in self.history]  # n of [C, N]
        pieces = []
        for rows in torch.arange(columns[0].shape[1]).split(CHUNK):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            near = OFFSET + torch.stack([size @ column[:, part] for column in columns])  # [n, B]
            new = {name: points[part] for name, points in listing.points.items()}
            pieces.append(torch.stack(
                [self.process.mean_at(0, near, new), self.process.std_at(0, near, new)]))
        return torch.cat(pieces, 1).double().cpu().numpy()

    def covariance(self, archs: Archs) -> np.ndarray:
        """float[B, B]: of the function at the architectures."""
        if archs.keys() <= self.seen.keys():
            rows = [self.seen[key] for key in archs]
            features = {name: torch.stack([known[name][row] for known, row in rows])
                        for name in self.predictor.knowledge.scales}
        else:
            features = self.predictor.knowledge.of(archs)
        return self.process.posterior_covariance(features)[0].numpy() / self.std**2


class Surrogate:
    """A predictor fitted to a history: the weighted sum of parts whose errors are taken as independent."""

    def __init__(self, parts: Sequence[tuple[float, Part]], seconds: float):
        """parts: each with its weight. seconds: spent on fitting."""
        self.parts, self.seconds = parts, seconds

    def __call__(self, archs: Archs) -> Posterior:
        """The posterior of B architectures."""
        believed = [(weight, *part(archs)) for weight, part in self.parts]  # of (weight, mean [B], std [B])
        return Posterior(
            sum(weight * mean for weight, mean, _ in believed),
            sum((weight * std) ** 2 for weight, _, std in believed) ** 0.5,
            float(sum(weight * part.known for weight, part in self.parts).max()))

    @property
    def has_process(self) -> bool:
        return any(isinstance(part, Process) for _, part in self.parts)

    def covariance(self, archs: Archs) -> np.ndarray:
        """float[B, B] between architectures, as far as a part knows it; 0 between them for the others."""
        return sum(weight**2 * (part.covariance(archs) if isinstance(part, Process)
                                else np.diag(part(archs)[1]**2)) for weight, part in self.parts)


def agreement(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [B] and standard deviation [B] of the standardised scores [M, B] of M members.

    A ranking loss leaves scale and offset of a member's scores arbitrary. Standardised over the same
    architectures, members that rank alike score alike, and their standard deviation is their disagreement
    about the ranking.
    """
    mean, std = scale_of(scores)
    scores = (scores - mean) / std
    return scores.mean(0), scores.std(0)


def scale_of(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of scores [..., B] over the architectures, [..., 1] each."""
    return (scores.mean(-1, keepdims=True, dtype=float),
            np.maximum(scores.std(-1, keepdims=True, dtype=float), 1e-9))
