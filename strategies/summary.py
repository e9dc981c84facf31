"""The curve of a finished search on disk, and the summary of searches over their seeds.

Letters: R runs of N queries, G points of a curve.
"""
from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from rich.table import Table

from runtime.errors import InputError
from runtime.files import write_json, write_text
from runtime.guarded import checked, read_json, read_text
from runtime.log import mean_std, output, plus_minus, provenance
from spaces.metrics import Metric, metric_in
from strategies.base import Query
from strategies.history import best_of

TOLD = "answers of --tell"  # name of the oracle of a search that is asked and told
EVERY = 10  # queries between two points of a curve
# entries of best.json that runs of one summary share
COMMON = ("space", "dataset", "metric", "lower_is_better", "protocol", "chosen_by", "oracle", "limit", "N",
          "optimum", "neighbours", "pretrained")


class Seconds(TypedDict):
    fit: float
    score: float
    query: float
    all: float


class Optimum(TypedDict):
    """The best possible values, by `strategies.problem.optimum`."""

    validation: float | None
    test: float | None


class Best(TypedDict):
    """The fields that every best.json has; `search.describe` makes them."""

    architecture: str
    key: str
    validation: float | None
    test: float | None
    query: int
    N: int
    space: str
    algo: str
    dataset: str
    protocol: str
    chosen_by: Literal["validation", "test"]
    oracle: str
    optimum: Optimum | None
    pretrained: str | None
    seed: int


class BestFile(Best, total=False):
    """best.json: the result of a search."""

    seconds: Seconds
    stopped: int | None
    failed: int | None
    metric: str  # absent in files of earlier versions, which measured accuracy
    lower_is_better: bool
    neighbours: dict[str, float] | None


class SearchRun(NamedTuple):
    """A finished search: its best.json, and after each query the best so far with its test, and the cost."""

    best: dict
    value: np.ndarray  # float[N]: the accuracy in percent, or other metric, that chose the best
    test: np.ndarray  # float[N]: the same on test data; nan if unknown
    cost: np.ndarray  # float[N], simulated seconds; nan if unknown

    @property
    def spent(self) -> np.ndarray:
        """float[n]: the cost so far of the queries made, as a search may stop at the optimum."""
        return self.cost[:self.best.get("stopped")]


def read_run(folder: Path) -> SearchRun:
    """Reads the search in this folder; raises InputError if there is no finished one."""
    mend = "finish the search with search.py --resume"
    best = read_best(folder / "best.json", mend)
    rows = list(csv.DictReader(io.StringIO(read_text(folder / "curve.csv", mend))))
    try:
        columns = [[float(row[name] or "nan") for row in rows]
                   for name in (f"best_{best['chosen_by']}", "test", "cost")]
        if len(rows) != best["N"]:
            raise ValueError(f"{len(rows)} queries instead of {best['N']}")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{folder / 'curve.csv'} is damaged ({error}): {mend}") from None
    return SearchRun(best, *map(np.array, columns))


def read_best(path: Path, mend: str) -> dict:
    """Reads a best.json; raises InputError if it is missing or damaged.

    One of an earlier version gets its metric, so that it compares with those of this one.
    """
    best = checked(read_json(path, mend), BestFile, path, mend)
    return metric_in(best).entries() | best


