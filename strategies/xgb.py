"""Baseline `xgb`: gradient-boosted trees (Chen and Guestrin, KDD 2016) on path and graph features.

Candidates are as for `bo`; the best predicted are queried.
"""
from __future__ import annotations

import numpy as np

from models.features.paths import cell_features
from models.predictor.boosted_trees import boosted_trees
from strategies.bo import BayesianOptimisation

TREES = {"rounds": 300, "max_depth": 4, "learning_rate": 0.05, "subsample": 0.8, "colsample_bytree": 0.5}


class BoostedTrees(BayesianOptimisation):
    """`bo` with another predictor and no acquisition function, as trees predict no standard deviation."""

    members = 1
    batch = False
    climbs = 0

    @staticmethod
    def predictor(table, vocabulary, label, seeds):
        x = cell_features(table, len(vocabulary)).cpu().numpy()  # [B, P]
        return np.stack([boosted_trees(x[:len(label)], label, seed, **TREES)(x) for seed in seeds])  # [M, B]

    def rank(self, posterior, rng):
        return posterior.mean
