"""A search of a minute on toy labels: what the tests of search.py share; its fixtures are in conftest.py."""
from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import search
import spaces
from models.encoders import build_encoder
from runtime.checkpoint import save_checkpoint
from runtime.seeding import seeded

NB201 = spaces.get("nasbench201")
DARTS = spaces.get("darts")
N, CELLS = 20, 60
SMALL = ["--N", str(N), "--N0", "6", "--K", "4", "--C", "12", "--epochs", "2", "--width", "8",
         "--layers", "1", "--heads", "2", "--population", "6", "--kernel_share", "0.5", "--device", "cpu"]
FIELDS = ["query", "round", "key", "architecture", "validation", "test", "score", "cost"]


def write_labels(path: Path, keys: Iterable[str], val: Iterable, test: Iterable) -> str:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arch", "val_accuracy", "test_accuracy"))
        writer.writerows(zip(keys, val, test))
    return str(path)


def run(folder: Path, labels: str, *flags: str) -> dict:
    """Runs search.py in the folder; returns what best.json, or summary.json, holds."""
    return search.main([*SMALL, "--outdir", str(folder), "--labels", labels, *flags])


def lines(folder: Path) -> list[dict]:
    """The queries of the search in the folder."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def save_encoder(path: Path, seed: int) -> None:
    """Writes a checkpoint of a small encoder with random weights."""
    config = {"base_model": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    with seeded(seed):
        weights = build_encoder(config, len(NB201.ops)).state_dict()
    save_checkpoint(path, space="nasbench201", ops=list(NB201.ops), encoder=config, weights=weights)