def write_curve(path: Path, queries: list[Query], chosen_by: str, N: int) -> None:
    """Writes a CSV with one row per query: best so far, its test accuracy, cost so far; unknown is empty.

    A search that stopped at the optimum would have stayed there: so do the rows up to N, without a cost.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", f"best_{chosen_by}", "test", "cost"))
    leaders = list(accumulate(queries, lambda leader, query: best_of([leader, query])))
    costs = np.cumsum([np.nan if query.cost is None else query.cost for query in queries])
    for query, leader, cost in zip(queries, leaders, costs):
        writer.writerow((query.query, leader.validation, leader.test, "" if np.isnan(cost) else float(cost)))
    writer.writerows(
        (query, leaders[-1].validation, leaders[-1].test, "") for query in range(len(queries) + 1, N + 1))
    write_text(path, text.getvalue())


def notes(results: Sequence[dict]) -> list[str]:
    """Remarks for a reader of these best.json: searches that stopped, trainings that diverged."""
    stopped = sum(result["stopped"] is not None for result in results)
    failed = sum(result["failed"] or 0 for result in results)
    lines = []
    if stopped:
        lines.append(f"{stopped} of {len(results)} searches stopped once they had queried the table's best "
                     "(--stop_at_best)")
    if failed:
        program = results[0]["oracle"].startswith(("command:", TOLD))
        lines.append(f"{failed} trainings failed and count as the worst seen" if program else
                     f"{failed} trainings diverged and count as chance level, 10 %")
    return lines


def summarise(runs: Sequence[SearchRun], folder: Path) -> dict:
    """Writes summary.json and summary.csv; returns the content of summary.json.

    summary.csv has one row per strategy and EVERY queries. Runs of one strategy follow each other. Raises
    InputError unless all runs are of one space, oracle and protocol.
    """
    for name in COMMON:
        if any(run.best.get(name) != runs[0].best.get(name) for run in runs):
            raise InputError(f"{folder}: the runs differ in {name}, so there is no mean over them: "
                             "give them folders of their own")
    common = {name: runs[0].best.get(name) for name in COMMON}
    by_algo = {algo: list(group) for algo, group in groupby(runs, key=lambda run: run.best["algo"])}
    shown = "test" if all(np.isfinite(run.test).all() for run in runs) else common["chosen_by"]
    result = {
        **common, "shown": shown, "algos": {algo: about(group) for algo, group in by_algo.items()},
        "notes": notes([run.best for run in runs]),
        **provenance(),
    }
    write_json(folder / "summary.json", result)
    write_csv(folder / "summary.csv", {algo: curve(group, shown) for algo, group in by_algo.items()}, shown)
    return result


class Curve(NamedTuple):
    """The best accuracy so far, over R runs."""

    x: np.ndarray  # float[G], ascending: queries, or days
    mean: np.ndarray  # float[G], percent
    std: np.ndarray  # float[G]
    runs: int


class Comparison(NamedTuple):
    """The content of a picture of several strategies: each one's curve over queries and, if known, cost."""

    over_queries: dict[str, Curve]
    over_cost: dict[str, Curve]  # over days of training
    title: str
    what: str  # label of the vertical axis
    optimum: float | None  # the best possible value, if known
    lower_is_better: bool = False


def compare(runs: Sequence[SearchRun], report: dict) -> Comparison:
    """The curves of the runs, of the accuracy that the report names as `shown`.

    Runs of one strategy follow each other.
    """
    shown = report["shown"]
    by_algo = {algo: list(group) for algo, group in groupby(runs, key=lambda run: run.best["algo"])}
    over_cost = {algo: cost_curve(group, shown) for algo, group in by_algo.items()
                 if all(np.isfinite(run.spent).all() for run in group)}
    optimum = runs[0].best["optimum"]
    return Comparison({algo: curve(group, shown) for algo, group in by_algo.items()}, over_cost,
                      f"{report['space']}, {metric_in(report).title(report['dataset'])}, protocol "
                      f"{report['protocol']}",
                      label_of(metric_in(report), shown, report["chosen_by"]), optimum and optimum[shown],
                      metric_in(report).lower_is_better)


def about(runs: list[SearchRun]) -> dict:
    """Summarises one strategy over its seeds.

    Accuracies are [mean, std] in percent, None if unknown; seconds are means.
    """
    best = [run.best for run in runs]
    accuracies = {name: None if None in values else list(mean_std(values))
                  for name in ("validation", "test") for values in [[b[name] for b in best]]}
    seconds = {
        name: round(float(np.mean([b["seconds"][name] for b in best])), 3) for name in best[0]["seconds"]}
    return {"n": len(runs), "seeds": [b["seed"] for b in best], **accuracies,
            "query": float(np.mean([b["query"] for b in best])), "seconds": seconds}


