"""The DARTS space (Liu et al., ICLR 2019): a normal and a reduction cell.

Each of the nodes 2..5 of a cell adds two inputs. An input is an operation applied to an earlier node, and a
node's two inputs come from two distinct nodes. Users see the field's `Genotype`. Internally, an architecture
is one integer: each of the eight nodes has a choice (which two nodes, which two operations), and the eight
choices are the digits of a mixed-radix number below SIZE, about 1.08e18. As one int64 identifies an
architecture, sampling, comparing and encoding are array expressions.
"""
from __future__ import annotations

import ast
import re
from collections import namedtuple
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import parse_json, parse_literal, read_text
from spaces.base import Graphs, one_hot
from spaces.operations import described

Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")  # cell: 8 x (operation, node)

OPERATIONS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
              "dil_conv_5x5")
LABEL = re.compile(r"\w+ *= *(?=[\w.]*Genotype\()")  # `genotype = Genotype(...)`, as training logs print it
NOTATION = re.compile(r"[\w.]*[(\[]")  # how Python notations of a cell begin
FILE = re.compile(r"[^()|]*(/[^()|]*|\.(txt|json|py|log))")  # a text that can only name a file
NODES = (2, 3, 4, 5)
CONCAT = range(2, 6)
# Ordered by the later node: node i chooses from the first i(i-1)/2 pairs, so one list serves all nodes.
PAIRS = [(p, q) for q in range(5) for p in range(q)]
CHOICES = [((a, p), (b, q)) for p, q in PAIRS for a in OPERATIONS for b in OPERATIONS]
RADIX = tuple(i * (i - 1) // 2 * len(OPERATIONS) ** 2 for i in NODES) * 2  # choices per node, normal first
SIZE = prod(RADIX)

_GENES = np.array(
    [[(p, OPERATIONS.index(a)), (q, OPERATIONS.index(b))] for (a, p), (b, q) in CHOICES], np.uint8)
_TEXT = [f"{a}~{p}+{b}~{q}" for (a, p), (b, q) in CHOICES]
_CHOICE = {name: choice for names in ([edges[::-1] for edges in CHOICES], CHOICES, _TEXT)  # in either order
           for choice, name in enumerate(names)}
_ALTERNATIVES = np.array([2 * (len(OPERATIONS) - 1 + i - 2) for i in NODES * 2])  # [8] mutants per node
_SHARE = _ALTERNATIVES.cumsum() / _ALTERNATIVES.sum()
_ENTERS = np.array([0, 1, *np.repeat(NODES, 2), 255])  # [11] node that a vertex's output enters, or none


def genes(numbers: np.ndarray) -> np.ndarray:
    """uint8[N, 2, 8, 2]: the edges of each architecture.

    Axes: N; cell (normal, reduction); edge (two per node, ascending); (predecessor, index in OPERATIONS).
    """
    return _GENES[_choices(numbers)].reshape(-1, 2, 8, 2)


def keys(numbers: np.ndarray) -> list[str]:
    """The canonical keys `op~p+op~q|...|...|...//...`: nodes 2..5 of the normal, then the reduction cell."""
    return ["{}|{}|{}|{}//{}|{}|{}|{}".format(*(_TEXT[c] for c in row)) for row in _choices(numbers).tolist()]


def numbers_of_keys(texts: Sequence[str]) -> np.ndarray:
    """int64[N], the inverse of `keys`; raises InputError that names the first text that is no key."""
    return _numbers([_read_key(text) for text in texts])


def numbers_of(archs: Sequence[Genotype]) -> np.ndarray:
    """int64[N], the numbers of the architectures; the order of a node's two inputs does not matter.

    Raises InputError that names a bad node.
    """
    return _numbers([_read_genotype(arch) for arch in archs])


def genotypes(numbers: np.ndarray) -> list[Genotype]:
    """The architectures of these numbers, each node's inputs ascending: equal numbers, equal genotypes."""
    return list(map(_genotype, _choices(numbers).tolist()))


def _genotype(choices: Sequence[int]) -> Genotype:
    a, b, c, d, e, f, g, h = (CHOICES[choice] for choice in choices)
    return Genotype((*a, *b, *c, *d), CONCAT, (*e, *f, *g, *h), CONCAT)


def _choices(numbers: np.ndarray) -> np.ndarray:
    return np.stack(np.unravel_index(numbers, RADIX), axis=1)  # [N, 8]


def _numbers(choices: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    return np.ravel_multi_index(tuple(np.array(choices, np.int64).reshape(-1, len(RADIX)).T), RADIX)  # [N]


def _read_key(text: str) -> list[int]:
    normal, _, reduce = text.partition("//")
    choices = [_CHOICE.get(word, SIZE) for word in (*normal.split("|"), *reduce.split("|"))]
    if normal.count("|") != 3 or len(choices) != 8 or any(c >= limit for c, limit in zip(choices, RADIX)):
        raise InputError(f"{text!r:.90} is no DARTS key: write op~p+op~q for each of nodes 2..5 (p < q, "
                         "earlier nodes), joined by |, and the normal and the reduction cell joined by //")
    return choices


def _read_genotype(arch: Genotype) -> list[int]:
    choices = []
    for name, cell in (("normal", arch.normal), ("reduction", arch.reduce)):
        for i, node in enumerate(NODES):
            choice = _CHOICE.get(tuple(cell[2 * i:2 * i + 2]), SIZE)
            if choice >= RADIX[i]:
                inputs = sorted(cell[2 * i:2 * i + 2], key=lambda pair: pair[1])
                raise InputError(f"{name} cell, node {node}: inputs {inputs} must come from two distinct "
                                 f"nodes of 0..{node - 1} by operations of {', '.join(OPERATIONS)}")
            choices.append(choice)
    return choices


@cache
def _edits(choice: int, node: int, kept: int) -> list[int]:
    """The node's choices that keep one of its two edges; the other gets another operation or predecessor."""
    edges = CHOICES[choice]
    operation, predecessor = edges[1 - kept]
    edited = [(op, predecessor) for op in OPERATIONS if op != operation]
    edited += [(operation, p) for p in range(node) if p not in (edges[0][1], edges[1][1])]
    return [_CHOICE[tuple(sorted((edges[kept], edge), key=lambda pair: pair[1]))] for edge in edited]


def _cell(pairs: Any) -> tuple:
    """Eight (operation, node) pairs as a cell; raises ValueError or TypeError for anything but pairs."""
    cell = tuple((operation, node) for operation, node in pairs)
    if len(cell) != 8:
        raise InputError(f"a DARTS cell has 8 edges, two for each of nodes 2..5; this one has {len(cell)}")
    return cell


def _read_python(tree: ast.expr | None) -> Genotype:
    """Reads `Genotype(...)` or the tuple notation ((node, operation number) * 8, the same again).

    No code is evaluated. Raises InputError or ValueError, TypeError, KeyError for anything else.
    """
    if not isinstance(tree, ast.Call):
        numbered = dict(enumerate(OPERATIONS))
        normal, reduce = (_cell((numbered[op], node) for node, op in cell) for cell in _plain(tree))
        return Genotype(normal, CONCAT, reduce, CONCAT)
    words = {word.arg: word.value for word in tree.keywords}
    fields = dict(zip(Genotype._fields, tree.args)) | words
    if (not isinstance(tree.func, (ast.Name, ast.Attribute)) or _name(tree.func) != "Genotype"
            or set(fields) != set(Genotype._fields) or len(tree.args) + len(words) != 4):
        raise InputError(f"a DARTS genotype is Genotype({'=..., '.join(Genotype._fields)}=...)")
    for field in ("normal_concat", "reduce_concat"):
        if sorted(_plain(fields[field])) != list(CONCAT):
            raise InputError(f"{field} is {ast.unparse(fields[field])[:40]}: this space concatenates nodes "
                             "range(2, 6)")
    normal, reduce = (_cell(_plain(fields[field])) for field in ("normal", "reduce"))
    return Genotype(normal, CONCAT, reduce, CONCAT)


def _name(function: ast.Name | ast.Attribute) -> str:
    """The last part of a function's name, as in `genotypes.Genotype`."""
    return function.id if isinstance(function, ast.Name) else function.attr


def _plain(tree: ast.expr | None) -> Any:
    """The value of lists, tuples, texts and numbers, also of range(2, 6), list(...) and np.int64(2).

    Raises ValueError for anything else.
    """
    if isinstance(tree, (ast.List, ast.Tuple)):
        return [_plain(entry) for entry in tree.elts]
    if isinstance(tree, ast.Call) and isinstance(tree.func, (ast.Name, ast.Attribute)):
        name, values = _name(tree.func), [_plain(argument) for argument in tree.args]
        if name == "range" and all(isinstance(value, int) and abs(value) <= 100 for value in values):
            return list(range(*values))
        if name in ("list", "tuple") and len(values) == 1 and isinstance(values[0], list):
            return values[0]
        if name.rstrip("0123456789") in ("int", "uint") and len(values) == 1:
            return values[0]
    return ast.literal_eval(tree)


def _named(normal: str, reduce: str) -> Genotype:
    """A genotype from short notation, "sep3:1 sep3:0 ..."."""
    short = dict(zip(("max", "avg", "skip", "sep3", "sep5", "dil3", "dil5"), OPERATIONS))
    cells = [_cell((short[op], int(node)) for op, node in (edge.split(":") for edge in cell.split()))
             for cell in (normal, reduce)]
    return genotypes(numbers_of([Genotype(cells[0], CONCAT, cells[1], CONCAT)]))[0]


NAMED = {  # Liu et al. 2019; Jing, Xu and Li 2022
    "DARTS_V1": _named("sep3:1 sep3:0 skip:0 sep3:1 skip:0 sep3:1 sep3:0 skip:2",
                       "max:0 max:1 skip:2 max:0 max:0 skip:2 skip:2 avg:0"),
    "DARTS_V2": _named("sep3:0 sep3:1 sep3:0 sep3:1 sep3:1 skip:0 skip:0 dil3:2",
                       "max:0 max:1 skip:2 max:1 max:0 skip:2 skip:2 max:1"),
    "GMAENAS_AE": _named("sep3:0 sep5:1 skip:1 avg:0 sep3:0 sep3:3 sep3:1 sep3:3",
                         "avg:0 avg:1 sep5:0 avg:1 dil3:0 sep3:2 sep5:1 sep3:2"),
    "GMAENAS_BO": _named("sep3:0 sep5:1 skip:1 sep3:0 sep3:0 avg:1 sep3:1 sep3:3",
                         "avg:0 avg:1 sep5:0 avg:1 dil3:0 sep3:1 dil3:0 sep3:2"),
    # Ours: the best of two searches with 100 queries of the YAHPO surrogate of NAS-Bench-301
    # (results/search301_yahpo_named.json).
    "YAHPO_AE": _named("sep3:0 sep3:1 sep3:0 skip:1 sep3:0 sep3:1 max:0 skip:1",
                       "sep3:0 dil5:1 sep5:0 sep3:1 sep5:0 sep5:1 dil3:1 sep5:4"),
    "YAHPO_BO": _named("skip:0 skip:1 sep3:0 sep5:1 sep5:0 skip:1 sep3:0 sep5:4",
                       "sep3:0 dil5:1 sep3:0 sep5:1 sep5:0 sep5:1 dil3:1 sep3:4"),
}


class DARTS:
    """The DARTS space; its methods are described in `spaces.base.Space`.

    A graph has 22 vertices: input1, input2, the eight edges and the output of the normal cell, then the same
    of the reduction cell, not connected. cell_marks=False leaves both cells unmarked, as in the paper;
    swapping them then gives an isomorphic graph.
    """

    name = "darts"
    protocol, labels = "nb301", None
    ops = ("input1", "input2", *OPERATIONS, "output")
    vocabulary = described(ops)
    max_vertices = 22
    size = None
    choices = tuple(
        options for i in NODES * 2 for options in (i * (i - 1) // 2, len(OPERATIONS), len(OPERATIONS)))

    def __init__(self, cell_marks: bool = True):
        self.cell_marks = cell_marks

    def sample(self, n: int, rng: np.random.Generator) -> list[Genotype]:
        return genotypes(rng.integers(SIZE, size=n))

    def mutate(self, arch: Genotype, rng: np.random.Generator) -> Genotype:
        """Changes the operation or the predecessor of one edge: uniform over the 120 neighbours."""
        choices = _read_genotype(arch)
        changed = int(_SHARE.searchsorted(rng.random(), side="right"))
        edits = _edits(choices[changed], NODES[changed % 4], kept=int(rng.integers(2)))
        choices[changed] = edits[rng.integers(len(edits))]
        return _genotype(choices)

    def neighbours(self, arch: Genotype) -> list[Genotype]:
        choices = _read_genotype(arch)
        edited = [(*choices[:place], choice, *choices[place + 1:]) for place, node in enumerate(NODES * 2)
                  for kept in (0, 1) for choice in _edits(choices[place], node, kept)]
        return genotypes(_numbers(edited))

    def decode(self, decisions: np.ndarray) -> list[Genotype]:
        """Three decisions per node: the pair of predecessors (in the order of PAIRS) and their operations."""
        pair, first, second = np.moveaxis(decisions.reshape(-1, len(RADIX), 3), -1, 0)  # [N, 8] each
        return genotypes(_numbers((pair * len(OPERATIONS) + first) * len(OPERATIONS) + second))

    def encode(self, archs: Sequence[Genotype]) -> Graphs:
        return self._graphs(numbers_of(archs))

    def placement(self, table: Graphs) -> np.ndarray:
        """The operation from each predecessor to each node, and the counts per cell, float32[N, 2 (140 + 7)].
        """
        ops, adj, halves = table.ops.cpu().numpy(), table.adj.cpu().numpy(), []
        for first in (0, 11):  # of the vertices of the normal, then the reduction cell
            edges = slice(first + 2, first + 10)
            operation = ops[:, edges].astype(int) - 2  # [N, 8]
            predecessor = _ENTERS[adj[:, first:first + 10, edges].argmax(1)]  # [N, 8]
            of_edges = one_hot(predecessor * len(OPERATIONS) + operation, (5 * len(OPERATIONS),) * 8)
            of_nodes = of_edges.reshape(len(ops), 4, 2, -1).sum(2)  # [N, 4, 35]
            counts = of_nodes.reshape(len(ops), -1, len(OPERATIONS)).sum(1)  # [N, 7]
            halves.append(np.hstack([of_nodes.reshape(len(ops), -1), counts]))
        return np.hstack(halves)

    def key(self, arch: Genotype) -> str:
        return self.keys([arch])[0]

    def keys(self, archs: Sequence[Genotype]) -> list[str]:
        return keys(numbers_of(archs))

    def text(self, arch: Genotype) -> str:
        """`Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], ...)`."""
        return repr(arch._replace(normal=list(arch.normal), reduce=list(arch.reduce)))

    def parse(self, text: str) -> Genotype:
        """Reads a name in NAMED, Genotype(...), the tuple notation of NAS-Bench-301 label files, or a key.

        The result lists each node's inputs ascending, whatever their order in the text.
        """
        text = LABEL.sub("", text.strip(), count=1)
        if text in NAMED:
            return NAMED[text]
        if "//" in text:
            return genotypes(numbers_of_keys([text]))[0]
        tree = parse_literal(text, "DARTS genotype") if NOTATION.match(text) else None
        try:
            return genotypes(numbers_of([_read_python(tree)]))[0]
        except InputError:
            raise
        except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
            raise InputError(
                f"cannot read {text[:80]!r} as a DARTS genotype: give Genotype(normal=[...], "
                "normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6)), a key, or one of "
                f"{', '.join(NAMED)}") from None

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        """n uniform samples; the whole space is too large to list."""
        if n is None:
            raise InputError(
                f"{self.name} has {SIZE:.2e} cells and cannot be listed: ask for a number of samples")
        return self._graphs(rng.integers(SIZE, size=n))

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        return self._graphs(numbers_of_keys(keys))

    def _graphs(self, numbers: np.ndarray) -> Graphs:
        predecessor, operation = np.moveaxis(genes(numbers), -1, 0)  # [N, 2, 8] each
        ops = np.empty((len(numbers), 2, 11), np.uint8)  # [N, 2, V/2]
        ops[..., :2], ops[..., 2:10], ops[..., 10] = (0, 1), operation + 2, len(self.ops) - 1
        adj = np.zeros((len(numbers), 2, 11, 2, 11), np.uint8)  # [N, cell, from, cell, to]
        for cell in (0, 1):
            adj[:, cell, :, cell, 2:10] = _ENTERS[:, None] == predecessor[:, cell, None]  # [N, 11, 8]
            adj[:, cell, 2:10, cell, 10] = 1
        marks = np.tile(np.repeat([0, int(self.cell_marks)], 11), (len(numbers), 1))  # [N, V]
        return Graphs.from_numpy(
            ops.reshape(-1, 22), adj.reshape(-1, 22, 22), marks=marks)  # [N, V], [N, V, V]


def architecture_of(text: str) -> Genotype:
    """Reads the cell that a user's text names; raises InputError if it names none.

    The text is anything that `DARTS.parse` reads, random:SEED, a file with one of these, or a best.json.
    """
    space = DARTS()
    kind, _, seed = text.partition(":")
    if kind == "random":
        if not re.fullmatch("[0-9]{1,18}", seed):
            raise InputError(f"--arch {text:.40}: give random:SEED, a whole number of at most 18 digits")
        return space.sample(1, np.random.default_rng(int(seed)))[0]
    short = 0 < len(text.encode()) < 256 and "\0" not in text  # enough for the name of a file
    if FILE.fullmatch(text) or short and path_of(text).exists():
        return _read_file(space, path_of(text))
    return space.parse(text)


def _read_file(space: DARTS, path: Path) -> Genotype:
    """Reads the cell in a text file, or in a best.json."""
    mend = "give a file with one cell, or a best.json of search.py"
    content = read_text(path, mend, largest=2**20).strip()
    if content.startswith("{"):
        best = parse_json(content, path, mend)
        content = best.get("architecture")
        if not isinstance(content, str):
            raise InputError(f"{path}: it has no architecture: {mend}")
    try:
        return space.parse(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
