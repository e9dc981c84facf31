"""Draws searches compared: mean ± standard deviation over the runs, against queries and simulated time.

    python -m benchmarks.search --runs runs/search --picture figs/SEARCH201.png

draws figs/SEARCH201.png by

    plot(comparison, "summary.png", {"ae": "re"})      # a comparison by strategies.summary.compare
"""
from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figs.curve import COLOURS, dress
from figs.style import FAINT, INK, PAPER, save


def plot(comparison, path: str | Path, twins: Mapping[str, str]) -> None:
    """Writes the picture atomically; the suffix (.png, .svg, .pdf) is its format.

    comparison  a `strategies.summary.Comparison`; without costs there is one panel
    twins       {strategy: the same search without a predictor}; both share a colour, the latter is dashed
    """
    panels = [(comparison.over_queries, "queries")]
    panels += [(comparison.over_cost, "simulated training time (days)")] if comparison.over_cost else []
    figure = Figure(figsize=(6.4 * len(panels), 4.4), facecolor=PAPER, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    figure.suptitle(comparison.title, x=0.01, ha="left", color=INK, size=11, weight="bold")
    look, optimum = looks(comparison.over_queries, twins), comparison.optimum
    for axes, (curves, xlabel) in zip(all_axes, panels):
        axes.set_xlabel(xlabel, color=INK)
        for algo, curve in curves.items():
            deviation = f" ± {curve.std[-1]:.2f} ({curve.runs} runs)" if curve.runs > 1 else ""
            final = f"{algo}: {curve.mean[-1]:.2f}{deviation}"
            axes.plot(curve.x, curve.mean, lw=1.8, zorder=3, label=final, **look[algo])
            if curve.runs > 1:
                axes.fill_between(curve.x, curve.mean - curve.std, curve.mean + curve.std,
                                  color=look[algo]["color"], alpha=0.10, lw=0, zorder=2)
        if optimum is not None:
            axes.axhline(optimum, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1,
                         label=f"best in the table: {optimum:.2f}")
        dress(axes, "upper right" if comparison.lower_is_better else "lower right")
    all_axes[0].set_ylabel(comparison.what, color=INK)
    for axes in all_axes[1:]:
        axes.get_legend().remove()
    sign = -1 if comparison.lower_is_better else 1
    means = sign * np.concatenate([curve.mean for curve in comparison.over_queries.values()])
    worst, best = np.quantile(means, 0.02), max(means.max(), -np.inf if optimum is None else sign * optimum)
    room = max(best - worst, 1e-3 * abs(best), 1e-9)
    # cuts off the weakest starts
    all_axes[0].set_ylim(*sorted((sign * (worst - 0.1 * room), sign * (best + 0.06 * room))))
    save(figure, path, dpi=160)


def looks(names, twins: Mapping[str, str]) -> dict[str, dict]:
    """Returns colour and line style per strategy; a twin without a predictor shares the colour, dashed."""
    ours = {twin: own for own, twin in twins.items()}
    own = list(dict.fromkeys(ours.get(name, name) for name in names))
    colours = dict(zip(own, cycle(COLOURS)))
    return {name: {"color": colours[ours.get(name, name)], "ls": (0, (3, 2)) if name in ours else "-"}
            for name in names}
