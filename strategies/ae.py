"""Strategy `ae`: aging evolution (Real et al., AAAI 2019), with a predictor that chooses among mutants."""
from __future__ import annotations

from collections import deque

from strategies.base import Strategy


class AgingEvolution(Strategy):
    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.population = deque(maxlen=settings.population)  # of Query; the oldest drop out

    def propose(self, n, rng):
        return self.pool.mutants(
            [self.parent(rng).arch for _ in range(self.settings.M)], n, self.settings.edits, rng)

    def parent(self, rng):
        """Draws a tournament from the population; returns its best."""
        size = min(self.settings.tournament, len(self.population))
        entrants = rng.choice(len(self.population), size, replace=False)
        return max((self.population[i] for i in entrants), key=lambda query: query.utility)

    def observe(self, queries):
        self.population.extend(queries)
