"""Draw an architecture: operations as coloured boxes in rows, arrows for the tensors.

    python -m figs.draw_cell --space darts --arch DARTS_V2 --out cell.png

The suffix of the file (.png, .svg, .pdf) is its format. Graphviz draws where its program `dot` works, else matplotlib.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple

import graphviz
import numpy as np
from matplotlib.figure import Figure
from matplotlib.path import Path as Curve

import runtime
import spaces
from figs import style
from figs.layout import Layout, layered
from figs.style import FAINT, INK, OPERATIONS, PAPER, tint
from runtime import setting
from spaces import darts, nasbench201
from spaces.cache import atomic_write

POINTS = 10.0  # size of the labels
HEIGHT, PADDING = 0.3, 0.1  # inches: of a box, beside its label
MARGIN, TITLE = 0.2, 0.36  # inches: around a panel, above it
HEAD = 0.1  # inches that an arrow head takes
PALE = 0.35  # strength of what the output does not depend on


class Panel(NamedTuple):
    """One graph of a picture.

    boxes   an operation's name, or any other text for a plain box; the last one is the output
    arrows  (from, to) with from < to
    inputs  boxes; what lies on no path from one of them to the output is drawn pale
    """

    title: str
    boxes: list[str]
    arrows: list[tuple[int, int]]
    inputs: list[int]


# What is drawn --------------------------------------------------------------------------------------------------------

def vertex_panels(space, arch) -> list[Panel]:
    """Any space, as the encoder sees it: one panel a cell, a box a vertex."""
    graphs = space.encode([arch])
    n = int(graphs.n[0])
    ops, adj, marks = (field[0].numpy() for field in (graphs.ops, graphs.adj, graphs.marks))
    panels = []
    for mark in np.unique(marks[:n]):
        vertices = np.flatnonzero(marks[:n] == mark)  # [v]
        inner = adj[np.ix_(vertices, vertices)]  # [v, v]
        arrows = [(u, v) for u, v in np.argwhere(inner).tolist()]
        sources = np.flatnonzero(inner.sum(0) == 0).tolist()
        panels.append(Panel("", [space.ops[op] for op in ops[vertices]], arrows, sources))
    return panels


def nasbench201_panels(space, arch) -> list[Panel]:
    """The four nodes, and between them the operations other than none."""
    operations = [nasbench201.OPERATIONS[digit] for digit in arch]
    edges = [(*ends, operation) for ends, operation in zip(nasbench201.EDGES, operations) if operation != "none"]
    return [between(["input", "node 1", "node 2", "output"], edges, 1, "")]


def darts_panels(space, arch) -> list[Panel]:
    """Normal and reduction cell: two inputs, nodes 2..5, the concatenation of the nodes."""
    nodes = ["c(k−2)", "c(k−1)", *map(str, darts.NODES), "concat"]
    panels = []
    for title, cell in (("normal cell", arch.normal), ("reduction cell", arch.reduce)):
        edges = [(start, 2 + i // 2, operation) for i, (operation, start) in enumerate(cell)]
        edges += [(node, 6, "") for node in darts.NODES]
        panels.append(between(nodes, edges, 2, title))
    return panels


def between(nodes: list[str], edges: list[tuple[int, int, str]], inputs: int, title: str) -> Panel:
    """Nodes, the first of them inputs, joined by edges (from, to, operation).

    An operation becomes a box between the nodes; where it is "" the edge is a mere arrow.
    """
    boxes, arrows, place = [], [], []
    for node, label in enumerate(nodes):
        ready = []
        for start, end, operation in edges:
            if end == node and operation:
                arrows.append((place[start], len(boxes)))
                ready.append(len(boxes))
                boxes.append(operation)
            elif end == node:
                ready.append(place[start])
        place.append(len(boxes))
        boxes.append(label)
        arrows += [(box, place[node]) for box in ready]
    return Panel(title, boxes, arrows, place[:inputs])


PANELS: dict[str, Callable] = {  # a space that is not here is drawn by its vertices
    "nasbench201": nasbench201_panels, "darts": darts_panels, "nasbench301": darts_panels,
}


def draw(space, arch, path: str | Path, chosen: slice = slice(None)) -> None:
    """Draw an architecture of the space into the file, atomically. InputError for a suffix of no picture.

    chosen: which of its cells; all by default.
    """
    path = Path(path).expanduser()
    kind = style.format_of(path)
    panels = PANELS.get(space.name, vertex_panels)(space, arch)[chosen]
    try:
        picture = dot_source(panels).pipe(format=kind, quiet=True)
        atomic_write(path, lambda file: file.write(picture))
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        style.save(matplotlib_figure(panels), path)


def alive(panel: Panel) -> set[int]:
    """The inputs, the output, and every box on a path between."""
    fed, feeding = set(panel.inputs), {len(panel.boxes) - 1}
    for u, v in sorted(panel.arrows):
        if u in fed:
            fed.add(v)
    for u, v in sorted(panel.arrows, reverse=True):
        if v in feeding:
            feeding.add(u)
    return fed & feeding | {*panel.inputs, len(panel.boxes) - 1}


def look(box: str, living: bool = True) -> tuple[str, str, str, str]:
    """Label, fill, outline and ink of a box."""
    label, colour = OPERATIONS.get(box, (box, FAINT))
    if not living:
        return label, PAPER, tint(colour, PALE), tint(INK, PALE)
    return label, tint(colour, 0.2 if box in OPERATIONS else 0.14), colour, INK


# matplotlib -----------------------------------------------------------------------------------------------------------

def matplotlib_figure(panels: list[Panel]) -> Figure:
    """The panels side by side, as large as they need."""
    layouts = [layered([(box_width(box), HEIGHT) for box in panel.boxes], panel.arrows) for panel in panels]
    title = TITLE if any(panel.title for panel in panels) else 0
    widths = [layout.size[0] + 2 * MARGIN for layout in layouts]
    height = max(layout.size[1] for layout in layouts) + 2 * MARGIN + title
    figure, axes = style.canvas(sum(widths), height)
    for panel, layout, left in zip(panels, layouts, np.cumsum([0, *widths])):
        corner = np.array([left + MARGIN, height - title - MARGIN - layout.size[1]])
        draw_panel(axes, panel, layout, corner)
        middle = left + MARGIN + layout.size[0] / 2
        style.words(axes, middle, height - MARGIN, panel.title, POINTS + 2, weight="bold", va="top")
    return figure


def box_width(box: str) -> float:
    return max(HEIGHT, style.text_width(look(box)[0], POINTS) + 2 * PADDING)


def draw_panel(axes, panel: Panel, layout: Layout, corner: np.ndarray) -> None:
    living = alive(panel)
    for (u, v), route in zip(panel.arrows, layout.routes):
        ink, zorder = (INK, 1) if {u, v} <= living else (tint(INK, PALE), 0)
        style.arrow(axes, ink, 0.75, zorder, path=smooth(route + corner))
    for v, (box, center) in enumerate(zip(panel.boxes, layout.center + corner)):
        label, fill, outline, ink = look(box, v in living)
        style.box(axes, center, (box_width(box), HEIGHT), fill, outline)
        style.words(axes, *center, label, POINTS, color=ink)


def smooth(route: np.ndarray) -> Curve:
    """A curve through the points [2r, 2] of a route: S-bends between rows, straight through them and at the head."""
    stops = route.copy()
    stops[-1, 1] += HEAD
    points, codes = [route[0]], [Curve.MOVETO]
    for start, end in zip(stops[:-1], stops[1:]):
        bend = np.array([0, 0.6 * (end[1] - start[1])])
        points += [start + bend, end - bend, end]
        codes += [Curve.CURVE4] * 3
    return Curve([*points, route[-1]], [*codes, Curve.LINETO])


# Graphviz -------------------------------------------------------------------------------------------------------------

def dot_source(panels: list[Panel]) -> graphviz.Digraph:
    """The same picture for `dot`: same labels, colours and panels."""
    font = {"fontname": "DejaVu Sans"}
    picture = graphviz.Digraph(
        graph_attr={**font, "nodesep": "0.22", "ranksep": "0.35", "dpi": "200"},
        node_attr={**font, "fontsize": str(POINTS), "shape": "box", "style": "rounded,filled", "margin": "0.1,0.04",
                   "width": str(HEIGHT), "height": str(HEIGHT)},
        edge_attr={"arrowsize": "0.6", "penwidth": "1.1"})
    for p, panel in enumerate(panels):
        living = alive(panel)
        with picture.subgraph(name=f"cluster_{p}", graph_attr={"label": panel.title, "penwidth": "0"}) as cluster:
            for v, box in enumerate(panel.boxes):
                label, fill, outline, ink = look(box, v in living)
                cluster.node(f"{p}_{v}", label, fillcolor=fill, color=outline, fontcolor=ink)
            for u, v in panel.arrows:
                cluster.edge(f"{p}_{u}", f"{p}_{v}", color=INK if {u, v} <= living else tint(INK, PALE))
    return picture


# The script -----------------------------------------------------------------------------------------------------------

@dataclass
class Config:
    space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    arch: str = setting("", "architecture in the notation of the space, its key, or a name like DARTS_V2")
    out: str = setting("cell.png", "picture to write: .png, .svg or .pdf")


def main(argv: list[str] | None = None) -> None:
    config = runtime.parse(Config, argv, __doc__)
    space = spaces.get(config.space)
    draw(space, space.parse(config.arch), config.out)
    runtime.output.print(f"written: {config.out}", highlight=False)


if __name__ == "__main__":
    runtime.main_guard(main)
