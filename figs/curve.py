"""The search curve: the best validation accuracy found so far, over the number of queries.

    plot({"r": [validation of run 0, validation of run 1, ...]}, "curve.png", "nasbench201, cifar10")
"""
from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figs.style import FAINT, INK, LINES, PAPER
from spaces.cache import atomic_write


def plot(runs: Mapping[str, Sequence[Sequence[float]]], path: str | Path, title: str, optimum: float | None = None) -> None:
    """Draw mean and ± std of the best so far over the runs of each label; a single run also shows its queries as dots.

    runs     label: R runs of equal length N, validation accuracies in percent in the order of the queries
    optimum  a dashed line at the best value there is, where known
    The suffix of the file (.png, .svg, .pdf) is its format; the file is written atomically.
    """
    figure = Figure(figsize=(6.4, 4.0), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(xlabel="queries", ylabel="best validation accuracy so far (%)")
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
    lowest, highest = [], [] if optimum is None else [optimum]
    for (label, values), colour in zip(runs.items(), LINES * len(runs)):
        best = np.maximum.accumulate(np.asarray(values, float), axis=1)  # [R, N]
        count, x = len(best), np.arange(1, best.shape[1] + 1)
        mean, std = best.mean(0), best.std(0, ddof=1) if count > 1 else np.zeros(len(x))
        axes.plot(x, mean, color=colour, lw=2, drawstyle="steps-post", solid_joinstyle="miter", zorder=3,
                  label=f"{label}: {mean[-1]:.2f}" + (f" ± {std[-1]:.2f} ({count} runs)" if count > 1 else ""))
        if count > 1:
            axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, lw=0, step="post", zorder=2)
        else:
            axes.scatter(x, values[0], s=9, color=colour, alpha=0.45, lw=0, zorder=2, label=f"{label}: each query")
        lowest.append(max(mean[0], np.median(values)) if count == 1 else mean[min(9, len(x) - 1)] - std[min(9, len(x) - 1)])
        highest.append((mean + std).max())
    if optimum is not None:
        axes.axhline(optimum, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1, label=f"best there is: {optimum:.2f}")
    room = max(max(highest) - min(lowest), 0.1)
    axes.set_ylim(min(lowest) - 0.25 * room, max(highest) + 0.08 * room)  # failures far below would flatten what matters
    axes.set_xlim(0, max(len(values[0]) for values in runs.values()) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=FAINT, alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, color=FAINT, labelsize=9)
    axes.legend(loc="lower right", facecolor=PAPER, edgecolor="none", framealpha=0.9, fontsize=9, labelcolor=INK)
    path = Path(path).expanduser()
    atomic_write(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=160))
