"""Print the table at the end of search_darts.sh, and draw the cells that were found.

    python -m benchmarks.search_darts --out runs/search_darts/tiny

Reads the files of all stages in OUT/search/ and OUT/train/; writes OUT/summary.json and OUT/figs/.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.table import Table

import spaces
from figs import draw_cell
from runtime.errors import main_guard
from runtime.files import whole_lines, write_json
from runtime.guarded import read_json
from runtime.log import mean_std, output, plus_minus
from runtime.settings import Parser

DRAWINGS = {  # exactly the names in the paper's repository
    "ae": ("GMAENAS_AE_normal.png", "GMAENAS_AE_reduction.png"),
    "bo": ("GMAENAS_BO_normal.png", "GMAENAS_Bo_reduction.png"),
}
DAY = 86_400


def main(argv: list[str] | None = None) -> dict:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="OUT of search_darts.sh")
    out = parser.parse_args(argv).out
    random = [read(folder / "result.json") for folder in sorted((out / "train").glob("random*"))]
    by_cell = np.array([cell["test"] for cell in random])  # [R, S] accuracy of R random cells, S seeds
    found = {algo: row(out, algo, by_cell) for algo in DRAWINGS}
    mean, std = mean_std(by_cell.flatten())
    summary = {"found": found, "random": {
        "cells": len(by_cell), "test": by_cell.tolist(), "mean": mean, "std": std,
        "parameters": [cell["parameters"] for cell in random]}}
    write_json(out / "summary.json", summary)
    space = spaces.get("darts")
    for algo, names in DRAWINGS.items():
        for panel, name in enumerate(names):
            draw_cell.draw(
                space, space.parse(found[algo]["architecture"]), out / "figs" / name, slice(panel, panel + 1))
    show(summary, out)
    return summary


def read(path: Path) -> dict:
    return read_json(path, "run search_darts.sh again, which goes on")


def row(out: Path, algo: str, random: np.ndarray) -> dict:
    """The cell that one strategy found, its accuracy after training, and the cost of the search."""
    best, trained = read(out / "search" / algo / "best.json"), read(out / "train" / algo / "result.json")
    trainings = [json.loads(line) for line in whole_lines(out / "search" / algo / "trainings.jsonl")]
    seconds = (
        sum(training["seconds"] for training in trainings) + best["seconds"]["fit"] + best["seconds"]["score"]
    )
    test = np.array(trained["test"])  # [S]
    low, high = interval(test, random, np.random.default_rng(0))
    mean, std = mean_std(test)
    return {
        "architecture": trained["architecture"], "validation": best["validation"], "test": test.tolist(),
        "mean": mean, "std": std, "parameters": trained["parameters"], "queries": best["N"],
        "trainings": len(trainings),
        "days": seconds / DAY, "device": trainings[0]["device"], "above_random": test.mean() - random.mean(),
        "interval": [low, high],
    }


def interval(
    test: np.ndarray, random: np.ndarray, rng: np.random.Generator, draws: int = 10_000
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(test [S]) - mean(random [R, S]).

    Resamples whole random cells, and the seeds of the found cell.
    """
    ours = test[rng.integers(len(test), size=(draws, len(test)))].mean(1)  # [draws]
    theirs = random.mean(1)[rng.integers(len(random), size=(draws, len(random)))].mean(1)  # [draws]
    low, high = np.percentile(ours - theirs, (2.5, 97.5))
    return float(low), float(high)


def show(summary: dict, out: Path) -> None:
    table = Table(
        "architecture", "test error (%)", "trainings", "parameters", "search cost", title="CIFAR-10")
    for algo, cell in summary["found"].items():
        table.add_row(
            f"GMAE-NAS ({algo.upper()})", error(cell), str(len(cell["test"])),
            f"{cell['parameters'] / 1e6:.3f} M",
            f"{cell['days']:.4f} {cell['device']} days, {cell['trainings']} trainings")
    random = summary["random"]
    table.add_row(f"{random['cells']} random cells", error(random), str(sum(map(len, random["test"]))),
                  f"{np.mean(random['parameters']) / 1e6:.3f} M", "")
    output.print(table)
    for algo, cell in summary["found"].items():
        low, high = cell["interval"]
        seen = "" if low > 0 or high < 0 else ": no difference can be seen"
        output.print(f"{algo.upper()} against random cells: {cell['above_random']:+.2f} points of test "
                     f"accuracy, 95 % interval {low:+.2f} to {high:+.2f}{seen}")
    output.print(f"written: {out / 'summary.json'}, {out / 'figs'}/")


def error(result: dict) -> str:
    return plus_minus(100 - result["mean"], result["std"], 2)


if __name__ == "__main__":
    main_guard(main)
