"""Strategy `r`: candidates drawn uniformly; the predictor alone steers."""
from __future__ import annotations

from strategies.base import Strategy


class Uniform(Strategy):
    def propose(self, n, rng):
        return self.pool.draw(n, rng)
