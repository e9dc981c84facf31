"""Measure transfer: predictors pre-trained on the same space, on other spaces or datasets, and from scratch.

    python -m benchmarks.transfer --n_labels 100,424 --seeds 0-9 --eval_cells 5000 \\
        --targets nasbench101=nb101.csv.gz,nasbench201=nb201.csv.gz,nasbench201/cifar100=nb201.csv.gz

A target is SPACE=TABLE or SPACE/DATASET=TABLE, with its label table. Each is a run of
benchmarks/predictor.py, kept in --work, with the methods

    own            ours, pre-trained on the space itself
    from_...       ours, pre-trained on another space: operations of both keep their weights
    from_cifar10   for other datasets: ours, from predictors fine-tuned on 424 labels of CIFAR-10
    scratch        ours, not pre-trained

The record has tau for every entry of the table: mean, standard deviation and the value of each seed.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

import spaces
from benchmarks import predictor
from benchmarks.baselines import SHIPPED
from benchmarks.predictor_record import find, only, tau_text
from runtime.errors import InputError, main_guard
from runtime.files import path_of, write_json
from runtime.log import command_line, output
from runtime.seeding import DeviceSettings
from runtime.settings import parse, parse_seeds, setting

COLUMNS = {"ours": "own", "ours_scratch": "scratch"}  # method: its name here; the others keep theirs


@dataclass
class Config(DeviceSettings):
    targets: str = setting(
        "", "SPACE=TABLE or SPACE/DATASET=TABLE, a comma list; TABLE as for finetune.py --labels",
        role="data")
    n_labels: str = setting("100,424", "sizes of the training set, a comma list", role="data")
    seeds: str = setting(
        "0-9", "independent runs, like 0,1,2 or 0-9; tune on seeds from 1000 on", role="data")
    eval_cells: int = setting(5000, "cells ranked, at most (0 = all)", within=(0, np.inf), role="data")
    work: str = setting(
        "runs/benchmarks/transfer", "folder of the targets' records, from which a run can be resumed",
        role="output")
    out: str = setting("results/transfer.json", "file of the JSON record", role="output")
    jobs: int = setting(1, "processes", within=(1, 64), role="machine")


class Target(NamedTuple):
    space: str
    dataset: str
    labels: str

    @property
    def name(self) -> str:
        return self.space if self.dataset == "cifar10" else f"{self.space}/{self.dataset}"


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    report = {"command": command_line("benchmarks.transfer", argv), "targets": []}
    for target in parse_targets(config.targets):
        [found] = predictor.main(flags_of(config, target))
        sizes, seeds = predictor.parse_sizes(config.n_labels), parse_seeds(config.seeds)
        chosen = [only(find(found, method, n), seeds) for n in sizes for method in methods_of(target)]
        rows = [{"method": COLUMNS.get(r["method"], r["method"]), "n_labels": r["n_labels"],
                 "seeds": r["seeds"], "n_ranked": r["n_ranked"], "tau": r["tau"]} for r in chosen]
        differences = [d | {name: COLUMNS.get(d[name], d[name]) for name in ("method", "minus")}
                       for d in found["differences"]]
        report["targets"].append({
            "target": target.name, "labels": found["labels"], "ranks": found["target"], "rows": rows,
            "differences": differences})
        write_json(path_of(config.out), report)
    show(report)
    output.print(f"written: {config.out}")
    return report


def parse_targets(text: str) -> list[Target]:
    targets = []
    for part in text.split(","):
        name, _, labels = part.partition("=")
        space, _, dataset = name.partition("/")
        if not space or not labels:
            raise InputError(f"{text!r}: give a comma list of SPACE=TABLE or SPACE/DATASET=TABLE, like "
                             "nasbench201=mine.csv")
        spaces.get(space)  # raises InputError for an unknown one
        targets.append(Target(space, dataset or "cifar10", labels))
    return targets


def methods_of(target: Target) -> list[str]:
    """The methods of a target, first ours, with which the others are compared."""
    own = spaces.get(target.space).ops
    others = [f"from_{name}" for name in SHIPPED if spaces.get(name).ops != own]
    return ["ours", *others, *(["from_cifar10"] if target.dataset != "cifar10" else []), "ours_scratch"]


def flags_of(config: Config, target: Target) -> list[str]:
    """The flags of benchmarks/predictor.py for a target."""
    given = {"space": target.space, "dataset": target.dataset, "labels": target.labels,
             "methods": ",".join(methods_of(target)),
             "out": str(Path(config.work, f"{target.name.replace('/', '_')}.json"))}
    same = {
        name: getattr(config, name)
        for name in ("n_labels", "seeds", "eval_cells", "jobs", "device", "threads")}
    return [part for name, value in (given | same).items() for part in (f"--{name}", str(value))]


def show(report: dict) -> None:
    columns = dict.fromkeys(row["method"] for target in report["targets"] for row in target["rows"])
    table = Table("target", "labels", *columns, "ranked", "seeds",
                  title="Kendall's tau by the starting point of the predictor")
    for target in report["targets"]:
        for n in dict.fromkeys(row["n_labels"] for row in target["rows"]):
            rows = {row["method"]: row for row in target["rows"] if row["n_labels"] == n}
            values = (tau_text(rows[column]) if column in rows else "" for column in columns)
            first = next(iter(rows.values()))
            table.add_row(target["target"], str(n), *values, str(first["n_ranked"]), str(len(first["seeds"])))
    output.print(table)


if __name__ == "__main__":
    main_guard(main)
