"""A search space from a JSON file: positions that each choose an operation, in a fixed wiring.

    space = read_space("spaces/declared/nasbench_macro.json")
    space.parse("identity,mb3_k3,...")      # an architecture: the tuple of its choices, a digit per position

The file is described in docs/spaces.md and checked in spaces/declared/document.py.
"""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.files import ROOT
from runtime.guarded import parse_json, read_text
from spaces.base import Graphs, one_hot
from spaces.declared.document import PLACEHOLDER, Document, Position, parse_document
from spaces.operations import OPERATIONS, Cost, cost

SHIPPED = {path.stem: path for path in sorted((ROOT / "spaces" / "declared").glob("*.json"))}
LARGEST = 2**20  # bytes of a file
LISTED = 10**6  # architectures of the largest space that is kept as a table
DIGITS = "0123456789"

Digits = tuple[int, ...]


def read_space(path: Path, cell_marks: bool = True) -> DeclaredSpace:
    """Reads a declaration; raises InputError with line and key for a fault."""
    return parse_space(read_text(path, "give the JSON file of a space", LARGEST), str(path), cell_marks)


def parse_space(text: str, where: str, cell_marks: bool = True) -> DeclaredSpace:
    document = parse_document(text, where)
    if not cell_marks and len(document.cells) == 1:
        raise InputError(f"--no-cell_marks: {document.name} has one cell and no marks to leave out")
    return DeclaredSpace(document, text, cell_marks)


