"""Search strategies by name: `STRATEGIES["r"](pool)`. A new strategy is one file and one line here."""
from __future__ import annotations

from strategies.base import Pool, Query, Strategy
from strategies.history import History, best_of, whole_lines
from strategies.random import Random

STRATEGIES = {"r": Random}

__all__ = ["History", "Pool", "Query", "STRATEGIES", "Strategy", "best_of", "whole_lines"]
