"""Search for the best architecture with N oracle queries, steered by a predictor that each round fits anew on all answers.

    python search.py --search_space nasbench201 --search_algo r --dataset cifar10 --outdir runs/search/nasbench201/r/0 \\
        --encoder_model_state_dict default --N 150 --seed 0

outdir gets history.jsonl (a line a query: one seed, one history), log.jsonl (wall times), config.json and, at the end, best.json,
curve.csv, curve.png and best_cell.png. After a kill the same command with --resume ends in the same history, byte for byte.
"""
from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from rich.table import Table

import finetune
import runtime
import spaces
from figs import curve, draw_cell
from models.batch import Batch
from runtime import setting
from spaces import InputError
from spaces.cache import atomic_write
from spaces.labels import EMBEDDED
from spaces.oracles import Budget, TableOracle, open_oracle
from strategies import STRATEGIES, Pool, Query

LABELS = {"nasbench201": EMBEDDED}  # what --labels means where it is not given
FREE_TO_CHANGE = ("outdir", "param", "resume", "device", "threads")  # at --resume; the others decide the history


@dataclass
class Config(finetune.Recipe):
    search_space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    search_algo: str = setting("r", "strategy that proposes candidates: r = uniformly", tuple(STRATEGIES))
    dataset: str = setting("cifar10", "dataset of a label table with several", ("cifar10", "cifar100", "ImageNet16-120"))
    outdir: str = setting("runs/search/default", "folder for everything this search writes")
    encoder_model_state_dict: str = setting("", "pre-trained encoder: a last.pt of pretrain.py, or default = the shipped one; empty = from scratch")
    param: str = setting("default", "settings from local:FILE (see params/), from a running sweep (nni), or default")
    labels: str = setting("", f"oracle: a label file, {EMBEDDED} (NAS-Bench-201 by pip), or an .onnx surrogate; empty = {EMBEDDED}")
    run: int = setting(0, "which of NAS-Bench-101's three trainings a query returns (TFRecord files)")
    N: int = setting(150, "queries in all, a hard limit")
    N0: int = setting(20, "random architectures queried first")
    K: int = setting(10, "architectures queried a round")
    C: int = setting(100, "candidates scored a round")
    seed: int = setting(0, "decides the whole search")
    cell_marks: bool = setting(True, "DARTS spaces: tell the normal from the reduction cell (off = the paper's graph)")
    resume: bool = setting(False, "go on with the search in outdir, or start it where there is none")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads of torch; 0 = torch's choice")


def main(argv: list[str] | None = None) -> dict:
    """Run or resume a search; returns what best.json holds."""
    config = runtime.parse(Config, argv, __doc__)
    check(config)
    device = runtime.choose_device(config.device, config.threads)
    space = spaces.get(config.search_space, **({} if config.cell_marks else {"cell_marks": False}))
    oracle, pool = open_pool(config, space)
    checkpoint = runtime.load_encoder(config.encoder_model_state_dict, space) if config.encoder_model_state_dict else None
    folder = open_folder(config, oracle.name, checkpoint)
    history = History(folder / "history.jsonl", space, config.N)
    budget = Budget(oracle, config.N)
    budget.spent = len(history)
    chooser = Chooser(config, pool, checkpoint, device)
    search(config, chooser, history, budget, folder)
    return report(config, history, oracle.name, space, folder)


def check(config: Config) -> None:
    """InputError for numbers that make no search."""
    if not 2 <= config.N0 <= config.N:
        raise InputError(f"--N0 {config.N0}: the random start takes 2..N = 2..{config.N} queries")
    if not 1 <= config.K <= config.C:
        raise InputError(f"--K {config.K}: a round queries 1..C = 1..{config.C} of its candidates")
    if config.seed < 0 or config.members < 1:
        raise InputError(f"--seed {config.seed}, --members {config.members}: give a seed from 0 up and at least one member")


def open_pool(config: Config, space) -> tuple:
    """The oracle and the pool of all that it can answer with a validation accuracy; InputError where that is less than N."""
    labels = config.labels or LABELS.get(space.name)
    if not labels:
        raise InputError(f"--labels: {space.name} has no embedded labels: give a label file, or for DARTS cells an .onnx surrogate")
    oracle, keys = open_oracle(labels, space, dataset=config.dataset, run=config.run), None
    if isinstance(oracle, TableOracle):
        oracle = TableOracle(oracle.table.select(~np.isnan(oracle.table.val)), space)
        keys = oracle.table.keys
    pool = Pool(space, oracle.covers, keys)
    if config.N > pool.left:
        raise InputError(f"--N {config.N}: {oracle.name} knows the validation accuracy of {pool.left} architectures; lower --N")
    return oracle, pool


