"""Draws a sweep in parallel coordinates: one axis per setting and one for the result, one line per trial.

    python nni4nasbench101.py --stage finetune --outdir runs/sweep

draws runs/sweep/trials.png by

    plot([{"lr": 0.002, "loss": "bpr"}, ...], [0.71, ...], "trials.png", "nasbench201, finetune",
         {"lr": "loguniform"})
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import path as mpath
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from figs.style import AMBER, BLUE, FAINT, INK, PAPER, save, tint, words

SHADES = LinearSegmentedColormap.from_list("shades", [tint(BLUE, 0.15), BLUE, "#1f3f77"])  # worst to best
HALO = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
LONGEST = 15  # characters per label


def plot(parameters: Sequence[Mapping[str, Any]], values: Sequence[float], path: str | Path, title: str,
         kinds: Mapping[str, str], what: str = "τ") -> None:
    """Draws T trials, the darker the better, the best one in amber and on top.

    parameters  the settings of T trials
    values      T results, higher is better
    kinds       {setting: its distribution, in NNI's words}: "loguniform" and the like get a logarithmic axis,
                other numbers a linear one, "choice" and text an axis with evenly spaced values
    what        name of the result
    Writes the file atomically; its suffix (.png, .svg, .pdf) is its format.
    """
    # Only the settings that all trials have: a search space may have branches.
    names = [name for name in parameters[0] if all(name in trial for trial in parameters)]
    columns = [axis([trial[name] for trial in parameters], kinds.get(name, "")) for name in names]
    columns.append(axis(values, ""))
    figure = Figure(figsize=(max(5.0, 1.25 * len(columns)), 4.2), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(xlim=(-0.4, len(columns) - 0.8), ylim=(-0.1, 1.16))
    axes.axis("off")
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
    for x, (name, (_, ticks)) in enumerate(zip([*names, what], columns)):
        axes.plot([x, x], [0, 1], color=FAINT, lw=1, zorder=1)
        words(axes, x, 1.1, name.replace("_", "\n", 1), 8.5, weight="bold")
        for y, label in ticks:
            axes.plot([x - 0.03, x], [y, y], color=FAINT, lw=1, zorder=1)
            words(axes, x - 0.05, y, label, 7, ha="right", zorder=4, bbox=HALO)
    order = sorted(range(len(values)), key=values.__getitem__)
    for rank, trial in enumerate(order, 1):
        best = rank == len(order)
        look = {"edgecolor": SHADES(rank / len(order)), "lw": 1.2, "alpha": 0.8}
        look = {"edgecolor": AMBER, "lw": 2.4} if best else look
        route = curve([heights[trial] for heights, _ in columns])
        axes.add_patch(PathPatch(route, facecolor="none", zorder=2 + rank / len(order), **look))
    save(figure, path, dpi=160)


def axis(values: Sequence[Any], kind: str) -> tuple[list[float], list[tuple[float, str]]]:
    """Returns the height of each value, 0 to 1, and the ticks of the axis: (height, label)."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if kind == "choice" or not numbers:
        different = sorted(set(values)) if numbers else sorted(set(map(str, values)))
        places = {value: (i + 0.5) / len(different) for i, value in enumerate(different)}
        heights = [places[value if numbers else str(value)] for value in values]
        return heights, [(y, short(value)) for value, y in places.items()]
    logarithmic = "log" in kind and min(values) > 0
    scaled = [math.log(value) if logarithmic else value for value in values]
    low, high = min(scaled), max(scaled)
    if low == high:
        return [0.5] * len(values), [(0.5, short(values[0]))]
    ends = [low, (low + high) / 2, high]
    ticks = [(y, short(math.exp(end) if logarithmic else end)) for y, end in zip((0.0, 0.5, 1.0), ends)]
    return [(value - low) / (high - low) for value in scaled], ticks


def short(value: Any) -> str:
    """Returns a label short enough to stand beside its axis."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else text[:LONGEST - 1] + "…"


def curve(heights: Sequence[float]) -> mpath.Path:
    """Returns a line through the heights at x = 0, 1, 2, ..., horizontal where it crosses an axis."""
    points, codes = [(0.0, heights[0])], [mpath.Path.MOVETO]
    for x, (a, b) in enumerate(pairwise(heights)):
        points += [(x + 0.45, a), (x + 0.55, b), (x + 1.0, b)]
        codes += [mpath.Path.CURVE4] * 3
    return mpath.Path(points, codes)
