"""Baseline `ls`: local search.

White et al., "Local search is state of the art for neural architecture search benchmarks", 2021. The search
moves to the first better neighbour; if none is better, it restarts at random.
"""
from __future__ import annotations

from strategies.base import Strategy


class LocalSearch(Strategy):
    """The twin of `bo`."""

    members = 0
    sequential = True

    @classmethod
    def start(cls, n0, settings):
        return 1

    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.known = {}  # key -> Query
        self.here = None  # Query whose neighbours are tried; None before a restart
        self.untried = None  # its neighbours not tried yet; None before they are looked up

    def propose(self, n, rng):
        """The next new neighbour; one that was queried on an earlier climb costs no query."""
        while self.here:
            if self.untried is None:
                self.untried = self.pool.neighbourhood(self.here.arch, self.settings.edits, rng)
            if not self.untried:
                break
            arch = self.untried.pop()
            if (known := self.known.get(self.pool.space.key(arch))) is None:
                return [arch]
            self.climb(known)
        self.here = None
        return self.pool.draw(1, rng)

    def observe(self, queries):
        for query in queries:
            self.known[query.key] = query
            self.climb(query)

    def climb(self, query):
        if self.here is None or query.utility > self.here.utility:
            self.here, self.untried = query, None
