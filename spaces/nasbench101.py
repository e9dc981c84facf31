"""The NAS-Bench-101 search space: cells of at most 7 vertices and 9 edges, identified by nasbench's module hash.

Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019. The space is the table of all
423,624 cells that `spaces.nasbench101_enumeration` builds; nothing is downloaded.
"""
from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from operator import and_, itemgetter, or_
from typing import Any, Iterator, Sequence

import numpy as np
import torch

from spaces.base import Graphs, InputError
from spaces.nasbench101_enumeration import (LABELS, MAX_EDGES, MAX_VERTICES, OPS, adjacency, edge_pairs, leading_half,
                                            load)

OP_IDS = {op: index for index, op in enumerate(OPS)}
INPUT, OUTPUT = OPS[0], OPS[-1]
INNER = OPS[1:-1]  # the operations of the vertices between
HASH = re.compile(r"[0-9a-f]{32}")
PAIRS = list(zip(*(ends.tolist() for ends in edge_pairs(MAX_VERTICES))))  # (source, target) of the 21 edges
NO_HASH = "0" * 32  # no cell has it: the first of all hashes is 00005c14...


@dataclass(frozen=True)
class Cell:
    """One cell, validated and pruned when it is made: only vertices on a path from input to output remain.

    matrix  n rows of n entries 0 or 1; matrix[i][j] = 1 is the edge i→j, so only i < j may be 1
    ops     n names out of OPS: input first, output last
    Equality is of the two fields; cells that are the same network, drawn differently, have equal `key`s.
    InputError says what is wrong with anything that is no cell of NAS-Bench-101.
    """

    matrix: tuple[tuple[int, ...], ...]
    ops: tuple[str, ...]

    def __post_init__(self):
        self._prune(*_checked(self.matrix, self.ops))

    @classmethod
    def unchecked(cls, matrix: list[list[int]], ops: list[str]) -> Cell:
        """Cell(matrix, ops) of an upper triangle and names that are known to be right, in a fraction of the time.
        InputError where they give no cell."""
        cell = object.__new__(cls)
        cell._prune(matrix, ops)
        return cell

    def _prune(self, rows: Sequence[Sequence[int]], ops: Sequence[str]) -> None:
        kept = itemgetter(*_on_a_path(rows))  # at least two
        matrix = tuple(map(kept, kept(rows)))
        edges = sum(map(sum, matrix))
        if len(matrix) > MAX_VERTICES or edges > MAX_EDGES:
            raise InputError(f"NAS-Bench-101 cell: {len(matrix)} vertices and {edges} edges lie between input and output; "
                             f"at most {MAX_VERTICES} and {MAX_EDGES} may")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "ops", kept(ops))

    @cached_property
    def key(self) -> str:
        """The module hash, 32 hexadecimal digits: equal exactly for isomorphic cells."""
        return module_hash(self.matrix, self.ops)


def _checked(matrix: Any, ops: Any) -> tuple[list[list[int]], tuple[str, ...]]:
    """The n rows of the matrix and the n names; InputError unless they can be a cell's before pruning."""
    fault = "NAS-Bench-101 cell: "
    try:
        matrix = np.asarray(matrix)
    except ValueError:  # rows of different lengths
        matrix = np.zeros(0)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(fault + "the matrix is not square; give n rows of n entries")
    if matrix.dtype.kind not in "biuf" or ((matrix != 0) & (matrix != 1)).any():
        raise InputError(fault + "the matrix has an entry that is neither 0 nor 1")
    rows = matrix.astype(int).tolist()
    for row, entries in enumerate(rows):
        if any(entries[:row + 1]):
            raise InputError(fault + f"matrix[{row}][{entries.index(1)}] is 1; edges must go to a later vertex (upper "
                                     "triangle)")
    if not isinstance(ops, (list, tuple)) or len(ops) != len(matrix):
        raise InputError(fault + f"ops must list {len(matrix)} names, one for each row of the matrix")
    if len(ops) < 2 or ops[0] != INPUT or ops[-1] != OUTPUT:
        raise InputError(fault + f"ops must begin with {INPUT!r} and end with {OUTPUT!r}")
    for position, op in enumerate(ops[1:-1], 1):
        if op not in INNER:
            raise InputError(fault + f"ops[{position}] is {op!r}; choose one of {', '.join(INNER)}")
    return rows, tuple(ops)


