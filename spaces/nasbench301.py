"""NAS-Bench-301 (Zela et al., ICLR 2022): the DARTS space under the name of the surrogate benchmark that labels it."""
from __future__ import annotations

from spaces.darts import DARTS


class NASBench301(DARTS):
    """The DARTS space; its oracles are surrogates and label tables, while `darts` cells are trained."""

    name = "nasbench301"
