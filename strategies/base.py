"""What every strategy shares: the queries so far, the architectures that are left, and the strategy interface."""
from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Callable, Hashable, NamedTuple, Protocol, Sequence

import numpy as np

from models.batch import Batch
from runtime import setting
from spaces import Space


@dataclass
class Settings:
    """The numbers of the strategies; each says whose it is."""

    M: int = setting(10, "ae, bo: parents whose mutants a round scores (the paper: 1)", within=(1, math.inf))
    edits: int = setting(6, "ae, bo: edits at most from a parent to a mutant; more than one where nothing new is near",
                         within=(1, math.inf))
    population: int = setting(20, "ae: how many of the latest queries may become parents", within=(1, math.inf))
    tournament: int = setting(5, "ae: how many of these are drawn for a parent, the best of them", within=(1, math.inf))
    acquisition: str = setting("ucb", "bo: its = independent Thompson sampling (the paper), ei = expected improvement, "
                                      "ucb = upper confidence bound", ("its", "ei", "ucb"))
    random_share: float = setting(0.5, "bo: share of the candidates that is drawn uniformly (BANANAS: 0.1)", within=(0, 1))
    policy_lr: float = setting(0.3, "rl: learning rate of the policy", within=(0, math.inf))
    baseline_decay: float = setting(0.8, "rl: share of the moving-average baseline that a round keeps", within=(0, 1))


class Query(NamedTuple):
    """One answered query; all but `arch` is a line of history.jsonl.

    `validation` is what the search sees: under the protocol oracle-test the test accuracy stands here, too.
    """

    query: int  # 1..N
    round: int  # 0 is the random start
    key: str
    architecture: str  # space.text(arch)
    validation: float  # percent
    test: float | None  # percent
    score: float | None  # what the strategy ranked it by; None in round 0
    cost: float | None  # simulated training time, seconds
    arch: Any


class Pool:
    """The architectures that may be queried: those the oracle covers, without those that `take` was told of."""

    def __init__(self, space: Space, covers: Callable[[str], bool], keys: Sequence[str] | None):
        """keys: all that the oracle covers, where they can be listed; None: `covers` alone decides."""
        self.space, self._covers, self._taken = space, covers, set()
        self._listed = None if keys is None else dict.fromkeys(keys)  # a dict keeps their order and drops a key in O(1)

    @property
    def left(self) -> float:
        """How many there are; infinite where the space cannot be counted."""
        if self._listed is not None:
            return len(self._listed)
        return float("inf") if self.space.size is None else self.space.size - len(self._taken)

    def take(self, key: str) -> None:
        """The architecture with this key has been queried."""
        self._taken.add(key)
        if self._listed is not None:
            del self._listed[key]

    def neighbours_covered(self, rng: np.random.Generator, sample: int = 50) -> dict[str, float] | None:
        """{"covered": mean number of neighbours that a table holds, "all": that there are}, over a sample of the table.
        None where the oracle covers the whole space."""
        if self._listed is None or len(self._listed) + len(self._taken) == self.space.size:
            return None
        keys = sorted([*self._listed, *self._taken])
        drawn = [keys[i] for i in rng.choice(len(keys), min(sample, len(keys)), replace=False)]
        around = [self.space.neighbours(self.space.parse(key)) for key in drawn]
        covered = [sum(self._covers(self.space.key(arch)) for arch in archs) for archs in around]
        return {"covered": float(np.mean(covered)), "all": float(np.mean([len(archs) for archs in around]))}

    def fresh(self, archs: Sequence[Hashable]) -> list[Hashable]:
        """Those of `archs` that are in the pool, each once, in their order."""
        first = {}
        for arch in archs:
            first.setdefault(self.space.key(arch), arch)
        return [arch for key, arch in first.items() if key in self]

    def __contains__(self, key: str) -> bool:
        return key not in self._taken and self._covers(key)

    def draw(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """n different ones, uniformly; all where fewer are left."""
        n = int(min(n, self.left))
        if self._listed is not None:
            keys = list(self._listed)
            return [self.space.parse(keys[row]) for row in rng.choice(len(keys), n, replace=False)]
        drawn = []
        while len(drawn) < n:
            drawn = self.fresh(drawn + self.space.sample(n, rng))
        return drawn[:n]

    def neighbourhood(self, arch: Hashable, edits: int, rng: np.random.Generator) -> list[Hashable]:
        """What the oracle covers next to `arch`, taken or not, in random order: all neighbours where it covers all; for
        each that it lacks one mutant further away, as long as the walks of `mutants` find new ones."""
        near = self.space.neighbours(arch)
        covered = [other for other in near if self._covers(self.space.key(other))]
        found = [covered[i] for i in rng.permutation(len(covered))]
        if len(covered) < len(near):
            keys = set(map(self.space.key, covered))
            beyond = self.mutants([arch], len(near), edits, rng)
            found += [other for other in beyond if self.space.key(other) not in keys][:len(near) - len(covered)]
        return found

    def mutants(self, parents: Sequence[Hashable], n: int, edits: int, rng: np.random.Generator) -> list[Hashable]:
        """n different ones, near the parents, which take turns; fewer where fewer were found.

        A mutant ends a walk of single edits, which stops at the first new architecture of the pool. 2n walks may take
        one edit; while n mutants are not found, 2n more may take two, and so on up to `edits`.
        """
        found = {}
        for reach in range(1, edits + 1):
            for arch in islice(cycle(parents), 2 * n):
                if len(found) == n:
                    return list(found.values())
                for _ in range(reach):
                    arch = self.space.mutate(arch, rng)
                    key = self.space.key(arch)
                    if key in self and key not in found:
                        found[key] = arch
                        break
        return list(found.values())


class Posterior(NamedTuple):
    """What is to be expected of C candidates. Higher is better; scale and offset are free."""

    mean: np.ndarray  # [C]
    std: np.ndarray  # [C]; 0 of a predictor without a spread
    best: float  # the highest mean of what has been queried


class Predict(Protocol):
    """A predictor fitted and asked in one go."""

    def __call__(self, table: Batch, operations: Sequence[str], label: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Scores float[M, B], higher is better, of the B graphs of the table by M = len(seeds) members, each with its
        own seed. The first n have the accuracies label float[n]; nothing else is known of the others."""


class Strategy:
    """Where candidates come from and how they are ranked.

    A reference that fits no predictor has members = 0: what it proposes is queried, in its order. It knows the search only
    through `propose` and `observe`, which take turns after round 0. A resumed search replays both for the rounds of its
    history, and the strategy stands where it stood. Randomness comes from the generators passed in.
    """

    members = 1  # predictors in the ensemble, unless the user says how many; 0: none is fitted
    sequential = False  # a round is one query, as the strategy was published; else --K of them
    predictor: Predict | None = None  # ranks in place of the graph predictor

    def __init__(self, pool: Pool, settings: Settings):
        self.pool, self.settings = pool, settings

    @classmethod
    def start(cls, n0: int, settings: Settings) -> int:
        """How many random architectures are queried first: as many as the user says, unless a reference knows better."""
        return n0

    def propose(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """About n candidates. Repeats and architectures outside the pool are dropped by the caller, who draws from the
        pool where too few remain."""
        raise NotImplementedError

    def rank(self, posterior: Posterior, rng: np.random.Generator) -> np.ndarray:
        """What the candidates are ranked by, float[C], highest first."""
        return posterior.mean

    def observe(self, queries: Sequence[Query]) -> None:
        """The queries of one finished round, best-ranked first; round 0 comes first."""
