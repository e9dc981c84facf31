"""One NAS-Bench-101 cell, validated and pruned, with nasbench's module hash as its identity.

Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.
"""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import and_, itemgetter, or_
from typing import Any

import numpy as np

from runtime.errors import InputError
from spaces.nasbench101.enumeration import LABELS, MAX_EDGES, MAX_VERTICES, OPS

OP_IDS = {op: index for index, op in enumerate(OPS)}
INPUT, OUTPUT = OPS[0], OPS[-1]
LARGEST = 100  # vertices of a cell before pruning
INNER = OPS[1:-1]  # operations of the inner vertices


@dataclass(frozen=True)
class Cell:
    """One cell, validated and pruned at construction: only vertices on a path from input to output remain.

    matrix  n rows of n entries 0 or 1; matrix[i][j] = 1 is the edge i→j, allowed for i < j only
    ops     n names out of OPS: input first, output last

    Equality compares the two fields; different drawings of one network have equal `key`s. Raises InputError,
    with the fault, for anything that is no cell of NAS-Bench-101.
    """

    matrix: tuple[tuple[int, ...], ...]
    ops: tuple[str, ...]

    def __post_init__(self):
        self._prune(*_checked(self.matrix, self.ops))
        for op in self.ops[1:-1]:  # after pruning, as nasbench does: unused vertices may be called anything
            if op not in INNER:
                raise InputError(f"NAS-Bench-101 cell: operation {op!r:.40}: choose of {', '.join(INNER)}")

    @classmethod
    def unchecked(cls, matrix: list[list[int]], ops: list[str]) -> Cell:
        """Builds Cell(matrix, ops) without the checks, in a fraction of the time.

        The matrix must be an upper triangle and the names valid; raises InputError if they give no cell.
        """
        cell = object.__new__(cls)
        cell._prune(matrix, ops)
        return cell

    @classmethod
    def as_is(cls, matrix: tuple[tuple[int, ...], ...], ops: tuple[str, ...]) -> Cell:
        """The cell of a matrix and names that need neither checks nor pruning."""
        cell = object.__new__(cls)
        cell._set(matrix, ops)
        return cell

    def _prune(self, rows: Sequence[Sequence[int]], ops: Sequence[str]) -> None:
        kept = itemgetter(*_on_a_path(rows))  # at least two
        matrix = tuple(map(kept, kept(rows)))
        edges = sum(map(sum, matrix))
        if len(matrix) > MAX_VERTICES or edges > MAX_EDGES:
            raise InputError(f"NAS-Bench-101 cell: {len(matrix)} vertices and {edges} edges lie between "
                             f"input and output; at most {MAX_VERTICES} and {MAX_EDGES} may")
        self._set(matrix, kept(ops))

    def _set(self, matrix: tuple[tuple[int, ...], ...], ops: tuple[str, ...]) -> None:
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "ops", ops)

    @cached_property
    def key(self) -> str:
        """The module hash, 32 hexadecimal digits: equal exactly for isomorphic cells."""
        return module_hash(self.matrix, self.ops)

    def differs(self, other: Cell) -> bool:
        """Whether the keys differ; they are computed only if edges and operations are as many."""
        edges, others = (sum(map(sum, cell.matrix)) for cell in (self, other))
        return edges != others or sorted(self.ops) != sorted(other.ops) or self.key != other.key


def _checked(matrix: Any, ops: Any) -> tuple[list[list[int]], tuple[str, ...]]:
    """Checks a matrix and names before pruning; returns n rows and n names, or raises InputError."""
    fault = "NAS-Bench-101 cell: "
    if isinstance(matrix, (list, tuple)) and len(matrix) > LARGEST:
        raise InputError(fault + f"the matrix has {len(matrix):,} rows; at most {LARGEST} are read")
    try:
        matrix = np.asarray(matrix)
    except (ValueError, OverflowError):  # rows of different lengths; a huge number
        matrix = np.zeros(0)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(fault + "the matrix is not square; give n rows of n entries")
    if matrix.dtype.kind not in "biuf" or ((matrix != 0) & (matrix != 1)).any():
        raise InputError(fault + "the matrix has an entry that is neither 0 nor 1")
    rows = matrix.astype(int).tolist()
    for row, entries in enumerate(rows):
        if any(entries[:row + 1]):
            raise InputError(fault + f"matrix[{row}][{entries.index(1)}] is 1; edges must go to a later "
                                     "vertex (upper triangle)")
    if not isinstance(ops, (list, tuple)) or len(ops) != len(matrix):
        raise InputError(fault + f"ops must list {len(matrix)} names, one for each row of the matrix")
    if len(ops) < 2 or ops[0] != INPUT or ops[-1] != OUTPUT:
        raise InputError(fault + f"ops must begin with {INPUT!r} and end with {OUTPUT!r}")
    if not all(isinstance(op, str) for op in ops):
        raise InputError(fault + "ops must be texts")
    return rows, tuple(ops)


def _on_a_path(rows: list[list[int]]) -> list[int]:
    """The vertices on a path from input to output, ascending; raises InputError if there is no such path."""
    last = len(rows) - 1
    fed, feeding = [1] + [0] * last, [0] * last + [1]
    for v in range(last):  # edges go to later vertices
        if fed[v]:
            fed = list(map(or_, fed, rows[v]))
    if not fed[last]:
        raise InputError("NAS-Bench-101 cell: no path leads from input to output")
    for v in range(last - 1, -1, -1):
        feeding[v] = int(any(map(and_, rows[v], feeding)))
    return [v for v in range(last + 1) if fed[v] and feeding[v]]


@lru_cache(maxsize=2**16)  # a search meets the neighbours of its best cells again and again
def module_hash(matrix: tuple[tuple[int, ...], ...], ops: tuple[str, ...]) -> str:
    """nasbench's identity of a pruned cell; `enumeration.module_hashes` takes many and explains it."""
    vertices = range(len(ops))
    sources = [[u for u in vertices if matrix[u][v]] for v in vertices]
    targets = [[w for w in vertices if matrix[v][w]] for v in vertices]
    states = [_md5(str((len(targets[v]), len(sources[v]), LABELS[OP_IDS[ops[v]]]))) for v in vertices]
    for _ in vertices:
        states = [
            _md5("|".join(("".join(sorted(states[u] for u in sources[v])),
                           "".join(sorted(states[w] for w in targets[v])), states[v])))
            for v in vertices]
    return _md5(str(sorted(states)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
