"""Search strategies by name: `STRATEGIES["r"](pool)`. A new strategy is one file and one line here."""
from __future__ import annotations

from strategies.base import Pool, Query, Strategy
from strategies.random import Random

STRATEGIES = {"r": Random}

__all__ = ["Pool", "Query", "STRATEGIES", "Strategy"]
