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
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

import runtime
import spaces
from figs.layout import Layout, layered
from figs.style import FAINT, INK, OPERATIONS, PAPER, text_width, tint
from runtime import setting
from spaces import InputError, darts, nasbench201
from spaces.cache import atomic_write

POINTS = 10.0  # size of the labels
HEIGHT, PADDING, MARGIN, TITLE, HEAD = 0.3, 0.1, 0.2, 0.36, 0.1  # inches: box, beside its label, around a panel, above it, arrow head
FORMATS = (".png", ".svg", ".pdf")


class Panel(NamedTuple):
    """One graph of a picture. boxes: an operation's name, or any other text for a plain box; arrows (from, to), from < to.

    The last box is the output. What lies on no path from one of the boxes `inputs` to it is drawn pale.
    """

    title: str
    boxes: list[str]
    arrows: list[tuple[int, int]]
    inputs: list[int]


# What is drawn --------------------------------------------------------------------------------------------------------

def vertex_panels(space, arch) -> list[Panel]:
    """Any space, as the encoder sees it: one panel a cell, a box a vertex."""
    graphs = space.encode([arch])
    ops, adj, marks = graphs.ops[0].numpy(), graphs.adj[0].numpy(), graphs.marks[0].numpy()
    panels = []
    for mark in np.unique(marks[:graphs.n[0]]):
        cell = np.flatnonzero(marks[:graphs.n[0]] == mark)
        inner = adj[np.ix_(cell, cell)]  # [v, v]
        arrows = [(u, v) for u, v in np.argwhere(inner).tolist()]
        panels.append(Panel("", [space.ops[op] for op in ops[cell]], arrows, np.flatnonzero(inner.sum(0) == 0).tolist()))
    return panels


def nasbench201_panels(space, arch) -> list[Panel]:
    """The four nodes, and between them the operations other than none."""
    edges = [(start, end, nasbench201.OPERATIONS[digit]) for (start, end), digit in zip(nasbench201.EDGES, arch)]
    return [operations_between(["input", "node 1", "node 2", "output"], [e for e in edges if e[2] != "none"], 1, "")]


def darts_panels(space, arch) -> list[Panel]:
    """Normal and reduction cell: two inputs, nodes 2..5, the concatenation of the nodes."""
    nodes = ["c(k−2)", "c(k−1)", *map(str, darts.NODES), "concat"]
    panels = []
    for title, cell in (("normal cell", arch.normal), ("reduction cell", arch.reduce)):
        edges = [(start, 2 + i // 2, operation) for i, (operation, start) in enumerate(cell)]
        edges += [(node, 6, "") for node in darts.NODES]
        panels.append(operations_between(nodes, edges, 2, title))
    return panels


def operations_between(nodes: list[str], edges: list[tuple[int, int, str]], inputs: int, title: str) -> Panel:
    """Nodes, the first of them inputs, joined by edges (from, to, operation): a box before the node entered, or where "" a mere arrow."""
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


def draw(space, arch, path: str | Path) -> None:
    """Draw an architecture of the space into the file, atomically. InputError for a suffix that is none of FORMATS."""
    path = Path(path).expanduser()
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: the picture's name must end in {', '.join(FORMATS)}")
    panels, kind = PANELS.get(space.name, vertex_panels)(space, arch), path.suffix[1:]
    try:
        picture = dot_source(panels).pipe(format=kind, quiet=True)
        atomic_write(path, lambda file: file.write(picture))
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        figure = matplotlib_figure(panels)
        atomic_write(path, lambda file: figure.savefig(file, format=kind, dpi=200))


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


def look(box: str, living: bool) -> tuple[str, str, str, str]:
    """Label, fill, outline and ink of a box."""
    label, colour = OPERATIONS.get(box, (box, None))
    if not living:
        return label, PAPER, tint(colour or FAINT, 0.35), tint(INK, 0.35)
    return (label, tint(colour, 0.2), colour, INK) if colour else (label, "#eef0f2", FAINT, INK)


# matplotlib -----------------------------------------------------------------------------------------------------------

def matplotlib_figure(panels: list[Panel]) -> Figure:
    """The panels side by side, in inches, as large as they need."""
    layouts = [layered([(box_width(box), HEIGHT) for box in panel.boxes], panel.arrows) for panel in panels]
    title = TITLE if any(panel.title for panel in panels) else 0
    widths = [layout.size[0] + 2 * MARGIN for layout in layouts]
    height = max(layout.size[1] for layout in layouts) + 2 * MARGIN + title
    figure = Figure(figsize=(sum(widths), height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, sum(widths)), ylim=(0, height))
    axes.axis("off")
    for panel, layout, left in zip(panels, layouts, np.cumsum([0, *widths])):
        corner = np.array([left + MARGIN, height - title - MARGIN - layout.size[1]])
        draw_panel(axes, panel, layout, corner)
        axes.text(left + MARGIN + layout.size[0] / 2, height - MARGIN, panel.title, size=POINTS + 2, weight="bold", color=INK,
                  ha="center", va="top")
    return figure


def box_width(box: str) -> float:
    return max(HEIGHT, text_width(look(box, True)[0], POINTS) + 2 * PADDING)


def draw_panel(axes, panel: Panel, layout: Layout, corner: np.ndarray) -> None:
    living = alive(panel)
    for (u, v), route in zip(panel.arrows, layout.routes):
        vivid = {u, v} <= living
        axes.add_patch(FancyArrowPatch(path=smooth(route + corner), arrowstyle="-|>", mutation_scale=9, lw=1.1, shrinkA=0, shrinkB=0,
                                       color=INK if vivid else tint(INK, 0.35), joinstyle="miter", zorder=1 if vivid else 0))
    for v, (box, center) in enumerate(zip(panel.boxes, layout.center + corner)):
        label, fill, outline, ink = look(box, v in living)
        width = box_width(box)
        axes.add_patch(FancyBboxPatch(center - (width / 2, HEIGHT / 2), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08",
                                      facecolor=fill, edgecolor=outline, lw=1.2, zorder=2))
        axes.text(*center, label, size=POINTS, color=ink, ha="center", va="center_baseline", zorder=3)


def smooth(route: np.ndarray) -> Curve:
    """A curve through the points [2r, 2] of a route: S-bends between rows, straight through the rows and under the arrow head."""
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
    picture = graphviz.Digraph(graph_attr={"nodesep": "0.22", "ranksep": "0.35", "dpi": "200", "fontname": "DejaVu Sans"},
                               node_attr={"shape": "box", "style": "rounded,filled", "fontname": "DejaVu Sans", "fontsize": str(POINTS),
                                          "height": str(HEIGHT), "width": str(HEIGHT), "margin": "0.1,0.04"},
                               edge_attr={"arrowsize": "0.6", "penwidth": "1.1"})
    for p, panel in enumerate(panels):
        living = alive(panel)
        with picture.subgraph(name=f"cluster_{p}", graph_attr={"label": panel.title, "penwidth": "0"}) as cluster:
            for v, box in enumerate(panel.boxes):
                label, fill, outline, ink = look(box, v in living)
                cluster.node(f"{p}_{v}", label, fillcolor=fill, color=outline, fontcolor=ink)
            for u, v in panel.arrows:
                cluster.edge(f"{p}_{u}", f"{p}_{v}", color=INK if {u, v} <= living else tint(INK, 0.35))
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
