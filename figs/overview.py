"""Draws the overview of the README: pre-train, fine-tune, search.

    python -m figs.overview --out figs/OVERVIEW.png
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from figs import style
from figs.style import AMBER, BLUE, FAINT, GREEN, GREY, INK, PAPER, ROSE, TEAL, VIOLET, arrow, tint, words
from runtime.errors import main_guard
from runtime.log import output
from runtime.settings import parse, setting

WIDTH, HEIGHT = 10.0, 4.5  # inches, like all lengths here
CARD = (3.14, 4.3)
MIDDLES = (1.67, 5.0, 8.33)  # of the three cards
GROUND, RIM = "#f6f8fa", "#d0d7de"
ENCODER, HEAD = 2.08, 1.28  # heights of the encoders and of the heads below them, in all cards
NOTE = 9.5  # points of small text

VERTICES = np.array([(-0.6, 0), (-0.2, 0.22), (-0.2, -0.22), (0.2, -0.22), (0.6, 0)])  # of a small cell
EDGES = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 4), (3, 4))
MASKED = 3
CELLS = ((GREY, BLUE, AMBER, TEAL, GREY), (GREY, BLUE, BLUE, AMBER, GREY), (GREY, ROSE, TEAL, ROSE, GREY))


def card(axes, x: float, number: int, title: str, notes: tuple[str, str]) -> None:
    style.box(axes, (x, HEIGHT / 2), CARD, GROUND, RIM, radius=0.12)
    style.circle(axes, (x - 1.25, 4.1), 0.16, INK, INK)
    words(axes, x - 1.25, 4.1, str(number), 11, weight="bold", color=PAPER)
    words(axes, x - 0.99, 4.1, title, 14, weight="bold", ha="left")
    for y, note in zip((0.72, 0.42), notes):
        words(axes, x, y, note, NOTE)


def box(axes, x: float, y: float, text: str, colour: str, size: tuple[float, float] = (1.7, 0.44)) -> None:
    style.box(axes, (x, y), size, tint(colour, 0.2), colour)
    words(axes, x, y, text, 10.5, va="center", linespacing=1.25)


def cell(axes, x: float, y: float, colours: tuple, scale: float, masked: int | None = None) -> None:
    """Draws a small cell; the masked vertex is an empty circle with a question mark."""
    places, radius = VERTICES * scale + (x, y), 0.1 * scale
    for u, v in EDGES:
        gap = radius * (places[v] - places[u]) / np.linalg.norm(places[v] - places[u])
        arrow(axes, FAINT, 0.6 * scale, zorder=3, posA=places[u] + gap, posB=places[v] - gap)
    for v, (place, colour) in enumerate(zip(places, colours)):
        if v == masked:
            style.circle(axes, place, radius, PAPER, INK, (0, (2, 1.5)))
            words(axes, *place, "?", 9 * scale, weight="bold")
        else:
            style.circle(axes, place, radius, tint(colour, 0.75), colour)


def step(axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    arrow(axes, colour, zorder=3, posA=start, posB=end)


def pretrain(axes, x: float) -> None:
    notes = ("reconstruct operations; predict the paths", "of a cell and its response to random images")
    card(axes, x, 1, "Pre-train", notes)
    words(axes, x, 3.7, "unlabelled cells, operations masked", NOTE)
    cell(axes, x, 3.12, CELLS[0], 1.3, MASKED)
    step(axes, (x, 2.72), (x, ENCODER + 0.24))
    box(axes, x, ENCODER, "graph encoder", BLUE)
    step(axes, (x, ENCODER - 0.24), (x, HEAD + 0.24))
    box(axes, x - 0.35, HEAD, "decoder", GREY, (1.0, 0.44))
    step(axes, (x + 0.17, HEAD), (x + 0.52, HEAD))
    style.circle(axes, (x + 0.68, HEAD), 0.145, tint(TEAL, 0.75), TEAL)


def finetune(axes, x: float) -> None:
    card(axes, x, 2, "Fine-tune", ("predictor: cell → score", "ranking loss on pairs of cells"))
    words(axes, x, 3.7, "a few cells with accuracies", NOTE)
    for offset, colours, accuracy in zip((-1.0, 0.0, 1.0), CELLS, ("93.8 %", "91.2 %", "87.5 %")):
        cell(axes, x + offset, 3.28, colours, 0.64)
        words(axes, x + offset, 2.9, accuracy, 10, weight="bold")
    step(axes, (x, 2.74), (x, ENCODER + 0.24))
    box(axes, x, ENCODER, "graph encoder", BLUE)
    step(axes, (x, ENCODER - 0.24), (x, HEAD + 0.24))
    box(axes, x, HEAD, "MLP head", VIOLET)


def search(axes, x: float) -> None:
    card(axes, x, 3, "Search", ("the top K are queried each round", "best of N queries, by validation"))
    left, right, top, size = x - 0.76, x + 0.76, 3.2, (1.24, 0.62)
    box(axes, left, top, "candidates of\na strategy", AMBER, size)
    box(axes, left, HEAD, "predictor\nscores them", VIOLET, size)
    box(axes, right, HEAD, "oracle: train\nand validate", ROSE, size)
    box(axes, right, top, "history\nof answers", GREEN, size)
    step(axes, (left, top - 0.34), (left, HEAD + 0.34))
    step(axes, (left + 0.64, HEAD), (right - 0.64, HEAD))
    step(axes, (right, HEAD + 0.34), (right, top - 0.34))
    step(axes, (right - 0.64, top), (left + 0.64, top))
    step(axes, (right - 0.5, top - 0.34), (left + 0.5, HEAD + 0.34), VIOLET)
    words(axes, x - 0.02, (top + HEAD) / 2 + 0.1, "fit anew\neach round", NOTE, color=VIOLET, va="center",
          bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 2})


def figure() -> Figure:
    picture, axes = style.canvas(WIDTH, HEIGHT)
    for x, draw in zip(MIDDLES, (pretrain, finetune, search)):
        draw(axes, x)
    first, second, third = MIDDLES
    step(axes, (first + 0.88, ENCODER), (second - 0.88, ENCODER), BLUE)
    words(axes, first + 1.21, ENCODER + 0.13, "weights", 10, color=BLUE)
    step(axes, (second + 0.88, HEAD), (third - 1.41, HEAD), VIOLET)
    return picture


@dataclass
class Config:
    out: str = setting("figs/OVERVIEW.png", "picture to write: .png, .svg or .pdf", role="output")


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    style.save(figure(), config.out)
    output.print(f"written: {config.out}", highlight=False)


if __name__ == "__main__":
    main_guard(main)
