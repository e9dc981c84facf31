"""The record of benchmarks/predictor.py: what it holds of a method at a size, pairs of them, its table and its picture.

A record of a method and a size has the `seeds`, and for each of MEASURES mean, std and the value of every seed; a report
is the settings and all its records, as in the JSON file.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import runtime
from figs.curve import COLOURS
from figs.style import FAINT, INK, PAPER, save
from models.metrics import paired_interval

MEASURES = ("tau", "spearman", "precision@10", "precision@50", "precision@100", "tau_best_tenth")
STYLES = (("-", "o"), ("--", "s"), (":", "^"))  # line and marker, one for each round of the colours


def find(report: dict, method: str, n: int) -> dict | None:
    return next((r for r in report["records"] if (r["method"], r["n_labels"]) == (method, n)), None)


def add(report: dict, found: dict) -> None:
    """Put the seeds of a record that the report lacks into the report."""
    old = find(report, found["method"], found["n_labels"])
    if old is None:
        report["records"].append(found)
        return
    new = [seed for seed in found["seeds"] if seed not in old["seeds"]]
    if not new:
        return
    part, found = len(new) / len(found["seeds"]), only(found, new)
    values = {name: summary(old[name]["seeds"] + found[name]["seeds"]) for name in MEASURES}
    seconds = {what: round(old["seconds"][what] + part * found["seconds"][what], 1) for what in found["seconds"]}
    ranked = min(old["n_ranked"], found["n_ranked"])
    old |= {"seeds": old["seeds"] + found["seeds"], "n_ranked": ranked, "seconds": seconds, **values}


def only(record: dict, seeds: list[int]) -> dict:
    """The record of these seeds alone, in this order."""
    place = [record["seeds"].index(seed) for seed in seeds]
    return record | {"seeds": seeds} | {name: summary([record[name]["seeds"][i] for i in place]) for name in MEASURES}


def summary(values: list[float]) -> dict:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "seeds": values}


def differences(records: list[dict], first: str) -> list[dict]:
    """Of each record from that of the first method at its size, over the seeds that both have."""
    found, by_size = [], {record["n_labels"]: record for record in records if record["method"] == first}
    for record in records:
        other = by_size.get(record["n_labels"], record)
        seeds = sorted({*record["seeds"]} & {*other["seeds"]})
        if other is not record and seeds:
            found.append(difference(only(record, seeds), only(other, seeds)))
    return found


def difference(record: dict, first: dict) -> dict:
    """tau of one record minus tau of another, paired over the seeds; 95 % bootstrap interval of the mean difference."""
    gain = np.subtract(record["tau"]["seeds"], first["tau"]["seeds"])  # [S]
    low, high = paired_interval(gain)
    return {"method": record["method"], "minus": first["method"], "n_labels": record["n_labels"], "n_seeds": len(gain),
            "mean": float(gain.mean()), "low": low, "high": high}


def show(report: dict, chosen: list[dict]) -> None:
    """The table of these records, each size led by the method that the others are compared with."""
    settings, first = report["settings"], chosen[0]["method"]
    gains = {(gain["method"], gain["n_labels"]): interval(gain) for gain in differences(chosen, first)}
    title = (f"{settings['space']}, ranks {report['target']} accuracies of {report['ranked']}; "
             f"'tau minus' that of {first}, with its 95 % interval; 'best 10 %' is tau among the truly best; "
             "sec to fit one seed")
    columns = ("labels", "method", "tau", "tau minus", "rho", "p@10", "p@50", "p@100", "best 10 %", "sec", "ranked", "seeds")
    table = Table(*columns, title=title)
    for record in chosen:
        method, n = record["method"], record["n_labels"]
        if method == first:
            table.add_section()
        table.add_row(
            str(n), method, plus_minus(record["tau"]), gains.get((method, n), ""),
            *(f"{record[name]['mean']:.3f}" for name in MEASURES[1:]),
            f"{record['seconds']['fit'] / len(find(report, method, n)['seeds']):.1f}",
            str(record["n_ranked"]), str(len(record["seeds"])))
    runtime.output.print(table)


def plus_minus(values: dict) -> str:
    return f"{values['mean']:.4f}" + ("" if values["std"] is None else f" ± {values['std']:.4f}")


def interval(gain: dict) -> str:
    return f"{gain['mean']:+.3f}" + ("" if gain["low"] is None else f" [{gain['low']:+.3f}, {gain['high']:+.3f}]")


def plot(report: dict, path: Path) -> None:
    """All that the record holds: mean tau of each method against the labels, with bars of one standard deviation over the
    seeds."""
    records = report["records"]
    sizes, methods = sorted({r["n_labels"] for r in records}), list(dict.fromkeys(r["method"] for r in records))
    figure = Figure(figsize=(7.2, 4.0), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(xlabel="labels", ylabel="Kendall's τ", xlim=(-0.4, len(sizes) - 0.6))
    axes.set_xticks(range(len(sizes)), [f"{n:,}" for n in sizes])
    axes.set_title(f"{report['settings']['space']}: {report['ranked']}", loc="left", color=INK, size=10, weight="bold", pad=10)
    for i, (shift, method) in enumerate(zip(np.linspace(-0.15, 0.15, len(methods)), methods)):
        own = sorted((r["n_labels"], r["tau"]) for r in records if r["method"] == method)
        place = [sizes.index(n) + shift for n, _ in own]
        line, marker = STYLES[i // len(COLOURS)]
        axes.errorbar(place, [tau["mean"] for _, tau in own], [tau["std"] or 0 for _, tau in own], label=method,
                      ls=line, lw=1, elinewidth=0.8, marker=marker, ms=4, color=COLOURS[i % len(COLOURS)], capsize=1.5)
    axes.grid(axis="y", color=FAINT, alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9, labelcolor=INK)
    save(figure, path, dpi=160)
