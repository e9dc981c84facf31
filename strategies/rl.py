"""Strategy `rl`: REINFORCE (Williams, 1992); candidates are drawn from a policy that learns from the queries.

The policy is one independent categorical distribution per decision of the space, uniform at first. Letters: D
decisions, O options of the decision with the most.
"""
from __future__ import annotations

import numpy as np
import torch
from torch.distributions import Categorical

from strategies.base import Strategy

BATCHES = 30  # batches of draws per round, at most: a policy that has converged hardly draws anything new


class Reinforce(Strategy):
    restarts = True

    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.begin()
        self.drawn = {}  # key -> int[D], the decisions that led to this candidate of the current round
        self.waiting = {}  # the same of earlier rounds, whose answers come later
        self.best, self.rounds = -np.inf, 0  # highest utility, and rounds since it was found

    def begin(self):
        """Makes the policy uniform, and forgets the baseline, which the next round gives."""
        self.baseline = None
        options = torch.tensor(self.pool.space.choices)  # [D]
        missing = torch.arange(int(options.max())) >= options[:, None]  # [D, O]
        logits = torch.zeros(missing.shape, dtype=torch.float64).masked_fill(missing, -torch.inf)  # [D, O]
        self.logits = logits.requires_grad_()
        self.adam = torch.optim.Adam([self.logits], lr=self.settings.policy_lr)

    def propose(self, n, rng):
        self.drawn, archs = {}, []
        for _ in range(BATCHES):
            noise = rng.gumbel(size=(n, *self.logits.shape))  # [n, D, O]
            decisions = (self.logits.detach().numpy() + noise).argmax(-1)  # [n, D], drawn from the policy
            for row, arch in zip(decisions, self.pool.space.decode(decisions)):
                if arch is not None:
                    self.drawn.setdefault(self.pool.space.key(arch), row)
                    archs.append(arch)
            archs = self.pool.fresh(archs)
            if len(archs) >= n:
                break
        return archs[:n]

    def asked(self, keys):
        self.waiting |= {key: self.drawn[key] for key in keys if key in self.drawn}

    def observe(self, queries):
        late = [query.key for query in queries if query.key in self.waiting]
        self.drawn |= {key: self.waiting.pop(key) for key in late}
        reward = np.mean([query.utility for query in queries])
        if self.restarted(max(query.utility for query in queries)):
            return
        if self.baseline is None:  # the start
            self.baseline = reward
            return
        self.learn([query for query in queries if query.key in self.drawn])  # the others filled up the round
        keep = self.settings.baseline_decay
        self.baseline = keep * self.baseline + (1 - keep) * reward

    def restarted(self, best):
        """Whether the policy starts anew: after `policy_patience` rounds without a better query.

        A policy that has converged to a local optimum does not leave it. The queries, from which the
        predictor learns, stay.
        """
        self.rounds = 0 if best > self.best else self.rounds + 1
        self.best = max(best, self.best)
        patience = self.settings.policy_patience if self.restarts else 0
        if not patience or self.rounds < patience:
            return False
        self.begin()
        self.rounds = 0
        return True

    def learn(self, queries):
        """Makes one policy-gradient step, up the mean of advantage x log probability of the decisions."""
        if not queries:
            return
        taken = torch.from_numpy(np.stack([self.drawn[query.key] for query in queries]))  # [n, D]
        advantage = torch.tensor(
            [query.utility - self.baseline for query in queries], dtype=torch.float64)  # [n]
        log_probability = Categorical(logits=self.logits).log_prob(taken).sum(1)  # [n]
        self.adam.zero_grad()
        (-advantage * log_probability).mean().backward()
        self.adam.step()
