"""Reference `random`: uniform draws and nothing else (Li and Talwalkar, UAI 2019: it belongs into every comparison)."""
from __future__ import annotations

from strategies.random import Random


class RandomSearch(Random):
    """The twin of `r`."""

    members = 0
