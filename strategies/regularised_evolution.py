"""Baseline `re`: regularised evolution (Real et al., AAAI 2019).

Each query is a mutant of a tournament's winner; the oldest query leaves the population.
"""
from __future__ import annotations

from strategies.ae import AgingEvolution


class RegularisedEvolution(AgingEvolution):
    """The twin of `ae`."""

    members = 0
    sequential = True

    @classmethod
    def start(cls, n0, settings):
        return settings.population

    def propose(self, n, rng):
        return self.pool.mutants([self.parent(rng).arch], 1, self.settings.edits, rng)
