"""The surface that a strategy's acquisition makes of a space, and its maxima.

    surface = Surface(surrogate, strategy.rank, rng)
    surface.look(candidates)                 # {key: architecture}
    climb(surface, pool, width=10)
    best = choose_batch(surface, 5)          # [(key, score), ...]

The surrogate costs microseconds per architecture, a query a training: so each round looks at thousands.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from strategies.base import CandidatePool, Posterior
from strategies.knowledge import Archs
from strategies.posterior import Surrogate

STEPS = 20  # of a climb, at most
RIVALS = 200  # architectures among which a batch is chosen

Rank = Callable[[Posterior, np.random.Generator], np.ndarray]


class Surface:
    """The architectures looked at in a round, each with its posterior and its acquisition."""

    def __init__(self, surrogate: Surrogate, rank: Rank, rng: np.random.Generator):
        self.surrogate, self.rank, self.rng = surrogate, rank, rng
        self.archs, self.keys, self.best = {}, [], -np.inf
        self.mean, self.std, self.height = np.zeros((3, 0))  # [B] each: posterior, acquisition

    def look(self, archs: Archs) -> None:
        """Adds those of the architectures that are new."""
        new = {key: arch for key, arch in archs.items() if key not in self.archs}
        if not new:
            return
        posterior = self.surrogate(new)
        self.archs |= new
        self.keys += new
        self.mean, self.std = np.append(self.mean, posterior.mean), np.append(self.std, posterior.std)
        self.best = posterior.best
        self.height = np.append(self.height, self.rank(posterior, self.rng))

    def top(self, n: int) -> list[int]:
        """The rows of the n highest, the highest first; of equal ones those looked at first."""
        some = np.arange(len(self.height))
        if n < len(some):
            some = np.flatnonzero(self.height >= np.partition(self.height, -n)[-n])
        return some[np.argsort(-self.height[some], kind="stable")][:n].tolist()


def climb(surface: Surface, pool: CandidatePool, width: int, steps: int = STEPS) -> None:
    """Looks at the neighbours of the `width` highest, again and again, until none of these is new."""
    done = set()
    for _ in range(steps):
        tops = [surface.keys[row] for row in surface.top(width)]
        new = [key for key in tops if key not in done]
        if not new:
            return
        done.update(new)
        around = [arch for key in new for arch in pool.space.neighbours(surface.archs[key])]
        surface.look(pool.fresh_by_key(around))


def choose_highest(surface: Surface, n: int) -> list[tuple[str, float]]:
    """The n highest architectures (key, score)."""
    return [(surface.keys[row], float(surface.height[row])) for row in surface.top(n)]


def choose_batch(surface: Surface, n: int) -> list[tuple[str, float]]:
    """The n architectures (key, score) to query together.

    Kriging believer (Ginsbourger et al., 2010): each is the highest after the surrogate was told that the
    earlier ones turned out as predicted, which leaves its mean and shrinks its standard deviation near them.
    """
    rows = surface.top(max(RIVALS, n))
    keys, mean, height = [surface.keys[row] for row in rows], surface.mean[rows], surface.height[rows]
    covariance, chosen = surface.surrogate.covariance({key: surface.archs[key] for key in keys}), []
    for _ in range(min(n, len(rows))):
        free = height.copy()
        free[[row for row, _ in chosen]] = -np.inf
        row = int(free.argmax())
        chosen.append((row, float(height[row])))
        told = covariance[row] / np.sqrt(max(covariance[row, row], 1e-12))
        covariance = covariance - np.outer(told, told)
        std = np.sqrt(covariance.diagonal().clip(min=0))
        height = surface.rank(Posterior(mean, std, surface.best), surface.rng)
    return [(keys[row], score) for row, score in chosen]
