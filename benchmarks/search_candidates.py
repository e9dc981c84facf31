"""Measure how well a search's predictor ranks the candidates of its rounds, whose answers it never sees.

    python -m benchmarks.search_candidates --search_space nasbench301 --labels nasbench301_yahpo.onnx \\
        --N 150 --encoder_model_state_dict default --out results/candidates_301.json

Searches with the flags of search.py, in memory. Once a round's predictor is fitted, the benchmark, not the
search, asks the oracle about some of the architectures that the round looks at (--sample, drawn at random),
and about the --top that the strategy likes best. Of each: Kendall's tau of predicted mean and answer, the
mean over the rounds, then mean and deviation over the seeds. A round looks at neighbours of what it likes, or
at the whole pool if that can be listed; those it likes best are nearly equal, the hardest to rank.
"""
from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

import search
from models.checkpoint import load_encoder
from models.metrics import kendall_tau
from runtime.errors import InputError, main_guard
from runtime.executors import InProcess
from runtime.files import path_of, write_json
from runtime.log import command_line, mean_std, output, plus_minus, progress_bar, provenance
from runtime.seeding import choose_device
from runtime.settings import parse, setting
from spaces import Space
from spaces.base import Oracle
from spaces.metrics import metric_of
from spaces.oracles.table import QueryBudget
from strategies import STRATEGIES
from strategies.history import History
from strategies.limits import Limits
from strategies.problem import open_pool, within
from strategies.rounds import run_rounds
from strategies.settings import new_chooser, with_published_numbers
from strategies.surface import Surface
from strategies.warm_start import read_source


@dataclass
class Config(search.Config):
    search_algo: str = setting("bo", "strategies with a predictor, a comma list")
    seeds: str = setting("0-4", "seeds of each strategy's searches", role="data")
    sample: int = setting(
        300, "architectures per round that the oracle is asked about", within=(2, 10**5), role="data")
    top: int = setting(50, "most promising ones per round, likewise", within=(2, 10**5), role="data")
    out: str = setting("results/candidates.json", "file of the JSON record", role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    algos, seeds = search.check(config)
    blind = [algo for algo in algos if not STRATEGIES[algo].members]
    if blind:
        raise InputError(
            f"--search_algo {config.search_algo}: {', '.join(blind)} fits no predictor: leave it out")
    device = choose_device(config.device, config.threads)
    space, oracle = search.open_problem(config, InProcess())
    limits = Limits(config.limit, search.facts_of(config, space))
    problem = Problem(space, within(oracle, limits), limits)
    report = {}
    with progress_bar() as bar:
        line = bar.add_task("candidates", total=len(algos) * len(seeds))
        for algo in algos:
            rows = []
            for seed in seeds:
                bar.update(line, description=f"{algo}, seed {seed}")
                rows.append(watched(
                    dataclasses.replace(config, search_algo=algo, seed=seed), problem, device))
                bar.advance(line)
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            report[algo] = {"seeds": seeds} | {name: mean_std(column) for name, column in columns.items()}
    show(report)
    write_json(path_of(config.out), {
        "space": space.name, "oracle": oracle.name, "dataset": config.dataset, "algos": report,
        "command": command_line("benchmarks.search_candidates", argv)} | provenance())
    output.print(f"oracle: {oracle.name}\nwritten: {config.out}", soft_wrap=True)
    return report


class Problem(NamedTuple):
    space: Space
    oracle: Oracle
    limits: Limits


def watched(config: Config, problem: Problem, device: torch.device) -> dict[str, float]:
    """Searches once; the means over its rounds: `tau` of the sample, `tau_top`, `looked_at` architectures."""
    config, (space, oracle, limits), rows = with_published_numbers(config), problem, []
    pool = open_pool(space, oracle, config.N, config.protocol, limits)
    source, metric = config.encoder_model_state_dict, metric_of(config)
    chooser = new_chooser(config, pool, load_encoder(source, space) if source else None, device,
                          read_source(config, space, metric))
    rng = np.random.default_rng([config.seed, 9])

    def watch(surface: Surface) -> None:
        count = len(surface.keys)
        some = rng.choice(count, min(config.sample, count), replace=False)
        rows.append({"tau": metric.sign * agreement(surface, some, problem),
                     "tau_top": metric.sign * agreement(surface, surface.top(config.top), problem),
                     "looked_at": float(count)})

    chooser.on_surface = watch
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history.jsonl", space, config.N, metric)
        run_rounds(
            chooser, history, QueryBudget(oracle, config.N), Path(folder), np.inf, lambda done, t: None)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def agreement(surface: Surface, rows: Sequence[int], problem: Problem) -> float:
    """Kendall's tau of the predicted mean and the answers, of architectures that the surface has."""
    keys = [surface.keys[row] for row in rows]
    answers = [problem.oracle.query(surface.archs[key] or problem.space.parse(key)).val for key in keys]
    return kendall_tau(surface.mean[list(rows)], np.array(answers))


def show(report: dict) -> None:
    table = Table("strategy", "seeds", "tau of the candidates", "tau of the most promising", "looked at")
    for algo, row in report.items():
        taus = (plus_minus(*row[name], 3) for name in ("tau", "tau_top"))
        table.add_row(algo, str(len(row["seeds"])), *taus, f"{row['looked_at'][0]:,.0f} per round")
    output.print(table)


if __name__ == "__main__":
    main_guard(main)
