"""How soon searches find the best cell there is, and whether a strategy beats the same strategy without a predictor.

    python -m benchmarks.search --run --runs runs/search/201 --dataset cifar10 --search_algo r,rl,ae,bo,random,policy,re,ls \\
        --seeds 0-49 --predictor_seeds 0-19 --encoder_model_state_dict default --jobs 2 --out results/search201_cifar10.json
    python -m benchmarks.search --runs runs/search/201,runs/elsewhere --out results/search201.json

--run searches first, with the flags of search.py: every strategy with every seed, in --runs/ALGO/SEED/; what is finished
there is kept, what is unfinished goes on. References take --N queries, strategies with a predictor --queries, and each stops
once it has queried the table's best (--no-stop_at_best for a surrogate, whose best nobody knows).

Without it, or after it, --runs are folders with a folder a strategy and a seed, of one space, oracle and protocol; of a
strategy and seed that two hold the later counts. What is counted is in benchmarks/search_counts.py: for each strategy the
share of runs at the table's optimum within --within queries and the median query that hits it, censored where runs end; in
pairs over the seeds, with 95 % bootstrap intervals, each of our strategies against its twin without our predictor, local
search, regularised evolution and random search. The record gets the curves, a point every ten queries, and how it was
made; the picture its name.
"""
from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

import executors
import runtime
import search
from benchmarks.search_counts import cut, describe, differences, points
from figs import search as picture
from runtime import setting
from spaces import InputError
from strategies import STRATEGIES
from strategies.summary import Run, cost_curve, curve, label_of, pm, read_run

SAME = ("space", "dataset", "protocol", "chosen_by", "oracle")
MEANING = {  # of the differences: what is compared, its format
    "accuracy": ("{shown} accuracy at {within}", "+.3f"), "share": ("share at the optimum within {within}", "+.2f"),
    "hit": ("queries saved to the first hit, censored where runs end", "+.1f")}


@dataclass
class Config(search.Config):
    runs: str = setting("", "folders of search.py, a comma list; with --run one folder, to search in")
    run: bool = setting(False, "search first; every other flag is search.py's")
    N: int = setting(1000, "run: queries of a reference without a predictor")
    queries: int = setting(150, "run: queries of a strategy with a predictor; the query that hits is censored there")
    seeds: str = setting("0-49", "run: the searches of each strategy")
    predictor_seeds: str = setting("", "run: those of strategies with a predictor; empty = --seeds")
    stop_at_best: bool = setting(True, "run: stop a search once it has queried the table's best; its curve stays there")
    pictures: bool = setting(False, "run: draw the curve and the best cell of each search")
    within: int = setting(150, "queries within which a hit counts, and after which accuracies are compared", within=(1, np.inf))
    out: str = setting("results/search.json", "the record")
    picture: str = setting("", "the picture; empty = the record's name with .png")


def main(argv: list[str] | None = None) -> dict:
    config = runtime.parse(Config, argv, __doc__)
    path = Path(config.out).expanduser()
    if path.suffix != ".json":
        raise InputError(f"--out {config.out}: the name of the record must end in .json")
    if config.run:
        campaign(config)
    runs = read(config.runs)
    check(runs, config.within)
    report = count(runs, config.within) | made_by(argv)
    image = Path(config.picture).expanduser() if config.picture else path.with_suffix(".png")
    runtime.write_json(path, report)
    plot(report, runs, image)
    show(report)
    runtime.output.print(f"oracle: {report['oracle']}\nwritten: {path}, {image}")
    return report


def campaign(config: Config) -> None:
    """Every strategy with every seed, the seeds in turn: wherever it is cut, the strategies have the same seeds."""
    if not config.runs or "," in config.runs:
        raise InputError(f"--run --runs {config.runs!r}: give the one folder to search in")
    config = dataclasses.replace(config, outdir=config.runs)
    algos, seeds = search.check(dataclasses.replace(config, N=min(config.N, config.queries)))
    of_predictors = runtime.parse_seeds(config.predictor_seeds or config.seeds)
    tasks = []
    for seed in sorted({*seeds, *of_predictors}):
        for algo in algos:
            fits = STRATEGIES[algo].members > 0
            if seed in (of_predictors if fits else seeds):
                tasks.append(search.single(config, algo, seed, N=config.queries if fits else config.N))
    executors.compute(config, search.run, tasks, search.named)


