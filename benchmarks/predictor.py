"""Compare predictors on the same labels: one run, one table, one JSON record, one picture beside it.

    python -m benchmarks.predictor --space nasbench201 --methods ours,ours_scratch,xgboost \\
        --n_labels 78,156 --seeds 0-9 --out results/predictor_nasbench201.json

For each seed, every method gets the same labels and ranks the same cells, none of which it saw; with
--n_labels 0 none is given. Finished
results are kept in --out: a run that was interrupted, or that asks for more methods, sizes or seeds, computes
only the missing ones, and nothing in the record is lost (so after a change of the code give another --out).
The table shows the requested results, the picture the whole record. The seconds are those of fitting one
seed, without pre-training. Methods:

    ours              finetune.py with its defaults, from the shipped pre-trained encoder
    without_prior     the same without the prior
    universal         the same from the encoder for all spaces, checkpoints/universal.pt
    prior             the prior alone, which reads no label, learned on other spaces
    process           ours, its Gaussian process alone
    ours_scratch      ours, from scratch: neither encoder nor prior
    scratch_tuned     from scratch, tuned: params/scratch.json, below 200 labels scratch_few.json
    ensemble          ours without the Gaussian process
    ensemble_scratch  the same, from scratch
    gat               the paper's GAT from scratch, published settings
    gat_pretrained    the same, pre-trained for --pretrain_steps and fine-tuned end to end
    gat_frozen        the same, but only its head is fine-tuned
    npnas             bidirectional graph convolution (Neural Predictor for NAS), one network per seed
    gates             gated information flow (GATES), one network per seed
    path_mlp          MLPs on the path encoding (BANANAS)
    xgboost           boosted trees on path, wiring and graph features
    trees             the same on analytic properties
    trees_prior       the same with the prior's score as one more column
    from_SPACE        ours, from the encoder shipped for another of nasbench101, nasbench201, darts
    from_cifar10      ours, from predictors fine-tuned on 424 labels of CIFAR-10, for another --dataset
"""
from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import spaces
from benchmarks.baselines import METHODS, PredictorTask
from benchmarks.predictor_record import MEASURES, Report, add, differences, find, only, show, summary
from benchmarks.shifts import SHIFTS, labelled_half
from figs.predictors import plot
from models.batch import Batch
from models.metrics import kendall_tau, precision_at, spearman_rho
from runtime.errors import InputError, main_guard
from runtime.executors import ProcessPool
from runtime.files import path_of, write_json
from runtime.guarded import checked, read_json
from runtime.locks import exclusive
from runtime.log import command_line, console, output, progress_bar
from runtime.seeding import DeviceSettings, choose_device
from runtime.settings import check_same, fingerprint, parse, parse_seeds, setting
from spaces.labels.protocols import RANKING_PROTOCOLS, split, target_of
from spaces.labels.read import LabelSettings, read_labels
from spaces.metrics import metric_of


@dataclass
class Config(DeviceSettings, LabelSettings):
    space: str = setting("nasbench201", spaces.HELP, role="data")
    eval_labels: str = setting(
        "", "other label tables whose cells are ranked, a comma list; if several, each has its own record, "
        "OUT_TABLE.json (empty = the other cells of --labels)", role="data")
    protocol: str = setting(
        "", "which accuracy trains and which is ranked (empty = by space: nb201, tnasp or nb301)",
        ("", *RANKING_PROTOCOLS), role="data")
    methods: str = setting(
        "ours,ours_scratch,npnas,gates,path_mlp,xgboost", "methods, a comma list; each is compared with the "
        "first", role="output")
    n_labels: str = setting("100,424", "sizes of the training set, a comma list", role="output")
    seeds: str = setting(
        "0-9", "independent runs, like 0,1,2 or 0-9; tune on seeds from 1000 on", role="output")
    eval_cells: int = setting(
        0, "cells ranked, at most, drawn once for all seeds (0 = all)", within=(0, np.inf), role="data")
    shift: str = setting(
        "", "labelled and ranked cells of different kinds: "
        + "; ".join(f"{name} = {says}" for name, (says, _) in SHIFTS.items())
        + ", and the other is ranked (empty = both at random)", ("", *SHIFTS), role="data")
    pretrain_steps: int = setting(
        500, "pre-training steps of gat_pretrained and gat_frozen (the paper: 10,000)", within=(1, np.inf))
    universal: str = setting(
        "", "encoder of the method universal, like one that was pre-trained with --without this space (empty "
        "= the shipped one)", role="data")
    work: str = setting("runs/benchmarks", "folder for encoders that are pre-trained here", role="output")
    out: str = setting("results/predictor.json", "file of the JSON record, and name of its picture",
                       role="output")
    together: int = setting(
        5, "seeds of a method and size that are fitted at once, and lost if a run is interrupted",
        within=(1, np.inf), role="machine")
    jobs: int = setting(
        1, "processes, each with --threads; more than one needs --device cpu", within=(1, 64), role="machine")


