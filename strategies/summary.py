"""The curve of a finished search on disk, and searches over their seeds: what each strategy found, as mean ± standard
deviation.

R runs of N queries; G points of a curve.
"""
from __future__ import annotations

import csv
import io
import json
import os
import platform
from itertools import accumulate, groupby
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
import torch
from rich.table import Table

import runtime
from figs import search as picture
from figs.search import Curve
from spaces import InputError
from spaces.cache import atomic_write
from strategies.base import Query
from strategies.history import best_of

EVERY = 10  # queries between two points of a curve
COMMON = ("space", "dataset", "protocol", "chosen_by", "oracle", "N", "optimum", "neighbours", "pretrained")  # to all runs


class Run(NamedTuple):
    """A finished search: its best.json, and after each query the best so far, its test accuracy, the cost so far."""

    best: dict
    value: np.ndarray  # float[N], percent: by this accuracy the best was chosen
    test: np.ndarray  # float[N], percent; nan where unknown
    cost: np.ndarray  # float[N], simulated seconds; nan where unknown

    @property
    def spent(self) -> np.ndarray:
        """float[n], the cost of the queries that were made: a search may stop at the best there is."""
        return self.cost[:self.best.get("stopped")]


def read_run(folder: Path) -> Run:
    """The search in this folder. InputError where there is no finished one."""
    try:
        best = json.loads((folder / "best.json").read_text())
        with open(folder / "curve.csv") as file:
            rows = list(csv.DictReader(file))
        columns = [[float(row[name] or "nan") for row in rows] for name in (f"best_{best['chosen_by']}", "test", "cost")]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no finished search ({error}): finish it with search.py --resume") from None
    return Run(best, *map(np.array, columns))


def write_curve(path: Path, queries: list[Query], chosen_by: str, N: int) -> None:
    """CSV, a row a query: the best so far, its test accuracy, the cost so far; what is unknown is empty.

    A search that stopped at the best there is would have stayed there: so do the rows up to N, without a cost.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", f"best_{chosen_by}", "test", "cost"))
    leaders = list(accumulate(queries, lambda leader, query: best_of([leader, query])))
    costs = np.cumsum([np.nan if query.cost is None else query.cost for query in queries])
    for query, leader, cost in zip(queries, leaders, costs):
        writer.writerow((query.query, leader.validation, leader.test, "" if np.isnan(cost) else float(cost)))
    writer.writerows((query, leaders[-1].validation, leaders[-1].test, "") for query in range(len(queries) + 1, N + 1))
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def notes(results: Sequence[dict]) -> list[str]:
    """What a reader of these best.json must know."""
    stopped = sum(result["stopped"] is not None for result in results)
    failed = sum(result["failed"] or 0 for result in results)
    lines = []
    if stopped:
        lines.append(f"{stopped} of {len(results)} searches stopped once they had queried the table's best (--stop_at_best)")
    if failed:
        lines.append(f"{failed} trainings diverged and count as chance level, 10 %")
    return lines


def summarise(runs: Sequence[Run], folder: Path) -> dict:
    """Write summary.json, summary.csv (a row a strategy and EVERY queries) and summary.png; print the table.

    Runs of one strategy follow each other. InputError unless all are of one space, oracle and protocol.
    """
    for name in COMMON:
        if any(run.best[name] != runs[0].best[name] for run in runs):
            raise InputError(f"{folder}: the runs differ in {name}, so there is no mean over them: "
                             "give them folders of their own")
    common = {name: runs[0].best[name] for name in COMMON}
    by_algo = {algo: list(group) for algo, group in groupby(runs, key=lambda run: run.best["algo"])}
    shown = "test" if all(np.isfinite(run.test).all() for run in runs) else common["chosen_by"]
    result = {
        **common, "shown": shown, "algos": {algo: about(group) for algo, group in by_algo.items()},
        "notes": notes([run.best for run in runs]),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}",
    }
    runtime.write_json(folder / "summary.json", result)
    over_queries = {algo: curve(group, shown) for algo, group in by_algo.items()}
    write_csv(folder / "summary.csv", over_queries, shown)
    over_cost = {algo: cost_curve(group, shown) for algo, group in by_algo.items()
                 if all(np.isfinite(run.spent).all() for run in group)}
    best_there_is = common["optimum"] and common["optimum"][shown]
    title = f"{common['space']}, {common['dataset']}, protocol {common['protocol']}"
    picture.plot(over_queries, over_cost, folder / "summary.png", title, label_of(shown, common["chosen_by"]),
                 best_there_is)
    print_summary(result, folder)
    return result


def mean_std(values: Sequence[float]) -> list[float | None]:
    """[mean, standard deviation], the latter None of a single value."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None]


