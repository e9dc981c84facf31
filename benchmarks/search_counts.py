"""The measures of benchmarks/search.py over finished searches.

Letters: R runs of one strategy, S seeds that two strategies share. A run that has not queried the table's
optimum when it ends is censored there: its first hit comes later.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.metrics import kendall_tau, paired_interval
from runtime.files import whole_lines
from runtime.guarded import checked_json
from runtime.log import mean_std
from spaces.metrics import metric_in
from strategies import TWINS
from strategies.history import HistoryLine
from strategies.summary import SearchRun, curve

BASELINES = ("ls", "re", "random")  # the strongest first; none has a predictor
PAIRS = [
    *TWINS.items(),
    *((ours, other) for other in BASELINES for ours, twin in TWINS.items() if twin != other),
]


def first_hit(run: SearchRun, best: float | None) -> float:
    """The first query that hits the optimum; infinite if none does, or if the optimum is unknown (None)."""
    if best is None:
        return np.inf
    hit = metric_in(run.best).sign * (run.value - best) >= 0  # [N]
    return float(np.argmax(hit) + 1) if hit[-1] else np.inf


def accuracy(run: SearchRun, which: str, within: int) -> float:
    """The accuracy of the best of the first `within` queries, percent: the one that chose it, or test."""
    return float((run.test if which == "test" else run.value)[within - 1])


def round_tau(folder: Path, sign: float) -> float | None:
    """Kendall tau of the scores by which a round's queries were chosen and their answers, mean of all rounds.

    These are the best of thousands of candidates, and chosen to differ: far harder to rank than a space. None
    without a predictor, or without a history. sign: -1 if lower is better.
    """
    path = folder / "history.jsonl"
    if not path.exists():
        return None
    rounds: dict[int, list[tuple[float, float]]] = {}
    for number, text in enumerate(whole_lines(path), 1):
        line = checked_json(text, HistoryLine, f"{path}:{number}", "finish the search with --resume")
        if line.score is not None and line.validation is not None:
            rounds.setdefault(line.round, []).append((line.score, sign * line.validation))
    taus = [kendall_tau(*np.transpose(pairs)) for pairs in rounds.values() if len(pairs) > 1]
    return float(np.mean(taus)) if taus else None


def describe(runs: list[SearchRun], best: float | None, within: int) -> dict:
    """Summarises the runs of one strategy: hits of the optimum, accuracy and test at `within`, seconds.

    round_tau: see there. The share of hits is None without an optimum. A median beyond the shortest run is
    None, as it was not observed. seconds {"fit", "score", "query", "all"} are means over the runs, for
    `asked` queries.
    """
    horizon = min(len(run.value) for run in runs)
    hits = np.array([first_hit(run, best) for run in runs])  # [R]
    median = float(np.median(hits))
    mean, std = mean_std([accuracy(run, "chosen", within) for run in runs])
    test = list(mean_std([accuracy(run, "test", within) for run in runs]))
    taus = [run.best["round_tau"] for run in runs if run.best.get("round_tau") is not None]
    times = [run.best["seconds"] for run in runs if "seconds" in run.best]
    return {
        "n": len(runs),
        "seeds": [run.best["seed"] for run in runs],
        "share": None if best is None else float(np.mean(hits <= within)),
        "median": median if median <= horizon else None,
        "horizon": horizon,
        "mean": mean,
        "std": std,
        "round_tau": float(np.mean(taus)) if taus else None,
        "test": test if np.isfinite(test[0]) else None,
        "stopped": sum(run.best.get("stopped") is not None for run in runs),
        "asked": float(np.mean([run.best.get("stopped") or len(run.value) for run in runs])),
        "seconds": {
            name: round(float(np.mean([t[name] for t in times])), 3) for name in times[0]} if times else None,
    }


def differences(runs: dict[str, list[SearchRun]], best: float | None, within: int, shown: str) -> list[dict]:
    """Compares each of our strategies with its twin and the BASELINES, over the seeds that both have."""
    pairs = []
    for ours, other in PAIRS:
        mine, theirs = ({run.best["seed"]: run for run in runs.get(algo, [])} for algo in (ours, other))
        shared = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
        if shared:
            pairs.append(
                {"ours": ours, "other": other, "n": len(shared)} | compare(shared, best, within, shown))
    return pairs


def compare(shared: list[tuple[SearchRun, SearchRun]], best: float | None, within: int, shown: str) -> dict:
    """The gains of the first of each pair over the second; positive = better.

    accuracy  percentage points (or units of the metric) of the best so far at `within` queries: the regret
              saved
    share     share of runs at the optimum within `within` queries
    hit       queries by which the first hit comes sooner; a hit after `until`, the end of the shortest run,
              counts as `until`
    """
    until = min(len(run.value) for pair in shared for run in pair)

    def gain(of: Callable[[SearchRun], float]) -> dict:
        return interval(np.array([of(ours) - of(other) for ours, other in shared]))

    sign = metric_in(shared[0][0].best).sign
    known = best is not None
    return {"accuracy": gain(lambda run: sign * accuracy(run, shown, within)),
            "share": gain(lambda run: float(first_hit(run, best) <= within)) if known else None,
            "hit": gain(lambda run: -min(first_hit(run, best), until)) if known else None, "until": until}


def interval(gain: np.ndarray) -> dict:
    """The mean of gain [S], its 95 % bootstrap interval and verdict, which are None for a single seed."""
    low, high = paired_interval(gain)
    verdict = None if low is None else "ahead" if low > 0 else "behind" if high < 0 else "tie"
    return {"mean": float(gain.mean()), "low": low, "high": high, "verdict": verdict}


def cut(run: SearchRun, end: int) -> SearchRun:
    """The run as it stood after `end` queries."""
    stopped = run.best.get("stopped")
    best = run.best | {"stopped": stopped if stopped is not None and stopped <= end else None}
    return SearchRun(best, run.value[:end], run.test[:end], run.cost[:end])


def points(runs: list[SearchRun]) -> dict:
    """One strategy's curves up to the end of its shortest run, one point every ten queries.

    These are mean and std over the runs of the accuracy that chooses, and of test, which is None if unknown.
    """
    runs = [cut(run, min(len(run.value) for run in runs)) for run in runs]
    chosen, test = (curve(runs, which) for which in ("chosen", "test"))
    return {
        "query": chosen.x.tolist(),
        "mean": chosen.mean.tolist(),
        "std": chosen.std.tolist(),
        "test": {
            "mean": test.mean.tolist(), "std": test.std.tolist()} if np.isfinite(test.mean).all() else None,
    }
