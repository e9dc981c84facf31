"""The base of every strategy: settings, queries, the pool of candidates, and the interface."""
from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.batch import Batch
from models.features.vocabulary import Vocabulary
from runtime.errors import InputError
from runtime.settings import setting
from spaces import Space

BATCH = 256  # architectures drawn at a time where limits exclude many
MOST_MISSES = 400  # batches in a row without a new one, before a draw is given up


@dataclass
class StrategySettings:
    """How strategies propose and rank candidates."""

    M: int = setting(
        10, "ae, bo: parents whose mutants are scored in a round (the paper: 1)", within=(1, math.inf))
    edits: int = setting(
        6, "ae, bo: edits from a parent to a mutant, at most; more than one only if closer mutants run out",
        within=(1, math.inf))
    population: int = setting(
        20, "ae, re: size of the population, made of the latest queries", within=(1, math.inf))
    tournament: int = setting(
        5, "ae, re: size of the tournament whose winner becomes a parent", within=(1, math.inf))
    acquisition: str = setting(
        "ucb", "bo: its = independent Thompson sampling (the paper), ei = expected improvement, ucb = upper "
        "confidence bound", ("its", "ei", "ucb"))
    random_share: float = setting(
        0.5, "bo: share of the candidates drawn uniformly (BANANAS: 0.1)", within=(0, 1))
    policy_lr: float = setting(0.3, "rl: learning rate of the policy", within=(0, math.inf))
    policy_patience: int = setting(
        8, "rl: rounds without a better query after which the policy starts anew (0 = never, as in "
        "the paper)", within=(0, math.inf))
    baseline_decay: float = setting(
        0.8, "rl: decay of the moving-average baseline per round", within=(0, 1))


class Query(NamedTuple):
    """One answered query; all fields up to `cost` are a line of history.jsonl.

    `validation` is the value that the search sees; under the protocol oracle-test it is the test accuracy.
    """

    query: int  # 1..N
    round: int  # 0 is the random start
    key: str
    architecture: str  # space.text(arch)
    validation: float | None  # accuracy in percent, or another metric; None if the training failed
    test: float | None  # the same on test data
    score: float | None  # score by which the strategy ranked it; None in round 0
    cost: float | None  # simulated training time, seconds
    arch: Any
    sign: float = 1.0  # of the metric: -1 if lower is better
    worst: float = 0.0  # the utility of a failed training: the worst seen, see `History`

    @property
    def failed(self) -> bool:
        return self.validation is None

    @property
    def utility(self) -> float:
        """The value by which strategies choose; higher is better."""
        return self.worst if self.failed else self.sign * self.validation


