"""Draws a search's metric against a second number: every query, and the Pareto front.

    python search.py --search_algo bo --second edgegpu_latency_ms --more_labels latency.csv --outdir OUT

writes OUT/pareto.png by `plot`.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figs.curve import dress
from figs.style import BLUE, FAINT, GREY, INK, PAPER, save


def plot(front, path: str | Path, title: str, chosen_by: str) -> None:
    """Writes the picture atomically; its suffix is its format.

    front: a `strategies.pareto.Front`. chosen_by: validation, or test under the protocol oracle-test.
    """
    figure = Figure(figsize=(6.4, 4.4), facecolor=PAPER, layout="constrained")
    second, metric = front.second, front.metric
    axes = figure.add_subplot(
        xlabel=f"{second.name} ({'less' if second.lower_is_better else 'more'} is better)",
        ylabel=metric.said(chosen_by) + (" (less is better)" if metric.lower_is_better else ""))
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
    axes.scatter(front.other, front.first, s=14, color=GREY, alpha=0.5, lw=0, label="queries")
    rows = np.flatnonzero(front.best)
    rows = rows[np.argsort(front.other[rows], kind="stable")]
    x, y = front.other[rows], front.first[rows]
    where = "steps-post" if second.lower_is_better else "steps-pre"
    if front.true is not None:
        axes.plot(*front.true.T, color=FAINT, lw=1.2, ls=(0, (4, 3)), drawstyle=where, zorder=1,
                  label="front of the table")
    axes.plot(x, y, color=BLUE, lw=1.8, drawstyle=where, zorder=3)
    axes.scatter(x, y, s=24, color=BLUE, zorder=4, label=f"Pareto front: {len(rows)} of {len(front.first)}")
    low, high = y.min(initial=np.inf), y.max(initial=-np.inf)
    if np.isfinite([low, high]).all():  # queries far below the front are cut off
        room = max(high - low, 1e-3 * abs(high), 1e-9)
        below, above = (0.1, 0.3) if metric.lower_is_better else (0.3, 0.1)
        axes.set_ylim(low - below * room, high + above * room)
    dress(axes, "upper right" if metric.lower_is_better else "lower right")
    save(figure, path, dpi=160)
