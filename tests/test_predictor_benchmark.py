"""benchmarks/predictor.py: equal terms for every method, honest numbers, nothing done twice."""
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pretrain
import spaces
from benchmarks import baselines, predictor, predictor_record
from benchmarks.baselines import METHODS, Method, published
from models.batch import Batch
from models.features.facts import portable_facts
from models.metrics import kendall_tau
from models.predictor.self_training import TaughtRecipe
from runtime.errors import InputError
from runtime.files import ROOT
from runtime.settings import setting
from toys.labels import KEYS, SPACE, TEST, VAL, N, write_labels

QUICK = ["--seeds", "0,1,2", "--threads", "1", "--device", "cpu"]


@dataclass
class SmallRecipe(TaughtRecipe):
    """A small network that trains for a moment."""

    epochs: int = setting(1, "")
    width: int = setting(16, "")
    layers: int = setting(1, "")


@pytest.fixture
def labels(tmp_path) -> str:
    return write_labels(tmp_path / "toy.csv")


def run(folder: Path, labels: str, methods: str, sizes: str, *flags: str) -> dict:
    out, work = folder / "out.json", folder / "work"
    [report] = predictor.main(["--labels", labels, "--methods", methods, "--n_labels", sizes,
                               "--out", str(out), "--work", str(work), *QUICK, *flags])
    return report


def record(report: dict, method: str, n: int) -> dict:
    return next(r for r in report["records"] if (r["method"], r["n_labels"]) == (method, n))


