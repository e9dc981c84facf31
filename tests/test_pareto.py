"""The Pareto front of a search: right by brute force, in both directions, and on the disk."""
from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import search
from runtime.errors import InputError
from strategies.pareto import Second, front_of

SMALL = st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")])


@given(st.lists(st.tuples(SMALL, SMALL), max_size=12))
def test_the_front_is_what_nothing_dominates(points):
    first, second = (np.array([point[i] for point in points], float) for i in (0, 1))

    def dominated(a):
        return any(b[0] >= a[0] and b[1] >= a[1] and b != a for b in points)

    expected = [not np.isnan(point).any() and not dominated(point) for point in points]
    assert front_of(first, second).tolist() == expected


def test_directions():
    assert Second.parse("Latency") == ("latency", True) == Second.parse("latency:min")
    assert Second.parse("speed:max") == ("speed", False)
    for text in ("speed:up", ":max ", "a:b"):
        with pytest.raises(InputError, match="NAME:max"):
            Second.parse(text)


@pytest.mark.parametrize("second", ["gpu", "gpu:max"])
def test_a_search_reports_its_front(tmp_path, keys, second):
    rng = np.random.default_rng(3)
    rows = [{"arch": key, "val_accuracy": a, "gpu": g} for key, a, g in zip(
        keys, rng.uniform(50, 90, len(keys)).round(), rng.uniform(1, 9, len(keys)).round(1))]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--search_algo", "random", "--labels", str(tmp_path / "t.jsonl"), "--N", "30", "--outdir",
             str(tmp_path / "s"), "--threads", "1"]
    search.main(flags)
    before = (tmp_path / "s" / "history.jsonl").read_bytes()
    assert not (tmp_path / "s" / "pareto.csv").exists()
    search.main([*flags, "--second", second, "--resume"])  # of a finished search, too
    assert (tmp_path / "s" / "history.jsonl").read_bytes() == before
    assert (tmp_path / "s" / "pareto.png").stat().st_size > 1000
    found = list(csv.DictReader((tmp_path / "s" / "pareto.csv").open()))
    queried = {json.loads(line)["key"] for line in before.splitlines()}
    sign = 1 if second.endswith("max") else -1
    points = {row["arch"]: (row["val_accuracy"], sign * row["gpu"]) for row in rows if row["arch"] in queried}
    expected = {key for key, point in points.items() if not any(
        other[0] >= point[0] and other[1] >= point[1] and other != point for other in points.values())}
    assert {row["key"] for row in found} == expected
    others = [float(row["gpu"]) for row in found]
    assert others == sorted(others)
    with pytest.raises(InputError, match="neither a column"):
        search.main([*flags, "--second", "cpu", "--resume"])
