"""NAS-Bench-301 (Zela et al., ICLR 2022): the DARTS space under the name of its surrogate benchmark.

This module also has the common parts of its surrogates: the encoding of a cell as 34 categories, named and
numbered as in the package's configspace.json, and the oracle around a prediction of many cells at once.
"""
from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from spaces import darts
from spaces.base import Record

CELLS = ("normal", "reduce")
CHOOSING = (3, 4, 5)  # the nodes with a choice of inputs; node 2's are always 0 and 1
FIRST_EDGE = np.repeat([0, 2, 5, 9], 2)  # [8] edges are numbered by node, within a node by predecessor
CATEGORIES = {  # name: options, whose places are the categories
    **{f"edge_{cell}_{edge}": darts.OPERATIONS for cell in CELLS for edge in range(14)},
    **{f"inputs_node_{cell}_{node}": tuple(f"{p}_{q}" for p, q in combinations(range(node), 2))
       for cell in CELLS for node in CHOOSING},
}
INACTIVE = -1  # category of an edge that the cell lacks

_PAIR = np.zeros((6, 5, 5), np.intp)  # [inputs_node column, p, q] the place of "p_q" among the options
for _pairs, _node in zip(_PAIR, CHOOSING * 2):
    _pairs[np.triu_indices(_node, 1)] = np.arange(_node * (_node - 1) // 2)


def categories(numbers: np.ndarray) -> np.ndarray:
    """int[N, 34]: the cells with these `darts` numbers int64[N], in the order of CATEGORIES."""
    predecessor, operation = np.moveaxis(darts.genes(numbers).astype(np.intp), -1, 0)  # [N, 2, 8] each
    edges = (predecessor + FIRST_EDGE + [[0], [14]]).reshape(-1, 16)  # [N, 16]
    chosen = np.full((len(numbers), len(CATEGORIES)), INACTIVE)  # [N, 34]
    np.put_along_axis(chosen, edges, operation.reshape(-1, 16), axis=1)
    p, q = (predecessor[:, :, first::2].reshape(-1, 6) for first in (2, 3))  # [N, 6] each
    chosen[:, 28:] = _PAIR[np.arange(6), p, q]
    return chosen


class NASBench301(darts.DARTS):
    """The DARTS space; its oracles are surrogates and label tables, while `darts` cells are trained."""

    name = "nasbench301"


class Answers(NamedTuple):
    """A surrogate's predictions for N cells; None stands for what it does not know."""

    val: np.ndarray  # float[N] validation accuracy, percent
    cost: np.ndarray | None  # float[N] training time, seconds
    std: np.ndarray | None  # float[N] standard deviation of the accuracy, percent


class Surrogate:
    """An oracle that answers for any DARTS cell; a subclass adds `name` and `query_many`."""

    serves = darts.DARTS  # the spaces it can label: this class and its subclasses
    std_source: str | None = None  # meaning of `Answers.std`, for result files; None if there is none

    def covers(self, key: str) -> bool:
        return True

    def query(self, arch: darts.Genotype) -> Record:
        val, cost, _ = self.query_many(darts.numbers_of([arch]))
        return Record(float(val[0]), None, None if cost is None else float(cost[0]))

    def query_many(self, numbers: np.ndarray) -> Answers:
        """The predictions for `darts` numbers int64[N]."""
        raise NotImplementedError
