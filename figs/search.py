"""Searches compared: mean ± standard deviation over the runs, against queries and against simulated training time.

    plot({"ae": Curve(queries, mean, std, 10)}, {}, "summary.png", "nasbench201, cifar10", "best validation accuracy (%)")
"""
from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Mapping, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from figs.curve import COLOURS, dress
from figs.style import FAINT, INK, PAPER, save
from strategies import TWINS

OURS = {reference: ours for ours, reference in TWINS.items()}


class Curve(NamedTuple):
    x: np.ndarray  # float[G], ascending
    mean: np.ndarray  # float[G], percent
    std: np.ndarray  # float[G]
    runs: int


def plot(over_queries: Mapping[str, Curve], over_cost: Mapping[str, Curve], path: str | Path, title: str, what: str,
         optimum: float | None = None) -> None:
    """Write the picture atomically; the suffix (.png, .svg, .pdf) is its format.

    over_queries, over_cost  a curve a strategy; without costs (x in days) there is one panel
    what                     the vertical axis
    optimum                  a dashed line at the best value there is, where known
    """
    panels = [(over_queries, "queries")] + ([(over_cost, "simulated training time (days)")] if over_cost else [])
    figure = Figure(figsize=(6.4 * len(panels), 4.4), facecolor=PAPER, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    figure.suptitle(title, x=0.01, ha="left", color=INK, size=11, weight="bold")
    look = looks(over_queries)
    for axes, (curves, xlabel) in zip(all_axes, panels):
        axes.set_xlabel(xlabel, color=INK)
        for algo, curve in curves.items():
            spread = f" ± {curve.std[-1]:.2f} ({curve.runs} runs)" if curve.runs > 1 else ""
            final = f"{algo}: {curve.mean[-1]:.2f}{spread}"
            axes.plot(curve.x, curve.mean, lw=1.8, zorder=3, label=final, **look[algo])
            if curve.runs > 1:
                axes.fill_between(curve.x, curve.mean - curve.std, curve.mean + curve.std, color=look[algo]["color"],
                                  alpha=0.10, lw=0, zorder=2)
        if optimum is not None:
            axes.axhline(optimum, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1, label=f"best in the table: {optimum:.2f}")
        dress(axes)
    all_axes[0].set_ylabel(what, color=INK)
    for axes in all_axes[1:]:
        axes.get_legend().remove()
    means = np.concatenate([curve.mean for curve in over_queries.values()])
    low, high = np.quantile(means, 0.02), max(means.max(), optimum or 0)
    room = max(high - low, 0.1)
    all_axes[0].set_ylim(low - 0.1 * room, high + 0.06 * room)  # the start of the weakest would flatten what matters
    save(figure, path, dpi=160)


def looks(names) -> dict[str, dict]:
    """Colour and line of each strategy: a reference is dashed and shares the colour of its twin."""
    own = list(dict.fromkeys(OURS.get(name, name) for name in names))
    colours = dict(zip(own, cycle(COLOURS)))
    return {name: {"color": colours[OURS.get(name, name)], "ls": (0, (3, 2)) if name in OURS else "-"} for name in names}
