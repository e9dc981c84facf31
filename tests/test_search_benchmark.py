"""benchmarks/search.py: shares, medians and paired differences of finished searches."""
from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import search
from spaces import InputError

COMMON = {"space": "nasbench201", "dataset": "cifar10", "protocol": "val-test", "chosen_by": "validation", "oracle": "toy",
          "optimum": {"validation": 95.0}}


def write(folder: Path, algo: str, seed: int, values: list[float], test: float | str = "", **changes) -> None:
    path = folder / algo / str(seed)
    path.mkdir(parents=True)
    (path / "best.json").write_text(json.dumps(COMMON | {"algo": algo, "seed": seed} | changes))
    with open(path / "curve.csv", "w") as file:
        rows = [(i, value, test, "") for i, value in enumerate(values, 1)]
        csv.writer(file).writerows([("query", "best_validation", "test", "cost"), *rows])


def run(folder: Path, *flags: str) -> dict:
    return search.main(["--runs", str(folder), "--within", "3", "--out", str(folder / "record.json"), *flags])


def test_shares_medians_and_differences_are_counted(tmp_path):
    write(tmp_path, "r", 0, [90, 95, 95, 95])
    write(tmp_path, "r", 1, [90, 91, 94, 95])
    write(tmp_path, "r", 2, [95, 95, 95, 95])
    for seed, values in enumerate(([90, 90, 91, 95], [90, 90, 90, 91], [90, 91, 92, 92])):
        write(tmp_path, "random", seed, values)
    report = run(tmp_path)
    assert json.loads((tmp_path / "record.json").read_text()) == report
    ours, twin = report["algos"]["r"], report["algos"]["random"]
    assert (ours["share"], ours["median"], ours["mean"]) == (pytest.approx(2 / 3), 2, pytest.approx((95 + 94 + 95) / 3))
    assert (twin["share"], twin["median"], twin["n"]) == (0, None, 3)  # one hit in three, after four queries
    assert report["twins"][0] | {"low": 0, "high": 0} == {
        "ours": "r", "twin": "random", "n": 3, "mean": pytest.approx((4 + 4 + 3) / 3), "low": 0, "high": 0, "verdict": "ahead"}


def test_equal_strategies_tie(tmp_path):
    for seed in range(4):
        write(tmp_path, "bo", seed, [90, 91, 92 + (-1) ** seed])
        write(tmp_path, "ls", seed, [90, 91, 92])
    assert run(tmp_path)["twins"][0]["verdict"] == "tie"


def test_twins_are_compared_by_test_accuracy_where_it_is_known(tmp_path):
    for algo, tests in (("ae", (80, 81)), ("re", (70, 72))):
        for seed, test in enumerate(tests):
            write(tmp_path, algo, seed, [90, 91, 92], test=test)
    report = run(tmp_path)
    assert report["shown"] == "test" and report["algos"]["ae"]["test"] == [80.5, pytest.approx(0.5 ** 0.5)]
    assert report["twins"][0]["mean"] == 9.5


def test_a_surrogate_has_no_optimum_to_hit(tmp_path, capsys):
    for algo, best in (("ae", 95), ("re", 94)):
        write(tmp_path, algo, 0, [90, 91, best], optimum=None)
    report = run(tmp_path)
    assert report["algos"]["ae"]["share"] is None and report["twins"][0]["mean"] == 1
    assert "optimum unknown" in capsys.readouterr().out


@pytest.mark.parametrize("spoil, message", [
    (lambda folder: write(folder, "r", 1, [90, 91, 92], oracle="another"), "another"),
    (lambda folder: write(folder, "r", 1, [90, 91]), "2 queries only")])
def test_runs_that_do_not_compare(tmp_path, spoil, message):
    write(tmp_path, "r", 0, [90, 91, 92])
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        run(tmp_path)


def test_an_empty_folder_is_a_mistake(tmp_path):
    with pytest.raises(InputError, match="no finished search"):
        run(tmp_path)
