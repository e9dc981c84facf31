"""Baseline `policy`: the policy of `rl` without a predictor; its draws are queried.

Zoph and Le, ICLR 2017, on independent choices as in Ying et al., ICML 2019.
"""
from __future__ import annotations

from strategies.rl import Reinforce


class Policy(Reinforce):
    """The twin of `rl`, which never starts anew: without a predictor that costs more than it finds."""

    members = 0
    restarts = False