def _on_a_path(rows: list[list[int]]) -> list[int]:
    """The vertices on a path from input to output, ascending; InputError where there is no such path."""
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
    """nasbench's identity of a pruned cell; `module_hashes` is the same for many at once, with the explanation."""
    vertices = range(len(ops))
    sources = [[u for u in vertices if matrix[u][v]] for v in vertices]
    targets = [[w for w in vertices if matrix[v][w]] for v in vertices]
    states = [_md5(str((len(targets[v]), len(sources[v]), LABELS[OP_IDS[ops[v]]]))) for v in vertices]
    for _ in vertices:
        states = [_md5("|".join(("".join(sorted(states[u] for u in sources[v])),
                                 "".join(sorted(states[w] for w in targets[v])), states[v]))) for v in vertices]
    return _md5(str(sorted(states)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


class NASBench101:
    """The space behind the common protocol. The table is loaded at first use and kept by the instance."""

    name = "nasbench101"
    protocol, labels = "tnasp", "nasbench_only108.tfrecord"
    ops = OPS
    max_vertices = MAX_VERTICES
    size = 423624
    choices = (2,) * (MAX_VERTICES * (MAX_VERTICES - 1) // 2) + (len(INNER),) * (MAX_VERTICES - 2)

    @cached_property
    def _rows(self) -> np.ndarray:
        return load()

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint8[N, 16]: the module hashes of all cells, ascending; this is the official order."""
        return np.ascontiguousarray(self._rows["hash"])

    @cached_property
    def _halves(self) -> np.ndarray:
        """uint64[N], ascending: the first halves of the hashes; no two are equal."""
        return leading_half(self.hashes)

    @cached_property
    def _graphs(self) -> Graphs:
        n = np.count_nonzero(self._rows["ops"], axis=1) + 1  # [N]: the input's id is 0, as the padding is
        return Graphs.from_numpy(self._rows["ops"], adjacency(self._rows["edges"], MAX_VERTICES), n)

    def index(self, keys: Sequence[str]) -> np.ndarray:
        """The rows int64[n] of the cells with these module hashes. InputError names the first unknown one."""
        digits = "".join(key if HASH.fullmatch(key) else NO_HASH for key in keys)
        wanted = np.array(bytearray.fromhex(digits), np.uint8).reshape(-1, 16)  # [n, 16]
        rows = np.searchsorted(self._halves, leading_half(wanted)).clip(max=self.size - 1)  # [n]
        unknown = np.flatnonzero((self.hashes[rows] != wanted).any(axis=1))
        if len(unknown):
            raise InputError(f"{keys[unknown[0]]!r} is not the module hash of a NAS-Bench-101 cell")
        return rows

    def cell(self, row: int) -> Cell:
        """The cell of that row of the official order."""
        record = self._rows[row]
        n = np.count_nonzero(record["ops"]) + 1
        return Cell(adjacency(record["edges"][None], n)[0], tuple(OPS[op] for op in record["ops"][:n]))

    def sample(self, n: int, rng: np.random.Generator) -> list[Cell]:
        return [self.cell(row) for row in rng.integers(self.size, size=n)]

    def mutate(self, arch: Cell, rng: np.random.Generator) -> Cell:
        """Flip one of the 21 edges, or change one of the 5 operations, of a 7-vertex drawing of the cell.

        The edits are equally likely. The drawing completes the cell with spare vertices (`_drawing`). An edit that
        gives no cell of the space, or the same cell, is dropped, and another drawing made. Every cell can be reached.
        """
        while True:
            matrix, ops = _drawing(arch, rng)
            edit = rng.integers(len(PAIRS) + MAX_VERTICES - 2)
            if edit < len(PAIRS):
                source, target = PAIRS[edit]
                matrix[source][target] ^= 1
            else:
                vertex = edit - len(PAIRS) + 1
                others = [op for op in INNER if op != ops[vertex]]
                ops[vertex] = others[rng.integers(len(others))]
            try:
                mutant = Cell.unchecked(matrix, ops)
            except InputError:
                continue
            if mutant.key != arch.key:
                return mutant

    def neighbours(self, arch: Cell) -> list[Cell]:
        """One edge less, another operation, or one path more: that is what a flip can do to any drawing (`_drawing`).

        A path joins two vertices directly, or through spare vertices with any operations.
        """
        found = {}
        for matrix, ops in _edited(np.array(arch.matrix), list(arch.ops)):
            try:
                cell = Cell(matrix, ops)
            except InputError:  # no path left, or too many edges
                continue
            if cell.key != arch.key:
                found.setdefault(cell.key, cell)
        return list(found.values())

    def decode(self, decisions: np.ndarray) -> list[Cell | None]:
        """The 21 edges (in the order of `edge_pairs`) and 5 operations of a drawing with 7 vertices, then pruned."""
        sources, targets = edge_pairs(MAX_VERTICES)
        matrices = np.zeros((len(decisions), MAX_VERTICES, MAX_VERTICES), int)
        matrices[:, sources, targets] = decisions[:, :len(sources)]
        cells = []
        for matrix, row in zip(matrices, decisions[:, len(sources):].tolist()):
            try:
                cells.append(Cell(matrix, (INPUT, *(INNER[op] for op in row), OUTPUT)))
            except InputError:  # no path, or too many edges
                cells.append(None)
        return cells

    def encode(self, archs: Sequence[Cell]) -> Graphs:
        ops = np.zeros((len(archs), MAX_VERTICES), np.uint8)
        adj = np.zeros((len(archs), MAX_VERTICES, MAX_VERTICES), np.uint8)
        for g, arch in enumerate(archs):
            n = len(arch.ops)
            ops[g, :n] = [OP_IDS[op] for op in arch.ops]
            adj[g, :n, :n] = arch.matrix
        return Graphs.from_numpy(ops, adj, np.array([len(arch.ops) for arch in archs]))

    def key(self, arch: Cell) -> str:
        return arch.key

    def text(self, arch: Cell) -> str:
        """{"matrix": [[0, 1, ...], ...], "ops": ["input", ...]} on one line."""
        return json.dumps({"matrix": arch.matrix, "ops": arch.ops})

    def parse(self, text: str) -> Cell:
        """A module hash, or JSON with matrix and ops (or nasbench's module_adjacency and module_operations)."""
        text = text.strip()
        if HASH.fullmatch(text.lower()):
            return self.cell(self.index([text.lower()])[0])
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        for matrix, ops in (("matrix", "ops"), ("module_adjacency", "module_operations")):
            if isinstance(fields, dict) and matrix in fields and ops in fields:
                return Cell(fields[matrix], fields[ops])
        raise InputError(f"NAS-Bench-101 architecture {text[:80]!r}: give its module hash (32 digits), or JSON "
                         'like {"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}')

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        if n is None:
            return self._graphs
        return self._graphs[torch.from_numpy(rng.integers(self.size, size=n))]

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        return self._graphs[torch.from_numpy(self.index(keys))]


def _drawing(arch: Cell, rng: np.random.Generator) -> tuple[list[list[int]], list[str]]:
    """The cell drawn with 7 vertices: 7 rows of 7 entries and 7 names; pruning gives the cell back.

    Spare vertices stand at random places between the others, with random operations. Each owns one random edge, in or
    out: a loose end, from which one flipped edge makes a path. Without it a cell could never regain a lost vertex.
    No path leads through spares yet: its first would own an edge in, its last an edge out, and the edge where the kind
    changes would have no owner.
    """
    last = MAX_VERTICES - 1
    if len(arch.ops) == MAX_VERTICES:  # most cells
        return list(map(list, arch.matrix)), list(arch.ops)
    inner = rng.permutation(last - 1)[:len(arch.ops) - 2] + 1  # choice() takes twice as long
    places = [0, *sorted(inner.tolist()), last]
    matrix = [[0] * MAX_VERTICES for _ in range(MAX_VERTICES)]  # lists: arrays this small would take four times as long
    ops = [INPUT, *(INNER[op] for op in rng.integers(len(INNER), size=MAX_VERTICES - 2)), OUTPUT]
    for place, op, row in zip(places, arch.ops, arch.matrix):
        ops[place] = op
        for target, entry in zip(places, row):
            matrix[place][target] = entry
    for spare in (v for v in range(MAX_VERTICES) if v not in places):
        if rng.random() < 0.5:
            matrix[rng.integers(spare)][spare] = 1
        else:
            matrix[spare][rng.integers(spare + 1, MAX_VERTICES)] = 1
    return matrix, ops


def _edited(matrix: np.ndarray, ops: list[str]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """The cell after each single edit, unchecked and with repeats; see `NASBench101.neighbours`."""
    n = len(ops)
    for vertex in range(1, n - 1):
        yield from ((matrix, [*ops[:vertex], op, *ops[vertex + 1:]]) for op in INNER if op != ops[vertex])
    for source, target in zip(*edge_pairs(n)):
        flipped = matrix.copy()
        flipped[source, target] ^= 1
        yield flipped, ops
        for length in range(1, MAX_VERTICES - n + 1):
            path = [source, *range(source + 1, source + 1 + length), target + length]  # spares follow the source
            longer = np.insert(np.insert(matrix, [source + 1] * length, 0, 0), [source + 1] * length, 0, 1)
            longer[path[:-1], path[1:]] = 1
            yield from ((longer, [*ops[:source + 1], *spares, *ops[source + 1:]])
                        for spares in product(INNER, repeat=length))
