"""How soon searches find the best cell there is, and whether a strategy beats the same strategy without a predictor.

    python search.py --search_algo r,random,ls --seeds 0-19 --N 150 --no-pictures --outdir runs/search/201 \\
        --encoder_model_state_dict default
    python -m benchmarks.search --runs runs/search/201 --out results/search201.json

--runs are folders of search.py with a folder a strategy and a seed, of one space, oracle and protocol; of a strategy and
seed that two hold the later counts. For each strategy: the share of runs that hit the table's optimum within --within
queries, the median query that hits it (runs that never do count as longer; a surrogate has no known optimum), the best
accuracy at --within and its test accuracy where known. Pairs: each strategy minus its twin without our predictor, the difference at
--within (of test accuracy where all know it) over the seeds that both have, with its 95 % bootstrap interval.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

import runtime
from models.metrics import paired_interval
from runtime import setting
from spaces import InputError
from strategies import TWINS
from strategies.summary import Run, mean_std, pm, read_run

SAME = ("space", "dataset", "protocol", "chosen_by", "oracle")


@dataclass
class Config:
    runs: str = setting("", "folders of search.py, a comma list")
    within: int = setting(150, "queries", within=(1, np.inf))
    out: str = setting("results/search.json", "the record")


def main(argv: list[str] | None = None) -> dict:
    config = runtime.parse(Config, argv, __doc__)
    runs = read(config.runs)
    first = next(iter(runs.values())).best
    for (algo, seed), run in runs.items():
        if any(run.best[name] != first[name] for name in SAME):
            raise InputError(f"--runs: {algo}, seed {seed} is of another {' or '.join(SAME)}: give them a call of their own")
        if len(run.value) < config.within:
            raise InputError(f"--within {config.within}: {algo}, seed {seed} has {len(run.value)} queries only")
    best = first["optimum"] and first["optimum"][first["chosen_by"]]
    shown = "test" if all(np.isfinite(run.test).all() for run in runs.values()) else first["chosen_by"]
    report = {"runs": config.runs, "within": config.within, "optimum": best, "shown": shown}
    report |= {name: first[name] for name in SAME}
    report["algos"] = {algo: describe([run for (a, _), run in runs.items() if a == algo], best, config.within)
                       for algo in dict.fromkeys(algo for algo, _ in runs)}
    at_end = {key: accuracy(run, shown, config.within) for key, run in runs.items()}
    report["twins"] = [pair for ours, twin in TWINS.items() if (pair := compare(at_end, ours, twin))]
    runtime.write_json(Path(config.out).expanduser(), report)
    show(report)
    runtime.output.print(f"oracle: {report['oracle']}\nwritten: {config.out}")
    return report


def read(folders: str) -> dict[tuple[str, int], Run]:
    """{(strategy, seed): run} of every finished search in the folders."""
    paths = sorted(path.parent for folder in folders.split(",") for path in Path(folder).expanduser().glob("*/*/best.json"))
    if not folders or not paths:
        raise InputError(f"--runs {folders!r}: no finished search in ALGO/SEED/ there: give folders of search.py --seeds")
    runs = [read_run(path) for path in paths]
    return {(run.best["algo"], run.best["seed"]): run for run in sorted(runs, key=lambda run: run.best["seed"])}


def accuracy(run: Run, which: str, within: int) -> float:
    """Of the best among the first `within` queries, percent: the accuracy that chose it, or its test accuracy."""
    return float((run.test if which == "test" else run.value)[within - 1])


def describe(runs: list[Run], best: float | None, within: int) -> dict:
    """One strategy's runs: share and median of the hits (None without an optimum), accuracy and test at `within`.

    A median beyond the shortest run is None: nobody has seen it.
    """
    horizon, known = min(len(run.value) for run in runs), best is not None
    hits = np.array([np.argmax(run.value >= best) + 1 if known and run.value[-1] >= best else np.inf for run in runs])  # [R]
    median = float(np.median(hits))
    mean, std = mean_std([accuracy(run, "chosen", within) for run in runs])
    test = mean_std([accuracy(run, "test", within) for run in runs])
    return {"n": len(runs), "share": float(np.mean(hits <= within)) if known else None,
            "median": median if median <= horizon else None, "horizon": horizon, "mean": mean, "std": std,
            "test": test if np.isfinite(test[0]) else None}


def compare(at_end: dict[tuple[str, int], float], ours: str, twin: str) -> dict | None:
    """ours minus twin, paired over the seeds; None where they share no seed."""
    seeds = [seed for algo, seed in at_end if algo == ours and (twin, seed) in at_end]
    if not seeds:
        return None
    gain = np.array([at_end[ours, seed] - at_end[twin, seed] for seed in seeds])  # [S]
    low, high = paired_interval(gain)
    verdict = None if low is None else "ahead" if low > 0 else "behind" if high < 0 else "tie"
    return {"ours": ours, "twin": twin, "n": len(seeds), "mean": float(gain.mean()), "low": low, "high": high,
            "verdict": verdict}


def show(report: dict) -> None:
    known, within = report["optimum"] is not None, report["within"]
    optimum = f"optimum {report['optimum']:.3f} %" if known else "optimum unknown"
    title = f"{report['space']}, {report['dataset']}, {report['protocol']}, chosen by {report['chosen_by']}; {optimum}"
    columns = "strategy", "runs", f"at the optimum within {within}", "median query", f"best at {within} (%)", "its test (%)"
    table = Table(*columns, title=title)
    for algo, a in report["algos"].items():
        share, median = "-", "-"
        if known:
            share, median = f"{a['share']:.0%}", f"> {a['horizon']:,}" if a["median"] is None else f"{a['median']:.0f}"
        table.add_row(algo, str(a["n"]), share, median, pm([a["mean"], a["std"]]), pm(a["test"]))
    runtime.output.print(table)
    for pair in report["twins"]:
        interval = "" if pair["low"] is None else f" [{pair['low']:+.3f}, {pair['high']:+.3f}], {pair['verdict']}"
        runtime.output.print(f"{pair['ours']} - {pair['twin']}, {report['shown']} accuracy: {pair['mean']:+.3f}{interval} "
                             f"(n = {pair['n']})")


if __name__ == "__main__":
    runtime.main_guard(main)