def curve(runs: list[SearchRun], shown: str) -> Curve:
    """Mean and std of the best so far, after every EVERY-th query and the last."""
    value = np.stack([run.test if shown == "test" else run.value for run in runs])  # [R, N]
    queries = np.unique([*range(EVERY, value.shape[1] + 1, EVERY), value.shape[1]])  # [G]
    return curve_of(queries, value[:, queries - 1])


def cost_curve(runs: list[SearchRun], shown: str) -> Curve:
    """The same over the simulated training time in days, from the last first query to the first end of a run.

    A run that stopped at the optimum has no end, as it keeps its best; if all stopped, the last of them ends
    the curve.
    """
    start, ends = (max(run.cost[0] for run in runs),
                   [run.spent[-1] for run in runs if run.best.get("stopped") is None])
    end = min(ends) if ends else max(run.spent[-1] for run in runs)
    seconds = np.linspace(start, end, 100)  # [G]
    value = np.stack([
        (run.test if shown == "test" else run.value)[np.searchsorted(run.spent, seconds, side="right") - 1]
        for run in runs])  # [R, G]
    return curve_of(seconds / 86400, value)


def curve_of(x: np.ndarray, value: np.ndarray) -> Curve:
    """The curve of mean and std of value [R, G] at x [G]."""
    std = value.std(0, ddof=1) if len(value) > 1 else np.zeros(len(x))  # [G]
    return Curve(x, value.mean(0), std, len(value))


def label_of(metric: Metric, shown: str, chosen_by: str) -> str:
    if shown == chosen_by:
        return metric.axis(shown)
    return f"{metric.said(shown)} of the best by {chosen_by} so far{' (%)' if metric.is_accuracy else ''}"


def write_csv(path: Path, curves: dict[str, Curve], shown: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("algo", "query", f"{shown}_mean", f"{shown}_std", "n"))
    for algo, (queries, mean, std, n) in curves.items():
        writer.writerows((algo, query, m, s if n > 1 else "", n)
                         for query, m, s in zip(queries.tolist(), mean.tolist(), std.tolist()))
    write_text(path, text.getvalue())


def print_summary(result: dict, folder: Path) -> None:
    metric = metric_in(result)
    best, test = (("best validation (%)", "its test (%)") if metric.is_accuracy else
                  (f"best {metric.name}", "its test value"))
    columns = ("strategy", "runs", best, test, "found at query", "seconds", "of it fitting")
    table = Table(*columns, title=(
        f"{result['space']}, {metric.title(result['dataset'])}, protocol {result['protocol']}, {result['N']} "
        "queries, "
        f"pre-trained: {result['pretrained'] or 'no'}"))
    for algo, row in result["algos"].items():
        share = row["seconds"]["fit"] / max(row["seconds"]["all"], 1e-9)
        table.add_row(algo, str(row["n"]), said(row["validation"]), said(row["test"]), f"{row['query']:.0f}",
                      f"{row['seconds']['all']:.1f}", f"{share:.0%}")
    output.print(table)
    lines = [f"chosen by {metric.said(result['chosen_by'])}; oracle: {result['oracle']}"]
    if near := result["neighbours"]:
        lines.append(f"the table covers part of the space: {near['covered']:.1f} of an architecture's "
                     f"{near['all']:.1f} neighbours, on average")
    lines += [f"limits: {result['limit']}"] * bool(result.get("limit")) + result["notes"]
    lines.append(f"written: {folder}/summary.json, summary.csv, summary.png")
    output.print("\n".join(lines))


def said(pair: Sequence[float | None] | None) -> str:
    return "unknown" if pair is None else plus_minus(*pair, decimals=3)
