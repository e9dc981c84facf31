"""An ablation: mean ± standard deviation of tau for each setting, one colour a number of labels, the paper's as open markers.

    plot([{"setting": "5 %", "n_labels": 423, "mean": .6, "std": .01, "tau": [.59, .61], "paper": .601}], "panel.png", "mask")
"""
from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
from matplotlib.figure import Figure

from figs.curve import COLOURS, dress
from figs.style import INK, PAPER, save

SPREAD = 0.5  # of the distance between settings that the sizes of one setting fill


def plot(rows: Sequence[dict], path: str | Path, title: str) -> None:
    """Write the panel atomically; the suffix (.png, .svg, .pdf) is its format. rows: as in ablations/report.py."""
    save(panel(rows, title), path, dpi=160)


def panel(rows: Sequence[dict], title: str) -> Figure:
    """Settings from top to bottom in the order of the rows. `paper` may be None."""
    settings, sizes = (list(dict.fromkeys(r[name] for r in rows)) for name in ("setting", "n_labels"))
    figure = Figure(figsize=(6.4, 1.5 + 0.24 * len(settings) * (1 + 0.3 * len(sizes))), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(xlabel="Kendall's τ", ylim=(len(settings) - 0.4, -0.6))
    axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
    axes.set_yticks(range(len(settings)), settings)
    shifts = np.linspace(-0.5, 0.5, len(sizes)) * SPREAD if len(sizes) > 1 else (0.0,)
    for i, (n, shift) in enumerate(zip(sizes, shifts)):
        here, colour = [r for r in rows if r["n_labels"] == n], COLOURS[i % len(COLOURS)]
        y = [settings.index(r["setting"]) + shift for r in here]
        axes.errorbar([r["mean"] for r in here], y, xerr=[r["std"] or 0 for r in here], ls="none", marker="o", ms=5, capsize=2,
                      color=colour, label=f"{n} labels, here, n = {len(here[0]['tau'])}")
        published = [(r["paper"], place) for r, place in zip(here, y) if r["paper"] is not None]
        if published:
            axes.plot(*zip(*published), ls="none", marker="D", ms=6, mfc="none", mec=colour, label=f"{n} labels, the paper")
    dress(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, labelcolor=INK)
    return figure
