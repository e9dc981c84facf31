"""benchmarks/search.py: shares, medians and paired differences of finished searches."""
from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks import search
from runtime.errors import InputError
from runtime.files import whole_lines
from toys.search import SMALL

pytestmark = pytest.mark.usefixtures("hasty")

COMMON = {"space": "nasbench201", "dataset": "cifar10", "protocol": "val-test", "chosen_by": "validation",
          "oracle": "toy", "optimum": {"validation": 95.0, "test": 90.0}, "architecture": "a", "key": "a",
          "validation": 95.0, "test": None, "query": 1, "pretrained": None}


def write(folder: Path, algo: str, seed: int, values: list[float], test: float | str = "", **changes) -> None:
    path = folder / algo / str(seed)
    path.mkdir(parents=True)
    (path / "best.json").write_text(json.dumps(
        COMMON | {"algo": algo, "seed": seed, "N": len(values)} | changes))
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
    assert (ours["share"], ours["median"], ours["mean"]) == (pytest.approx(2 / 3), 2,
                                                             pytest.approx((95 + 94 + 95) / 3))
    assert (twin["share"], twin["median"], twin["n"]) == (0, None, 3)  # one hit in three, after four queries
    pair = report["pairs"][0]
    assert (pair["ours"], pair["other"], pair["n"], pair["until"]) == ("r", "random", 3, 4)
    for name, gain in (("accuracy", (4 + 4 + 3) / 3), ("share", 2 / 3), ("hit", (2 + 0 + 3) / 3)):
        assert pair[name]["mean"] == pytest.approx(gain) and pair[name]["low"] <= gain <= pair[name]["high"]
    assert pair["accuracy"]["verdict"] == "ahead" and pair["hit"]["verdict"] == "tie"


