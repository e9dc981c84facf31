"""search.py: the loop, its budget, its history, resuming; the pool and the strategies' interface."""
import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

import spaces
from runtime.errors import InputError
from spaces.base import Record
from spaces.oracles.table import TableOracle
from strategies import STRATEGIES, posterior, problem
from strategies.base import Query
from strategies.history import best_of
from strategies.posterior import agreement
from toys.search import FIELDS, N, lines, run, save_encoder, write_labels

pytestmark = pytest.mark.usefixtures("hasty")

# The loop ---------------------------------------------------------------------------------------------------

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
    assert all((line["score"] is not None) == (ranked and line["round"] > 0) for line in history)


def test_regularised_evolution_begins_with_its_population(tmp_path, labels, no_report):
    run(tmp_path / "run", labels, "--search_algo", "re", "--population", "9")
    assert [line["round"] for line in lines(tmp_path / "run")] == [0] * 9 + list(range(1, 12))
    run(tmp_path / "all", labels, "--search_algo", "re", "--population", "50")
    assert [line["round"] for line in lines(tmp_path / "all")] == [0] * N


def test_the_best_scored_of_a_round_are_queried_best_first(tmp_path, labels, monkeypatch, no_report):
    scored = []
    score = posterior.score_ensemble
    monkeypatch.setattr(posterior, "score_ensemble", lambda *a: scored.append(score(*a)) or scored[-1])
    run(tmp_path / "run", labels, "--members", "2", "--kernel_share", "0", "--prior", "")
    picked = [line["score"] for line in lines(tmp_path / "run") if line["round"] == 1]
    assert scored[0].shape == (2, 6 + 12)  # the history, then the candidates
    assert picked == np.sort(agreement(scored[0])[0][6:])[::-1][:4].tolist()


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
    with pytest.raises(InputError, match="--N 31: .* has validation values of only 30 architectures"):
        run(tmp_path / "more", labels, "--search_space", "nasbench101", "--N", "31")


def test_bo_has_five_members_unless_told(tmp_path, labels, monkeypatch, no_report):
    sizes = []
    score = posterior.score_ensemble
    monkeypatch.setattr(posterior, "score_ensemble", lambda *a: sizes.append(a[0].size) or score(*a))
    for algo, *flags in (["bo"], ["bo", "--members", "2"], ["ae"]):
        run(tmp_path / "-".join([algo, *flags]), labels, "--N", "10", "--search_algo", algo, *flags)
    assert list(dict.fromkeys(sizes)) == [5, 2, 1]
    assert json.loads((tmp_path / "bo" / "config.json").read_text())["members"] == 5


@pytest.mark.parametrize("algo", ["rl", "ae", "bo", "re", "ls", "bananas", "xgb"])
def test_a_space_without_a_list_is_searched_by_every_strategy(tmp_path, monkeypatch, no_report, algo):
    """DARTS cells and an oracle that answers for all."""
    oracle = SimpleNamespace(name="made up", digest="0", covers=lambda key: True,
                             query=lambda arch: Record(len(repr(arch)) / 10, None, None))
    monkeypatch.setattr(problem, "open_oracle", lambda *_, **__: oracle)
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
def test_an_oracle_that_ends_at_n_queries_is_never_asked_again(tmp_path, labels, monkeypatch, no_report,
                                                               algo):
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


# Faults and the report --------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, message", [
    (["--N0", "1"], "--N0 1: the random start takes 2..N = 2..20 queries"),
    (["--N0", "21"], "--N0 21"),
    (["--K", "13"], "--K 13: a round queries 1..C = 1..12"),
    (["--seed", "-1"], "seed must be at least 0, not -1"),
    (["--members", "-1"], "members must be from 0 to 100, not -1"),
    (["--tournament", "6", "--population", "5"], "--tournament 6: it is drawn from the --population 5"),
    (["--acquisition", "pi"], "acquisition must be one of its, ei, ucb"),
    (["--N", "61"], "--N 61: labels.csv .* has validation values of only"),
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
    assert best_of(queries).query == 1
