"""Gradient-boosted trees (Chen and Guestrin, KDD 2016), for the baselines."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np


def boosted_trees(x: np.ndarray, y: np.ndarray, seed: int, rounds: int,
                  **settings) -> Callable[[np.ndarray], np.ndarray]:
    """Fits y float[N] to x float[N, P]; returns predict(x [B, P]) -> float[B]. settings: of XGBoost."""
    import xgboost  # takes a second to import

    settings = {"nthread": 1, "seed": seed % 2**31} | settings
    booster = xgboost.train(settings, xgboost.DMatrix(x, y), num_boost_round=rounds)
    return lambda x: booster.predict(xgboost.DMatrix(x))
