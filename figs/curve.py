"""Draws the search curve: best validation accuracy so far, against the number of queries.

    python search.py --search_space nasbench201 --search_algo bo --outdir runs/search

draws runs/search/curve.png by

    plot({"r": [validation of run 0, validation of run 1, ...]}, "curve.png", "nasbench201, cifar10")
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figs.style import AMBER, BLUE, FAINT, GREEN, INK, PAPER, ROSE, TEAL, VIOLET, save

COLOURS = (BLUE, AMBER, GREEN, ROSE, VIOLET, TEAL)  # of the curves of a chart, in this order
START = 10  # queries; the vertical axis begins near the accuracy reached by then


def plot(runs: Mapping[str, Sequence[Sequence[float]]], path: str | Path, title: str,
         optimum: float | None = None, what: str = "best validation accuracy so far (%)",
         lower_is_better: bool = False) -> None:
    """Draws mean ± std of the best so far over the runs of each label; dots are the queries of a single run.

    runs     {label: R runs of equal length N}, validation values (accuracy: percent), in the order of the
             queries; nan or None if a training failed
    optimum  the best value in the table, if known: a dashed line
    what     label of the vertical axis
    lower_is_better  the best value is the lowest
    Writes the file atomically; its suffix (.png, .svg, .pdf) is its format.
    """
    figure = Figure(figsize=(6.4, 4.0), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(xlabel="queries", ylabel=what)
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
    sign = -1 if lower_is_better else 1
    worst, ends = [], [] if optimum is None else [sign * optimum]  # utilities
    for (label, values), colour in zip(runs.items(), cycle(COLOURS)):
        best = sign * np.fmax.accumulate(sign * np.asarray(values, float), axis=1)  # [R, N]
        mean, count = best.mean(0), len(best)  # [N]
        std = best.std(0, ddof=1) if count > 1 else np.zeros_like(mean)  # [N]
        x = np.arange(1, len(mean) + 1)
        final = f"{label}: {mean[-1]:.2f}" + (f" ± {std[-1]:.2f} ({count} runs)" if count > 1 else "")
        axes.plot(x, mean, color=colour, lw=2, drawstyle="steps-post", zorder=3, label=final)
        if count > 1:
            axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, lw=0, step="post")
        else:
            axes.scatter(x, values[0], s=9, color=colour, alpha=0.45, lw=0, label=f"{label}: each query")
        low = (sign * mean - std)[np.isfinite(mean)]
        worst.append(low[:START][-1])
        ends.append(np.nanmax(sign * mean + std))
    if optimum is not None:
        axes.axhline(optimum, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1,
                     label=f"best in the table: {optimum:.2f}")
    room = max(max(ends) - min(worst), 1e-3 * abs(max(ends)), 1e-9)
    edges = sign * (min(worst) - 0.25 * room), sign * (max(ends) + 0.08 * room)
    axes.set_ylim(*sorted(edges))  # failed runs, far away, are cut off
    axes.set_xlim(0, max(len(values[0]) for values in runs.values()) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "upper right" if lower_is_better else "lower right")
    save(figure, path, dpi=160)


def dress(axes, place: str = "lower right") -> None:
    """Gives a chart our look, and a legend in a corner."""
    frame(axes)
    axes.legend(loc=place, facecolor=PAPER, edgecolor="none", framealpha=0.9, fontsize=9,
                labelcolor=INK)


def frame(axes) -> None:
    """Gives a chart a faint grid and two spines."""
    axes.grid(color=FAINT, alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, color=FAINT, labelsize=9)
