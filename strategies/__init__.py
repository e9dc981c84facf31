"""Search strategies by name: `STRATEGIES["r"](pool, settings)`. A new strategy is one file and one line here."""
from __future__ import annotations

from strategies.ae import AgingEvolution
from strategies.bananas import Bananas
from strategies.base import Pool, Posterior, Predict, Query, Settings, Strategy
from strategies.bo import BayesianOptimisation
from strategies.history import History, alone_in, best_of, whole_lines
from strategies.local_search import LocalSearch
from strategies.policy import Policy
from strategies.random import Random
from strategies.random_search import RandomSearch
from strategies.regularised_evolution import RegularisedEvolution
from strategies.rl import Reinforce
from strategies.xgb import BoostedTrees

STRATEGIES = {
    "r": Random, "rl": Reinforce, "ae": AgingEvolution, "bo": BayesianOptimisation,  # the paper's, with our predictor
    "random": RandomSearch, "policy": Policy, "re": RegularisedEvolution, "ls": LocalSearch,  # without any
    "bananas": Bananas, "xgb": BoostedTrees,  # with one of their own
}
TWINS = {"r": "random", "rl": "policy", "ae": "re", "bo": "ls"}  # the same search without our predictor

__all__ = ["History", "Pool", "Posterior", "Predict", "Query", "STRATEGIES", "Settings", "Strategy", "TWINS", "alone_in",
           "best_of", "whole_lines"]
