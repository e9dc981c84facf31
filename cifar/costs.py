"""Parameters and multiplications of many DARTS networks at once, for limits on searches.

    costs = DartsCosts(channels=36, cells=20)
    costs(archs)["macs"]            # float[N], exactly `cifar.network.cost` of each

A network's cost is a sum over the edges of its cells: an edge costs what its operation does at its stride,
and only an edge of a reduction cell that leaves one of the cell's two inputs has stride 2.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cifar.network import cost
from runtime.log import console
from spaces.darts import CONCAT, OPERATIONS, Genotype, genes, numbers_of

FREE = ("max_pool_3x3", "avg_pool_3x3")  # cost nothing at any stride
EDGE = (0, 7)  # of a cell: the first edge leaves an input, the last one can leave a node


class DartsCosts:
    """{"params", "macs": float[N]} of architectures; without the auxiliary classifier."""

    def __init__(self, channels: int, cells: int):
        self.channels, self.cells = channels, cells

    def __call__(self, archs: Sequence[Any]) -> dict[str, np.ndarray]:
        predecessor, operation = np.moveaxis(genes(numbers_of(archs)), -1, 0)  # [N, 2, 8] each
        base, edges = self._table
        inner = (predecessor > 1).astype(int)  # [N, 2, 8]
        total = base + edges[np.arange(2)[:, None], inner, operation].sum((1, 2))  # [N, 2]
        return dict(zip(("params", "macs"), total.T))

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """The cost [2] of a network of free edges; of one edge more than that [cell, inner, operation, 2]."""
        with console.status("computing the costs of DARTS operations"):
            base = self._cost(0, 0, FREE[0])
            edges = np.zeros((2, 2, len(OPERATIONS), 2))
            for i, name in enumerate(OPERATIONS):
                if name not in FREE:
                    edges[0, :, i] = self._cost(0, EDGE[0], name) - base  # a normal cell has stride 1
                    edges[1, :, i] = [self._cost(1, edge, name) - base for edge in EDGE]
        return base, edges

    def _cost(self, cell: int, edge: int, name: str) -> np.ndarray:
        """The cost of the network whose edges are free, but for one: params, macs."""
        cells = [[(FREE[0], 0), (FREE[0], 1)] * 4 for _ in range(2)]
        cells[cell][edge] = (name, 0 if edge == 0 else 4)
        normal, reduce = map(tuple, cells)
        return np.array(cost(Genotype(normal, CONCAT, reduce, CONCAT), self.channels, self.cells), float)
