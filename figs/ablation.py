"""Draws an ablation: mean ± standard deviation of tau per setting, one colour per number of labels.

Open diamonds are the numbers of the paper.

    bash ablations/masking_ratio.sh

draws figs/ABLATION_MASKING_RATIO.png at its end by

    plot([{"setting": "5 %", "n_labels": 423, "mean": .6, "std": .01, "tau": [.59, .61], "paper": .601}],
         "panel.png", "mask")
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figs.curve import COLOURS, dress
from figs.style import INK, PAPER, save

WIDTH = 0.5  # share of the distance between two settings that the markers of one setting take


def plot(rows: Sequence[dict], path: str | Path, title: str) -> None:
    """Writes the panel atomically; its suffix (.png, .svg, .pdf) is its format.

    rows: those of results/ablation_*.json.
    """
    save(panel(rows, title), path, dpi=160)


def panel(rows: Sequence[dict], title: str) -> Figure:
    """Draws the settings from top to bottom in the order of the rows; `paper` may be None."""
    settings, sizes = (list(dict.fromkeys(r[name] for r in rows)) for name in ("setting", "n_labels"))
    height = 1.5 + 0.24 * len(settings) * (1 + 0.3 * len(sizes))
    figure = Figure(figsize=(6.4, height), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(xlabel="Kendall's τ", ylim=(len(settings) - 0.4, -0.6))
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
    axes.set_yticks(range(len(settings)), settings)
    shifts = np.linspace(-0.5, 0.5, len(sizes)) * WIDTH if len(sizes) > 1 else (0.0,)
    for i, (n, shift) in enumerate(zip(sizes, shifts)):
        here, colour = [r for r in rows if r["n_labels"] == n], COLOURS[i % len(COLOURS)]
        y = [settings.index(r["setting"]) + shift for r in here]
        axes.errorbar([r["mean"] for r in here], y, xerr=[r["std"] or 0 for r in here], ls="none", marker="o",
                      ms=5, capsize=2, color=colour, label=f"{n} labels, here, n = {len(here[0]['tau'])}")
        published = [(r["paper"], place) for r, place in zip(here, y) if r["paper"] is not None]
        if published:
            axes.plot(*zip(*published), ls="none", marker="D", ms=6, mfc="none", mec=colour,
                      label=f"{n} labels, the paper")
    dress(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, labelcolor=INK)
    return figure
