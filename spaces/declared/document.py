"""Reads and checks the JSON that declares a space; docs/spaces.md describes it.

    document = parse_document(text, where="my_space.json")
    document.cells["cell"].edges        # ((0, 1), ...): from vertex to vertex; 0 is the input

Every fault raises InputError with the line and the key.
"""
from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from runtime.errors import InputError
from runtime.guarded import need_shallow, reason
from spaces.labels.protocols import RANKING_PROTOCOLS
from spaces.operations import Description, Place, read

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")  # of an operation: no sign that separates two
POSITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.>-]{0,39}")  # of a position, `0->1` too
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
MOST_VERTICES, MOST_CELLS = 64, 2  # the marks of vertices tell two cells apart
Size = Annotated[int, Meta(ge=1, le=10**6)]
Pair = Annotated[list[str], Meta(min_length=2, max_length=2)]


class Stage(msgspec.Struct, forbid_unknown_fields=True):
    """`repeats` copies of a cell one after the other, each position with this many channels and pixels."""

    channels: Size
    pixels: Size
    repeats: Size = 1


class PositionEntry(msgspec.Struct, forbid_unknown_fields=True):
    """A position as written; channels: of its output, or [of its input, of its output]."""

    operations: list[str] | None = None
    channels: Size | Annotated[list[Size], Meta(min_length=2, max_length=2)] | None = None
    pixels: Size | None = None
    stride: Annotated[int, Meta(ge=1, le=64)] = 1


class CellEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One cell as written."""

    positions: list[str] | dict[str, Any]
    wiring: str | list[Pair] = "chain"
    inputs: Annotated[list[str], Meta(min_length=1, max_length=2)] | None = None
    stages: list[Stage] = []


class Besides(msgspec.Struct, forbid_unknown_fields=True):
    """Costs of what is not searched: stem, head, reductions."""

    params: Annotated[float, Meta(ge=0, le=1e15)] = 0
    macs: Annotated[float, Meta(ge=0, le=1e15)] = 0


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file as written."""

    name: str
    operations: list[str] | dict[str, Any]
    about: str = ""
    positions: list[str] | dict[str, Any] | None = None
    wiring: str | list[Pair] = "chain"
    inputs: Annotated[list[str], Meta(min_length=1, max_length=2)] | None = None
    stages: list[Stage] = []
    cells: dict[str, Any] | None = None
    besides: Besides = msgspec.field(default_factory=Besides)
    notation: str = ""
    protocol: str = "val-test"
    labels: str = ""


class Position(NamedTuple):
    """A place for one operation. places: where it stands in the network, and how often; empty if unknown."""

    name: str
    options: tuple[str, ...]
    places: tuple[tuple[Place, int], ...]


class Cell(NamedTuple):
    """One cell. Its vertices are the inputs, the positions and the output, in this order."""

    inputs: tuple[str, ...]
    positions: tuple[Position, ...]
    edges: tuple[tuple[int, int], ...]


class Document(NamedTuple):
    """A declaration that has passed all checks."""

    name: str
    operations: dict[str, Description]
    cells: tuple[Cell, ...]
    besides: Besides
    notation: str
    protocol: str
    labels: str

    @property
    def positions(self) -> list[Position]:
        return [position for cell in self.cells for position in cell.positions]