def about(runs: list[Run]) -> dict:
    """One strategy over its seeds. Accuracies are [mean, std] in percent, None where unknown; seconds are means."""
    best = [run.best for run in runs]
    accuracies = {name: None if None in values else mean_std(values)
                  for name in ("validation", "test") for values in [[b[name] for b in best]]}
    seconds = {name: round(float(np.mean([b["seconds"][name] for b in best])), 3) for name in best[0]["seconds"]}
    return {"n": len(runs), "seeds": [b["seed"] for b in best], **accuracies,
            "query": float(np.mean([b["query"] for b in best])), "seconds": seconds}


def curve(runs: list[Run], shown: str) -> Curve:
    """Mean and std of the best so far after every EVERY-th query and the last."""
    value = np.stack([run.test if shown == "test" else run.value for run in runs])  # [R, N]
    queries = np.unique([*range(EVERY, value.shape[1] + 1, EVERY), value.shape[1]])  # [G]
    return spread(queries, value[:, queries - 1])


def cost_curve(runs: list[Run], shown: str) -> Curve:
    """The same against the simulated training time in days, over the times at which all runs have a best and go on.

    A run that stopped at the best there is goes on with it for ever; where all have, the last of them ends the curve.
    """
    start, ends = max(run.cost[0] for run in runs), [run.spent[-1] for run in runs if run.best.get("stopped") is None]
    end = min(ends) if ends else max(run.spent[-1] for run in runs)
    seconds = np.linspace(start, end, 100)  # [G]
    value = np.stack([(run.test if shown == "test" else run.value)[np.searchsorted(run.spent, seconds, side="right") - 1]
                      for run in runs])  # [R, G]
    return spread(seconds / 86400, value)


def spread(x: np.ndarray, value: np.ndarray) -> Curve:
    """x [G], value [R, G]."""
    std = value.std(0, ddof=1) if len(value) > 1 else np.zeros(len(x))  # [G]
    return Curve(x, value.mean(0), std, len(value))


def label_of(shown: str, chosen_by: str) -> str:
    if shown == chosen_by:
        return f"best {shown} accuracy so far (%)"
    return f"{shown} accuracy of the best by {chosen_by} so far (%)"


def write_csv(path: Path, curves: dict[str, Curve], shown: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("algo", "query", f"{shown}_mean", f"{shown}_std", "n"))
    for algo, (queries, mean, std, n) in curves.items():
        writer.writerows((algo, query, m, s if n > 1 else "", n)
                         for query, m, s in zip(queries.tolist(), mean.tolist(), std.tolist()))
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def print_summary(result: dict, folder: Path) -> None:
    columns = "strategy", "runs", "best validation (%)", "its test (%)", "found at query", "seconds", "of it fitting"
    table = Table(*columns, title=(
        f"{result['space']}, {result['dataset']}, protocol {result['protocol']}, {result['N']} queries, "
        f"pre-trained: {result['pretrained'] or 'no'}"))
    for algo, row in result["algos"].items():
        share = row["seconds"]["fit"] / max(row["seconds"]["all"], 1e-9)
        table.add_row(algo, str(row["n"]), pm(row["validation"]), pm(row["test"]), f"{row['query']:.0f}",
                      f"{row['seconds']['all']:.1f}", f"{share:.0%}")
    runtime.output.print(table)
    lines = [f"chosen by {result['chosen_by']} accuracy; oracle: {result['oracle']}"]
    if near := result["neighbours"]:
        lines.append(f"the table covers part of the space: {near['covered']:.1f} of an architecture's {near['all']:.1f} "
                     "neighbours, on average")
    lines += result["notes"]
    lines.append(f"written: {folder}/summary.json, summary.csv, summary.png")
    runtime.output.print("\n".join(lines))


def pm(pair: list[float | None] | None) -> str:
    if pair is None:
        return "unknown"
    mean, std = pair
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"
