"""The predictor: networks fine-tuned on few labels, blended with a Gaussian process. `Predictor` is its API.

    predictor = Predictor.fit(space, architectures, accuracy)
"""
from __future__ import annotations

from models.predictor.front import Predictor

__all__ = ["Predictor"]