def open_folder(config: Config, oracle_name: str, checkpoint: dict | None) -> Path:
    """outdir with a config.json that fits this search. InputError where it holds a search and --resume is not given, or another search."""
    folder = Path(config.outdir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--outdir {folder}: {error.strerror}; name another folder") from None
    decided = {name: value for name, value in dataclasses.asdict(config).items() if name not in FREE_TO_CHANGE}
    decided |= {"oracle": oracle_name, "encoder_sha256": digest(checkpoint["weights"]) if checkpoint else None}
    stored = folder / "config.json"
    if not stored.exists() and not (folder / "history.jsonl").exists():
        runtime.write_json(stored, decided)
    elif not config.resume:
        raise InputError(f"{folder} holds a search already: go on with --resume or give another --outdir")
    else:
        try:
            before = dict(json.loads(stored.read_text()))
        except (OSError, ValueError, TypeError):
            raise InputError(f"{stored} is missing or damaged, so its search cannot be resumed: give another --outdir") from None
        for name, value in decided.items():
            if before.get(name) != value:
                raise InputError(f"--resume: {name} is {value!r}, but the search in {folder} has {before.get(name)!r}: "
                                 "give that or another --outdir")
    return folder


def digest(weights: dict) -> str:
    """SHA-256 of the tensors."""
    sha = hashlib.sha256()
    for value in weights.values():
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()


# The loop -------------------------------------------------------------------------------------------------------------

def rounds(config: Config):
    """(t, start, end) of each round: it makes the queries history[start:end]. Round 0 is the random start."""
    yield 0, 0, config.N0
    for t, start in enumerate(range(config.N0, config.N, config.K), 1):
        yield t, start, min(start + config.K, config.N)


def search(config: Config, chooser: Chooser, history: History, budget: Budget, folder: Path) -> None:
    """Algorithm 1. A round depends on (seed, t) and the rounds before it, so an interrupted one is chosen again, alike, and finished."""
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
                log.write(end, round=t, best=best_of(history[:end]).validation, **{name: round(s, 4) for name, s in seconds.items()})
            chooser.observe(history[start:end])
    log.close()


class Chooser:
    """Chooses the architectures of a round: the strategy proposes, the predictor scores, the best are picked."""

    def __init__(self, config: Config, pool: Pool, checkpoint: dict | None, device):
        self.config, self.pool, self.checkpoint, self.device = config, pool, checkpoint, device
        self.strategy = STRATEGIES[config.search_algo](pool)

    def choose(self, t: int, history: list[Query], n: int) -> tuple[list, dict]:
        """n new (architecture, score) of round t, best first, and the seconds it took. Asks no oracle."""
        rng = np.random.default_rng([self.config.seed, t, 1])
        if t == 0:
            return [(arch, None) for arch in self.pool.draw(n, rng)], {}
        started = time.perf_counter()
        ensemble = self.fit(t, history)
        fitted = time.perf_counter()
        candidates = self.pool.fresh(self.strategy.propose(self.config.C, rng))[:self.config.C]
        if len(candidates) < n:
            candidates = self.pool.fresh(candidates + self.pool.draw(n, rng))
        scores = finetune.score(ensemble, self.encode(candidates))  # [M, C]
        ranked_by = self.strategy.rank(scores, rng)  # [C]
        order = np.argsort(-ranked_by, kind="stable")[:n]
        picks = [(candidates[i], float(ranked_by[i])) for i in order]
        return picks, {"fit": fitted - started, "score": time.perf_counter() - fitted}

    def fit(self, t: int, history: list[Query]):
        """An ensemble fitted on the whole history, from the pre-trained encoder or from scratch."""
        m, n = self.config.members, len(history)
        seeds = [runtime.mix(self.config.seed, t, i) for i in range(m)]
        predictors = finetune.new_predictors(self.config, len(self.pool.space.ops), self.checkpoint, seeds)
        rows = np.tile(np.arange(n), (m, 1))  # [M, n]
        label = np.array([q.validation for q in history])[rows]  # [M, n]
        return finetune.fit(self.config, predictors, self.encode([q.arch for q in history]), rows, label, runtime.mix(self.config.seed, t))

    def encode(self, archs: list) -> Batch:
        return Batch.of(self.pool.space.encode(archs)).to(self.device)

    def observe(self, queries: list[Query]) -> None:
        """A round is finished: pool and strategy learn of it."""
        for query in queries:
            self.pool.take(query.key)
        self.strategy.observe(queries)


# The history ----------------------------------------------------------------------------------------------------------

class History:
    """The queries so far, kept in history.jsonl: a line each, on the disk before the next is asked. Slices are lists of Query."""

    def __init__(self, path: Path, space, limit: int):
        """Reads what is there; a last line that a kill has torn is cut off. InputError where the file is no history of this space."""
        self.path, self.space, self.queries = path, space, []
        for number, line in enumerate(whole_lines(path), 1):
            try:
                fields = json.loads(line)
                query = Query(**fields, arch=space.parse(fields["architecture"]))
                if query.query != number or number > limit or query.key != space.key(query.arch):
                    raise ValueError
            except (ValueError, TypeError, KeyError, AttributeError):
                raise InputError(f"{path}:{number}: not query {number} of {limit} of a search on {space.name}: give another --outdir") from None
            self.queries.append(query)

    def append(self, t: int, arch, record, score: float | None) -> None:
        query = Query(len(self) + 1, t, self.space.key(arch), self.space.text(arch), record.val, record.test, score, record.cost, arch)
        fields = query._asdict()
        del fields["arch"]
        with open(self.path, "a") as file:
            file.write(json.dumps(fields) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.queries.append(query)

    def expect(self, archs: list, start: int) -> None:
        """InputError unless the queries from `start` on are the first of these architectures."""
        for query, arch in zip(self.queries[start:], archs):
            if query.key != self.space.key(arch):
                raise InputError(f"{self.path}:{query.query}: holds {query.key} where this search chooses {self.space.key(arch)}: "
                                 "another device, thread count or version? Give another --outdir")

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, rows: slice) -> list[Query]:
        return self.queries[rows]


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that was being appended to; an unfinished last one is cut off the file. No file, no lines."""
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return content[:end].splitlines()


# The report -----------------------------------------------------------------------------------------------------------

def best_of(queries: list[Query]) -> Query:
    """By validation; the first of equal ones."""
    return max(queries, key=lambda query: query.validation)


def report(config: Config, history: History, oracle_name: str, space, folder: Path) -> dict:
    """Write best.json, the curve and the drawing of the best cell; print the table."""
    best = best_of(history[:])
    seconds = {"fit": 0.0, "score": 0.0, "query": 0.0}
    for line in whole_lines(folder / "log.jsonl"):
        seconds = {name: total + json.loads(line).get(name, 0.0) for name, total in seconds.items()}
    seconds["all"] = sum(seconds.values())
    result = {
        "architecture": best.architecture, "key": best.key, "validation": best.validation, "test": best.test, "query": best.query,
        "space": config.search_space, "algo": config.search_algo, "dataset": config.dataset, "oracle": oracle_name, "N": config.N,
        "seed": config.seed, "pretrained": config.encoder_model_state_dict or None,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    runtime.write_json(folder / "best.json", result)
    write_curve(folder / "curve.csv", history[:])
    title = f"{config.search_space}, {config.dataset}: strategy {config.search_algo}, seed {config.seed}"
    curve.plot({config.search_algo: [[query.validation for query in history[:]]]}, folder / "curve.png", title)
    draw_cell.draw(space, best.arch, folder / "best_cell.png")
    print_result(result, folder)
    return result


def write_curve(path: Path, queries: list[Query]) -> None:
    """CSV: after each query the best validation so far, that architecture's test accuracy, the simulated cost; unknown = empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", "best_validation", "test", "cost"))
    best = accumulate(queries, lambda a, b: best_of([a, b]))
    cost = accumulate(query.cost if query.cost is not None else float("nan") for query in queries)
    for query, leader, spent in zip(queries, best, cost):
        writer.writerow((query.query, leader.validation, leader.test, spent if spent == spent else None))
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def print_result(result: dict, folder: Path) -> None:
    seconds = result["seconds"]
    table = Table("validation", "test", "query", "seconds", "fitting", "scoring", "querying", title=(
        f"{result['space']}, {result['dataset']}, strategy {result['algo']}, seed {result['seed']}, "
        + (f"pre-trained: {result['pretrained']}" if result["pretrained"] else "from scratch")))
    test = "unknown" if result["test"] is None else f"{result['test']:.3f}"
    shares = (f"{seconds[name] / max(seconds['all'], 1e-9):.1%}" for name in ("fit", "score", "query"))
    table.add_row(f"{result['validation']:.3f}", test, f"{result['query']} of {result['N']}", f"{seconds['all']:.1f}", *shares)
    runtime.output.print(table)
    runtime.output.print(f"best by validation: {result['architecture']}\noracle: {result['oracle']}\n"
                         f"written: {folder}/ history.jsonl, best.json, curve.csv, curve.png, best_cell.png", markup=False, highlight=False)


if __name__ == "__main__":
    runtime.main_guard(main)
