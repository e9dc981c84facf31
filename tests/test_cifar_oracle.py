"""cifar/oracle.py: labels by training, each once; search_darts.sh; the benchmark."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import search
from benchmarks import search_darts
from benchmarks import train as benchmark
from cifar import oracle as oracles
from cifar.images import read_images
from cifar.oracle import TrainingOracle, evaluate, name_of, parse_budget, proxy_recipe
from cifar.training import Training
from runtime.errors import InputError
from runtime.executors import InProcess
from spaces import darts, get
from spaces.oracles.table import QueryBudget
from spaces.oracles.trained import Setup
from strategies.summary import notes
from toys.cifar import SMALL, Killed, pictures, write

CELL = get("darts").text(darts.NAMED["DARTS_V2"])


@pytest.fixture
def poisoned(tmp_path) -> Path:
    """Enough training images for two halves, and a test set that cannot be read."""
    train_images = pictures(80, 3)
    path = tmp_path / "poisoned.npz"
    np.savez(path, x_train=train_images.pixels.numpy(), y_train=train_images.labels.numpy(),
             x_test=np.array([None]), y_test=np.array([None]))
    return path


def budget(path: Path, **changes) -> dict:
    return SMALL | {"data": str(path), "device": "cpu", "threads": 1} | changes


def test_the_label_is_the_mean_validation_accuracy_of_the_last_five_epochs(tmp_path, poisoned, monkeypatch):
    seen = iter([10.0, 20.0, 30.0, 40.0, 60.0])
    monkeypatch.setattr(Training, "accuracy", lambda self, held: next(seen))
    result = evaluate(CELL, budget(poisoned, epochs=7), 0, str(tmp_path / "a"))
    assert result["validation"] == 32 and next(seen, None) is None and result["seconds"] > 0


def test_it_validates_on_the_other_half_and_reads_no_test_image(tmp_path, poisoned, monkeypatch):
    sizes, accuracy = [], Training.accuracy

    def seen(self, held):
        sizes.append(len(held))
        return accuracy(self, held)

    monkeypatch.setattr(Training, "accuracy", seen)
    result = evaluate(CELL, budget(poisoned), 0, str(tmp_path / "a"))
    assert sizes == [40] * 3 and 0 <= result["validation"] <= 100
    with pytest.raises(InputError):
        read_images(poisoned, "test")


def test_a_killed_evaluation_goes_on_and_a_finished_one_is_not_repeated(tmp_path, poisoned, monkeypatch):
    whole = evaluate(CELL, budget(poisoned), 0, str(tmp_path / "whole"))
    update, left = Training.update, [5]

    def count(self, progress):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        update(self, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Training, "update", count)
        evaluate(CELL, budget(poisoned, checkpoint_minutes=0), 0, str(tmp_path / "a"))
    resumed = evaluate(CELL, budget(poisoned), 0, str(tmp_path / "a"))
    assert resumed["validation"] == whole["validation"]
    monkeypatch.setattr(Training, "gradient", None)
    assert evaluate(CELL, budget(poisoned), 0, str(tmp_path / "a")) == resumed


def fake(monkeypatch) -> list:
    """Puts a counter in the place of training; returns the cells that were trained."""
    trained = []

    def count(genotype, recipe, seed, folder):
        trained.append(genotype)
        return {"validation": 50.0 + len(trained), "seconds": 1.5, "parameters": 1, "macs": 1,
                "device": "cpu"}

    monkeypatch.setattr(oracles, "evaluate", count)
    return trained


def test_the_oracle_records_each_training_once(tmp_path, monkeypatch):
    trained, space = fake(monkeypatch), get("darts")
    a, b, c = space.sample(3, np.random.default_rng(0))
    oracle = TrainingOracle({}, Setup(space, 0, tmp_path, InProcess()))
    oracle.prepare([a, b, a])
    assert oracle.query(a) == (51.0, None, 1.5) and oracle.query(c).val == 53.0 and len(trained) == 3
    with open(tmp_path / "trainings.jsonl", "a") as file:
        file.write('{"torn')
    again = TrainingOracle({}, Setup(space, 0, tmp_path, InProcess()))
    again.prepare([a, b, c])
    assert again.query(b).val == 52.0 and len(trained) == 3
    lines = [json.loads(line) for line in (tmp_path / "trainings.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [space.key(arch) for arch in (a, b, c)]
    assert lines[0]["oracle"] == oracle.name


def test_what_was_trained_before_a_fault_is_recorded(tmp_path, monkeypatch):
    trained, space = fake(monkeypatch), get("darts")
    archs = space.sample(3, np.random.default_rng(0))
    count = oracles.evaluate
    monkeypatch.setattr(oracles, "evaluate", lambda *args: 1 / 0 if len(trained) == 2 else count(*args))
    with pytest.raises(ZeroDivisionError):
        TrainingOracle({}, Setup(space, 0, tmp_path, InProcess())).prepare(archs)
    assert len((tmp_path / "trainings.jsonl").read_text().splitlines()) == 2


def test_a_training_that_diverges_is_recorded_at_chance_level_and_the_search_goes_on(tmp_path, poisoned,
                                                                                     monkeypatch):
    flags = ["--search_space", "darts", "--search_algo", "random", "--oracle", "train",
             "--data", str(poisoned), "--budget", FEW, "--outdir", str(tmp_path / "s"), "--N", "3",
             "--N0", "2", "--no-pictures", "--device", "cpu", "--threads", "1"]
    gradient, epochs = Training.gradient, [0]

    def diverging(self, *batch):
        epochs[0] += self.step == 0
        gradient(self, *batch)
        if epochs[0] == 2:  # the second cell
            self.sums += float("nan")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "gradient", diverging)
        best = search.main(flags)
    failed = [json.loads(line) for line in (tmp_path / "s" / "trainings.jsonl").read_text().splitlines()][1]
    assert failed["validation"] == 10 and "diverged in epoch 1" in failed["failed"]
    assert failed["device"] == "cpu"
    assert best["failed"] == 1 and notes([best]) == ["1 trainings diverged and count as chance level, 10 %"]
    history = (tmp_path / "s" / "history.jsonl").read_bytes()
    assert not list((tmp_path / "s").rglob("last.pt")) and history.count(b"\n") == 3
    (tmp_path / "s" / "best.json").unlink()
    monkeypatch.setattr(oracles, "evaluate", None)  # nothing is trained again
    os.truncate(tmp_path / "s" / "history.jsonl", len(history) // 2)
    assert search.main([*flags, "--resume"])["failed"] == 1
    assert (tmp_path / "s" / "history.jsonl").read_bytes() == history


def test_progress_moves_with_each_training(tmp_path, monkeypatch):
    fake(monkeypatch)
    space, seen = get("darts"), []
    archs = space.sample(3, np.random.default_rng(0))
    oracle = TrainingOracle({}, Setup(space, 0, tmp_path, InProcess()))
    oracle.query(archs[0])
    QueryBudget(oracle, 3).prepare(archs, seen.append)
    assert seen == [2, 3]


@pytest.mark.parametrize("flags, threads",
                         [({}, 0), ({"jobs": 2, "cpus_per_run": 3}, 3), ({"threads": 4, "jobs": 2}, 4)])
def test_only_trainings_side_by_side_are_held_to_their_cpus(tmp_path, poisoned, flags, threads):
    config = search.Config(search_space="darts", oracle="train", data=str(poisoned), outdir=str(tmp_path),
                           **flags)
    _, oracle = search.open_problem(config, InProcess())
    assert oracle.recipe["threads"] == threads


def test_trainings_of_another_budget_or_seed_and_other_spaces_are_refused(tmp_path, monkeypatch):
    fake(monkeypatch)
    space = get("darts")
    TrainingOracle({}, Setup(space, 0, tmp_path, InProcess())).query(darts.NAMED["DARTS_V2"])
    for values, seed in (({"epochs": 9}, 0), ({}, 1)):
        with pytest.raises(InputError, match="trainings.jsonl:1: no training with this budget, images"):
            TrainingOracle(values, Setup(space, seed, tmp_path, InProcess()))
    with pytest.raises(InputError, match="nasbench201 has no cells that train.py can train"):
        TrainingOracle({}, Setup(get("nasbench201"), 0, tmp_path, InProcess()))


def test_a_search_by_training_cannot_look_at_test_accuracy(poisoned, tmp_path):
    with pytest.raises(InputError,
                       match="--protocol oracle-test: trainings are chosen by validation"):
        search.main(["--search_space", "darts", "--oracle", "train", "--data", str(poisoned),
                     "--protocol", "oracle-test", "--outdir", str(tmp_path / "s")])


def test_budgets(tmp_path):
    (tmp_path / "b.json").write_text('{"epochs": 3}')
    assert parse_budget("epochs=3, lr=0.1,auxiliary=false") == {"epochs": 3, "lr": 0.1, "auxiliary": False}
    assert parse_budget(f"local:{tmp_path / 'b.json'}") == {"epochs": 3} and parse_budget("") == {}
    assert name_of(proxy_recipe({"epochs": 3, "lr": 0.1, "threads": 2})).endswith(
        ": epochs 3, layers 8, init_channels 32, lr 0.1, subset 0")
    for text in ("epoch=3", "epochs=many", "epochs"):
        with pytest.raises(InputError, match="--budget"):
            parse_budget(text)


# What uses it -----------------------------------------------------------------------------------------------

# With fewer than 4 channels oneDNN (of torch 2.14.1, without AVX-512) writes past the end of some gradients.
FEW = "layers=3,init_channels=4,epochs=1,batch_size=16,auxiliary=false"


def test_a_search_by_training_goes_on_after_a_kill_without_repeating_one(tmp_path, poisoned, monkeypatch):
    flags = ["--search_space", "darts", "--search_algo", "re", "--oracle", "train", "--data", str(poisoned),
             "--budget", FEW, "--outdir", str(tmp_path / "s"), "--N", "4", "--N0", "3", "--population", "3",
             "--tournament", "2", "--no-pictures", "--device", "cpu", "--threads", "1"]
    trained = []

    def count(genotype, *rest):
        if len(trained) == 2:
            raise Killed
        trained.append(genotype)
        return evaluate(genotype, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(oracles, "evaluate", count)
        search.main(flags)
    monkeypatch.setattr(oracles, "evaluate", lambda *task: trained.append(task[0]) or evaluate(*task))
    best = search.main([*flags, "--resume"])
    history, trainings = ([json.loads(line) for line in (tmp_path / "s" / name).read_text().splitlines()]
                          for name in ("history.jsonl", "trainings.jsonl"))
    assert len(trained) == len(set(trained)) == 4 and history[0]["cost"] > 0
    for name in ("key", "validation"):
        assert [query[name] for query in history] == [training[name] for training in trainings]
    assert best["test"] is None and best["oracle"].startswith("trained on CIFAR-10 (poisoned.npz): epochs 1")


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv" / "installed").exists(),
                    reason="needs the environment that test.sh makes")
def test_search_darts_runs_to_its_table(tmp_path):
    data = write(tmp_path / "tiny.npz", pictures(200, 0), pictures(50, 1))
    environment = os.environ | {
        "PROFILE": "tiny", "DATA": str(data), "OUT": str(tmp_path), "DEVICE": "cpu",
        "SEEDS": "0", "RANDOM_CELLS": "1",
        "SEARCH_FLAGS": f"--N 3 --N0 2 --K 1 --members 1 --epochs 1 --threads 1 --no-pictures --budget {FEW}",
        "TRAIN_FLAGS": "--epochs 1 --layers 3 --init_channels 4 --threads 1 --no-tensorboard"}
    end = subprocess.run(["bash", str(ROOT / "search_darts.sh")], env=environment, capture_output=True,
                         text=True, check=False)
    assert end.returncode == 0, end.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {algo: cell["trainings"] for algo, cell in summary["found"].items()} == {"ae": 3, "bo": 3}
    assert summary["random"]["cells"] == 1 and end.stdout.count("against random cells") == 2
    assert {path.name for path in (tmp_path / "figs").iterdir()} == {
        "GMAENAS_AE_normal.png", "GMAENAS_AE_reduction.png", "GMAENAS_BO_normal.png",
        "GMAENAS_Bo_reduction.png"}


def test_search_darts_compares_with_one_random_cell_at_least():
    end = subprocess.run(["bash", str(ROOT / "search_darts.sh")], env=os.environ | {"RANDOM_CELLS": "0"},
                         capture_output=True, text=True, check=False)
    assert (end.returncode, end.stderr) == (2, "error: RANDOM_CELLS=0: 1 or more\n")


def test_the_interval_against_random_cells():
    rng = np.random.default_rng(0)
    assert search_darts.interval(np.array([5.0, 5.0]), np.array([[1.0, 1.0], [1.0, 1.0]]), rng) == (4.0, 4.0)
    low, high = search_darts.interval(np.array([5.0, 6.0]), np.array([[1.0, 2.0], [9.0, 8.0]]), rng)
    assert low < 0 < high  # the two random cells differ far more than the seeds


def test_the_benchmark_measures_both_pipelines(tmp_path, shared_data):
    flags = ["--threads", "1", "--device", "cpu", "--workers", "0", "--turns", "1", "--images", "128",
             "--layers", "3", "--init_channels", "2"]
    data, record = shared_data / "cifar10_5k.npz", tmp_path / "record.json"
    result = benchmark.main(["--data", str(data), "--out", str(record), *flags])
    assert json.loads(record.read_text()) == result
    assert result["ratio"] == result["ratios"][0] > 0 and 0 < result["input_share"] < 1
