"""Measure what something is worth in a search: the same seeds with and without it, in pairs.

    python -m benchmarks.search_worth --runs runs/201 --against runs/201-without --out results/worth_201.json

Both are folders of search.py or of benchmarks.search, ALGO/SEED/, of one space, oracle and protocol; how the
two differ (encoder, prior, --warm_start, --K ...) is up to the commands that made them. For each strategy and
at each of --queries: the mean difference over the seeds that both have of the best value so far, with its
95 % bootstrap interval; and the queries by which the optimum is found sooner. Positive = --runs is better.
The picture shows the difference over all queries.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from benchmarks.search import check, in_words, read
from benchmarks.search_counts import first_hit, interval
from figs import difference
from runtime.errors import InputError, main_guard
from runtime.files import path_of, write_json
from runtime.log import command_line, output, provenance
from runtime.settings import parse, setting
from spaces.metrics import metric_in
from strategies.summary import SearchRun

Pairs = list[tuple[SearchRun, SearchRun]]


@dataclass
class Config:
    runs: str = setting("", "folder of searches with it", role="output")
    against: str = setting("", "folder of searches without it", role="output")
    queries: str = setting("20,40,60,100,150", "where the two are compared, a comma list", role="output")
    out: str = setting("results/worth.json", "file of the JSON record; the picture is beside it",
                       role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    path = path_of(config.out)
    if path.suffix != ".json":
        raise InputError(f"--out {config.out}: the name of the record must end in .json")
    sizes = [int(part) if part.strip().isdecimal() else 0 for part in config.queries.split(",")]
    if min(sizes) < 1:
        raise InputError(f"--queries {config.queries}: give a comma list of numbers of queries")
    shared = pairs(read(config.runs), read(config.against))
    check({algo: [run for pair in group for run in pair] for algo, group in shared.items()}, max(sizes))
    first = next(iter(shared.values()))[0][0].best
    report = {
        **{name: first.get(name) for name in ("space", "dataset", "metric", "protocol", "oracle")},
        "algos": {algo: worth(group, sizes) for algo, group in shared.items()},
        "command": command_line("benchmarks.search_worth", argv), **provenance()}
    write_json(path, report)
    curves = {algo: gains(group) for algo, group in shared.items()}
    metric = metric_in(first)
    difference.plot(curves, path.with_suffix(".png"), f"{first['space']}, {metric.title(first['dataset'])}",
                    "gain in the best so far" + " (points of accuracy)" * metric.is_accuracy)
    show(report, sizes)
    output.print(f"written: {path}, {path.with_suffix('.png')}")
    return report


def pairs(with_: dict[str, list[SearchRun]], without: dict[str, list[SearchRun]]) -> dict[str, Pairs]:
    """{strategy: the runs of the seeds that both have}; raises InputError if there are none."""
    shared = {}
    for algo in with_.keys() & without.keys():
        other = {run.best["seed"]: run for run in without[algo]}
        group = [(run, other[run.best["seed"]]) for run in with_[algo] if run.best["seed"] in other]
        if group:
            shared[algo] = group
    if not shared:
        raise InputError("--runs and --against have no strategy and seed in common")
    return {algo: shared[algo] for algo in with_ if algo in shared}


def sign_of(run: SearchRun) -> float:
    return metric_in(run.best).sign


def length(group: Pairs) -> int:
    """Queries up to the end of the shortest run."""
    return min(len(run.value) for pair in group for run in pair)


def gains(group: Pairs) -> np.ndarray:
    """float[S, N]: of each seed after each query, in the best so far."""
    end = length(group)
    return np.stack([sign_of(run) * (run.value[:end] - other.value[:end]) for run, other in group])


def worth(group: Pairs, sizes: list[int]) -> dict:
    """The gains at each size, and the queries saved to the first hit, censored at the shortest run's end."""
    best, until = group[0][0].best, length(group)
    optimum = best["optimum"] and best["optimum"][best["chosen_by"]]
    of_seeds = gains(group)  # [S, N]
    saved = None if optimum is None else interval(np.array(
        [min(first_hit(other, optimum), until) - min(first_hit(run, optimum), until)
         for run, other in group]))
    return {"n": len(group), "gain": {size: interval(of_seeds[:, size - 1]) for size in sizes},
             "queries_saved": saved, "until": until}


def show(report: dict, sizes: list[int]) -> None:
    table = Table("strategy", "n", *(f"best at {size}" for size in sizes), "queries saved to the optimum",
                  title="with minus without, in pairs over the seeds, [95 % interval]")
    for algo, row in report["algos"].items():
        table.add_row(algo, str(row["n"]), *(in_words(row["gain"][size], "+.3f") for size in sizes),
                      in_words(row["queries_saved"], "+.1f"))
    output.print(table)


if __name__ == "__main__":
    main_guard(main)