def test_the_tau_in_a_round_is_that_of_scores_and_answers(tmp_path):
    """Of the rounds with at least two queries that were scored and did not fail: 1, and -1, and 1/3."""
    write(tmp_path, "bo", 0, [90, 91, 92])
    rounds = [(0, None, 90), (1, 1.0, 91), (1, 2.0, 92), (2, 2.0, 90), (2, 1.0, 93), (2, 3.0, None),
              (3, 3.0, 3), (3, 2.0, 1), (3, 1.0, 2), (4, 9.0, 1)]
    lines = [{"query": i, "round": t, "key": "a", "architecture": "a", "validation": value, "test": None,
              "score": score, "cost": None} for i, (t, score, value) in enumerate(rounds, 1)]
    (tmp_path / "bo" / "0" / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(tmp_path, "random", 0, [90, 91, 92])
    algos = run(tmp_path)["algos"]
    assert algos["bo"]["round_tau"] == pytest.approx((1 - 1 + 1 / 3) / 3)
    assert algos["random"]["round_tau"] is None


def test_equal_strategies_tie(tmp_path):
    for seed in range(4):
        write(tmp_path, "bo", seed, [90, 91, 92 + (-1) ** seed])
        write(tmp_path, "ls", seed, [90, 91, 92])
    assert run(tmp_path)["pairs"][0]["accuracy"]["verdict"] == "tie"


def test_all_of_ours_are_compared_with_twin_and_references(tmp_path):
    for algo in ("ae", "re", "ls", "r"):
        write(tmp_path, algo, 0, [90, 91, 92])
    assert [(pair["ours"], pair["other"]) for pair in run(tmp_path)["pairs"]] == [
        ("ae", "re"), ("r", "ls"), ("ae", "ls"), ("r", "re")]


def test_a_later_hit_than_the_shorter_run_is_nobodys_gain(tmp_path):
    write(tmp_path, "bo", 0, [90, 90, 90])
    write(tmp_path, "bo", 1, [90, 95, 95])
    for seed in (0, 1):
        write(tmp_path, "ls", seed, [90] * 9 + [95])
    pair = run(tmp_path)["pairs"][0]
    assert pair["until"] == 3 and pair["hit"]["mean"] == 0.5 and pair["share"]["mean"] == 0.5


def test_twins_are_compared_by_test_accuracy_where_it_is_known(tmp_path):
    for algo, tests in (("ae", (80, 81)), ("re", (70, 72))):
        for seed, test in enumerate(tests):
            write(tmp_path, algo, seed, [90, 91, 92], test=test)
    report = run(tmp_path)
    assert report["shown"] == "test" and report["algos"]["ae"]["test"] == [80.5, pytest.approx(0.5 ** 0.5)]
    assert report["pairs"][0]["accuracy"]["mean"] == 9.5


def test_a_surrogate_has_no_optimum_to_hit(tmp_path, capsys):
    for algo, best in (("ae", 95), ("re", 94)):
        write(tmp_path, algo, 0, [90, 91, best], optimum=None)
    report = run(tmp_path)
    assert report["algos"]["ae"]["share"] is None and report["pairs"][0]["hit"] is None
    assert report["pairs"][0]["accuracy"]["mean"] == 1
    assert "optimum unknown" in capsys.readouterr().out


@pytest.mark.parametrize("spoil, message", [
    (lambda folder: write(folder, "r", 1, [90, 91, 92], oracle="another"), "another"),
    (lambda folder: write(folder, "r", 1, [90, 91]), "2 queries only")])
def test_runs_that_do_not_compare(tmp_path, spoil, message):
    write(tmp_path, "r", 0, [90, 91, 92])
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        run(tmp_path)


def test_the_record_holds_curves_as_long_as_the_shortest_run_and_has_a_picture(tmp_path):
    write(tmp_path, "ae", 0, [90.0] * 9 + [92.0] * 16, test=80)
    write(tmp_path, "ae", 1, [90.0] * 11 + [94.0] * 10, test=82)
    report = run(tmp_path)
    curves = report["curves"]["ae"]
    assert curves["query"] == [10, 20, 21] and curves["mean"] == [91, 93, 93]
    assert curves["std"] == pytest.approx([2 ** 0.5] * 3) and curves["test"]["mean"] == [81] * 3
    assert (tmp_path / "record.png").stat().st_size > 10_000
    assert f"--runs {tmp_path} --within 3" in report["command"]
    assert {"python", "torch", "numpy"} == report["versions"].keys()


def test_the_record_is_a_json_file(tmp_path):
    write(tmp_path, "ae", 0, [90, 91, 92])
    with pytest.raises(InputError, match="end in .json"):
        run(tmp_path, "--out", str(tmp_path / "record.png"))


# A campaign -------------------------------------------------------------------------------------------------

def campaign(tmp_path, labels, *flags: str) -> dict:
    return search.main(["--run", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "record.json"),
                        "--within", "12", "--labels", labels, "--search_algo", "ae,re", "--seeds", "0-2",
                        "--predictor_seeds", "0,1", "--N", "40", "--queries", "16", *SMALL[2:], *flags])


def test_a_campaign_searches_what_is_missing_and_counts(tmp_path, labels, asked):
    report = campaign(tmp_path, labels)
    assert {algo: row["seeds"] for algo, row in report["algos"].items()} == {"ae": [0, 1], "re": [0, 1, 2]}
    assert (report["algos"]["ae"]["horizon"], report["algos"]["re"]["horizon"]) == (16, 40)
    assert report["pairs"][0]["n"] == 2 and report["algos"]["ae"]["seconds"]["all"] > 0
    for path in (tmp_path / "runs").glob("*/*"):
        history = whole_lines(path / "history.jsonl")
        best = json.loads((path / "best.json").read_text())
        assert (best["stopped"] is not None) == (len(history) < best["N"])
        assert best["stopped"] is None or best["validation"] == best["optimum"]["validation"]
    asked.clear()
    (tmp_path / "runs" / "re" / "2" / "best.json").unlink()
    again = campaign(tmp_path, labels)
    assert not asked and again["algos"]["re"]["median"] == report["algos"]["re"]["median"]


def test_a_campaign_has_one_folder(tmp_path):
    for folders in ("", "a,b"):
        with pytest.raises(InputError, match="give the one folder to search in"):
            search.main(["--run", "--runs", folders])


def test_an_empty_folder_is_a_mistake(tmp_path):
    with pytest.raises(InputError, match="no finished search"):
        run(tmp_path)
