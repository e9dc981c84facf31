"""Gradient-boosted trees (Chen and Guistrin, KDD 2016), for the references that compare with them."""
from __future__ import annotations

from typing import Callable

import numpy as np


def boosted_trees(x: np.ndarray, y: np.ndarray, seed: int, rounds: int, **settings) -> Callable[[np.ndarray], np.ndarray]:
    """Regression of y float[N] on x float[N, P] by XGBoost with its `settings`; returns predict(x [B, P]) -> float[B]."""
    import xgboost  # a second to import

    settings = {"nthread": 1, "seed": seed % 2**31} | settings
    booster = xgboost.train(settings, xgboost.DMatrix(x, y), num_boost_round=rounds)
    return lambda x: booster.predict(xgboost.DMatrix(x))
