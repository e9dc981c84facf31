"""What every strategy shares: the queries so far, the architectures that are left, and the strategy interface."""
from __future__ import annotations

from typing import Any, Callable, Hashable, NamedTuple, Sequence

import numpy as np

from spaces import Space


class Query(NamedTuple):
    """One answered query; all but `arch` is a line of history.jsonl."""

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

    def fresh(self, archs: Sequence[Hashable]) -> list[Hashable]:
        """Those of `archs` that are in the pool, each once, in their order."""
        first = {}
        for arch in archs:
            first.setdefault(self.space.key(arch), arch)
        return [arch for key, arch in first.items() if key not in self._taken and self._covers(key)]

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


class Strategy:
    """Where candidates come from and how they are ranked.

    A strategy knows the search only through `observe`, which is told every round in order: a resumed search replays the
    rounds of its history, and the strategy stands where it stood. Randomness comes from the generators passed in.
    """

    def __init__(self, pool: Pool):
        self.pool = pool

    def propose(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """About n candidates. Repeats and architectures outside the pool are dropped by the caller, who draws from the
        pool where too few remain."""
        raise NotImplementedError

    def rank(self, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the candidates are ranked by, float[C], highest first; scores float[M, C] are those of the M members."""
        return scores.mean(0)

    def observe(self, queries: Sequence[Query]) -> None:
        """The queries of one finished round, best-ranked first; round 0 comes first."""
