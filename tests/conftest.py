"""Shared fixtures. Tests run from the project's root, on CPU, with one torch thread."""
from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files with the most slow tests first, so that two workers end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.parent.name != "kills", -slow[item.path]))  # those take longest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data beside the checkout; the test is skipped if it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the development data in {folder}")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def random_labels() -> Callable[..., str]:
    """Writes a table of n cells of a space, part of it, whose accuracies are random; returns its path."""
    import spaces

    def write(path: Path, space_name: str, n: int = 240) -> str:
        space, rng = spaces.get(space_name), np.random.default_rng(0)
        keys = list(dict.fromkeys(space.key(arch) for arch in space.sample(2 * n, rng)))[:n]
        rows = [{"arch": key, "val_accuracy": 90 + v, "test_accuracy": 89 + v}
                for key, v in zip(keys, rng.uniform(size=n))]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


# Searches on toy labels, see toys/search.py -----------------------------------------------------------------

@pytest.fixture
def hasty(monkeypatch):
    """Lets BANANAS train for a moment only."""
    monkeypatch.setattr("models.predictor.path_mlp.EPOCHS", 2)


@pytest.fixture(scope="session")
def keys() -> list[str]:
    """The keys of 60 cells of NAS-Bench-201."""
    from toys.search import CELLS, NB201  # imports search.py, which few tests need

    return list(dict.fromkeys(NB201.key(arch) for arch in NB201.sample(CELLS, np.random.default_rng(1))))


@pytest.fixture
def labels(tmp_path, keys) -> str:
    """A label file of 60 cells, val 50..79.5, test 49..78.5."""
    from toys.search import write_labels

    val = np.random.default_rng(2).permutation(len(keys)) / 2 + 50
    return write_labels(tmp_path / "labels.csv", keys, val, val - 1)


@pytest.fixture
def no_report(monkeypatch):
    """Skips what follows the history: only that matters. Without best.json a finished search is replayed."""
    import search

    def write_other(path, value, write=search.write_json):
        if path.name != "best.json":
            write(path, value)

    monkeypatch.setattr(search, "write_json", write_other)
    for name in ("write_curve", "draw", "print_result"):
        monkeypatch.setattr(search, name, lambda *_: None)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The keys that the oracle was asked, in order."""
    from spaces.oracles.table import TableOracle

    asked, query = [], TableOracle.query

    def counting(self, arch):
        asked.append(self.space.key(arch))
        return query(self, arch)

    monkeypatch.setattr(TableOracle, "query", counting)
    return asked


# A Ray cluster ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU, all on loopback."""
    # before ray is imported
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    pytest.importorskip("ray", reason="needs ray: pip install -r requirements-scale.txt")
    from ray.cluster_utils import Cluster

    local = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**local, "include_dashboard": False})
    yield SimpleNamespace(address=cluster.address, lost=cluster.add_node(**local), remove=cluster.remove_node)
    cluster.shutdown()
