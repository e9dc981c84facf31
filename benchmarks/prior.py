"""Learn the prior, a ranking without labels of the target, and measure it on spaces that it never saw.

    python gen_json_301.py --n 5000 --seed 0 --oracle nasbench301_yahpo.onnx --out runs/data/yahpo.jsonl
    python -m benchmarks.prior --tables nasbench201=nb201.csv.gz,nasbench201/cifar100=nb201.csv.gz,\\
        nasbench101=nb101.csv.gz,nasbench301=runs/data/yahpo.jsonl,nasbench_macro=macro.csv.gz

A table is SPACE=TABLE or SPACE/DATASET=TABLE. Of each, --cells random cells teach; the prior of a space is
learned from the tables of the other spaces alone, and ranks all cells of its own. --out holds the weights
learned from all tables, and those without each space: `finetune.py` and everything else takes, for a space,
the weights that never saw it (`models.predictor.prior`).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table

import spaces
from benchmarks.transfer import parse_targets
from models.batch import Batch
from models.features.facts import FACTS, portable_facts
from models.metrics import kendall_tau
from models.predictor.prior import SourceTable, fit_prior, save_prior
from runtime.errors import main_guard
from runtime.files import path_of, write_json
from runtime.log import command_line, output
from runtime.seeding import DeviceSettings, choose_device
from runtime.settings import parse, setting
from spaces.labels.protocols import target_of
from spaces.labels.read import read_labels


@dataclass
class Config(DeviceSettings):
    tables: str = setting(
        "", "SPACE=TABLE or SPACE/DATASET=TABLE, a comma list; TABLE as for finetune.py --labels",
        role="data")
    cells: int = setting(1000, "cells of each table that teach, at most", within=(2, 5000), role="data")
    seed: int = setting(0, "decides which cells teach", within=(0, np.inf), role="data")
    out: str = setting("checkpoints/prior.pt", "file of the weights", role="output")
    record: str = setting("results/prior.json", "file of the JSON record", role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    choose_device(config.device, config.threads)
    rng, sources, everything = np.random.default_rng(config.seed), [], []
    for target in parse_targets(config.tables):
        space = spaces.get(target.space)
        labels = read_labels(target.labels, space, target.dataset)
        column = target_of(labels, space.protocol)
        label = labels.utility(column)  # [N]
        known = np.flatnonzero(np.isfinite(label))
        facts = portable_facts(Batch.of(space.encode_keys(labels.keys)), space.vocabulary)  # [N, F]
        some = torch.as_tensor(rng.permutation(known)[:config.cells])
        sources.append(SourceTable(target.space, space.vocabulary, f"{target.name}: {labels.name}",
                                   facts[some], torch.as_tensor(label)[some]))
        everything.append((target.name, column, facts[known], label[known]))
    prior = fit_prior(sources)
    rows = []
    for source, (name, column, facts, label) in zip(sources, everything):
        tau = {kind: kendall_tau((facts @ prior["weights"][without]).numpy(), label)
               for kind, without in (("never saw the space", source.space), ("saw all tables", ""))}
        rows.append({"target": name, "ranks": column, "n_ranked": len(label), "tau": tau,
                     "learned_from": [c["table"] for c in prior["cards"] if c["space"] != source.space]})
    save_prior(path_of(config.out), prior)
    report = {"command": command_line("benchmarks.prior", argv), "facts": list(FACTS), "rows": rows,
              "weights": {space or "all": weights.tolist() for space, weights in prior["weights"].items()}}
    write_json(path_of(config.record), report)
    show(rows)
    output.print(f"written: {config.out}, {config.record}")
    return report


def show(rows: list[dict]) -> None:
    table = Table("target", "ranked", *rows[0]["tau"], title="Kendall's tau of the prior, without any label")
    for row in rows:
        table.add_row(row["target"], str(row["n_ranked"]), *(f"{tau:.3f}" for tau in row["tau"].values()))
    output.print(table)


if __name__ == "__main__":
    main_guard(main)
