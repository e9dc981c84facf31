"""The NAS-Bench-101 search space: cells of at most 7 vertices and 9 edges.

The space is the table of all 423,624 cells that `spaces.nasbench101.enumeration` builds, without a download.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product

import numpy as np
import torch

from runtime.errors import InputError
from runtime.guarded import parse_json
from spaces.base import Graphs
from spaces.nasbench101.cell import INNER, INPUT, OP_IDS, OUTPUT, Cell
from spaces.nasbench101.enumeration import (
    MAX_EDGES,
    MAX_VERTICES,
    OPS,
    adjacency,
    edge_pairs,
    leading_half,
    load,
)
from spaces.operations import described

HASH = re.compile(r"[0-9a-f]{32}")
PAIRS = list(zip(*(ends.tolist() for ends in edge_pairs(MAX_VERTICES))))  # (source, target) of the 21 edges
PATHS = sum(len(INNER)**length for length in range(MAX_VERTICES - 1))  # sequences of 0 to 5 operations
CHUNK = 4096  # cells whose paths are counted at a time
NO_HASH = "0" * 32  # the hash of no cell: the first of all hashes is 00005c14...


class NASBench101:
    """The space; its methods are described in `spaces.base.Space`.

    The table is loaded at first use and kept by the instance.
    """

    name = "nasbench101"
    protocol, labels = "tnasp", "nasbench_only108.tfrecord"
    ops = OPS
    vocabulary = described(ops)
    max_vertices = MAX_VERTICES
    size = 423624
    choices = (2,) * (MAX_VERTICES * (MAX_VERTICES - 1) // 2) + (len(INNER),) * (MAX_VERTICES - 2)

    @cached_property
    def _rows(self) -> np.ndarray:
        return load()

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint8[N, 16]: the module hashes of all cells, ascending, which is the official order."""
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
        """Rows int64[n] of the cells with these module hashes; raises InputError with the first unknown."""
        digits = "".join(key if HASH.fullmatch(key) else NO_HASH for key in keys)
        wanted = np.array(bytearray.fromhex(digits), np.uint8).reshape(-1, 16)  # [n, 16]
        rows = np.searchsorted(self._halves, leading_half(wanted)).clip(max=self.size - 1)  # [n]
        unknown = np.flatnonzero((self.hashes[rows] != wanted).any(axis=1))
        if len(unknown):
            raise InputError(f"{keys[unknown[0]]!r} is not the module hash of a NAS-Bench-101 cell")
        return rows

    def cell(self, row: int) -> Cell:
        """The cell in that row of the official order."""
        record = self._rows[row]
        n = np.count_nonzero(record["ops"]) + 1
        return Cell(adjacency(record["edges"][None], n)[0], tuple(OPS[op] for op in record["ops"][:n]))

    def sample(self, n: int, rng: np.random.Generator) -> list[Cell]:
        return [self.cell(row) for row in rng.integers(self.size, size=n)]

    def mutate(self, arch: Cell, rng: np.random.Generator) -> Cell:
        """Flips one of the 21 edges, or changes one of the 5 operations, of a 7-vertex drawing of the cell.

        All edits are equally likely. The drawing completes the cell with spare vertices (`_drawing`). An edit
        that gives no cell of the space, or the same cell, is dropped and another drawing made. Every cell can
        be reached.
        """
        whole, edges = len(arch.ops) == MAX_VERTICES, sum(map(sum, arch.matrix))
        while True:
            matrix, ops = _drawing(arch, rng)
            edit, removes_edge = rng.integers(len(PAIRS) + MAX_VERTICES - 2), False
            if edit < len(PAIRS):
                source, target = PAIRS[edit]
                removes_edge = matrix[source][target] == 1
                if whole and not removes_edge and edges == MAX_EDGES:  # nearly half of all edits
                    continue
                matrix[source][target] ^= 1
            else:
                vertex = edit - len(PAIRS) + 1
                others = [op for op in INNER if op != ops[vertex]]
                ops[vertex] = others[rng.integers(len(others))]
            if whole and not removes_edge:  # nothing to prune, and no other drawing of the cell
                return Cell.as_is(tuple(map(tuple, matrix)), tuple(ops))
            try:
                mutant = Cell.unchecked(matrix, ops)
            except InputError:
                continue
            if mutant.differs(arch):
                return mutant

    def neighbours(self, arch: Cell) -> list[Cell]:
        """Every cell with one edge less, another operation, or one path more.

        This is all that one flip can do to any drawing (`_drawing`). A path joins two vertices directly, or
        through spare vertices with any operations.
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
        """Reads the decisions as a drawing with 7 vertices, and prunes it.

        These are the 21 edges (in the order of `edge_pairs`) and 5 operations.
        """
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

    def placement(self, table: Graphs) -> np.ndarray:
        """How many paths from input to output have each sequence of operations, float32[N, 364].

        A cell has no positions by itself: its vertices can be drawn in any order. Paths are what stands where
        whatever the drawing (White et al., BANANAS, AAAI 2021).
        """
        ops, adj = table.ops.cpu().numpy(), table.adj.cpu().numpy()
        last = table.node_mask.sum(1).cpu().numpy() - 1  # [N]
        counts = np.empty((len(ops), PATHS), np.float32)
        for start in range(0, len(ops), CHUNK):
            rows = slice(start, start + CHUNK)
            counts[rows] = _paths(ops[rows], adj[rows], last[rows])
        return counts

    def key(self, arch: Cell) -> str:
        return arch.key

    def keys(self, archs: Sequence[Cell]) -> list[str]:
        return list(map(self.key, archs))

    def text(self, arch: Cell) -> str:
        """{"matrix": [[0, 1, ...], ...], "ops": ["input", ...]} on one line."""
        return json.dumps({"matrix": arch.matrix, "ops": arch.ops})

    def parse(self, text: str) -> Cell:
        """Reads a module hash, or JSON with matrix and ops (or module_adjacency and module_operations)."""
        text = text.strip()
        if HASH.fullmatch(text.lower()):
            return self.cell(self.index([text.lower()])[0])
        fields = parse_json(text, "NAS-Bench-101 cell") if text.startswith("{") else None
        for matrix, ops in (("matrix", "ops"), ("module_adjacency", "module_operations")):
            if isinstance(fields, dict) and matrix in fields and ops in fields:
                return Cell(fields[matrix], fields[ops])
        raise InputError(f"NAS-Bench-101 architecture {text[:60]!r}: give its module hash (32 digits), or "
                         'JSON like {"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}')

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        if n is None:
            return self._graphs
        return self._graphs[torch.from_numpy(rng.integers(self.size, size=n))]

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        return self._graphs[torch.from_numpy(self.index(keys))]


def _paths(ops: np.ndarray, adj: np.ndarray, last: np.ndarray) -> np.ndarray:
    """float32[N, PATHS]: the number of paths of N cells with each sequence of operations.

    ops [N, V], adj [N, V, V], last: the output's vertex, int[N]. The sequences are numbered by length, then
    as digits; one more operation leads from number i to 3 i + 1 + operation.
    """
    longer = 3 * np.arange(PATHS // 3)[:, None] + 1 + np.arange(len(INNER))  # [121, 3]
    ending = np.zeros((len(ops), MAX_VERTICES, PATHS), np.float32)  # paths from the input to each vertex
    ending[:, 0, 0] = 1
    for v in range(1, MAX_VERTICES):
        before = np.einsum("nu,nup->np", adj[:, :v, v].astype(np.float32), ending[:, :v])  # [N, PATHS]
        for op, name in enumerate(INNER):
            at = np.flatnonzero((ops[:, v] == OP_IDS[name]) & (v < last))
            ending[at[:, None], v, longer[:, op]] = before[at, :PATHS // 3]
        ends = np.flatnonzero(v == last)
        ending[ends, v] = before[ends]
    return ending[np.arange(len(ops)), last]


def _drawing(arch: Cell, rng: np.random.Generator) -> tuple[list[list[int]], list[str]]:
    """Draws the cell with 7 vertices: 7 rows of 7 entries and 7 names; pruning gives the cell back.

    Spare vertices stand at random places between the others, with random operations. Each owns one random
    edge, in or out: a loose end, which one flipped edge turns into a path. Without it, a cell could never
    regain a lost vertex. No path leads through spares yet: its first would own an edge in, its last an edge
    out, and the edge where the kind changes would have no owner.
    """
    last = MAX_VERTICES - 1
    if len(arch.ops) == MAX_VERTICES:  # most cells
        return list(map(list, arch.matrix)), list(arch.ops)
    inner = rng.permutation(last - 1)[:len(arch.ops) - 2] + 1  # choice() takes twice as long
    places = [0, *sorted(inner.tolist()), last]
    matrix = [[0] * MAX_VERTICES for _ in range(MAX_VERTICES)]  # lists: small arrays take four times as long
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
            path = [source, *range(source + 1, source + 1 + length), target + length]  # spares follow source
            longer = np.insert(np.insert(matrix, [source + 1] * length, 0, 0), [source + 1] * length, 0, 1)
            longer[path[:-1], path[1:]] = 1
            yield from ((longer, [*ops[:source + 1], *spares, *ops[source + 1:]])
                        for spares in product(INNER, repeat=length))
