"""pretrain.py: a killed run ends in the same weights, settings reach them, the probe changes nothing."""
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

import pretrain
import spaces
from models.checkpoint import load_encoder
from models.encoders import ENCODERS
from models.pretext.tasks import TASKS
from runtime.checkpoint import save_checkpoint
from runtime.errors import InputError

SPACE = spaces.get("nasbench201")
TINY = ["--tasks", "mask", "--width", "16", "--layers", "1", "--heads", "2", "--iterations", "20",
        "--batch_size", "24", "--archs", "60", "--no-tensorboard", "--device", "cpu", "--threads", "1"]


def run(folder: Path, *flags: str) -> dict:
    """The checkpoint that a run with these flags leaves."""
    pretrain.main(["--save", str(folder), *TINY, *flags])
    return load(folder)


def load(folder: Path) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)


def same(a: dict, b: dict) -> bool:
    """Whether two checkpoints hold the same encoder."""
    a, b = a["weights"], b["weights"]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Killed(Exception):
    """What a killed run raises here."""


@pytest.fixture
def kill(monkeypatch):
    """Runs pretrain.py and kills it at step k (the first is 0), in the middle of its work."""
    def killed_at(k: int, folder: Path, *flags: str) -> None:
        calls, backward = [], torch.Tensor.backward

        def count(*args, **kwargs):
            calls.append(1)
            if len(calls) > k:
                raise Killed
            return backward(*args, **kwargs)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(torch.Tensor, "backward", count)
            run(folder, *flags)
    return killed_at


# Kills and --resume -----------------------------------------------------------------------------------------

DROPOUT = ("--dropout", "0.3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run with these flags, each run once."""
    runs = {}

    def folder(*flags: str) -> Path:
        if flags not in runs:
            runs[flags] = tmp_path_factory.mktemp("whole")
            run(runs[flags], *flags)
        return runs[flags]
    return folder


@pytest.mark.parametrize("flags", [
    (), DROPOUT, (*DROPOUT, "--base_model", "gat"), (*DROPOUT, "--tasks", ",".join(TASKS)),
    (*DROPOUT, "--model_type", "bgrl")], ids=" ".join)
@pytest.mark.parametrize("step", [0, 1, 7, 19])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, kill, whole, flags, step):
    kill(step, tmp_path, *flags)
    resumed = run(tmp_path, *flags, "--resume")
    expected = load(whole(*flags))
    assert same(resumed, expected) and resumed["losses"] == expected["losses"] and resumed["step"] == 20


def test_a_run_that_is_killed_again_and_again(tmp_path, kill, whole):
    """The last kill of each run is at its second step or later, so each gets a little further."""
    kill(5, tmp_path, *DROPOUT)
    for steps in (3, 1, 6, 2):
        kill(steps, tmp_path, *DROPOUT, "--resume")
    assert same(run(tmp_path, *DROPOUT, "--resume"), load(whole(*DROPOUT)))


def test_a_run_that_is_killed_while_it_writes_its_checkpoint(tmp_path, monkeypatch, whole):
    saves, write = [], torch.save

    def torn(content, file):
        saves.append(1)
        if len(saves) < 4:
            return write(content, file)
        file.write(b"half a checkpoint")
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", torn)
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock", "config.json", "last.pt", "log.jsonl"]
    assert same(run(tmp_path, "--resume"), load(whole()))


def test_the_log_of_a_resumed_run_has_no_gap(tmp_path, kill, whole):
    kill(11, tmp_path)
    run(tmp_path, "--resume")
    resumed, expected = ([(e["step"], e["loss"], e["lr"]) for e in logged(folder)]
                         for folder in (tmp_path, whole()))
    assert resumed == expected and [step for step, _, _ in resumed] == list(range(2, 21, 2))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = run(tmp_path)
    assert same(run(tmp_path, "--resume"), first) and len(logged(tmp_path)) == 10


def test_a_run_that_was_killed_between_its_last_two_files_gets_the_second(tmp_path):
    run(tmp_path)
    (tmp_path / "result.json").unlink()
    run(tmp_path, "--resume")
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 20


def test_resuming_starts_if_there_is_nothing(tmp_path, whole):
    assert same(run(tmp_path, "--resume"), load(whole()))


