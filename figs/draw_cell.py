"""Draws an architecture: operations as coloured boxes in rows, arrows for the tensors.

    python -m figs.draw_cell --space darts --arch DARTS_V2 --out cell.png

The suffix of the file (.png, .svg, .pdf) is its format. Graphviz draws the picture if its program `dot`
works, else matplotlib.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import graphviz
import numpy as np
from matplotlib import path as mpath
from matplotlib.figure import Figure

import spaces
from figs import style
from figs.layered import Layout, layered
from figs.style import FAINT, INK, LOOKS, PAPER, tint
from runtime.errors import main_guard
from runtime.files import atomic_write, path_of
from runtime.log import output
from runtime.settings import parse, setting
from spaces import darts, nasbench201

POINTS = 10.0  # size of the labels
HEIGHT, PADDING = 0.3, 0.1  # inches: of a box, beside its label
MARGIN, TITLE = 0.2, 0.36  # inches: around a panel, above it
HEAD = 0.1  # inches: length of an arrow head
PALE = 0.35  # strength of the colours of boxes and arrows that the output does not depend on


class Panel(NamedTuple):
    """One graph of a picture.

    boxes   names of operations, or any other text for a plain box; the last box is the output
    arrows  (from, to) with from < to
    inputs  boxes; anything on no path from one of them to the output is drawn pale
    """

    title: str
    boxes: list[str]
    arrows: list[tuple[int, int]]
    inputs: list[int]


# Panels -----------------------------------------------------------------------------------------------------

def vertex_panels(space, arch) -> list[Panel]:
    """Returns the graph that the encoder reads, of any space: one panel per cell, one box per vertex."""
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
    """Returns the four nodes, joined by the operations other than none."""
    edges = [(u, v, nasbench201.OPERATIONS[digit]) for (u, v), digit in zip(nasbench201.EDGES, arch)]
    edges = [edge for edge in edges if edge[-1] != "none"]
    return [between(["input", "node 1", "node 2", "output"], edges, 1, "")]


def darts_panels(space, arch) -> list[Panel]:
    """Returns the normal and the reduction cell: two inputs, nodes 2..5, the concatenation of the nodes."""
    nodes = ["c(k−2)", "c(k−1)", *map(str, darts.NODES), "concat"]
    panels = []
    for title, cell in (("normal cell", arch.normal), ("reduction cell", arch.reduce)):
        edges = [(start, 2 + i // 2, operation) for i, (operation, start) in enumerate(cell)]
        edges += [(node, 6, "") for node in darts.NODES]
        panels.append(between(nodes, edges, 2, title))
    return panels


def between(nodes: list[str], edges: list[tuple[int, int, str]], inputs: int, title: str) -> Panel:
    """Returns a panel of nodes joined by edges (from, to, operation); the first `inputs` nodes are inputs.

    An operation becomes a box between its nodes; an edge whose operation is "" is a plain arrow.
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


PANELS: dict[str, Callable] = {  # any other space is drawn by vertex_panels
    "nasbench201": nasbench201_panels, "darts": darts_panels, "nasbench301": darts_panels}


def draw(space, arch, path: str | Path, chosen: slice = slice(None)) -> None:
    """Writes the picture of an architecture, atomically. Raises InputError for an unknown suffix.

    chosen: which of its cells; all by default.
    """
    path = path_of(path)
    kind = style.format_of(path)
    panels = PANELS.get(space.name, vertex_panels)(space, arch)[chosen]
    try:
        picture = dot_source(panels).pipe(format=kind, quiet=True)
        atomic_write(path, lambda file: file.write(picture))
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        style.save(matplotlib_figure(panels), path)


def alive(panel: Panel) -> set[int]:
    """Returns the inputs, the output, and every box on a path between."""
    fed, feeding = set(panel.inputs), {len(panel.boxes) - 1}
    for u, v in sorted(panel.arrows):
        if u in fed:
            fed.add(v)
    for u, v in sorted(panel.arrows, reverse=True):
        if v in feeding:
            feeding.add(u)
    return fed & feeding | {*panel.inputs, len(panel.boxes) - 1}


def look(box: str, living: bool = True) -> tuple[str, str, str, str]:
    """Returns label, fill, outline and ink of a box."""
    label, colour = LOOKS.get(box, (box, FAINT))
    if not living:
        return label, PAPER, tint(colour, PALE), tint(INK, PALE)
    return label, tint(colour, 0.2 if box in LOOKS else 0.14), colour, INK


# matplotlib -------------------------------------------------------------------------------------------------

def matplotlib_figure(panels: list[Panel]) -> Figure:
    """Draws the panels side by side, each at its natural size."""
    layouts = [layered([box_width(box) for box in panel.boxes], HEIGHT, panel.arrows) for panel in panels]
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


def smooth(route: np.ndarray) -> mpath.Path:
    """Returns a curve along the points [2r, 2] of a route: S-bends between rows, straight within a row."""
    stops = route.copy()
    stops[-1, 1] += HEAD
    points, codes = [route[0]], [mpath.Path.MOVETO]
    for start, end in pairwise(stops):
        bend = np.array([0, 0.6 * (end[1] - start[1])])
        points += [start + bend, end - bend, end]
        codes += [mpath.Path.CURVE4] * 3
    return mpath.Path([*points, route[-1]], [*codes, mpath.Path.LINETO])


# Graphviz ---------------------------------------------------------------------------------------------------

def dot_source(panels: list[Panel]) -> graphviz.Digraph:
    """Returns the picture for `dot`, with the labels, colours and panels of `matplotlib_figure`."""
    picture = graphviz.Digraph(
        graph_attr={"fontname": "DejaVu Sans Bold", "fontsize": str(POINTS + 2), "fontcolor": INK,
                    "nodesep": "0.22", "ranksep": "0.35", "dpi": "200"},
        node_attr={"fontname": "DejaVu Sans", "fontsize": str(POINTS), "shape": "box", "margin": "0.1,0.04",
                   "style": "rounded,filled", "width": str(HEIGHT), "height": str(HEIGHT)},
        edge_attr={"arrowsize": "0.6", "penwidth": "1.1"})
    for p, panel in enumerate(panels):
        living = alive(panel)
        frame = {"label": panel.title, "penwidth": "0"}
        with picture.subgraph(name=f"cluster_{p}", graph_attr=frame) as cluster:
            for v, box in enumerate(panel.boxes):
                label, fill, outline, ink = look(box, v in living)
                cluster.node(f"{p}_{v}", label, fillcolor=fill, color=outline, fontcolor=ink)
            for u, v in panel.arrows:
                cluster.edge(f"{p}_{u}", f"{p}_{v}", color=INK if {u, v} <= living else tint(INK, PALE))
    return picture


# The script -------------------------------------------------------------------------------------------------

@dataclass
class Config:
    space: str = setting("nasbench201", spaces.HELP, role="data")
    arch: str = setting(
        "", "architecture in the notation of the space, its key, or a name like DARTS_V2", role="data")
    out: str = setting("cell.png", "picture to write: .png, .svg or .pdf", role="output")


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    space = spaces.get(config.space)
    draw(space, space.parse(config.arch), config.out)
    output.print(f"written: {config.out}", highlight=False)


if __name__ == "__main__":
    main_guard(main)
