"""Strategy `bo`: Bayesian optimisation (White et al., "BANANAS", AAAI 2021).

Candidates are mutants of the best queries and random architectures. They are ranked by an acquisition
function of the predictor's mean and standard deviation.
"""
from __future__ import annotations

import heapq

import numpy as np
from scipy.stats import norm

from strategies.base import Strategy


def thompson(mean, std, best, rng):
    return rng.normal(mean, std)  # independent: one draw per candidate


def expected_improvement(mean, std, best, rng):
    gain = mean - best
    z = gain / np.maximum(std, 1e-9)
    return gain * norm.cdf(z) + std * norm.pdf(z)


def upper_confidence_bound(mean, std, best, rng):
    return mean + 0.5 * std  # BANANAS' factor


# functions of the fields of a Posterior
ACQUISITIONS = {"its": thompson, "ei": expected_improvement, "ucb": upper_confidence_bound}


class BayesianOptimisation(Strategy):
    members = 5
    batch = True
    climbs = 10

    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.queries = []

    def propose(self, n, rng):
        best = heapq.nlargest(self.settings.M, self.queries, key=lambda query: query.utility)
        drawn = self.pool.draw(round(self.settings.random_share * n), rng)
        return self.pool.mutants(
            [query.arch for query in best], n - len(drawn), self.settings.edits, rng) + drawn

    def rank(self, posterior, rng):
        return ACQUISITIONS[self.settings.acquisition](*posterior, rng)

    def observe(self, queries):
        self.queries.extend(queries)