def test_a_finished_run_goes_on_to_more_iterations(tmp_path, kill, capsys):
    """At the place in the larger schedule; the longer run is one, too, that is killed and goes on."""
    first = run(tmp_path / "a")
    longer = run(tmp_path / "a", "--resume", "--iterations", "30")
    assert "goes on with the learning rate of step 20 of 30" in " ".join(capsys.readouterr().err.split())
    assert longer["step"] == 30 and longer["losses"][:20] == first["losses"]
    rates = {event["step"]: event["lr"] for event in logged(tmp_path / "a")}
    assert rates[20] < rates[21] > rates[30]  # down to 0, then up to where 30 steps are
    run(tmp_path / "b")
    kill(4, tmp_path / "b", "--resume", "--iterations", "30")
    assert same(run(tmp_path / "b", "--resume", "--iterations", "30"), longer)
    assert "was made with iterations = 30, not 20" in refused("--save", str(tmp_path / "b"), "--resume")


def test_an_unfinished_run_keeps_its_iterations(tmp_path, kill):
    kill(7, tmp_path)
    message = refused("--save", str(tmp_path), "--resume", "--iterations", "30")
    assert "was made with iterations = 20, not 30" in message


def test_the_cells_of_a_file_decide_and_not_its_name(tmp_path, kill):
    def cells(name: str, first: int) -> str:
        space = spaces.get("nasbench201")
        keys = map(space.key, space.decode(np.arange(first, first + 40)[:, None] // 5**np.arange(6) % 5))
        (tmp_path / name).write_text("".join(json.dumps({"arch": key}) + "\n" for key in keys))
        return str(tmp_path / name)

    kill(7, tmp_path / "run", "--data", cells("a.jsonl", 0))
    message = refused("--save", str(tmp_path / "run"), "--resume", "--data", cells("a.jsonl", 9))
    assert "last.pt was made with another content of data" in message
    run(tmp_path / "run", "--resume", "--data", cells("b.jsonl", 0))


@pytest.mark.parametrize("flags", ["--model_type graphcl --batch_size 1", "--tasks grace --batch_size 1",
                                   "--tasks mask,contrast --batch_size 7"], ids=["graphcl", "grace", "ours"])
def test_a_task_that_compares_cells_needs_two(tmp_path, flags):
    assert "compares graphs and sees one per step: give at least" in refused(
        "--save", str(tmp_path / "run"), *flags.split())


def refused(*flags: str) -> str:
    """The message with which pretrain.py refuses the flags: one line."""
    with pytest.raises(InputError) as error:
        pretrain.main([*TINY, *flags])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_is_not_overwritten(tmp_path):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = refused("--save", str(tmp_path))
    assert str(tmp_path) in message and "--resume" in message
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("setting", [
    "mask_ratio 0.25", "seed 1", "lr 0.013", "iterations 19", "batch_size 8", "archs 50", "dropout 0.1",
    "space darts", "pretrain_target all", "base_model gcn", "width 32", "weight_decay 0.37", "warmup 0.37",
    "tasks flow"])
def test_a_setting_cannot_change_on_resume(whole, setting):
    folder, (flag, value) = whole(), setting.split()
    before = (folder / "last.pt").read_bytes(), (folder / "config.json").read_bytes()
    message = refused("--save", str(folder), "--resume", f"--{flag}", value)
    assert re.search(rf"\b{flag}\b", message) and value in message and str(folder) in message
    assert before == ((folder / "last.pt").read_bytes(), (folder / "config.json").read_bytes())


def test_threads_may_change_on_resume(tmp_path, kill, whole):
    kill(7, tmp_path)
    assert same(run(tmp_path, "--resume", "--threads", "1", "--tensorboard"), load(whole()))


# What the weights depend on ---------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_weights(tmp_path, whole):
    assert same(run(tmp_path, *DROPOUT), load(whole(*DROPOUT)))


@pytest.mark.parametrize("setting", [
    "mask_ratio 0.25", "pretrain_target all", "seed 1", "lr 0.013", "weight_decay 0.37", "warmup 0.37",
    "dropout 0.3", "batch_size 25", "archs 59", "iterations 21", "base_model gat", "layers 2", "tasks flow",
    "tasks mask,flow"])
def test_a_setting_reaches_the_weights(tmp_path, whole, setting):
    assert not same(run(tmp_path, *f"--{setting}".split()), load(whole()))


@pytest.mark.parametrize("task, setting", [
    ("edges", "edge_ratio 0.7"), ("contrast", "view_ratio 0.7"), ("contrast", "temperature 0.7")])
def test_a_setting_of_one_task_reaches_the_weights(tmp_path, whole, task, setting):
    assert not same(run(tmp_path, "--tasks", task, *f"--{setting}".split()), load(whole("--tasks", task)))


def test_cell_marks_reach_the_weights(tmp_path):
    marked, plain = (run(tmp_path / flag, "--space", "darts", f"--{flag}")
                     for flag in ("cell_marks", "no-cell_marks"))
    assert not same(marked, plain) and marked["cell_marks"] and not plain["cell_marks"]


def test_a_params_file_reaches_the_weights(tmp_path, whole):
    (tmp_path / "p.json").write_text('{"mask_ratio": 0.25, "dropout": 0.3}')
    file = ("--param", f"local:{tmp_path / 'p.json'}")
    assert same(run(tmp_path / "a", *file), load(whole("--mask_ratio", "0.25", *DROPOUT)))


@pytest.mark.parametrize("probe", [(), ("--finetune_fixed_encoder",)], ids=["end-to-end", "fixed"])
def test_the_probe_is_logged_and_changes_nothing(tmp_path, whole, probe):
    """A run of three steps looks at its weights after each."""
    rng, flags = np.random.default_rng(0), (*DROPOUT, "--iterations", "3")
    keys = [SPACE.key(arch) for arch in dict.fromkeys(SPACE.sample(60, rng))]
    rows = "".join(f"{key},{90 + rng.random():.4f}\n" for key in keys)
    (tmp_path / "l.csv").write_text(f"arch,val_accuracy\n{rows}")
    labels = ("--labels", str(tmp_path / "l.csv"), "--finetune_train_samples", "20")
    probed = run(tmp_path / "run", *flags, *labels, *probe)
    assert same(probed, load(whole(*flags)))
    probes = [event["probe_tau"] for event in logged(tmp_path / "run")]
    assert len(probes) == 3 and len(set(probes)) > 1 and all(-1 <= tau <= 1 for tau in probes)
    assert "probe_tau" not in logged(whole(*flags))[0]


# Learning ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("base_model", ENCODERS)
def test_the_loss_goes_down_if_there_is_something_to_learn(tmp_path, base_model):
    """One architecture, over and over."""
    run(tmp_path, "--base_model", base_model, "--archs", "1", "--layers", "3", "--iterations", "120", "--lr",
        "0.02", "--dropout", "0")
    losses = [event["loss"] for event in logged(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_architectures_may_come_from_a_file(tmp_path):
    """One cell is learnt by heart, which a sample of the space could not be."""
    path = tmp_path / "cells.jsonl"
    path.write_text(json.dumps({"arch": SPACE.key((0, 1, 2, 3, 4, 0)), "val_accuracy": 90.0}) + "\n")
    run(tmp_path / "run", "--data", str(path), "--archs", "0", "--iterations", "120", "--lr", "0.02",
        "--dropout", "0")
    assert logged(tmp_path / "run")[-1]["loss"] < 0.25


def test_the_checkpoint_is_what_fine_tuning_reads(whole):
    content = load_encoder(str(whole() / "last.pt"), SPACE)
    assert content["encoder"] == {"base_model": "transformer", "width": 16, "layers": 1, "heads": 2,
                                  "dropout": 0.2, "direction": True}


# Errors -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("setting", [
    "mask_ratio 1.5", "mask_ratio -0.1", "heads 3", "heads 3 --base_model gat", "batch_size 0",
    "iterations 0", "archs -1", "seed -1", "dropout 1.5", "layers 0", "lr -1", "pretrain_target some",
    "base_model mlp", "protocol best", "tasks swim", "tasks mask,mask", "labels absent.csv",
    "data absent.json", "param local:absent.json"])
def test_settings_that_make_no_sense(tmp_path, setting):
    """Width 16 does not divide among 3 heads."""
    name, value, *_ = setting.split()
    message = refused("--save", str(tmp_path / "run"), *f"--{setting}".split())
    assert name in message or value.removeprefix("local:") in message
    assert not (tmp_path / "run").exists()


def test_a_last_pt_that_cannot_be_read(tmp_path, whole):
    content = (whole() / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    assert "damaged" in refused("--save", str(tmp_path), "--resume")


def test_a_shipped_encoder_cannot_be_resumed(tmp_path, whole):
    """It holds no optimiser."""
    content = load(whole())
    kept = {name: content[name] for name in ("space", "ops", "encoder", "weights")}
    save_checkpoint(tmp_path / "last.pt", **kept)
    assert "lacks" in refused("--save", str(tmp_path), "--resume")


def test_a_mistake_ends_with_code_2_and_one_line_on_stderr(tmp_path):
    (tmp_path / "bad.json").write_text('{"mask_rate": 0.5}')
    command = [sys.executable, ROOT / "pretrain.py", "--param", "local:bad.json"]
    end = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert end.returncode == 2 and end.stdout == ""
    assert re.fullmatch("error: .*bad.json.*'mask_rate'.*'mask_ratio'.*\n", end.stderr)