class Piece(NamedTuple):
    """A unit of work: one method, one size and the seeds fitted together."""

    method: str
    n: int
    seeds: list[int]


def main(argv: list[str] | None = None) -> list[dict]:
    """Returns the report of every ranked table."""
    config = parse(Config, argv, __doc__)
    parse_methods(config.methods), parse_sizes(config.n_labels), parse_seeds(config.seeds)
    device = choose_device(config.device, config.threads)
    if config.jobs > 1 and device.type != "cpu":
        raise InputError(
            f"--jobs {config.jobs}: several processes would share one {device.type}: give --device cpu")
    need_labels(config)
    paths = record_files(config)
    out = path_of(config.out)
    with exclusive(out.parent, "--out", name=out.name):
        return carry_out(config, paths, device, command_line("benchmarks.predictor", argv))


def carry_out(config: Config, paths: dict[str, Path], device: torch.device, command: str) -> list[dict]:
    """Measures what the records lack, and writes them as it goes; returns the reports."""
    methods, sizes, seeds = (
        parse_methods(config.methods), parse_sizes(config.n_labels), parse_seeds(config.seeds))
    reports = [start(config, table, path) for table, path in paths.items()]
    cells = Cells(config, spaces.get(config.space), device)
    for report, ranked in zip(reports, cells.ranked):
        report |= {"labels": cells.known.name, "ranked": ranked.name, "target": ranked.target,
                   "commands": [*dict.fromkeys([*report.get("commands", []), command])]}
    write(reports, paths)
    pieces = [piece for n in sizes for method in methods
              for piece in missing(reports, method, n, seeds, config.together)]
    for records in measured(config, cells, pieces):
        for report, record in zip(reports, records):
            add(report, record)
        write(reports, paths)
    for report, path in zip(reports, paths.values()):
        report["differences"] = differences(report["records"], methods[0])
        picture = path.with_suffix(".png")
        plot(report, picture)
        show(report, [only(find(report, method, n), seeds) for n in sizes for method in methods])
        output.print(f"labels: {report['labels']}; ranked: {report['ranked']}\nwritten: {path}, {picture}")
    write(reports, paths)
    return reports


