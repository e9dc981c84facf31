"""Draws an architecture of each space, and beside it the graph that the encoder reads.

    python -m figs.architectures --out figs/ARCH.png

Operations on nodes stay vertices (NAS-Bench-101); operations on edges become vertices (NAS-Bench-201, DARTS).
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase as LETTERS
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import spaces
from figs import style
from figs.draw_cell import Panel, look, smooth, vertex_panels
from figs.layered import layered
from figs.style import FAINT, INK, LOOKS, PAPER, tint, words
from runtime.errors import main_guard
from runtime.log import output
from runtime.settings import parse, setting
from spaces import darts, nasbench201

WIDTH, HEIGHT = 10.0, 8.2  # inches, like all lengths here
LEGEND, LOWER, UPPER = 0.5, 4.0, 3.7  # heights from bottom to top: legend, card of DARTS, cards above it
COLUMNS = (1.32, 3.72, 6.28, 8.68)  # middles of the four drawings of a row
COLUMN = 2.12  # width of a drawing
BELOW, ABOVE = 0.38, 1.26  # from a drawing to the lower and the upper edge of its card
POINTS, SMALL = 9.0, 7.5  # sizes of text: labels; letters in circles
BOX, RADIUS, BEAD = 0.26, 0.135, 0.095  # height of a box; radius of a vertex, of the letter on an edge
ON_EDGE = np.array([0.35, 0.44])  # place of a letter along an S-bend, before edges to the same node merge
DASHED = (0, (2, 1.5))
ENDS = {"input": "in", "input1": "in1", "input2": "in2", "output": "out"}  # letters of these vertices

CELL_101 = """{
    "matrix": [[0,1,1,0,0,0,1], [0,0,0,1,1,0,0], [0,0,0,0,1,0,0], [0,0,0,0,0,1,0], [0,0,0,0,0,1,0],
               [0,0,0,0,0,0,1], [0,0,0,0,0,0,0]],
    "ops": ["input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "conv3x3-bn-relu", "conv3x3-bn-relu",
            "output"]}"""
CELL_201 = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
CELL_DARTS = "GMAENAS_BO"


class Edge(NamedTuple):
    start: int
    end: int
    operation: str = ""
    letter: str = ""


class Architecture(NamedTuple):
    """An architecture in the usual drawing: nodes are boxes, an edge may have an operation."""

    nodes: Sequence[str]
    edges: Sequence[Edge]


class Column(NamedTuple):
    """A drawing and its heading. lettered: each vertex shows the letter of the edge that it stands for."""

    heading: str
    drawing: Architecture | Panel
    lettered: bool = True


# What is drawn ----------------------------------------------------------------------------------------------

def nasbench101_columns() -> list[Column]:
    space = spaces.get("nasbench101")
    (graph,) = vertex_panels(space, space.parse(CELL_101))
    architecture = Architecture(graph.boxes, [Edge(*ends) for ends in graph.arrows])
    return [Column("architecture", architecture), Column("graph", graph, lettered=False)]


def nasbench201_columns() -> list[Column]:
    space = spaces.get("nasbench201")
    arch = space.parse(CELL_201)
    operations = [nasbench201.OPERATIONS[digit] for digit in arch]
    edges = [Edge(*ends, *named) for ends, *named in zip(nasbench201.EDGES, operations, LETTERS)]
    architecture = Architecture(("input", "1", "2", "output"), edges)
    return [Column("architecture", architecture), Column("graph", *vertex_panels(space, arch))]


def darts_columns() -> list[Column]:
    space = spaces.get("darts")
    arch = space.parse(CELL_DARTS)
    graphs = vertex_panels(space, arch)
    return [Column("normal cell", darts_architecture(arch.normal)),
            Column("reduction cell", darts_architecture(arch.reduce)),
            *(Column(f"vertices with mark {mark}", graph) for mark, graph in enumerate(graphs))]


def darts_architecture(cell) -> Architecture:
    edges = [Edge(start, 2 + i // 2, operation, LETTERS[i]) for i, (operation, start) in enumerate(cell)]
    nodes = ("c(k−2)", "c(k−1)", *map(str, darts.NODES), "concat")
    return Architecture(nodes, edges + [Edge(node, 6) for node in darts.NODES])


# Drawing ----------------------------------------------------------------------------------------------------

def draw_architecture(axes, architecture: Architecture, area: tuple[float, float, float]) -> None:
    widths = [max(BOX, style.text_width(look(node)[0], POINTS) + 0.16) for node in architecture.nodes]
    centers, routes = place(widths, architecture.edges, area)
    for edge, route in zip(architecture.edges, routes):
        draw_edge(axes, edge, route, BOX / 2)
    for node, width, center in zip(architecture.nodes, widths, centers):
        label, fill, outline, ink = look(node)
        style.box(axes, center, (width, BOX), fill if node in LOOKS else PAPER, outline)
        words(axes, *center, label, POINTS, color=ink)


def draw_graph(axes, graph: Panel, lettered: bool, area: tuple[float, float, float]) -> None:
    edges = [Edge(*ends) for ends in graph.arrows]
    centers, routes = place([2 * RADIUS] * len(graph.boxes), edges, area)
    for edge, route in zip(edges, routes):
        draw_edge(axes, edge, route, RADIUS)
    letters = iter(LETTERS)
    for operation, center in zip(graph.boxes, centers):
        letter = ENDS.get(operation) or (next(letters) if lettered else "")
        draw_vertex(axes, center, RADIUS, operation, letter)


def place(widths: Sequence[float], edges: Sequence[Edge], area: tuple[float, float, float]) -> tuple:
    """Returns centres and routes of a layout, stretched to the area (middle, bottom, top)."""
    middle, bottom, top = area
    layout = layered(widths, 0.0, [(edge.start, edge.end) for edge in edges])
    scale = np.array([min(COLUMN / layout.size[0], 1.3), (top - bottom) / layout.size[1]])
    corner = np.array([middle - scale[0] * layout.size[0] / 2, bottom])
    return corner + scale * layout.center, [corner + scale * route for route in layout.routes]


def draw_edge(axes, edge: Edge, route: np.ndarray, reach: float) -> None:
    """Draws an edge and its letter. reach: from the middle of a node, where the route ends, to its rim."""
    route = route.copy()
    route[[0, -1], 1] += (-reach, reach)
    colour = LOOKS.get(edge.operation, ("", FAINT))[1]
    style.arrow(axes, colour, 0.75, 2, path=smooth(route), ls=DASHED if edge.operation == "none" else "-")
    if edge.letter:
        above, below = route[len(route) // 2 - 1:][:2]
        draw_vertex(axes, above + ON_EDGE * (below - above), BEAD, edge.operation, edge.letter)


def draw_vertex(axes, center, radius: float, operation: str, letter: str) -> None:
    fill, outline, line, ink = PAPER, INK, "-", INK
    if operation in LOOKS:
        outline, ink = LOOKS[operation][1], PAPER
        fill = tint(outline, 0.9)
    elif operation == "none":
        outline, line = FAINT, DASHED
    style.circle(axes, center, radius, fill, outline, line)
    words(axes, *center, letter, SMALL, weight="bold", color=ink)


def draw_card(axes, corner: tuple[float, float], size: tuple[float, float], title: str, note: str) -> None:
    (left, bottom), (width, height) = corner, size
    middle = (left + width / 2, bottom + height / 2)
    style.box(axes, middle, (width - 0.2, height - 0.2), "#f6f8fa", "#d0d7de", radius=0.12)
    words(axes, left + 0.3, bottom + height - 0.37, title, 13, weight="bold", ha="left")
    words(axes, left + 0.3, bottom + height - 0.64, note, POINTS, ha="left")


def draw_columns(axes, columns: Sequence[Column], places: Sequence[float], bottom: float, top: float) -> None:
    for (heading, drawing, lettered), middle in zip(columns, places):
        area = (middle, bottom + BELOW, top - ABOVE)
        words(axes, middle, top - 0.95, heading, POINTS, weight="bold")
        if isinstance(drawing, Architecture):
            draw_architecture(axes, drawing, area)
        else:
            draw_graph(axes, drawing, lettered, area)
    middle = np.mean(places)  # between architectures and graphs
    style.arrow(axes, INK, 1.2, 3, posA=(middle - 0.13, top - 0.95), posB=(middle + 0.13, top - 0.95))


def legend() -> Iterator[tuple[str, str]]:
    """Yields an operation and the labels of all operations that have its colour."""
    vocabulary = [op for name in ("nasbench101", "nasbench201", "darts") for op in spaces.get(name).ops]
    for colour in dict.fromkeys(LOOKS[op][1] for op in vocabulary if op in LOOKS):
        alike = [op for op in dict.fromkeys(vocabulary) if LOOKS.get(op, ("", ""))[1] == colour]
        yield alike[0], ", ".join(dict.fromkeys(LOOKS[op][0] for op in alike))
    yield "none", "none"


def draw_legend(axes) -> None:
    entries = list(legend())
    widths = [0.2 + style.text_width(text, POINTS) for _, text in entries]
    gap = (WIDTH - 0.8 - sum(widths)) / (len(entries) - 1)
    for (operation, text), left in zip(entries, np.cumsum([0.4, *(width + gap for width in widths)])):
        draw_vertex(axes, (left, LEGEND / 2), 0.09, operation, "")
        words(axes, left + 0.17, LEGEND / 2, text, POINTS, ha="left")


def figure() -> Figure:
    picture, axes = style.canvas(WIDTH, HEIGHT)
    low, half, middle = LEGEND, WIDTH / 2, LEGEND + LOWER
    draw_card(axes, (0, middle), (half, UPPER), "NAS-Bench-101",
              "operations on nodes: each node is a vertex")
    draw_columns(axes, nasbench101_columns(), COLUMNS[:2], middle, HEIGHT)
    draw_card(axes, (half, middle), (half, UPPER), "NAS-Bench-201",
              "operations on edges: each edge becomes a vertex")
    draw_columns(axes, nasbench201_columns(), COLUMNS[2:], middle, HEIGHT)
    draw_card(axes, (0, low), (WIDTH, LOWER), "DARTS, NAS-Bench-301",
              "operations on the edges of two cells: one graph of 22 vertices; marks tell the cells apart")
    draw_columns(axes, darts_columns(), COLUMNS, low, middle)
    draw_legend(axes)
    return picture


@dataclass
class Config:
    out: str = setting("figs/ARCH.png", "picture to write: .png, .svg or .pdf", role="output")


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    style.save(figure(), config.out, dpi=160)
    output.print(f"written: {config.out}", highlight=False)


if __name__ == "__main__":
    main_guard(main)
