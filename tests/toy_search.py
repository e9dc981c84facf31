"""A search of a minute on toy labels: the fixtures and helpers of the tests of search.py."""
import csv
import json

import numpy as np
import pytest

import runtime
import search
import spaces
import strategies.bananas
from models import build_encoder
from spaces.oracles import TableOracle


NB201 = spaces.get("nasbench201")
DARTS = spaces.get("darts")
N, CELLS = 20, 60
SMALL = ["--N", str(N), "--N0", "6", "--K", "4", "--C", "12", "--epochs", "2", "--width", "8", "--layers", "1",
         "--heads", "2", "--population", "6", "--kernel_share", "0.5", "--device", "cpu"]
FIELDS = ["query", "round", "key", "architecture", "validation", "test", "score", "cost"]


def write_labels(path, keys, val, test):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arch", "val_accuracy", "test_accuracy"))
        writer.writerows(zip(keys, val, test))
    return str(path)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """BANANAS trains for a moment only."""
    monkeypatch.setattr(strategies.bananas, "EPOCHS", 2)


@pytest.fixture(scope="module")
def keys():
    return list(dict.fromkeys(NB201.key(arch) for arch in NB201.sample(CELLS, np.random.default_rng(1))))


@pytest.fixture
def labels(tmp_path, keys):
    """A label file of 60 cells, val 50..79.5, test 49..78.5."""
    val = np.random.default_rng(2).permutation(len(keys)) / 2 + 50
    return write_labels(tmp_path / "labels.csv", keys, val, val - 1)


@pytest.fixture
def no_report(monkeypatch):
    """Only the history matters: skip what follows it."""
    for name in ("report", "print_result"):
        monkeypatch.setattr(search, name, lambda *_: None)


@pytest.fixture
def asked(monkeypatch):
    """The keys that the oracle was asked, in order."""
    asked, query = [], TableOracle.query

    def counting(self, arch):
        asked.append(self.space.key(arch))
        return query(self, arch)

    monkeypatch.setattr(TableOracle, "query", counting)
    return asked


def run(folder, labels, *flags):
    return search.main([*SMALL, "--outdir", str(folder), "--labels", labels, *flags])


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]



def save_encoder(path, seed):
    config = {"base_model": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    with runtime.seeded(seed):
        weights = build_encoder(config, len(NB201.ops)).state_dict()
    runtime.save_checkpoint(path, space="nasbench201", ops=list(NB201.ops), encoder=config, weights=weights)
