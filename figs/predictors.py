"""Draws predictors compared: Kendall's tau ± standard deviation over the seeds, against the number of labels.

    python -m figs.predictors --records "results/predictor_*.json"

draws one picture per record of benchmarks/predictor.py, results/predictor_tnasp.png and so on.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from figs.curve import COLOURS, frame
from figs.layered import apart
from figs.style import FAINT, INK, PAPER, save
from runtime.errors import InputError, main_guard
from runtime.files import path_of
from runtime.guarded import read_json
from runtime.log import output
from runtime.settings import parse, setting

CURVES = 6  # per panel: more cannot be told apart
PRIORITY = (  # order of the methods, so that the first of them fill the first panel
    "ours", "scratch_tuned", "npnas", "gat", "xgboost", "gates", "path_mlp",
    "ours_scratch", "ensemble", "ensemble_scratch", "gat_pretrained", "gat_frozen")
MARKERS = "osD^vP"
POINTS, LINE = 9, 0.17  # of text; inches from one label to the next
TITLE = 60  # characters per panel
SHIFT = 1.02  # factor on x from one curve to the next, so that no error bar hides another
LEADER = {"arrowstyle": "-", "lw": 0.7, "ls": (0, (1, 2)), "relpos": (0, 0.5)}  # from a curve to its label


class Curve(NamedTuple):
    method: str
    sizes: np.ndarray  # int[G] labels, ascending
    mean: np.ndarray  # float[G] tau
    std: np.ndarray  # float[G]


def plot(report: Mapping, path: str | Path) -> None:
    """Writes the picture of a record (results/predictor_*.json), atomically; its suffix is its format."""
    save(figure(report), path, dpi=160)


def figure(report: Mapping) -> Figure:
    """Draws panels of at most six curves side by side; each but the first repeats the first curve in grey."""
    panels = panels_of(curves_of(report))
    picture = Figure(figsize=(1.4 + 4.4 * len(panels), 4.2), facecolor=PAPER, layout="constrained")
    title = fill(f"{report['settings']['space']}: {report['ranked']}", TITLE * len(panels))
    picture.suptitle(title, x=0.01, ha="left", color=INK, size=11, weight="bold")
    all_axes = picture.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    all_axes[0].set_ylabel("Kendall's τ", color=INK)
    sizes = sorted({record["n_labels"] for record in report["records"]})
    colours = [COLOURS, *[(FAINT, *COLOURS[1:])] * (len(panels) - 1)]
    for axes, curves, palette in zip(all_axes, panels, colours):
        log_axis(axes, sizes)
        for i, (curve, colour, marker) in enumerate(zip(curves, palette, MARKERS)):
            at = places(curve.sizes, sizes) * SHIFT ** (i - len(curves) / 2)
            axes.errorbar(
                at, curve.mean, curve.std, color=colour, marker=marker, ms=4.5, lw=1.6, elinewidth=1)
    picture.draw_without_rendering()  # gives the panels their size, which the labels need
    for axes, curves, palette in zip(all_axes, panels, colours):
        label(axes, curves, palette)
    return picture


def curves_of(report: Mapping) -> list[Curve]:
    """Returns one curve per method, in the order of PRIORITY; other methods follow."""
    points: dict[str, list[tuple[int, float, float]]] = {}
    for record in sorted(report["records"], key=lambda record: record["n_labels"]):
        tau = record["tau"]
        points.setdefault(record["method"], []).append((record["n_labels"], tau["mean"], tau["std"] or 0))
    order = [*PRIORITY, *sorted(points.keys() - set(PRIORITY))]
    return [Curve(method, *map(np.array, zip(*points[method]))) for method in order if method in points]


def panels_of(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Splits the curves into panels; the first curve is in every panel."""
    first, others, room = curves[0], curves[1:], CURVES - 1
    return [[first, *others[i:i + room]] for i in range(0, max(len(others), 1), room)]


def log_axis(axes, sizes: Sequence[int]) -> None:
    at = places(np.array(sizes), sizes)
    axes.set(xscale="log", xlim=(at[0] / 1.2, at[-1] * 1.2))
    axes.set_xlabel("labels", color=INK)
    axes.set_xticks(at, [f"{n:,}" for n in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    frame(axes)
    axes.tick_params(labelleft=True)


def places(some: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The places float[G] of numbers of labels on a logarithmic axis; 0 stands at half the next size."""
    return np.where(some == 0, min((n for n in sizes if n), default=2) / 2, some)


def label(axes, curves: Sequence[Curve], colours: Sequence[str]) -> None:
    """Writes the name of each curve at the right of the panel, as near to the curve's end as possible."""
    low, high = axes.get_ylim()
    line = LINE * axes.figure.dpi * (high - low) / axes.get_window_extent().height  # of tau
    ends = sorted(zip(curves, colours), key=lambda end: end[0].mean[-1])
    heights = apart(np.array([curve.mean[-1] for curve, _ in ends]), np.full(len(ends), line), gap=0)
    for (curve, colour), height in zip(ends, heights):
        end = places(curve.sizes, curve.sizes)[-1]
        axes.annotate(curve.method, (end, curve.mean[-1]), (1.04, height), size=POINTS,
                      textcoords=axes.get_yaxis_transform(), annotation_clip=False, color=colour,
                      va="center", weight="bold", arrowprops={**LEADER, "color": colour})


# The script -------------------------------------------------------------------------------------------------

@dataclass
class Config:
    records: str = setting("results/predictor_*.json", "records, a file or a pattern", role="data")


def main(argv: list[str] | None = None) -> None:
    """Draws each picture beside its record."""
    config = parse(Config, argv, __doc__)
    paths = [Path(name) for name in sorted(glob(str(path_of(config.records))))]
    if not paths:
        raise InputError(f"--records {config.records}: no such file")
    for path in paths:
        try:
            plot(read_json(path), path.with_suffix(".png"))
        except (ValueError, LookupError, TypeError):
            raise InputError(f"--records: {path} is no record of benchmarks/predictor.py") from None
        output.print(f"written: {path.with_suffix('.png')}", highlight=False)


if __name__ == "__main__":
    main_guard(main)
