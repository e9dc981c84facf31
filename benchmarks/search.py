"""Measure how soon searches find the optimum, and compare each strategy with its twin without a predictor.

    python -m benchmarks.search --run --runs runs/search/201 --dataset cifar10 --jobs 2 \\
        --search_algo r,rl,ae,bo,random,policy,re,ls --seeds 0-49 --predictor_seeds 0-19 \\
        --encoder_model_state_dict default --out results/search201_cifar10.json
    python -m benchmarks.search --runs runs/search/201,runs/elsewhere --out results/search201.json

With --run, it searches first, with the flags of search.py: every strategy with every seed, in
RUNS/ALGO/SEED/. Finished searches there are kept, unfinished ones are resumed. Strategies without a predictor
make --N queries, those with one --queries, and each stops once it has queried the table's optimum
(--no-stop_at_best for a surrogate, whose optimum is unknown).

--runs are folders with one folder per strategy and seed, of one space, oracle and protocol; if two have the
same strategy and seed, the later folder counts. The measures are in benchmarks/search_counts.py. For each
strategy: the share of runs at the table's optimum within --within queries, and the median query that hits it,
censored at the end of a run. In pairs over the seeds, with 95 % bootstrap intervals: each of our strategies
against its twin without our predictor, local search, regularised evolution and random search. The record also
has the curves, one point every ten queries, and its command; the picture gets the record's name.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

import search
from benchmarks.search_counts import cut, describe, differences, points, round_tau
from figs import search as picture
from runtime.errors import InputError, main_guard
from runtime.executors import compute_all
from runtime.files import path_of, write_json
from runtime.log import command_line, output, plus_minus, provenance
from runtime.settings import parse, parse_seeds, setting
from spaces.metrics import metric_in
from strategies import STRATEGIES, TWINS
from strategies.summary import SearchRun, compare, read_run, said

SAME = ("space", "dataset", "metric", "lower_is_better", "protocol", "chosen_by", "oracle", "limit")
MEANING = {  # difference: (its column, its format)
    "accuracy": ("{shown} at {within}", "+.3f"),
    "share": ("share at the optimum within {within}", "+.2f"),
    "hit": ("queries saved to the first hit, censored where runs end", "+.1f"),
}


@dataclass
class Config(search.Config):
    runs: str = setting(
        "", "folders of search.py, a comma list; with --run, the one folder to search in", role="output")
    run: bool = setting(False, "search first, with the flags of search.py", role="output")
    N: int = setting(1000, "with --run: queries of a strategy without a predictor")
    queries: int = setting(
        150, "with --run: queries of a strategy with a predictor, at which its first hit is censored")
    seeds: str = setting("0-49", "with --run: seeds of each strategy's searches", role="data")
    predictor_seeds: str = setting(
        "", "with --run: seeds of strategies with a predictor (empty = --seeds)", role="data")
    stop_at_best: bool = setting(
        True, "with --run: stop a search once it has queried the table's optimum; its curve stays there",
        role="output")
    pictures: bool = setting(
        False, "with --run: draw the curve and the best cell of each search", role="output")
    within: int = setting(
        150, "queries within which a hit counts, and after which accuracies are compared", within=(1, np.inf),
        role="output")
    out: str = setting("results/search.json", "file of the JSON record", role="output")
    picture: str = setting("", "file of the picture (empty = the record's name with .png)", role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    path = path_of(config.out)
    if path.suffix != ".json":
        raise InputError(f"--out {config.out}: the name of the record must end in .json")
    if config.run:
        campaign(config)
    runs = read(config.runs)
    check(runs, config.within)
    report = count(runs, config.within) | made_by(argv)
    image = path_of(config.picture) if config.picture else path.with_suffix(".png")
    write_json(path, report)
    plot(report, runs, image)
    show(report)
    output.print(f"oracle: {report['oracle']}\nwritten: {path}, {image}")
    return report


def campaign(config: Config) -> None:
    """Searches with every strategy and seed, seed by seed, so that all have the same seeds if it is cut."""
    if not config.runs or "," in config.runs:
        raise InputError(f"--run --runs {config.runs!r}: give the one folder to search in")
    config = dataclasses.replace(config, outdir=config.runs)
    algos, seeds = search.check(dataclasses.replace(config, N=min(config.N, config.queries)))
    of_predictors = parse_seeds(config.predictor_seeds or config.seeds)
    tasks = []
    for seed in sorted({*seeds, *of_predictors}):
        for algo in algos:
            fits = STRATEGIES[algo].members > 0
            if seed in (of_predictors if fits else seeds):
                queries = config.queries if fits else config.N
                # run=0: to search.py, --run is a training of NAS-Bench-101
                tasks.append(search.single(config, algo, seed, N=queries, run=0))
    compute_all(config, search.run, tasks, search.named)


def read(folders: str) -> dict[str, list[SearchRun]]:
    """Reads every finished search in the folders, by strategy, seeds ascending."""
    paths = sorted(path.parent for folder in folders.split(",")
                   for path in path_of(folder).glob("*/*/best.json"))
    if not folders or not paths:
        raise InputError(f"--runs {folders!r}: no finished search in ALGO/SEED/ there: give folders of "
                         "search.py --seeds")
    found = {}
    for path in paths:
        run = read_run(path)
        run.best["round_tau"] = round_tau(path, metric_in(run.best).sign)
        found[run.best["algo"], run.best["seed"]] = run
    runs: dict[str, list[SearchRun]] = {}
    for (algo, _), run in sorted(found.items(), key=lambda item: item[0][1]):
        runs.setdefault(algo, []).append(run)
    return {algo: runs[algo] for algo in STRATEGIES if algo in runs}


def check(runs: dict[str, list[SearchRun]], within: int) -> None:
    """Raises InputError for runs that cannot be compared."""
    first = next(iter(runs.values()))[0].best
    for algo, group in runs.items():
        for run in group:
            name = f"{algo}, seed {run.best['seed']}"
            if any(run.best.get(same) != first.get(same) for same in SAME):
                raise InputError(
                    f"--runs: best.json of {name} is of another {' or '.join(SAME)}: give each its own call")
            if len(run.value) < within:
                raise InputError(f"--within {within}: {name} has {len(run.value)} queries only")


def count(runs: dict[str, list[SearchRun]], within: int) -> dict:
    everything = [run for group in runs.values() for run in group]
    first = everything[0].best
    best = first["optimum"] and first["optimum"][first["chosen_by"]]
    shown = "test" if all(np.isfinite(run.test).all() for run in everything) else first["chosen_by"]
    return {
        **{name: first.get(name) for name in SAME}, "within": within, "optimum": best, "shown": shown,
        "best_shown": best and first["optimum"][shown],
        "algos": {algo: describe(group, best, within) for algo, group in runs.items()},
        "pairs": differences(runs, best, within, shown),
        "curves": {algo: points(group) for algo, group in runs.items()}}


def made_by(argv: list[str] | None) -> dict:
    """The command and provenance of a record.

    The seconds of a run are in its strategy's row, measured where and when it ran.
    """
    return {"command": command_line("benchmarks.search", argv), **provenance()}


def plot(report: dict, runs: dict[str, list[SearchRun]], path: Path) -> None:
    """Draws the curves over queries and, if costs are known, over training time.

    They end with the shortest run of all or at twice `within`, as they differ before that.
    """
    end = min(2 * report["within"], *(len(run.value) for group in runs.values() for run in group))
    picture.plot(compare([cut(run, end) for group in runs.values() for run in group], report), path, TWINS)


def show(report: dict) -> None:
    known, within = report["optimum"] is not None, report["within"]
    metric = metric_in(report)
    unit = " %" * metric.is_accuracy
    optimum = f"optimum {report['optimum']:.3f}{unit}" if known else "optimum unknown"
    title = (f"{report['space']}, {metric.title(report['dataset'])}, {report['protocol']}, "
             f"chosen by {report['chosen_by']}; {optimum}")
    columns = ("strategy", "runs", f"at the optimum within {within}", "median query",
               f"best at {within}{' (%)' * metric.is_accuracy}", f"its test{' (%)' * metric.is_accuracy}",
               "tau in a round", "seconds per run")
    table = Table(*columns, title=title)
    for algo, a in report["algos"].items():
        share, median = "-", "-"
        if known:
            share, median = (f"{a['share']:.0%}",
                             f"> {a['horizon']:,}" if a["median"] is None else f"{a['median']:.0f}")
        table.add_row(algo, str(a["n"]), share, median, plus_minus(a["mean"], a["std"], 3), said(a["test"]),
                      "-" if a["round_tau"] is None else f"{a['round_tau']:.2f}",
                      "-" if a["seconds"] is None else f"{a['seconds']['all']:.1f}")
    output.print(table)
    if report["pairs"]:
        names = [meaning.format(shown=report["shown"], within=within) for meaning, _ in MEANING.values()]
        table = Table("pair", "n", *names,
                      title="in pairs over the seeds, [95 % interval]; positive = the first is better")
        for pair in report["pairs"]:
            gains = [in_words(pair[name], form) for name, (_, form) in MEANING.items()]
            table.add_row(f"{pair['ours']} - {pair['other']}", str(pair["n"]), *gains)
        output.print(table)


def in_words(gain: dict | None, form: str) -> str:
    if gain is None:
        return "-"
    interval = (
        "" if gain["low"] is None else f" [{gain['low']:{form}}, {gain['high']:{form}}] {gain['verdict']}")
    return f"{gain['mean']:{form}}{interval}"


if __name__ == "__main__":
    main_guard(main)
