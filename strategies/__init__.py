"""Search strategies by name: `STRATEGIES["r"](pool, settings)`.

A new strategy is one file and one line here.
"""
from __future__ import annotations

from strategies.ae import AgingEvolution
from strategies.bananas import Bananas
from strategies.bo import BayesianOptimisation
from strategies.local_search import LocalSearch
from strategies.policy import Policy
from strategies.random_search import RandomSearch
from strategies.regularised_evolution import RegularisedEvolution
from strategies.rl import Reinforce
from strategies.uniform import Uniform
from strategies.xgb import BoostedTrees

STRATEGIES = {
    # the paper's, with our predictor
    "r": Uniform, "rl": Reinforce, "ae": AgingEvolution, "bo": BayesianOptimisation,
    # baselines without a predictor
    "random": RandomSearch, "policy": Policy, "re": RegularisedEvolution, "ls": LocalSearch,
    # baselines with another predictor
    "bananas": Bananas, "xgb": BoostedTrees,
}
TWINS = {"r": "random", "rl": "policy", "ae": "re", "bo": "ls"}  # the same search without our predictor