class Source:
    """The text of the file, which finds the line of a fault."""

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where

    def fault(self, keys: tuple[str, ...], what: str) -> InputError:
        """The error of the entry under these keys, each within the one before."""
        line = 1 + self.text.count("\n", 0, self.place(keys))
        return InputError(f"{self.where}:{line}: {'.'.join(keys) or 'the file'}: {what}")

    def place(self, keys: tuple[str, ...]) -> int:
        """Where the last of the keys that can be found stands: as a key, else as a value."""
        place = 0
        for key in keys:
            quoted = re.escape(json.dumps(key, ensure_ascii=False))
            found = re.compile(quoted + r"\s*:").search(self.text, place) or re.compile(quoted).search(
                self.text, place)
            place = found.start() if found else place
        return place

    def convert(self, value: Any, kind: type, keys: tuple[str, ...]) -> Any:
        """The value as `kind`; raises the fault of its entry."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            said = reason(error)
            inner = re.search(r"unknown field '([^']*)'|at '\$\.(\w+)|^(\w+)(?:\.|\[)?.* must be ", said)
            key = next(filter(None, inner.groups()), None) if inner else None
            said = re.sub(r" - at '\$[^']*'$", "", said).replace("unexpected field", "unknown key")
            raise self.fault((*keys, key) if key else keys, said[:1].lower() + said[1:]) from None


def parse_document(text: str, where: str) -> Document:
    """Reads a declaration; raises InputError with the line and the key of its first fault."""
    source = Source(text, where)
    entry = source.convert(parsed(source), Entry, ())
    if not NAME.fullmatch(entry.name):
        raise source.fault(("name",), f"{entry.name!r:.60}: use letters, digits and _ . + -")
    if entry.protocol not in RANKING_PROTOCOLS:
        raise source.fault(("protocol",), f"must be one of {', '.join(RANKING_PROTOCOLS)}")
    operations = read_operations(entry, source)
    cells = tuple(read_cell(cell, keys, operations, source) for keys, cell in cell_entries(entry, source))
    names = [position.name for cell in cells for position in cell.positions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise source.fault((twice,), "two positions have this name: every position needs its own")
    if sum(len(position.options) > 1 for cell in cells for position in cell.positions) == 0:
        raise source.fault(("positions",), "no position has a choice: give one of them two operations")
    vertices = len(names) + sum(len(cell.inputs) + 1 for cell in cells)
    if vertices > MOST_VERTICES:
        raise source.fault(("positions",), f"{vertices} vertices with inputs and outputs: at most "
                                           f"{MOST_VERTICES} fit in a graph")
    notation = entry.notation or ",".join(f"{{{name}}}" for name in names)
    if sorted(PLACEHOLDER.findall(notation)) != sorted(names):
        raise source.fault(("notation",), "must name every position once, in braces, like "
                                          f"{','.join(f'{{{name}}}' for name in names[:3])}")
    if not notation.isprintable():
        raise source.fault(("notation",), "must be one line")
    used = {option for cell in cells for position in cell.positions for option in position.options}
    spare = next((name for name in operations if name not in used), None)
    if spare:
        raise source.fault(("operations", spare), "no position has it: leave it out")
    return Document(entry.name, operations, cells, entry.besides, notation, entry.protocol, entry.labels)


def parsed(source: Source) -> Any:
    """The JSON of the file; a key that stands twice in one object is a fault, not a silent loss."""
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise source.fault((twice,), "the key stands twice")
        return dict(found)

    need_shallow(source.text, source.where)
    try:
        return json.loads(source.text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source.where}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source.where}: not JSON ({error})") from None


def read_operations(entry: Entry, source: Source) -> dict[str, Description]:
    """{name: description}, of a list of known names or of a dict with descriptions."""
    given = entry.operations
    listed = {name: name for name in given} if isinstance(given, list) else given
    if len(listed) < len(given):
        raise source.fault(("operations",), "an operation stands twice")
    operations = {}
    for name, what in listed.items():
        keys = ("operations", name)
        if not NAME.fullmatch(name) or name == "output" or name.startswith("input"):
            raise source.fault(keys, "use letters, digits and _ . + - in a name that is not input or output")
        try:
            operations[name] = read(what, "")
        except InputError as error:
            said = str(error).removeprefix(": ").strip()
            named = re.match(r"(\w+) must|.*unknown field '(\w+)'", said)
            inner = next(filter(None, named.groups()), None) if named else None
            raise source.fault((*keys, inner) if inner and isinstance(what, dict) and inner in what else keys,
                               said) from None
        if operations[name]["is"] in ("input", "output"):
            raise source.fault(keys, "inputs and outputs are no operations to choose")
    if not 1 <= len(operations) <= MOST_VERTICES:
        raise source.fault(("operations",), f"{len(operations)} operations: give 1..{MOST_VERTICES}")
    return operations


def cell_entries(entry: Entry, source: Source) -> list[tuple[tuple[str, ...], CellEntry]]:
    """The keys and the entry of every cell; a file without `cells` is one cell itself."""
    if entry.cells is None:
        if entry.positions is None:
            raise source.fault((), "it lacks positions")
        return [((), CellEntry(entry.positions, entry.wiring, entry.inputs, entry.stages))]
    if entry.positions is not None:
        raise source.fault(("positions",), "belongs into the cells, as there are some")
    if not 1 <= len(entry.cells) <= MOST_CELLS:
        raise source.fault(("cells",), f"{len(entry.cells)} cells: give 1 or 2")
    return [(("cells", name), source.convert(cell, CellEntry, ("cells", name)))
            for name, cell in entry.cells.items()]


def read_cell(
    cell: CellEntry, keys: tuple[str, ...], operations: dict[str, Description], source: Source
) -> Cell:
    listed = {name: {} for name in cell.positions} if isinstance(cell.positions, list) else cell.positions
    if len(listed) < len(cell.positions):
        raise source.fault((*keys, "positions"), "a position stands twice")
    if not listed:
        raise source.fault((*keys, "positions"), "there is none")
    inputs = tuple(cell.inputs or ["input"])
    positions = []
    for name, content in listed.items():
        place = (*keys, "positions", name)
        if not POSITION.fullmatch(name) or name in (*inputs, "output"):
            raise source.fault(place, "use letters, digits and _ . - > in a name that is no input or output")
        positions.append(read_position(name, content, cell, operations, (source, place)))
    vertices = (*inputs, *listed, "output")
    edges = read_wiring(cell.wiring, vertices, len(inputs), (source, (*keys, "wiring")))
    return Cell(inputs, tuple(positions), edges)


def read_position(name: str, content: Any, cell: CellEntry, operations: dict[str, Description],
                  at: tuple[Source, tuple[str, ...]]) -> Position:
    source, keys = at
    entry = source.convert({"operations": content} if isinstance(content, list) else content,
                           PositionEntry, keys)
    options = tuple(operations if entry.operations is None else entry.operations)
    for option in options:
        if option not in operations:
            raise source.fault(
                (*keys, option), f"no operation {option!r:.60}: choose of {', '.join(operations)}")
    if not options or len(set(options)) < len(options):
        raise source.fault((*keys, "operations"), "give at least one operation, each once")
    if entry.channels is None and entry.pixels is None:
        return Position(name, options, tuple(
            (Place(stage.channels, stage.channels, stage.pixels, entry.stride), stage.repeats)
            for stage in cell.stages))
    if cell.stages or entry.channels is None or entry.pixels is None:
        raise source.fault(keys, "give channels and pixels both, or stages for all positions")
    into, out = entry.channels if isinstance(entry.channels, list) else (entry.channels, entry.channels)
    return Position(name, options, ((Place(into, out, entry.pixels, entry.stride), 1),))


def read_wiring(wiring: str | list[list[str]], vertices: tuple[str, ...], inputs: int,
                at: tuple[Source, tuple[str, ...]]) -> tuple[tuple[int, int], ...]:
    """The edges as pairs of vertices: `chain`, `edges` (positions named FROM->TO), or a list of pairs."""
    source, keys = at
    last = len(vertices) - 1
    if wiring == "chain":
        edges = [*((i, inputs) for i in range(inputs)), *((i, i + 1) for i in range(inputs, last))]
    elif wiring == "edges":
        edges = joined(vertices, inputs, at)
    elif isinstance(wiring, str):
        raise source.fault(keys, f"{wiring!r:.40}: give chain, edges, or a list of pairs of names")
    else:
        for pair in wiring:
            unknown = next((name for name in pair if name not in vertices), None)
            if unknown is not None:
                raise source.fault(
                    (*keys, unknown), f"no vertex {unknown!r:.60}: choose of {', '.join(vertices)}")
        edges = [(vertices.index(start), vertices.index(end)) for start, end in wiring]
    for start, end in edges:
        if start >= end or end < inputs:
            raise source.fault(keys, f"{vertices[start]} -> {vertices[end]}: an edge leads from an earlier "
                                     "to a later position: change their order")
    for vertex, name in enumerate(vertices):
        fed, feeding = any(end == vertex for _, end in edges), any(start == vertex for start, _ in edges)
        if vertex >= inputs and not fed or vertex < last and not feeding:
            lacks = "feeds nothing" if fed or vertex < inputs else "is fed by nothing"
            raise source.fault(keys, f"{name} {lacks}: give it an edge")
    return tuple(sorted(set(edges)))


def joined(
    vertices: tuple[str, ...], inputs: int, at: tuple[Source, tuple[str, ...]]
) -> list[tuple[int, int]]:
    """Positions as edges between nodes: one feeds all that start where it ends.

    The inputs are the first nodes in the order of their names' appearance, the last new node is the output.
    """
    source, keys = at
    ends = {}
    for vertex, name in enumerate(vertices[inputs:-1], inputs):
        start, arrow, end = name.partition("->")
        if not (arrow and start and end):
            raise source.fault(keys, f"position {name!r:.40} names no edge: write FROM->TO, like 0->1")
        ends[vertex] = (start, end)
    nodes = list(dict.fromkeys(node for pair in ends.values() for node in pair))
    entered = {end for _, end in ends.values()}
    sources = [node for node in nodes if node not in entered]
    sinks = [node for node in nodes if node not in {start for start, _ in ends.values()}]
    if len(sources) != inputs or len(sinks) != 1:
        raise source.fault(keys, f"nodes without an edge to them: {', '.join(sources)}, from them: "
                                 f"{', '.join(sinks)}: there must be {inputs} and 1")
    edges = [(i, vertex) for vertex, (start, _) in ends.items()
             for i, node in enumerate(sources) if start == node]
    edges += [(a, b) for a, (_, end) in ends.items() for b, (start, _) in ends.items() if end == start]
    return edges + [(vertex, len(vertices) - 1) for vertex, (_, end) in ends.items() if end == sinks[0]]
