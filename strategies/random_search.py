"""Baseline `random`: uniform draws, a part of every fair comparison (Li and Talwalkar, UAI 2019)."""
from __future__ import annotations

from strategies.uniform import Uniform


class RandomSearch(Uniform):
    """The twin of `r`."""

    members = 0
