"""Architectures of many spaces under one vocabulary, to pre-train an encoder for all of them.

    universal = Universal(without="nasbench_macro")
    tables = universal.tables(60_000, rng)   # the built-in spaces', then those of generated spaces
"""
from __future__ import annotations

import numpy as np
import torch

import spaces
from runtime.errors import InputError
from spaces.base import Graphs, Space
from spaces.generated import drawn_vocabulary, generated
from spaces.labels.read import read_architectures

KNOWN = {"nasbench101": 0.2, "nasbench201": 0.2, "darts": 0.2, "nasbench_macro": 0.1}  # share of the batches
RANDOM = {1: 0.2, 2: 0.1}  # number of cells: share of the batches
LARGE = 60_000  # architectures, if no number is given
EACH = 16  # architectures of a generated space
DIVISOR = {"darts": 3, 2: 3}  # graphs of many vertices are fewer


class Universal:
    """Not a search space, but many: it has tables and a vocabulary, and no single architecture is asked."""

    name = "universal"

    def __init__(self, without: str = ""):
        """without: a space in KNOWN whose architectures are left out."""
        if without and without not in KNOWN:
            raise InputError(f"--without {without}: give one of {', '.join(KNOWN)}")
        self.known = {name: spaces.get(name) for name in KNOWN if name != without}
        self.random = drawn_vocabulary(np.random.default_rng(0))
        self.vocabulary = {name: does for space in self.known.values()
                           for name, does in space.vocabulary.items()} | self.random
        self.ops = tuple(self.vocabulary)

    @property
    def shares(self) -> list[float]:
        """The share of the batches that each table gets; in sum 1."""
        share = np.array([KNOWN[name] for name in self.known] + list(RANDOM.values()))
        return list(share / share.sum())

    def tables(self, n: int, rng: np.random.Generator) -> list[Graphs]:
        """About n architectures: a table per known space, then one per number of generated cells."""
        found, share = [], (n or LARGE) // (len(self.known) + len(RANDOM))
        for name, space in self.known.items():
            wanted = share // DIVISOR.get(name, 1)
            table = space.table() if space.size and space.size <= wanted else space.table(wanted, rng)
            found.append(self._renamed(table, space.ops))
        for cells in RANDOM:
            count = max(1, share * 2 // DIVISOR.get(cells, 1) // EACH)
            table = generated(count, EACH, cells, rng, self.random)
            found.append(self._renamed(table, tuple(self.random)))
        return found

    def _renamed(self, table: Graphs, ops: tuple[str, ...]) -> Graphs:
        """The same graphs, their operations as indices into this vocabulary."""
        places = torch.tensor([self.ops.index(name) for name in ops], dtype=torch.uint8)  # [K]
        return Graphs(places[table.ops.long()] * table.node_mask, table.adj, table.n, table.marks)


def unlabelled(space: Space | Universal, n: int, file: str, rng: np.random.Generator) -> list[Graphs]:
    """Architectures to pre-train on, a table or several; no label is read.

    n: about as many, drawn uniformly from a larger space; 0 = all. file: those in it instead, if given.
    """
    if isinstance(space, Universal):
        return space.tables(n, rng)
    if file:
        return [space.encode_keys(read_architectures(file, space))]
    return [space.table(n, rng) if n and (space.size is None or n < space.size) else space.table()]
