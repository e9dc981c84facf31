"""benchmarks.speed_profile: its shares add up, its speeds are those of the operations it names."""
from __future__ import annotations

import json
import time

import pytest
import torch

from benchmarks import speed_profile
from runtime.errors import InputError

LIMIT = {"product": 100.0, "small_product": 1.0, "memory": 10.0}


def test_it_says_where_the_time_goes(tmp_path):
    path = tmp_path / "profile.json"
    small = ["--epochs", "1", "--mutants", "50", "--device", "cpu", "--json", str(path)]
    report = speed_profile.main(["--only", "finetune,mutate", *small])
    record = json.loads(path.read_text())
    assert record["stages"] == report["stages"] and min(record["limits"].values()) > 0
    for row in report["stages"].values():
        assert row["outside"] + row["products"] + row["other"] == pytest.approx(1)
        assert sum(row["most"].values()) <= 1.01
    fit, mutate = report["stages"]["finetune"], report["stages"]["mutate"]
    assert fit["products"] > 0.05 and fit["product_speed"] > 0
    assert mutate["outside"] > 0.5  # Python and numpy


def test_products_are_counted():
    """Of [300, 200] by [200, 100], and of 5 such, with and without something added."""
    one, other, many = torch.randn(300, 200), torch.randn(200, 100), torch.randn(5, 300, 200)
    row = speed_profile.profiled(
        lambda: [one @ other, torch.addmm(torch.zeros(100), one, other), many @ other.expand(5, 200, 100),
                 torch.baddbmm(torch.zeros(1, 1, 100), many, other.expand(5, 200, 100))], LIMIT)
    seconds = row["products"] * row["seconds_profiled"]
    assert row["product_speed"] * seconds == pytest.approx(12 * 2 * 300 * 200 * 100 / 1e9, rel=1e-3)
    assert row["of_fastest_product"] == pytest.approx(row["product_speed"] / LIMIT["product"])


def test_traffic_is_what_is_read_and_written():
    x = torch.randn(1000, 1000)
    row = speed_profile.profiled(lambda: x + x, LIMIT)
    seconds = row["other"] * row["seconds_profiled"]
    assert row["memory_rate"] * seconds == pytest.approx(3 * x.nbytes / 1e9, rel=0.01)


def test_waiting_is_outside():
    row = speed_profile.profiled(lambda: (torch.randn(10), time.sleep(0.1)), LIMIT)
    assert row["outside"] > 0.9


@pytest.mark.parametrize("flags, said", [
    (["--only", "search"], "no stage search: choose of pretrain_gat"),
    (["--threads", "2"], "threads")])
def test_what_it_cannot_do_is_said(flags, said):
    with pytest.raises((InputError, SystemExit), match=said):
        speed_profile.main(flags)