class CandidatePool:
    """The architectures that may be queried: all that the oracle covers, except those already taken."""

    def __init__(self, space: Space, covers: Callable[[str], bool], keys: Sequence[str] | None,
                 limits: str = ""):
        """keys: all that the oracle covers, if they can be listed; if None, `covers` alone decides.

        limits: those that `covers` keeps, in words.
        """
        self.space, self._covers, self._taken, self._limits, self.keys = space, covers, set(), limits, keys
        self._listed = None if keys is None else dict.fromkeys(keys)  # ordered; drops a key in O(1)

    @property
    def left(self) -> float:
        """The number of architectures in the pool; infinite if the space cannot be counted."""
        if self._listed is not None:
            return len(self._listed)
        if self.space.size is None or self._limits:
            return float("inf")
        return self.space.size - len(self._taken)

    def take(self, key: str) -> None:
        """Removes the architecture with this key, which has been queried."""
        self._taken.add(key)
        if self._listed is not None:
            self._listed.pop(key, None)

    def neighbours_covered(self, rng: np.random.Generator, sample: int = 50) -> dict[str, float] | None:
        """{"covered": mean number of an architecture's neighbours in the table, "all": of all neighbours}.

        The means are over a sample of the table. Returns None if the oracle covers the whole space.
        """
        if self._listed is None or len(self._listed) + len(self._taken) == self.space.size:
            return None
        keys = sorted([*self._listed, *self._taken])
        drawn = [keys[i] for i in rng.choice(len(keys), min(sample, len(keys)), replace=False)]
        around = [self.space.neighbours(self.space.parse(key)) for key in drawn]
        covered = [sum(map(self._covers, self.space.keys(archs))) for archs in around]
        return {"covered": float(np.mean(covered)), "all": float(np.mean([len(archs) for archs in around]))}

    def unparsed(self) -> dict[str, None]:
        """{key: None} of the architectures in a pool that can be listed."""
        return dict.fromkeys(self._listed)

    def fresh(self, archs: Sequence[Hashable]) -> list[Hashable]:
        """The architectures that are in the pool, each once, in their order."""
        return list(self.fresh_by_key(archs).values())

    def fresh_by_key(self, archs: Sequence[Hashable]) -> dict[str, Hashable]:
        """{key: architecture} of `fresh`."""
        first = {}
        for key, arch in zip(self.space.keys(archs), archs):
            first.setdefault(key, arch)
        return {key: arch for key, arch in first.items() if key in self}

    def __contains__(self, key: str) -> bool:
        return key not in self._taken and self._covers(key)

    def draw(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """Draws n different architectures uniformly; all if fewer are left, or are found within limits.

        Raises InputError if so few keep the limits that none is found.
        """
        n = int(min(n, self.left))
        if self._listed is not None:
            keys = list(self._listed)
            return [self.space.parse(keys[row]) for row in rng.choice(len(keys), n, replace=False)]
        drawn, batch, misses = [], max(n, BATCH) if self._limits else n, 0
        while len(drawn) < n and misses < MOST_MISSES:
            known = len(drawn)
            drawn = self.fresh(drawn + self.space.sample(batch, rng))
            misses = misses + 1 if self._limits and len(drawn) == known else 0
        if n and not drawn:
            raise InputError(f"--limit {self._limits}: none of {batch * misses:,} random architectures keeps "
                             "it and is new: loosen the limits")
        return drawn[:n]

    def neighbourhood(self, arch: Hashable, edits: int, rng: np.random.Generator) -> list[Hashable]:
        """The neighbours of `arch` that the oracle covers, taken or not, in random order.

        Each neighbour that it does not cover is replaced by one mutant further away, as long as the walks of
        `mutants` find new ones.
        """
        near = self.space.neighbours(arch)
        covered = [other for other, key in zip(near, self.space.keys(near)) if self._covers(key)]
        found = [covered[i] for i in rng.permutation(len(covered))]
        if len(covered) < len(near):
            keys, beyond = set(self.space.keys(covered)), self.mutants([arch], len(near), edits, rng)
            new = [other for other, key in zip(beyond, self.space.keys(beyond)) if key not in keys]
            found += new[:len(near) - len(covered)]
        return found

    def mutants(
        self, parents: Sequence[Hashable], n: int, edits: int, rng: np.random.Generator
    ) -> list[Hashable]:
        """Finds n different architectures near the parents, which take turns; fewer if the walks find fewer.

        A mutant is the end of a walk of single edits, which stops at the first new architecture of the pool.
        2n walks may take one edit; as long as n mutants are not found, 2n more may take two, and so on up to
        `edits`.
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
    """The predicted utility of C candidates; higher is better, scale and offset are arbitrary."""

    mean: np.ndarray  # [C]
    std: np.ndarray  # [C]; 0 if the predictor has none
    best: float  # highest mean of the queried architectures


class Predict(Protocol):
    """A function that fits a predictor and scores with it."""

    def __call__(
        self, table: Batch, vocabulary: Vocabulary, label: np.ndarray, seeds: Sequence[int]
    ) -> np.ndarray:
        """Scores float[M, B], higher is better, of the B graphs of the table.

        There are M = len(seeds) members, each with its own seed. The first n graphs have the utilities label
        float[n]; nothing else is known of the others.
        """


class Strategy:
    """The source of candidates and their ranking.

    A baseline that fits no predictor has members = 0: its proposals are queried in their order. A strategy
    sees the search only through `propose` and `observe`, which alternate after round 0. A resumed search
    replays both for the rounds of its history, which restores the state of the strategy. Randomness comes
    from the generators passed in.
    """

    climbs = 0  # width of the climb of the surface, unless the user sets one
    members = 1  # predictors in the ensemble, unless the user sets a number; 0: none is fitted
    batch = False  # True: the queries of a round are chosen to differ, see `surface.choose_batch`
    sequential = False  # True: one query per round, as the strategy was published; else --K
    predictor: Predict | None = None  # ranks in place of the graph predictor, if any

    def __init__(self, pool: CandidatePool, settings: StrategySettings):
        self.pool, self.settings = pool, settings

    @classmethod
    def start(cls, n0: int, settings: StrategySettings) -> int:
        """The number of random architectures queried first: the user's, unless a baseline fixes its own."""
        return n0

    def propose(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """Proposes about n candidates.

        The caller drops repeats and architectures outside the pool, and draws from the pool if too few
        remain.
        """
        raise NotImplementedError

    def rank(self, posterior: Posterior, rng: np.random.Generator) -> np.ndarray:
        """The scores float[C] by which the candidates are ranked, highest first."""
        return posterior.mean

    def asked(self, keys: Sequence[str]) -> None:
        """Receives the choice among the proposals, if answers may come in later rounds: asking.py."""

    def observe(self, queries: Sequence[Query]) -> None:
        """Receives the queries of one finished round, best-ranked first; round 0 comes first."""
