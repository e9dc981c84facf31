"""Baseline `bananas`: BANANAS (White et al., AAAI 2021).

It combines MLPs on the path encoding, mutants of the best queries, and independent Thompson sampling.
"""
from __future__ import annotations

import numpy as np

from models.features.paths import path_features
from models.predictor.path_mlp import fit_path_mlps
from strategies.bo import BayesianOptimisation, thompson


class Bananas(BayesianOptimisation):
    """`bo` with another predictor, and with the acquisition function of the BANANAS paper."""

    batch = False
    climbs = 0

    @staticmethod
    def predictor(table, vocabulary, label, seeds):
        x = path_features(table, len(vocabulary)).cpu().expand(len(seeds), -1, -1)  # [M, B, P]
        mlps = fit_path_mlps(x[:, :len(label)], np.tile(label, (len(seeds), 1)), seeds)
        return mlps.score(x)  # [M, B]

    def rank(self, posterior, rng):
        return thompson(*posterior, rng)
