"""Strategy `rl`: REINFORCE (Williams, 1992); candidates are drawn from a policy that learns from the queries.

The policy is an independent categorical distribution for each decision of the space, uniform at first. D decisions,
O options of the one that has most.
"""
from __future__ import annotations

import numpy as np
import torch

from strategies.base import Strategy

BATCHES = 30  # of draws at most, a round: a policy that has made up its mind hardly draws anything new


class Reinforce(Strategy):
    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        options = torch.tensor(pool.space.choices)  # [D]
        missing = torch.arange(int(options.max())) >= options[:, None]  # [D, O]
        self.logits = torch.zeros(missing.shape, dtype=torch.float64).masked_fill(missing, -torch.inf)  # [D, O]
        self.adam = torch.optim.Adam([self.logits], lr=settings.policy_lr)
        self.drawn = {}  # key -> int[D], the decisions that led to this candidate of the current round
        self.baseline = None

    def propose(self, n, rng):
        self.drawn, archs = {}, []
        for _ in range(BATCHES):
            noise = rng.gumbel(size=(n, *self.logits.shape))  # [n, D, O]
            decisions = (self.logits.numpy() + noise).argmax(-1)  # [n, D], distributed as the policy says
            for row, arch in zip(decisions, self.pool.space.decode(decisions)):
                if arch is not None:
                    self.drawn.setdefault(self.pool.space.key(arch), row)
                    archs.append(arch)
            archs = self.pool.fresh(archs)
            if len(archs) >= n:
                break
        return archs[:n]

    def observe(self, queries):
        reward = np.mean([query.validation for query in queries])
        if self.baseline is None:  # the random start
            self.baseline = reward
            return
        self.learn([query for query in queries if query.key in self.drawn])  # the others were drawn to fill up
        keep = self.settings.baseline_decay
        self.baseline = keep * self.baseline + (1 - keep) * reward

    def learn(self, queries):
        """One step along the mean of advantage x gradient of log probability; of softmax that is onehot - p."""
        if not queries:
            return
        policy = self.logits.softmax(1)  # [D, O]
        taken = torch.from_numpy(np.stack([self.drawn[query.key] for query in queries]))  # [n, D]
        onehot = torch.nn.functional.one_hot(taken, policy.shape[1])  # [n, D, O]
        advantage = torch.tensor([query.validation - self.baseline for query in queries], dtype=torch.float64)  # [n]
        self.logits.grad = -(advantage[:, None, None] * (onehot - policy)).mean(0)  # [D, O]
        self.adam.step()
