"""search.py: the loop, its budget, its history, resuming; the pool and the strategies' interface."""
import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

import runtime
import search
import spaces
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
    """Only the history matters: skip the pictures."""
    monkeypatch.setattr(search, "report", lambda *_: None)


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
    assert [line["round"] for line in history] == [0] * 6 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 2
    assert [line["key"] for line in history] == asked and len(set(asked)) == N
    assert [line["score"] is None for line in history] == [True] * 6 + [False] * 14


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


@pytest.mark.parametrize("algo", ["rl", "ae", "bo"])
def test_a_space_without_a_list_is_searched_by_every_strategy(tmp_path, monkeypatch, no_report, algo):
    """DARTS cells and an oracle that answers for all."""
    oracle = SimpleNamespace(name="made up", covers=lambda key: True,
                             query=lambda arch: Record(len(repr(arch)) / 10, None, None))
    monkeypatch.setattr(search, "open_oracle", lambda *_, **__: oracle)
    run(tmp_path / "run", "made up", "--search_space", "darts", "--search_algo", algo)
    assert len({line["key"] for line in lines(tmp_path / "run")}) == N


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
    field = search.Config.__dataclass_fields__["search_algo"]
    monkeypatch.setattr(field, "metadata", runtime.setting("r", "").metadata)
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