def refused(folder: Path, labels: str, *flags: str) -> str:
    with pytest.raises(InputError) as error:
        run(folder, labels, "seen", "20", *flags)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def seen(monkeypatch) -> list:
    """Adds a method `seen` that scores by fixed random numbers of the table's rows; returns the tasks that it
    got."""
    tasks = []

    def fit(task, checkpoint):
        tasks.append(task)
        fixed = np.random.default_rng(0).random(task.table.num_graphs)  # [N]
        return lambda rows: np.tile(fixed[rows], (len(task.seeds), 1))

    for name in ("seen", "seen_too"):
        monkeypatch.setitem(METHODS, name, Method(fit))
    return tasks


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Every network of every method is small and trains for a moment."""
    monkeypatch.setattr(baselines, "TaughtRecipe", SmallRecipe)
    sizes = {"base_model": "gat", "width": 16, "layers": 1, "heads": 2}

    def settings_file(stage, space):
        rest = {"tasks": "mask", "archs": 50, "batch_size": 16} if stage == "pretrain" else {"epochs": 1}
        path = tmp_path / f"{stage}.json"
        path.write_text(json.dumps(sizes | rest
                                   | ({"finetune_fixed_encoder": True} if "partial" in stage else {})))
        return path

    monkeypatch.setattr(baselines, "settings_file", settings_file)


# The report -------------------------------------------------------------------------------------------------

def test_the_numbers_are_those_of_the_scores(tmp_path, labels, seen):
    report = run(tmp_path, labels, "seen", "20,40")
    assert json.loads((tmp_path / "out.json").read_text()) == report
    fixed, rows = np.random.default_rng(0).random(N), np.arange(N)
    for n, task in zip((20, 40), seen):
        of_size = record(report, "seen", n)
        tau = [kendall_tau(fixed[r], TEST[r]) for r in (np.setdiff1d(rows, own) for own in task.rows)]
        assert of_size["tau"]["seeds"] == pytest.approx(tau, abs=1e-3)  # the file has four digits
        assert of_size["tau"]["mean"] == pytest.approx(np.mean(tau), abs=1e-3)
        assert of_size["tau"]["std"] == pytest.approx(np.std(tau, ddof=1), abs=1e-3)
        assert (of_size["n_ranked"], of_size["seeds"]) == (N - n, [0, 1, 2])
        assert of_size["seconds"].keys() == {"fit", "score"}


def test_every_method_gets_the_same_labels(tmp_path, labels, seen):
    run(tmp_path, labels, "seen,seen_too", "20")
    one, other = seen
    assert np.array_equal(one.rows, other.rows) and one.rows.shape == (3, 20)
    assert np.allclose(one.label, VAL[one.rows], atol=1e-3) and np.array_equal(one.label, other.label)


def test_the_table_and_the_picture(tmp_path, labels, seen, capsys):
    report = run(tmp_path, labels, "seen,seen_too,xgboost", "20")
    printed = capsys.readouterr().out
    assert all(f"{r['tau']['mean']:.4f} ± {r['tau']['std']:.4f}" in printed for r in report["records"])
    assert f"{report['differences'][1]['mean']:+.3f}" in printed and "+0.000 [+0.000, +0.000]" in printed
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG" and str(tmp_path / "out.png") in printed


def test_one_seed_has_neither_deviation_nor_interval(tmp_path, labels, seen, capsys):
    report = run(tmp_path, labels, "seen,seen_too", "20", "--seeds", "4")
    assert report["records"][0]["tau"]["std"] is None and report["differences"][0]["low"] is None
    assert "±" not in capsys.readouterr().out


@pytest.mark.parametrize("gain, low, high", [([0.1, 0.1, 0.1], 0.1, 0.1), ([0.0, 0.2] * 20, 0.07, 0.13)])
def test_differences_are_paired(gain, low, high):
    """Seeds differ far more from each other than the methods do on any of them."""
    base = np.random.default_rng(0).random(len(gain))
    one = {"method": "a", "n_labels": 9, "tau": {"seeds": list(base + gain)}}
    found = predictor_record.difference(one, {"method": "b", "n_labels": 9, "tau": {"seeds": list(base)}})
    assert (found["method"], found["minus"], found["mean"]) == ("a", "b", pytest.approx(0.1))
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_measures_of_a_ranking_that_errs_among_the_best_only():
    truth = np.arange(100.0)
    score = truth.copy()
    score[90:] = truth[90:][::-1]
    found = predictor.ranking(score, truth)
    assert found["precision@10"] == found["precision@50"] == found["precision@100"] == 1
    assert (found["tau_best_tenth"], found["tau"]) == (pytest.approx(-1), pytest.approx(1 - 2 * 45 / 4950))


# Which cells ------------------------------------------------------------------------------------------------

def test_a_limit_ranks_the_same_few_cells_for_every_seed(tmp_path, labels, seen):
    report = run(tmp_path, labels, "seen", "20", "--eval_cells", "30")
    cells = predictor.Cells(predictor.Config(labels=labels, eval_cells=30), SPACE, torch.device("cpu"))
    [table] = cells.ranked
    left = [cells.draw(20, seed)[1][0] for seed in (0, 1, 2)]
    assert len(table.candidates) == 30 and all(set(rows) <= set(table.candidates) for rows in left)
    assert report["records"][0]["n_ranked"] == min(map(len, left))


@pytest.mark.parametrize("shift", ["accuracy", "size", "operations"])
def test_a_shift_labels_one_half_and_ranks_the_other(tmp_path, labels, seen, shift):
    """Every labelled cell has at least as much of it as every ranked one, and none is both."""
    report = run(tmp_path, labels, "seen", "20", "--shift", shift)
    facts = portable_facts(Batch.of(SPACE.encode_keys(KEYS)), SPACE.vocabulary)
    value = {"accuracy": VAL, "size": facts[:, 0].numpy(), "operations": facts[:, 2].numpy()}[shift]
    rows = np.concatenate([task.rows for task in seen])
    order = np.sort(value)
    assert value[rows].min() >= order[N // 2]
    assert record(report, "seen", 20)["n_ranked"] == N // 2


def test_cells_of_another_table_are_ranked_but_for_those_trained_on(tmp_path, labels):
    """The other table repeats half of the cells, with test accuracies of its own."""
    fresh = set(map(SPACE.key, SPACE.sample(50, np.random.default_rng(9)))) - set(KEYS)
    keys = [*KEYS[:N // 2], *sorted(fresh)]
    other = write_labels(tmp_path / "other.csv", *np.random.default_rng(1).uniform(50, 90, (2, len(keys))),
                         keys)
    cells = predictor.Cells(predictor.Config(labels=labels, eval_labels=other), SPACE, torch.device("cpu"))
    train, [ranked] = cells.draw(60, 3)
    names = np.array(KEYS + keys)
    assert train.max() < N <= ranked.min() and set(names[ranked]) == set(keys) - set(names[train])
    assert np.array_equal(cells.table.ops[ranked], SPACE.encode_keys(names[ranked].tolist()).ops)
    assert not np.isnan(cells.truth[ranked]).any() and np.isnan(cells.truth[:N]).all()


def test_several_tables_are_ranked_by_the_same_predictors(tmp_path, labels, monkeypatch):
    """Each in a record of its own, the same as if it were ranked alone; what one of them lacks is measured
    again."""
    def fit(task, checkpoint):
        fits.append(task.seeds)
        return lambda rows: np.tile(task.table.ops[rows].numpy() @ np.arange(1, 9) ** 2, (len(task.seeds), 1))

    def both() -> list[dict]:
        return predictor.main(["--labels", labels, "--methods", "by_ops", "--n_labels", "20",
                               "--eval_labels", two, "--out", str(tmp_path / "both.json"), *QUICK])

    fits = []
    monkeypatch.setitem(METHODS, "by_ops", Method(fit))
    halves = [write_labels(tmp_path / f"{name}.csv", VAL[part], TEST[part], KEYS[part])
              for name, part in (("one", slice(0, N // 2)), ("other", slice(N // 2, N)))]
    two = ",".join(halves)
    alone = [run(tmp_path / Path(half).stem, labels, "by_ops", "20", "--eval_labels", half)
             for half in halves]
    together = both()
    for one, found, half in zip(alone, together, halves):
        assert found == json.loads((tmp_path / f"both_{Path(half).stem}.json").read_text())
        assert found["settings"] == one["settings"] and found["ranked"] == one["ranked"]
        assert all(found["records"][0][name] == one["records"][0][name]
                   for name in ("seeds", "n_ranked", *predictor_record.MEASURES))
    assert together[0]["records"][0]["tau"] != together[1]["records"][0]["tau"]
    both()
    assert len(fits) == 3
    (tmp_path / "both_one.json").unlink()
    assert all(again["records"][0]["tau"] == report["records"][0]["tau"]
               for again, report in zip(both(), together, strict=True))
    assert len(fits) == 4


def test_several_tables_need_several_names(tmp_path, labels, seen):
    for tables in (f"{labels},{labels}", f"{labels},", f",{labels}"):
        assert "--eval_labels" in refused(tmp_path, labels, "--eval_labels", tables)


def test_too_few_cells_to_rank(tmp_path, labels, seen):
    assert "--eval_cells" in refused(tmp_path, labels, "--eval_cells", "1")


# Going on ---------------------------------------------------------------------------------------------------

def test_what_is_finished_is_not_done_again(tmp_path, labels, seen):
    first = run(tmp_path, labels, "seen", "20")
    second = run(tmp_path, labels, "seen_too,seen", "20,30")
    assert [task.rows.shape[1] for task in seen] == [20, 20, 30, 30]
    assert second["records"][0] == first["records"][0] and len(second["records"]) == 4
    assert {d["minus"] for d in second["differences"]} == {"seen_too"}


def test_the_differences_are_those_of_the_whole_record(tmp_path, labels, seen):
    """Over the seeds that both have; not only of what the last command asked for."""
    run(tmp_path, labels, "xgboost", "20,30", "--seeds", "0-3")
    report = run(tmp_path, labels, "seen,seen_too", "20", "--seeds", "1-4")
    assert [(d["method"], d["minus"], d["n_labels"], d["n_seeds"]) for d in report["differences"]] == [
        ("xgboost", "seen", 20, 3), ("seen_too", "seen", 20, 4)]
    one, other = (dict(zip(r["seeds"], r["tau"]["seeds"]))
                  for r in (record(report, "xgboost", 20), record(report, "seen", 20)))
    gain = np.mean([one[seed] - other[seed] for seed in (1, 2, 3)])
    assert report["differences"][0]["mean"] == pytest.approx(gain)


def test_further_seeds_are_added_and_the_table_shows_those_asked_for(tmp_path, labels, seen, capsys):
    whole = run(tmp_path / "whole", labels, "seen,xgboost", "20", "--seeds", "0-3")
    run(tmp_path, labels, "seen,xgboost", "20", "--seeds", "2,3")
    seen.clear()
    report = run(tmp_path, labels, "seen,xgboost", "20", "--seeds", "0-3")
    assert [task.seeds for task in seen] == [[0, 1]] and record(report, "seen", 20)["seeds"] == [2, 3, 0, 1]
    assert report["differences"] == whole["differences"]
    capsys.readouterr()
    again = run(tmp_path, labels, "seen,xgboost", "20", "--seeds", "3")
    tau = dict(zip(record(again, "xgboost", 20)["seeds"], record(again, "xgboost", 20)["tau"]["seeds"]))
    assert f"{tau[3]:.4f}" in capsys.readouterr().out and again["records"] == report["records"]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, labels, seen, monkeypatch):
    """With two seeds in a piece: the first piece was finished, the second one not."""
    class Stop(Exception):
        pass

    def fail(task, checkpoint):
        if 2 in task.seeds:
            raise Stop
        return METHODS["seen"].fit(task, checkpoint)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setitem(METHODS, "seen_too", Method(fail))
        run(tmp_path, labels, "seen_too", "20", "--together", "2")
    report = run(tmp_path, labels, "seen_too", "20", "--together", "2")
    assert [task.seeds for task in seen] == [[0, 1], [2]]
    assert record(report, "seen_too", 20)["seeds"] == [0, 1, 2]


def test_a_record_of_before_is_read(tmp_path, labels, seen):
    """Its seeds stood among the settings, once for all records."""
    report = run(tmp_path, labels, "seen", "20")
    old = json.loads((tmp_path / "out.json").read_text())
    old["settings"]["seeds"] = "0-2"
    old["records"] = [{name: value for name, value in r.items() if name != "seeds"} | {"n_seeds": 3}
                      for r in old["records"]]
    (tmp_path / "out.json").write_text(json.dumps(old))
    assert run(tmp_path, labels, "seen", "20") == report and len(seen) == 1


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path, labels):
    flags = ("xgboost", "20,30", "--seeds", "0,1", "--together", "1")
    one, two = run(tmp_path / "one", labels, *flags), run(tmp_path / "two", labels, *flags, "--jobs", "2")
    for n in (20, 30):
        tau = [dict(zip(r["seeds"], r["tau"]["seeds"]))
               for r in (record(one, "xgboost", n), record(two, "xgboost", n))]
        assert tau[0] == tau[1] and tau[0].keys() == {0, 1}


def test_a_record_of_other_settings_is_not_touched(tmp_path, labels, seen):
    run(tmp_path, labels, "seen", "20")
    before = (tmp_path / "out.json").read_bytes()
    for flag, old, new in (("pretrain_steps", 500, 9), ("eval_cells", 0, 50)):
        message = refused(tmp_path, labels, f"--{flag}", str(new))
        assert f"out.json was made with {flag} = {old}, not {new}: give the same" in message
    assert (tmp_path / "out.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3}'])
def test_a_foreign_file_is_not_overwritten(tmp_path, labels, seen, content):
    (tmp_path / "out.json").write_text(content)
    assert "give another name" in refused(tmp_path, labels) and (tmp_path / "out.json").read_text() == content


@pytest.mark.parametrize("flag, value, word", [
    ("--methods", "best", "scratch_tuned"), ("--methods", "gat,gat", "once"),
    ("--methods", "", "scratch_tuned"), ("--n_labels", "20,x", "100,424"),
    ("--n_labels", "1", "at least 2"), ("--n_labels", "0,20", "process"), ("--n_labels", "20,20", "once"),
    ("--n_labels", "900", "240 val"), ("--seeds", "x", "0-9"), ("--out", "record.txt", ".json"),
    ("--protocol", "best", "tnasp")])
def test_wrong_flags_are_refused_in_one_line(tmp_path, labels, seen, flag, value, word):
    assert word in refused(tmp_path, labels, flag, value) and not seen


# The methods ------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_every_method_runs(tmp_path, labels, tiny):
    report = run(tmp_path, labels, ",".join(METHODS), "20", "--pretrain_steps", "2")
    assert [r["method"] for r in report["records"]] == list(METHODS)
    assert all(np.isfinite(r["tau"]["seeds"]).all() and len(set(r["tau"]["seeds"])) == 3
               for r in report["records"])


@pytest.mark.parametrize("space, n, name", [("nasbench101", 199, "scratch_few"), ("darts", 200, "scratch")])
def test_scratch_has_settings_of_its_own(space, n, name):
    task = SimpleNamespace(space=spaces.get(space), rows=np.zeros((3, n), int))
    own, default = vars(baselines.from_scratch(task)), vars(TaughtRecipe())
    given = json.loads((ROOT / "params" / f"{name}.json").read_text())
    assert {name: own[name] for name in default if own[name] != default[name]} == given


@pytest.mark.parametrize("method", ["xgboost", "path_mlp", "npnas", "gates"])
def test_the_references_learn(tmp_path, labels, method):
    """Operations decide most of the toy accuracies."""
    report = run(tmp_path, labels, method, "100", "--seeds", "0")
    assert report["records"][0]["tau"]["mean"] > 0.5


@pytest.mark.parametrize("method", ["xgboost", "path_mlp", "npnas"])
def test_a_seed_decides_a_method_whatever_the_pieces_and_other_seeds(labels, tiny, tmp_path, method):
    cells = predictor.Cells(predictor.Config(labels=labels), SPACE, torch.device("cpu"))
    rows = np.stack([cells.draw(20, seed)[0] for seed in (0, 1)])
    recipe = baselines.network(baselines.default(base_model="npnas", dropout=0.0))
    fit = recipe if method == "npnas" else METHODS[method].fit

    def scorer(chosen: slice):
        return fit(baselines.PredictorTask(SPACE, cells.table, rows[chosen], VAL[rows[chosen]],
                                           [0, 1][chosen], tmp_path, 1), None)

    both, alone = scorer(slice(0, 2)), scorer(slice(1, 2))
    assert np.allclose(both(np.arange(40))[1], alone(np.arange(40))[0], atol=1e-3)
    assert np.allclose(both(np.arange(40))[:, 30:], both(np.arange(30, 40)), atol=1e-5)


@pytest.mark.parametrize("space, n, batch",
                         [("nasbench101", 424, 42), ("nasbench201", 8, 2), ("darts", 100, 10)])
def test_the_published_settings_are_those_of_the_files(tmp_path, space, n, batch):
    space = spaces.get(space)
    task = baselines.PredictorTask(space, None, np.zeros((1, n), int), None, [0], tmp_path, 1)
    stored = json.loads(baselines.settings_file("train", space).read_text())
    recipe = published("train")(task)
    assert all(getattr(recipe, name) == value for name, value in stored.items())
    assert (recipe.finetune_batch_size, recipe.members, recipe.base_model) == (batch, 1, "gat")
    assert published("partial_finetune")(task).finetune_fixed_encoder and not recipe.finetune_fixed_encoder


def test_a_pretrained_gat_is_kept_for_the_next_run(tmp_path, labels, tiny, monkeypatch):
    run(tmp_path, labels, "gat_pretrained", "20", "--pretrain_steps", "2")
    monkeypatch.setattr(pretrain, "main", None)
    run(tmp_path, labels, "gat_pretrained,gat_frozen", "20,30", "--pretrain_steps", "2")
    weights = torch.load(tmp_path / "work" / "gat_nasbench201_2" / "last.pt", weights_only=True)
    assert weights["step"] == 2 and weights["encoder"]["base_model"] == "gat"
