"""The overview picture of the README: pre-train, fine-tune, search.

    python -m figs.overview --out figs/OVERVIEW.png
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

import runtime
from figs.style import AMBER, BLUE, FAINT, GREEN, GREY, INK, PAPER, ROSE, TEAL, VIOLET, tint
from runtime import setting
from spaces.cache import atomic_write

WIDTH, HEIGHT = 10.0, 4.5  # inches
CARDS = (0.1, 3.43, 6.76)  # left edges of the three cards
CARD_WIDTH, CARD_HEIGHT = 3.14, 4.3
ENCODER, HEAD = 2.08, 1.28  # heights at which the encoders and what reads them stand, in all cards
VERTICES = np.array([(0, 0), (0.4, 0.22), (0.4, -0.22), (0.8, -0.22), (1.2, 0)]) - (0.6, 0)  # a small cell around the origin
EDGES = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 4), (3, 4))
CELL = (GREY, BLUE, AMBER, TEAL, GREY)
MASKED = 3


def card(axes, left: float, number: int, title: str, line: str) -> None:
    axes.add_patch(FancyBboxPatch((left, 0.1), CARD_WIDTH, CARD_HEIGHT, boxstyle="round,pad=0,rounding_size=0.12", facecolor="#f6f8fa", edgecolor="#d0d7de", lw=1))
    axes.add_patch(Circle((left + 0.32, 4.1), 0.16, facecolor=INK, lw=0))
    axes.text(left + 0.32, 4.1, str(number), size=11, weight="bold", color=PAPER, ha="center", va="center_baseline")
    axes.text(left + 0.58, 4.1, title, size=14, weight="bold", color=INK, va="center_baseline")
    axes.text(left + CARD_WIDTH / 2, 0.42, line, size=9.5, color=INK, ha="center", va="center_baseline")


def box(axes, x: float, y: float, text: str, colour: str, width: float = 1.7, height: float = 0.44) -> None:
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.09",
                                  facecolor=tint(colour, 0.2), edgecolor=colour, lw=1.4, zorder=2))
    axes.text(x, y, text, size=10.5, color=INK, ha="center", va="center", linespacing=1.25, zorder=3)


def arrow(axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, size: float = 1.0) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12 * size, lw=1.5 * size, color=colour, shrinkA=0, shrinkB=0, zorder=1))


def cell(axes, x: float, y: float, colours: tuple, scale: float = 1.0, masked: int | None = None) -> None:
    """A small cell; the masked vertex is an empty circle with a question mark."""
    places = VERTICES * scale + (x, y)
    radius = 0.1 * scale
    for u, v in EDGES:
        step = (places[v] - places[u]) / np.linalg.norm(places[v] - places[u])
        arrow(axes, places[u] + radius * step, places[v] - radius * step, FAINT, 0.6 * scale)
    for v, (place, colour) in enumerate(zip(places, colours)):
        hidden = v == masked
        axes.add_patch(Circle(place, radius, facecolor=PAPER if hidden else tint(colour, 0.75), edgecolor=INK if hidden else colour, lw=1.2,
                              ls=(0, (2, 1.5)) if hidden else "-", zorder=2))
        if hidden:
            axes.text(*place, "?", size=9 * scale, weight="bold", color=INK, ha="center", va="center_baseline", zorder=3)


def pretrain(axes, left: float) -> None:
    card(axes, left, 1, "Pre-train", "cross-entropy at the masked vertices")
    x = left + CARD_WIDTH / 2
    axes.text(x, 3.7, "unlabelled cells, operations masked", size=9.5, color=INK, ha="center", va="center_baseline")
    cell(axes, x, 3.12, CELL, 1.3, MASKED)
    arrow(axes, (x, 2.72), (x, ENCODER + 0.24))
    box(axes, x, ENCODER, "graph encoder", BLUE)
    arrow(axes, (x, ENCODER - 0.24), (x, HEAD + 0.24))
    box(axes, x - 0.35, HEAD, "decoder", GREY, 1.0)
    arrow(axes, (x + 0.17, HEAD), (x + 0.52, HEAD))
    axes.add_patch(Circle((x + 0.68, HEAD), 0.145, facecolor=tint(TEAL, 0.75), edgecolor=TEAL, lw=1.2))
    axes.text(x, 0.72, "reconstruct the operation", size=9.5, color=INK, ha="center", va="center_baseline")


def finetune(axes, left: float) -> None:
    card(axes, left, 2, "Fine-tune", "ranking loss on pairs of cells")
    x = left + CARD_WIDTH / 2
    axes.text(x, 3.7, "a few cells with accuracies", size=9.5, color=INK, ha="center", va="center_baseline")
    for offset, colours, accuracy in ((-1.0, CELL, "93.8"), (0, (GREY, BLUE, BLUE, AMBER, GREY), "91.2"), (1.0, (GREY, ROSE, TEAL, ROSE, GREY), "87.5")):
        cell(axes, x + offset, 3.28, colours, 0.64)
        axes.text(x + offset, 2.9, f"{accuracy} %", size=10, weight="bold", color=INK, ha="center", va="center_baseline")
    arrow(axes, (x, 2.74), (x, ENCODER + 0.24))
    box(axes, x, ENCODER, "graph encoder", BLUE)
    arrow(axes, (x, ENCODER - 0.24), (x, HEAD + 0.24))
    box(axes, x, HEAD, "MLP head", VIOLET)
    axes.text(x, 0.72, "predictor: cell → score", size=9.5, color=INK, ha="center", va="center_baseline")


def search(axes, left: float) -> None:
    card(axes, left, 3, "Search", "best of N queries, by validation")
    x, dx = left + CARD_WIDTH / 2, 0.76
    top, bottom = 3.2, HEAD
    box(axes, x - dx, top, "candidates of\na strategy", AMBER, 1.24, 0.62)
    box(axes, x + dx, top, "history\nof answers", GREEN, 1.24, 0.62)
    box(axes, x - dx, bottom, "predictor\nscores them", VIOLET, 1.24, 0.62)
    box(axes, x + dx, bottom, "oracle: train\nand validate", ROSE, 1.24, 0.62)
    arrow(axes, (x - dx, top - 0.34), (x - dx, bottom + 0.34))
    arrow(axes, (x + dx, bottom + 0.34), (x + dx, top - 0.34))
    arrow(axes, (x - dx + 0.64, bottom), (x + dx - 0.64, bottom))
    arrow(axes, (x + dx - 0.64, top), (x - dx + 0.64, top))
    arrow(axes, (x + dx - 0.5, top - 0.34), (x - dx + 0.5, bottom + 0.34), colour=VIOLET)
    axes.text(x - 0.02, (top + bottom) / 2 + 0.1, "fit anew\neach round", size=9.5, color=VIOLET, ha="center", va="center", linespacing=1.2,
              bbox={"facecolor": "#f6f8fa", "edgecolor": "none", "pad": 2}, zorder=5)
    axes.text(x, 0.72, "top K are queried", size=9.5, color=INK, ha="center", va="center_baseline")


def figure() -> Figure:
    picture = Figure(figsize=(WIDTH, HEIGHT), facecolor=PAPER)
    axes = picture.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    for left, draw in zip(CARDS, (pretrain, finetune, search)):
        draw(axes, left)
    first, second, third = (left + CARD_WIDTH / 2 for left in CARDS)
    arrow(axes, (first + 0.88, ENCODER), (second - 0.88, ENCODER), colour=BLUE)
    axes.text(first + 1.21, ENCODER + 0.13, "weights", size=10, color=BLUE, ha="center", va="center_baseline")
    arrow(axes, (second + 0.88, HEAD), (third - 0.76 - 0.65, HEAD), colour=VIOLET)
    return picture


@dataclass
class Config:
    out: str = setting("figs/OVERVIEW.png", "picture to write: .png, .svg or .pdf")


def main(argv: list[str] | None = None) -> None:
    config = runtime.parse(Config, argv, __doc__)
    path = Path(config.out).expanduser()
    atomic_write(path, lambda file: figure().savefig(file, format=path.suffix[1:], dpi=200))
    runtime.output.print(f"written: {path}", highlight=False)


if __name__ == "__main__":
    runtime.main_guard(main)
