"""Reference `xgb`: gradient-boosted trees (Chen and Guestrin, KDD 2016) on paths and facts about the graph; candidates as
for `bo`, the best predicted are queried."""
from __future__ import annotations

import numpy as np

from models.paths import cell_features
from models.trees import boosted_trees
from strategies.bo import BayesianOptimisation

TREES = {"rounds": 300, "max_depth": 4, "learning_rate": 0.05, "subsample": 0.8, "colsample_bytree": 0.5}


class BoostedTrees(BayesianOptimisation):
    """`bo` with another predictor, and without an acquisition function: trees have no spread of their own."""

    members = 1

    @staticmethod
    def predictor(table, operations, label, seeds):
        x = cell_features(table, len(operations)).cpu().numpy()  # [B, P]
        return np.stack([boosted_trees(x[:len(label)], label, seed, **TREES)(x) for seed in seeds])  # [M, B]

    def rank(self, posterior, rng):
        return posterior.mean
