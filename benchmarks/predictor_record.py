"""The record of benchmarks/predictor.py: entries per method and size, their differences, and the table.

A record of a method and a size has the `seeds`, and for each of MEASURES the mean, std and value of every
seed. A report is the settings and all records, as in the JSON file.
"""
from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from rich.table import Table

from models.metrics import paired_interval
from runtime.log import mean_std, output, plus_minus

MEASURES = ("tau", "spearman", "precision@10", "precision@50", "precision@100", "tau_best_tenth")


class Measure(TypedDict):
    """A measure of a record, by `summary`."""

    mean: float
    std: float | None
    seeds: list[float]


RecordEntry = TypedDict("RecordEntry", {
    "method": str, "n_labels": int, "seeds": list[int], "n_ranked": int, "seconds": dict[str, float],
    **dict.fromkeys(MEASURES, Measure)})


class Report(TypedDict):
    """The JSON file, as far as a run continues from it."""

    settings: dict[str, Any]
    records: list[RecordEntry]


def find(report: dict, method: str, n: int) -> dict | None:
    return next((r for r in report["records"] if (r["method"], r["n_labels"]) == (method, n)), None)


def add(report: dict, found: dict) -> None:
    """Adds those seeds of a record to the report that it lacks."""
    old = find(report, found["method"], found["n_labels"])
    if old is None:
        report["records"].append(found)
        return
    new = [seed for seed in found["seeds"] if seed not in old["seeds"]]
    if not new:
        return
    part, found = len(new) / len(found["seeds"]), only(found, new)
    values = {name: summary(old[name]["seeds"] + found[name]["seeds"]) for name in MEASURES}
    seconds = {
        what: round(old["seconds"][what] + part * found["seconds"][what], 1) for what in found["seconds"]}
    ranked = min(old["n_ranked"], found["n_ranked"])
    old |= {"seeds": old["seeds"] + found["seeds"], "n_ranked": ranked, "seconds": seconds, **values}


def only(record: dict, seeds: list[int]) -> dict:
    """The record restricted to these seeds, in this order."""
    place = [record["seeds"].index(seed) for seed in seeds]
    return record | {"seeds": seeds} | {
        name: summary([record[name]["seeds"][i] for i in place]) for name in MEASURES}


def summary(values: list[float]) -> dict:
    mean, std = mean_std(values)
    return {"mean": mean, "std": std, "seeds": values}


def differences(records: list[dict], first: str) -> list[dict]:
    """The difference of each record from the first method's at its size, over the seeds that both have."""
    found, by_size = [], {record["n_labels"]: record for record in records if record["method"] == first}
    for record in records:
        other = by_size.get(record["n_labels"], record)
        seeds = sorted({*record["seeds"]} & {*other["seeds"]})
        if other is not record and seeds:
            found.append(difference(only(record, seeds), only(other, seeds)))
    return found


def difference(record: dict, first: dict) -> dict:
    """tau of one record minus tau of another, paired over the seeds, with a 95 % bootstrap interval."""
    gain = np.subtract(record["tau"]["seeds"], first["tau"]["seeds"])  # [S]
    low, high = paired_interval(gain)
    return {"method": record["method"], "minus": first["method"], "n_labels": record["n_labels"],
            "n_seeds": len(gain), "mean": float(gain.mean()), "low": low, "high": high}


def show(report: dict, chosen: list[dict]) -> None:
    """Prints the table of these records; the first method of each size is the one compared with."""
    settings, first = report["settings"], chosen[0]["method"]
    gains = {(gain["method"], gain["n_labels"]): interval(gain) for gain in differences(chosen, first)}
    ranks = settings.get("metric") or f"{report['target']} accuracies"
    title = (f"{settings['space']}, ranks {ranks} of {report['ranked']}; "
             f"'tau minus': difference from {first}, 95 % interval; 'best 10 %': tau among the truly best; "
             "'sec': fit of one seed")
    columns = ("labels", "method", "tau", "tau minus", "rho", "p@10", "p@50", "p@100", "best 10 %", "sec",
               "ranked", "seeds")
    table = Table(*columns, title=title)
    for record in chosen:
        method, n = record["method"], record["n_labels"]
        if method == first:
            table.add_section()
        table.add_row(
            str(n), method, tau_text(record), gains.get((method, n), ""),
            *(f"{record[name]['mean']:.3f}" for name in MEASURES[1:]),
            f"{record['seconds']['fit'] / len(find(report, method, n)['seeds']):.1f}",
            str(record["n_ranked"]), str(len(record["seeds"])))
    output.print(table)


def tau_text(record: dict) -> str:
    return plus_minus(record["tau"]["mean"], record["tau"]["std"])


def interval(gain: dict) -> str:
    return f"{gain['mean']:+.3f}" + (
        "" if gain["low"] is None else f" [{gain['low']:+.3f}, {gain['high']:+.3f}]")