class DeclaredSpace:
    """A declared space; its methods are described in `spaces.base.Space`.

    D positions. In a graph every cell has its inputs, its positions and its output, in this order.
    """

    def __init__(self, document: Document, declaration: str, cell_marks: bool = True):
        """declaration: the text of the file, which networks made for this space are stored with."""
        self.declaration, self.cell_marks, self.positions = declaration, cell_marks, document.positions
        self.document_read, self.name, self.protocol = document, document.name, document.protocol
        self.labels = document.labels or None
        inputs = dict.fromkeys(self._input(cell.inputs, i) for cell in document.cells
                               for i in range(len(cell.inputs)))
        self.ops = (*inputs, *document.operations, "output")
        self.vocabulary = {name: document.operations.get(name) or OPERATIONS[name] for name in self.ops}
        self.choices = tuple(len(position.options) for position in self.positions)
        self.count = prod(self.choices)
        self.size = self.count if self.count <= LISTED else None
        self._vertices, self._adj, self._marks, self._where = self._skeleton()
        self.max_vertices = len(self._vertices)
        self._op = np.zeros((len(self.positions), max(self.choices)), np.uint8)  # [D, options] operation ids
        for row, position in zip(self._op, self.positions):
            row[:len(position.options)] = [self.ops.index(option) for option in position.options]
        self._read = self._reader()

    @staticmethod
    def _input(inputs: tuple[str, ...], i: int) -> str:
        return "input" if len(inputs) == 1 else f"input{i + 1}"

    @property
    def identity(self) -> str:
        """The SHA-256 of what the file declares, without its layout: a resumed run knows it by this."""
        return hashlib.sha256(
            json.dumps(json.loads(self.declaration), sort_keys=True).encode()).hexdigest()

    def _skeleton(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Shared by all graphs: ops [V], 0 at positions, adj [V, V], marks [V]; the positions' vertices."""
        ops, edges, marks, where = [], [], [], []
        for mark, cell in enumerate(self.document_read.cells):
            first = len(ops)
            edges += [(first + start, first + end) for start, end in cell.edges]
            ops += [self.ops.index(self._input(cell.inputs, i)) for i in range(len(cell.inputs))]
            where += range(len(ops), len(ops) + len(cell.positions))
            ops += [0] * len(cell.positions) + [len(self.ops) - 1]
            marks += [mark * self.cell_marks] * (len(ops) - first)
        adj = np.zeros((len(ops), len(ops)), np.uint8)
        adj[tuple(np.transpose(edges))] = 1
        return np.array(ops, np.uint8), adj, np.array(marks, np.uint8), np.array(where)

    # Architectures ------------------------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> list[Digits]:
        return self.decode(self._draw(n, rng))

    def mutate(self, arch: Digits, rng: np.random.Generator) -> Digits:
        """Changes the operation of one position: uniform over the neighbours."""
        near = rng.integers(sum(self.choices) - len(self.choices))
        for place, options in enumerate(self.choices):
            if near < options - 1:
                return *arch[:place], int(arch[place] + near + 1) % options, *arch[place + 1:]
            near -= options - 1
        raise AssertionError("a position is left over")

    def neighbours(self, arch: Digits) -> list[Digits]:
        return [(*arch[:place], op, *arch[place + 1:]) for place, options in enumerate(self.choices)
                for op in range(options) if op != arch[place]]

    def decode(self, decisions: np.ndarray) -> list[Digits]:
        """The decisions are the digits."""
        return list(map(tuple, decisions.tolist()))

    def encode(self, archs: Sequence[Digits]) -> Graphs:
        return self._graphs(np.array(archs, dtype=np.int64).reshape(-1, len(self.choices)))

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        """All architectures, the last position varying fastest, or n uniform samples."""
        if n is not None:
            return self._graphs(self._draw(n, rng))
        if self.size is None:
            raise InputError(f"{self.name} has {self.count:.2e} architectures and cannot be listed: ask for "
                             "a number of samples")
        return self._graphs(self._digits(np.arange(self.size)))

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        return self.encode(list(map(self._read_key, keys)))

    def placement(self, table: Graphs) -> np.ndarray:
        """The operation of each position, and the number of positions with each, float32[N, D K + K]."""
        stands = table.ops.cpu().numpy()[:, self._where].astype(np.int64)  # [N, D]
        of_positions = one_hot(stands, (len(self.ops),) * len(self.choices))  # [N, D K]
        counts = of_positions.reshape(len(stands), -1, len(self.ops)).sum(1)  # [N, K]
        return np.hstack([of_positions, counts])

    def costs(self, archs: Sequence[Digits]) -> dict[str, np.ndarray]:
        """{"params", "macs": float[N]} of whole networks; empty if the file gives no channels and pixels."""
        if not all(position.places for position in self.positions):
            return {}
        besides = self.document_read.besides
        digits = np.array(archs, dtype=np.int64).reshape(-1, len(self.choices))  # [N, D]
        of_options = np.zeros((2, *self._op.shape))  # [2, D, options]
        for place, position in enumerate(self.positions):
            for option, name in enumerate(position.options):
                of_options[:, place, option] = self._cost(position, name)
        total = of_options[:, np.arange(len(self.choices)), digits].sum(-1)  # [2, N]
        return {"params": total[0] + besides.params, "macs": total[1] + besides.macs}

    def _cost(self, position: Position, name: str) -> Cost:
        each = [(cost(self.vocabulary[name], place), repeats) for place, repeats in position.places]
        return Cost(sum(c.params * n for c, n in each), sum(c.macs * n for c, n in each))

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """int64[n, D], uniform over the architectures."""
        if self.count < 2**63:
            return self._digits(rng.integers(self.count, size=n))
        return rng.integers(self.choices, size=(n, len(self.choices)))

    def _digits(self, rows: np.ndarray) -> np.ndarray:
        return np.stack(np.unravel_index(rows, self.choices), axis=1)  # [N, D]

    def _graphs(self, digits: np.ndarray) -> Graphs:
        n = len(digits)
        ops = np.tile(self._vertices, (n, 1))  # [N, V]
        ops[:, self._where] = self._op[np.arange(len(self.choices)), digits]
        return Graphs.from_numpy(ops, np.tile(self._adj, (n, 1, 1)), marks=np.tile(self._marks, (n, 1)))

    # Texts --------------------------------------------------------------------------------------------------

    def named(self, arch: Digits) -> dict[str, str]:
        """{position: operation}."""
        return {position.name: position.options[digit] for position, digit in zip(self.positions, arch)}

    def key(self, arch: Digits) -> str:
        """The notation of the file, with the operations in the places of their positions."""
        chosen = self.named(arch)
        return PLACEHOLDER.sub(lambda place: chosen[place[1]], self.document_read.notation)

    text = key

    def keys(self, archs: Sequence[Digits]) -> list[str]:
        return list(map(self.key, archs))

    def document(self, arch: Digits) -> dict:
        """What a program reads: {"space", "architecture", "operations": {position: operation}}."""
        return {"space": self.name, "architecture": self.text(arch), "operations": self.named(arch)}

    def parse(self, text: str) -> Digits:
        """Reads the notation, one digit per position (its place in the position's list), or JSON.

        JSON is {position: operation}, or has this under `operations`, like `document`.
        """
        text = text.strip()
        if text.startswith("{") and not self.document_read.notation.startswith("{{"):
            try:
                return self._from_json(text)
            except InputError:
                if not self._read.fullmatch(text):
                    raise
        if len(text) == len(self.choices) and set(text) <= set(DIGITS):
            digits = tuple(map(int, text))
            if all(digit < options for digit, options in zip(digits, self.choices)):
                return digits
        return self._read_key(text)

    def _from_json(self, text: str) -> Digits:
        content = parse_json(text, f"{text:.60}")
        named = content.get("operations", content)
        names = [position.name for position in self.positions]
        missing = next((name for name in names if not isinstance(named, dict) or name not in named), None)
        if missing or len(named) > len(self.positions):
            raise InputError(f"{text:.60}: give every position of {self.name} its operation, and nothing else"
                             + (f"; {missing} lacks one" if missing else ""))
        for position in self.positions:
            if named[position.name] not in position.options:
                raise InputError(f"{position.name} has no operation {named[position.name]!r:.40}: choose of "
                                 f"{', '.join(position.options)}")
        return tuple(position.options.index(named[position.name]) for position in self.positions)

    def _reader(self) -> re.Pattern:
        """The notation as a pattern, with one group per position."""
        options = {position.name: position.options for position in self.positions}
        parts = PLACEHOLDER.split(self.document_read.notation)  # text, name, text, name, ..., text
        self._order = [list(options).index(name) for name in parts[1::2]]
        pattern = "".join(
            "(" + "|".join(map(re.escape, sorted(options[part], key=len, reverse=True))) + ")" if i % 2
            else re.escape(part) for i, part in enumerate(parts))
        return re.compile(pattern)

    def _read_key(self, text: str) -> Digits:
        found = self._read.fullmatch(text)
        if not found:
            example = self.key((0,) * len(self.choices))
            raise InputError(f"{text:.60} is no architecture of {self.name}: write it like {example:.120}, "
                             f"or {len(self.choices)} digits, each the place of an operation in its list")
        digits = [0] * len(self.choices)
        for place, operation in zip(self._order, found.groups()):
            digits[place] = self.positions[place].options.index(operation)
        return tuple(digits)
