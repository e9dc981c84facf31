"""Search strategies by name: `STRATEGIES["r"](pool, settings)`. A new strategy is one file and one line here."""
from __future__ import annotations

from strategies.ae import AgingEvolution
from strategies.base import Pool, Query, Settings, Strategy
from strategies.bo import BayesianOptimisation
from strategies.history import History, best_of, whole_lines
from strategies.random import Random
from strategies.rl import Reinforce

STRATEGIES = {"r": Random, "rl": Reinforce, "ae": AgingEvolution, "bo": BayesianOptimisation}

__all__ = ["History", "Pool", "Query", "STRATEGIES", "Settings", "Strategy", "best_of", "whole_lines"]
