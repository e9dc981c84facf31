"""Does what was learnt elsewhere help? Predictors from the encoder of the space itself, of other spaces, and from scratch.

    python -m benchmarks.transfer --n_labels 100,424 --seeds 0-9 --eval_cells 5000 --jobs 2 --out results/transfer.json \\
        --targets nasbench101=nasbench101.csv.gz,nasbench201=nasbench201.csv.gz,nasbench201/cifar100=nasbench201.csv.gz

A target is SPACE or SPACE/DATASET = its label table. Each is a run of benchmarks/predictor.py, kept in --work, with methods

    own            ours, pre-trained on the space itself
    from_...       ours, pre-trained on another space: operations that both have keep their weights (models/transfer.py)
    from_cifar10   where the dataset is another one: predictors fine-tuned on 424 labels of CIFAR-10 go on
    scratch        ours, not pre-trained

and the record holds tau of every cell of the table: mean, standard deviation and each seed's.
"""
from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

import runtime
import spaces
from benchmarks import predictor
from benchmarks.baselines import SHIPPED
from benchmarks.predictor_record import find, only, plus_minus
from runtime import setting
from spaces import InputError

COLUMNS = {"ours": "own", "ours_scratch": "scratch"}  # the names of methods here; the others keep theirs


@dataclass
class Config:
    targets: str = setting("", "SPACE=TABLE or SPACE/DATASET=TABLE, a comma list; TABLE as for finetune.py --labels")
    n_labels: str = setting("100,424", "sizes of the training set, a comma list")
    seeds: str = setting("0-9", "independent runs, like 0,1,2 or 0-9; tune on seeds from 1000 up")
    eval_cells: int = setting(5000, "rank at most so many cells; 0 = all", within=(0, np.inf))
    work: str = setting("runs/benchmarks/transfer", "folder that keeps the record of each target, so that a run can go on")
    out: str = setting("results/transfer.json", "the record")
    jobs: int = setting(1, "processes", within=(1, 64))
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads; 0 = torch's choice, or one where there are several --jobs")


class Target(NamedTuple):
    space: str
    dataset: str
    labels: str

    @property
    def name(self) -> str:
        return self.space if self.dataset == "cifar10" else f"{self.space}/{self.dataset}"


def main(argv: list[str] | None = None) -> dict:
    config = runtime.parse(Config, argv, __doc__)
    report = {"command": shlex.join(["python", "-m", "benchmarks.transfer", *(sys.argv[1:] if argv is None else argv)]),
              "targets": []}
    for target in parse_targets(config.targets):
        [found] = predictor.main(flags_of(config, target))
        sizes, seeds = predictor.parse_sizes(config.n_labels), runtime.parse_seeds(config.seeds)
        chosen = [only(find(found, method, n), seeds) for n in sizes for method in methods_of(target)]
        rows = [{"method": COLUMNS.get(r["method"], r["method"]), "n_labels": r["n_labels"], "seeds": r["seeds"],
                 "n_ranked": r["n_ranked"], "tau": r["tau"]} for r in chosen]
        differences = [d | {name: COLUMNS.get(d[name], d[name]) for name in ("method", "minus")}
                       for d in found["differences"]]
        report["targets"].append({"target": target.name, "labels": found["labels"], "ranks": found["target"], "rows": rows,
                                  "differences": differences})
        runtime.write_json(Path(config.out).expanduser(), report)
    show(report)
    runtime.output.print(f"written: {config.out}")
    return report


def parse_targets(text: str) -> list[Target]:
    targets = []
    for part in text.split(","):
        name, _, labels = part.partition("=")
        space, _, dataset = name.partition("/")
        if space not in spaces.SPACES or not labels:
            raise InputError(f"--targets {text}: give SPACE=TABLE or SPACE/DATASET=TABLE, like nasbench201=mine.csv; "
                             f"the spaces are {', '.join(spaces.SPACES)}")
        targets.append(Target(space, dataset or "cifar10", labels))
    return targets


def methods_of(target: Target) -> list[str]:
    """Ours first: what the others are compared with."""
    own = spaces.get(target.space).ops
    others = [f"from_{name}" for name in SHIPPED if spaces.get(name).ops != own]
    return ["ours", *others, *(["from_cifar10"] if target.dataset != "cifar10" else []), "ours_scratch"]


def flags_of(config: Config, target: Target) -> list[str]:
    """Of the run of benchmarks/predictor.py."""
    given = {"space": target.space, "dataset": target.dataset, "labels": target.labels,
             "methods": ",".join(methods_of(target)), "out": str(Path(config.work, f"{target.name.replace('/', '_')}.json"))}
    same = {name: getattr(config, name) for name in ("n_labels", "seeds", "eval_cells", "jobs", "device", "threads")}
    return [part for name, value in (given | same).items() for part in (f"--{name}", str(value))]


def show(report: dict) -> None:
    columns = dict.fromkeys(row["method"] for target in report["targets"] for row in target["rows"])
    table = Table("target", "labels", *columns, "ranked", "seeds", title="Kendall's tau by what the predictor starts from")
    for target in report["targets"]:
        for n in dict.fromkeys(row["n_labels"] for row in target["rows"]):
            rows = {row["method"]: row for row in target["rows"] if row["n_labels"] == n}
            values = (plus_minus(rows[column]["tau"]) if column in rows else "" for column in columns)
            first = next(iter(rows.values()))
            table.add_row(target["target"], str(n), *values, str(first["n_ranked"]), str(len(first["seeds"])))
    runtime.output.print(table)


if __name__ == "__main__":
    runtime.main_guard(main)