def parse_methods(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown or len(set(names)) < len(names):
        raise InputError(f"--methods {text}: give a comma list of {', '.join(METHODS)}, each at most once")
    return names


def parse_sizes(text: str) -> list[int]:
    sizes = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    if any(size not in (0, *range(2, size + 1)) for size in sizes) or len(set(sizes)) < len(sizes):
        raise InputError(f"--n_labels {text}: give 0 (the prior alone) or at least 2, like 0,100,424, each "
                         "once")
    return sizes


def need_labels(config: Config) -> None:
    """Raises InputError if a method that learns from labels alone is asked for none."""
    unable = [name for name in parse_methods(config.methods) if not METHODS[name].label_free]
    if 0 in parse_sizes(config.n_labels) and unable:
        able = [name for name, method in METHODS.items() if method.label_free]
        raise InputError(f"--n_labels 0: {', '.join(unable)} cannot rank without labels: leave out these, or "
                         f"the 0; those that can are {', '.join(able)}")


def record_files(config: Config) -> dict[str, Path]:
    """{table to rank, "" for the one that trains: file of its record}"""
    out, tables = path_of(config.out), config.eval_labels.split(",")
    if out.suffix != ".json":
        raise InputError(f"--out {config.out}: the name of the record must end in .json")
    names = [out.name] if len(tables) == 1 else [
        f"{out.stem}_{Path(table).name.partition('.')[0]}.json" for table in tables]
    if len(set(names)) < len(names) or "" in tables[1:] + tables[:-1]:
        raise InputError(f"--eval_labels {config.eval_labels}: give a comma list of files whose names differ")
    return {table: out.with_name(name) for table, name in zip(tables, names)}


def write(reports: list[dict], paths: dict[str, Path]) -> None:
    for report, path in zip(reports, paths.values()):
        write_json(path, report)


def start(config: Config, table: str, path: Path) -> dict:
    """Reads the report so far, or starts an empty one; raises InputError if its settings differ."""
    settings = fingerprint(config)
    settings["eval_labels"] = table
    if not path.exists():
        return {"settings": settings, "records": []}
    report = read_json(path, "give another name for --out")
    try:
        stored = report["settings"]
        seeds = report["settings"].pop("seeds", None)  # of all records, in files of an earlier format
        for record in report["records"]:
            record.pop("n_seeds", None)
            record.setdefault("seeds", seeds and parse_seeds(seeds))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise InputError(f"--out: {path} is no record of this benchmark: give another name") from None
    checked(report, Report, path, "it is no record of this benchmark: give another name")
    check_same(stored, settings, path)
    return report


def missing(reports: list[dict], method: str, n: int, seeds: list[int], together: int) -> list[Piece]:
    """The pieces, of at most `together` seeds each, that any of the reports lacks."""
    records = [find(report, method, n) for report in reports]
    left = [seed for seed in seeds if not all(record and seed in record["seeds"] for record in records)]
    return [Piece(method, n, left[i:i + together]) for i in range(0, len(left), together)]


# Labels and cells -------------------------------------------------------------------------------------------

class Ranked(NamedTuple):
    """A label table whose cells are ranked: its name, the ranked accuracy, and the rows to choose from."""

    name: str
    target: str
    candidates: np.ndarray  # int[C] of all rows, the same for every seed and size


class Cells:
    """The graphs of all N cells, the labels to train on, and the cells to rank.

    The first rows are those of the label table that trains, in its order; then those of --eval_labels, if
    given.
    """

    def __init__(self, config: Config, space, device):
        self.space, self.protocol = space, config.protocol or space.protocol
        self.metric = metric_of(config)
        self.known = read_labels(config.labels, space, config.dataset, metric=self.metric)
        others = [read_labels(name, space, config.dataset, metric=self.metric)
                  for name in config.eval_labels.split(",") if name]
        keys = sum((table.keys for table in others), self.known.keys)
        self.identity = np.unique(keys, return_inverse=True)[1]  # [N]: equal for equal cells
        self.table = Batch.of(space.encode_keys(keys)).to(device)
        self.truth = np.full(len(keys), np.nan)  # [N]: of the cells that are ranked
        self.drawn = np.arange(len(self.known.keys))  # rows that labels are drawn from
        self.ranked, start = [], len(self.known.keys) if others else 0
        for table in others or [self.known]:
            target, end = target_of(table, self.protocol), start + len(table.keys)
            self.truth[start:end] = table.utility(target)  # higher is better
            rows = start + np.flatnonzero(~np.isnan(self.truth[start:end]))
            if config.eval_cells:
                rows = np.sort(np.random.default_rng(0).permutation(rows)[:config.eval_cells])
            self.ranked.append(Ranked(table.name, target, rows))
            start = end
        if config.shift:
            self.divide(config.shift)

    def divide(self, shift: str) -> None:
        """Draws labels from one half of the table, and ranks the other."""
        if len(self.truth) > len(self.known.keys):
            raise InputError(f"--shift {shift}: it divides --labels: leave --eval_labels out")
        label = self.known.utility(RANKING_PROTOCOLS[self.protocol].train)
        rows = np.flatnonzero(~np.isnan(label))
        half = rows[labelled_half(shift, self.space, self.table.rows(torch.as_tensor(rows)), label[rows])]
        self.drawn = half
        others = np.setdiff1d(rows, half)
        self.ranked = [table._replace(candidates=np.intersect1d(table.candidates, others))
                       for table in self.ranked]

    def draw(self, n: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Draws rows to train on, int[n], and rows of each table to rank, int[E], which exclude these."""
        train, left = self.drawn[split(self.known.select(self.drawn), self.protocol, n, seed).train], []
        for table in self.ranked:
            unseen = ~np.isin(self.identity[table.candidates], self.identity[train])  # [C]
            if unseen.sum() < 2:
                raise InputError(f"{n} training labels leave {unseen.sum()} cells of {table.name} to rank: "
                                 "lower --n_labels, raise --eval_cells")
            left.append(table.candidates[unseen])
        return train, left

    def task(self, config: Config, piece: Piece) -> PredictorTask:
        """The data that the method of a piece gets."""
        rows = np.stack([self.draw(piece.n, seed)[0] for seed in piece.seeds])  # [S, n]
        label = self.known.utility(RANKING_PROTOCOLS[self.protocol].train)[rows]  # [S, n]
        work = path_of(config.work)
        return PredictorTask(self.space, self.table, rows, label, piece.seeds, work, config.pretrain_steps,
                             partial(self.accuracy_on, config), config.universal)

    def accuracy_on(self, config: Config, dataset: str) -> np.ndarray:
        """float[N]: the utility to train on for another dataset of the same label table; nan if unknown."""
        other = read_labels(config.labels, self.space, dataset, metric=self.metric)
        accuracy = dict(zip(other.keys, other.utility(RANKING_PROTOCOLS[self.protocol].train)))
        known = [accuracy.get(key, np.nan) for key in self.known.keys]
        return np.pad(known, (0, len(self.truth) - len(known)), constant_values=np.nan)  # [N]


# Measuring --------------------------------------------------------------------------------------------------

def measured(config: Config, cells: Cells, pieces: list[Piece]) -> Iterator[list[dict]]:
    """Yields the records of every piece, one per ranked table, as they are finished."""
    if config.jobs == 1:
        yield from (measure(config, cells, piece) for piece in pieces)
        return
    for piece in pieces:
        if METHODS[piece.method].shared:
            # made here, so that no two processes make the same file
            METHODS[piece.method].encoder(cells.task(config, piece))
    settings = dataclasses.astuple(config)
    finished = ProcessPool(config.jobs).map(measure_apart, [(settings, piece) for piece in pieces])
    with progress_bar() as bar:
        for _, records in bar.track(finished, total=len(pieces), description="pieces"):
            yield records


def measure_apart(task: tuple[tuple, Piece]) -> list[dict]:
    """Measures a piece in one of several processes."""
    settings, piece = task
    return measure(Config(*settings), cells_of(settings), piece)


@lru_cache(maxsize=1)
def cells_of(settings: tuple) -> Cells:
    """The cells, read once per process."""
    config = Config(*settings)
    console.quiet = True
    return Cells(config, spaces.get(config.space), choose_device(config.device, config.threads or 1))


def measure(config: Config, cells: Cells, piece: Piece) -> list[dict]:
    """Fits the method on n labels for every seed, and measures how well it ranks the cells of each table."""
    method, n, seeds = piece
    console.print(f"{method}, {n} labels, seeds {seeds}")
    ranked = [*zip(*(cells.draw(n, seed)[1] for seed in seeds))]  # tables x seeds x int[E]
    task = cells.task(config, piece)
    checkpoint = METHODS[method].encoder(task)
    started = time.time()
    scorer = METHODS[method].fit(task, checkpoint)
    fitted = time.time()
    scores = np.full((len(seeds), len(cells.truth)), np.nan)  # [S, N]
    union = np.unique(np.concatenate(sum(ranked, ())))  # [E]
    with progress_bar() as bar:
        for rows in bar.track(np.array_split(union, len(union) // 2048 + 1), description="score"):
            scores[:, rows] = scorer(rows)
    seconds = {"fit": round(fitted - started, 1), "score": round(time.time() - fitted, 1)}
    records = []
    for of_table in ranked:
        values = [ranking(scores[i, rows], cells.truth[rows]) for i, rows in enumerate(of_table)]
        records.append({
            "method": method, "n_labels": n, "seeds": seeds, "n_ranked": min(map(len, of_table)),
            **{name: summary([value[name] for value in values]) for name in MEASURES}, "seconds": seconds})
    return records


def ranking(score: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The MEASURES of scores [E] against the truth [E]."""
    tenth = np.argsort(-truth, kind="stable")[:max(2, len(truth) // 10)]
    return {
        "tau": kendall_tau(score, truth), "spearman": spearman_rho(score, truth),
        **{f"precision@{k}": precision_at(score, truth, k) for k in (10, 50, 100)},
        "tau_best_tenth": kendall_tau(score[tenth], truth[tenth]),
    }


if __name__ == "__main__":
    main_guard(main)
