"""How soon searches find the best cell there is, and whether a strategy beats the same strategy without a predictor.

    python search.py --search_algo r,random,ls --seeds 0-19 --N 150 --no-pictures --outdir runs/search/201 \\
        --encoder_model_state_dict default
    python -m benchmarks.search --runs runs/search/201 --out results/search201.json

--runs are folders of search.py with a folder a strategy and a seed, of one space, oracle and protocol; where two hold the same
strategy, one after the other. For each strategy: the share of runs that hit the table's optimum within --within queries, the
median query that hits it (runs that never do count as longer), the best accuracy at --within. Pairs: r - random, rl - policy, ae -
re, bo - ls, the difference at --within over the seeds that both have, with its 95 % bootstrap interval.
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
from strategies.summary import Run, read_run

TWINS = (("r", "random"), ("rl", "policy"), ("ae", "re"), ("bo", "ls"))
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
    best = first["optimum"][first["chosen_by"]]
    report = {"runs": config.runs, "within": config.within, "optimum": best} | {name: first[name] for name in SAME}
    report["algos"] = {algo: describe([run for (a, _), run in runs.items() if a == algo], best, config.within)
                       for algo in dict.fromkeys(algo for algo, _ in runs)}
    report["twins"] = [pair for ours, twin in TWINS if (pair := compare(runs, ours, twin, config.within))]
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


def describe(runs: list[Run], best: float, within: int) -> dict:
    """One strategy's runs: share and median of the hits, accuracy at `within`."""
    hits = np.array([np.argmax(run.value >= best) + 1 if run.value[-1] >= best else np.inf for run in runs])  # [R]
    horizon, median = min(len(run.value) for run in runs), np.median(hits)
    value = np.array([run.value[within - 1] for run in runs])  # [R]
    return {"n": len(runs), "share": float(np.mean(hits <= within)), "median": float(median) if median <= horizon else None,
            "horizon": horizon, "mean": float(value.mean()), "std": float(value.std(ddof=1)) if len(runs) > 1 else None}


def compare(runs: dict, ours: str, twin: str, within: int) -> dict | None:
    """ours minus twin at `within`, paired over seeds; None where they share no seed."""
    seeds = [seed for algo, seed in runs if algo == ours and (twin, seed) in runs]
    if not seeds:
        return None
    gain = np.array([runs[ours, seed].value[within - 1] - runs[twin, seed].value[within - 1] for seed in seeds])  # [S]
    low, high = paired_interval(gain)
    verdict = None if low is None else "ahead" if low > 0 else "behind" if high < 0 else "tie"
    return {"ours": ours, "twin": twin, "n": len(seeds), "mean": float(gain.mean()), "low": low, "high": high, "verdict": verdict}


def show(report: dict) -> None:
    title = f"{report['space']}, {report['dataset']}, {report['protocol']}, chosen by {report['chosen_by']}; optimum {report['optimum']:.3f} %"
    table = Table("strategy", "runs", f"at the optimum within {report['within']}", "median query", f"best at {report['within']} (%)", title=title)
    for algo, a in report["algos"].items():
        median = f"> {a['horizon']:,}" if a["median"] is None else f"{a['median']:.0f}"
        spread = "" if a["std"] is None else f" ± {a['std']:.3f}"
        table.add_row(algo, str(a["n"]), f"{a['share']:.0%}", median, f"{a['mean']:.3f}{spread}")
    runtime.output.print(table)
    for pair in report["twins"]:
        interval = "" if pair["low"] is None else f" [{pair['low']:+.3f}, {pair['high']:+.3f}], {pair['verdict']}"
        runtime.output.print(f"{pair['ours']} - {pair['twin']}: {pair['mean']:+.3f}{interval} (n = {pair['n']})")


if __name__ == "__main__":
    runtime.main_guard(main)
