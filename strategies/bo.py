"""Strategy `bo`: Bayesian optimisation with an ensemble (White et al., "BANANAS", AAAI 2021).

The members' mean and spread are the posterior of an architecture's score; an acquisition function ranks by them.
"""
from __future__ import annotations

import heapq

import numpy as np
from scipy.stats import norm

from strategies.base import Strategy


def thompson(mean, std, best, rng):
    return rng.normal(mean, std)  # independent: one draw a candidate


def expected_improvement(mean, std, best, rng):
    gain = mean - best
    z = gain / np.maximum(std, 1e-9)
    return gain * norm.cdf(z) + std * norm.pdf(z)


def upper_confidence_bound(mean, std, best, rng):
    return mean + 0.5 * std  # BANANAS' factor


# mean and std, float[C], are the posterior of the candidates, best is the highest mean in the history
ACQUISITIONS = {"its": thompson, "ei": expected_improvement, "ucb": upper_confidence_bound}


class BayesianOptimisation(Strategy):
    members = 5

    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.queries = []

    def propose(self, n, rng):
        best = heapq.nlargest(self.settings.M, self.queries, key=lambda query: query.validation)
        drawn = self.pool.draw(round(self.settings.random_share * n), rng)
        return self.pool.mutants([query.arch for query in best], n - len(drawn), self.settings.edits, rng) + drawn

    def rank(self, scores, known, rng):
        # A ranking loss leaves scale and offset of a member's scores free; standardised over the same architectures,
        # members that rank alike score alike, and their spread is disagreement about the ranking.
        everything = np.concatenate([known, scores], axis=1).astype(float)  # [M, n+C]
        everything -= everything.mean(1, keepdims=True)
        everything /= np.maximum(everything.std(1, keepdims=True), 1e-9)
        mean, std = everything.mean(0), everything.std(0)  # [n+C] each
        n = known.shape[1]
        return ACQUISITIONS[self.settings.acquisition](mean[n:], std[n:], mean[:n].max(), rng)

    def observe(self, queries):
        self.queries.extend(queries)