def read(folders: str) -> dict[str, list[Run]]:
    """Every finished search in the folders: by strategy, seeds ascending."""
    paths = sorted(path.parent for folder in folders.split(",") for path in Path(folder).expanduser().glob("*/*/best.json"))
    if not folders or not paths:
        raise InputError(f"--runs {folders!r}: no finished search in ALGO/SEED/ there: give folders of search.py --seeds")
    found = {(run.best["algo"], run.best["seed"]): run for run in map(read_run, paths)}
    runs: dict[str, list[Run]] = {}
    for (algo, _), run in sorted(found.items(), key=lambda item: item[0][1]):
        runs.setdefault(algo, []).append(run)
    return {algo: runs[algo] for algo in STRATEGIES if algo in runs}


def check(runs: dict[str, list[Run]], within: int) -> None:
    """InputError for runs that do not compare."""
    first = next(iter(runs.values()))[0].best
    for algo, group in runs.items():
        for run in group:
            name = f"{algo}, seed {run.best['seed']}"
            if any(run.best[same] != first[same] for same in SAME):
                raise InputError(f"--runs: {name} is of another {' or '.join(SAME)}: give them a call of their own")
            if len(run.value) < within:
                raise InputError(f"--within {within}: {name} has {len(run.value)} queries only")


def count(runs: dict[str, list[Run]], within: int) -> dict:
    everything = [run for group in runs.values() for run in group]
    first = everything[0].best
    best = first["optimum"] and first["optimum"][first["chosen_by"]]
    shown = "test" if all(np.isfinite(run.test).all() for run in everything) else first["chosen_by"]
    return {
        **{name: first[name] for name in SAME}, "within": within, "optimum": best, "shown": shown,
        "best_shown": best and first["optimum"][shown],
        "algos": {algo: describe(group, best, within) for algo, group in runs.items()},
        "pairs": differences(runs, best, within, shown),
        "curves": {algo: points(group) for algo, group in runs.items()}}


def made_by(argv: list[str] | None) -> dict:
    """How a record came about. The seconds of a run are in its strategy's row, measured where and when it ran."""
    return {"command": shlex.join(["python", "-m", "benchmarks.search", *(sys.argv[1:] if argv is None else argv)]),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}}


def plot(report: dict, runs: dict[str, list[Run]], path: Path) -> None:
    """Up to the end of the shortest run of all, or twice `within`, where the curves differ; against queries and, where costs
    are known, against training time."""
    shown = report["shown"]
    end = min(2 * report["within"], *(len(run.value) for group in runs.values() for run in group))
    runs = {algo: [cut(run, end) for run in group] for algo, group in runs.items()}
    over_cost = {algo: cost_curve(group, shown) for algo, group in runs.items()
                 if all(np.isfinite(run.spent).all() for run in group)}
    picture.plot({algo: curve(group, shown) for algo, group in runs.items()}, over_cost, path,
                 f"{report['space']}, {report['dataset']}, protocol {report['protocol']}",
                 label_of(shown, report["chosen_by"]), report["best_shown"])


def show(report: dict) -> None:
    known, within = report["optimum"] is not None, report["within"]
    optimum = f"optimum {report['optimum']:.3f} %" if known else "optimum unknown"
    title = f"{report['space']}, {report['dataset']}, {report['protocol']}, chosen by {report['chosen_by']}; {optimum}"
    columns = ("strategy", "runs", f"at the optimum within {within}", "median query", f"best at {within} (%)",
               "its test (%)", "seconds a run")
    table = Table(*columns, title=title)
    for algo, a in report["algos"].items():
        share, median = "-", "-"
        if known:
            share, median = f"{a['share']:.0%}", f"> {a['horizon']:,}" if a["median"] is None else f"{a['median']:.0f}"
        table.add_row(algo, str(a["n"]), share, median, pm([a["mean"], a["std"]]), pm(a["test"]),
                      "-" if a["seconds"] is None else f"{a['seconds']['all']:.1f}")
    runtime.output.print(table)
    if report["pairs"]:
        names = [meaning.format(shown=report["shown"], within=within) for meaning, _ in MEANING.values()]
        table = Table("pair", "n", *names, title="in pairs over the seeds, [95 % interval]; positive = the first is better")
        for pair in report["pairs"]:
            gains = [said(pair[name], form) for name, (_, form) in MEANING.items()]
            table.add_row(f"{pair['ours']} - {pair['other']}", str(pair["n"]), *gains)
        runtime.output.print(table)


def said(gain: dict | None, form: str) -> str:
    if gain is None:
        return "-"
    interval = "" if gain["low"] is None else f" [{gain['low']:{form}}, {gain['high']:{form}}] {gain['verdict']}"
    return f"{gain['mean']:{form}}{interval}"


if __name__ == "__main__":
    runtime.main_guard(main)
