"""Draws the gain of one search over another: the mean over the seeds and its 95 % interval, over queries.

    python -m benchmarks.search_worth --runs WITH --against WITHOUT --out results/worth.json

draws results/worth.png by

    plot({"bo": gain}, "worth.png", "nasbench201, cifar10", "gain in the best so far")   # gain float[S, N]
"""
from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figs.curve import COLOURS, dress
from figs.style import FAINT, INK, PAPER, save

SKIPPED = 10  # queries of the start, whose differences are of another size


def plot(gains: Mapping[str, np.ndarray], path: str | Path, title: str, what: str) -> None:
    """Writes the picture atomically. gains: {strategy: float[S, N]}, of S seeds after each of N queries."""
    figure = Figure(figsize=(6.4, 3.6), facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold")
    for (name, gain), colour in zip(gains.items(), cycle(COLOURS)):
        gain = gain[:, SKIPPED - 1:]
        x, mean = np.arange(SKIPPED, SKIPPED + gain.shape[1]), gain.mean(0)  # [N] each
        axes.plot(x, mean, color=colour, lw=1.8, label=f"{name} ({len(gain)} seeds)", zorder=3)
        if len(gain) > 1:
            error = 1.96 * gain.std(0, ddof=1) / len(gain)**0.5  # [N]
            axes.fill_between(x, mean - error, mean + error, color=colour, alpha=0.15, lw=0, zorder=2)
    axes.axhline(0, color=FAINT, lw=1, zorder=1)
    axes.set_xlabel("queries", color=INK)
    axes.set_ylabel(what, color=INK)
    dress(axes, "upper right")
    save(figure, path, dpi=160)
