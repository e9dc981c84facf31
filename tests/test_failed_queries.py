"""A query whose training failed counts as the worst seen by then, and is never the best."""
from __future__ import annotations

import math

import numpy as np
import pytest

import spaces
from spaces.base import Record
from spaces.metrics import Metric
from strategies.history import History, best_of

SPACE = spaces.get("nasbench201")


@pytest.mark.parametrize("lower", [False, True])
def test_a_failure_counts_as_the_worst_seen(tmp_path, lower):
    metric = Metric("loss", True) if lower else Metric()
    history = History(tmp_path / "history.jsonl", SPACE, 5, metric)
    drawn = SPACE.sample(9, np.random.default_rng(0))
    archs = list({SPACE.key(arch): arch for arch in drawn}.values())[:5]
    for arch, value in zip(archs, [None, 60.0, 50.0, None, 70.0]):
        history.append(0, arch, Record(value, None, None), None)
    again = History(tmp_path / "history.jsonl", SPACE, 5, metric)
    assert again.queries == history.queries
    worst = -70.0 if lower else 50.0
    assert [query.utility for query in again[:1]] == [0.0]  # nothing else is known
    assert [query.utility for query in again[:5]][::3] == [worst, worst]
    assert again[3:4][0].utility == (-60.0 if lower else 50.0)  # what was seen by then
    assert best_of(again[:5]).validation == (50.0 if lower else 70.0)
    assert best_of(again[:2]).validation == 60.0  # not the failure, though it counts the same
    assert best_of(again[:1]).failed and not math.isinf(again[:1][0].utility)
