"""train.py and cifar/training.py: exact restarts, data parallel, clear errors."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from cifar.augment import padded
from cifar.training import CifarRecipe, Training, fingerprint_of
from runtime.errors import InputError, main_guard
from runtime.settings import parse
from runtime.workers import Worker
from spaces import darts
from spaces.darts import architecture_of
from toys.cifar import SMALL, Killed, parallel_recipe, pictures, write
from toys.torchrun import free_port, run_two

CPU = Worker(torch.device("cpu"))
TINY = [word for name, value in SMALL.items() if name != "auxiliary" for word in (f"--{name}", str(value))]
TINY += ["--no-auxiliary", "--no-tensorboard", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "tiny.npz", pictures(60, 60), pictures(20, 20))


@pytest.fixture(scope="module")
def run(data):
    """train.main into a folder with tiny settings; returns the result."""
    return lambda folder, *flags: train.main(["--data", str(data), "--save", str(folder), *TINY, *flags])


def weights(folder: Path) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)["weights"]


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def kill(run, monkeypatch):
    """Runs train.py, with a checkpoint after every step, and kills it in step k (the first is 0)."""
    def killed_at(k: int, folder: Path, *flags: str) -> None:
        update, calls = Training.update, []

        def count(self, progress):
            calls.append(progress)
            if len(calls) > k:
                raise Killed
            return update(self, progress)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Training, "update", count)
            run(folder, "--checkpoint_minutes", "0", *flags)
    return killed_at


# The script -------------------------------------------------------------------------------------------------

def test_mean_and_spread_over_seeds_and_what_is_written(tmp_path, run):
    result = run(tmp_path / "a", "--seeds", "0-1", "--arch", "DARTS_V1")
    assert result["seeds"] == [0, 1] and len(result["test"]) == 2
    assert result["key"] == train.SPACE.key(darts.NAMED["DARTS_V1"])
    assert result["test_mean"] == np.mean(result["test"])
    assert result["test_std"] == np.std(result["test"], ddof=1)
    log = logged(tmp_path / "a" / "0")
    assert [line["step"] for line in log] == [1, 2, 3] and log[2]["held_out"] == result["test"][0]
    assert "held_out" not in log[0] and log[0]["images_per_second"] > 0  # the test images are looked at once
    assert log[0]["lr"] > log[1]["lr"] > log[2]["lr"] > 0
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == result


def test_it_learns(tmp_path, run):
    folder = tmp_path / "a"
    run(folder, "--epochs", "10", "--cutout", "0", "--drop_path_prob", "0", "--lr", "0.1")
    losses = [line["loss"] for line in logged(folder / "0")]
    assert losses[-1] < 0.85 * losses[0]


def test_tensorboard_curves(tmp_path, run):
    run(tmp_path / "a", "--tensorboard", "--epochs", "1")
    assert list((tmp_path / "a" / "0" / "tensorboard").iterdir())


@pytest.fixture(scope="module")
def auxiliary(tmp_path_factory, run) -> dict:
    """The weights after a run with an auxiliary classifier and usual settings."""
    folder = tmp_path_factory.mktemp("auxiliary") / "a"
    run(folder, "--auxiliary", "--epochs", "2")
    return weights(folder / "0")


@pytest.mark.parametrize("name", [
    "auxiliary_weight", "cutout", "drop_path_prob", "weight_decay", "momentum", "grad_clip", "lr"])
def test_each_setting_reaches_the_weights(tmp_path, run, auxiliary, name):
    run(tmp_path / "a", "--auxiliary", "--epochs", "2", f"--{name}", "4" if name == "cutout" else "0.01")
    assert not same(weights(tmp_path / "a" / "0"), auxiliary)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_numbers_of_16_bits(tmp_path, run, amp):
    size = ("--epochs", "1", "--init_channels", "8")
    run(tmp_path / "a", *size)
    run(tmp_path / "b", *size, "--amp", amp)
    content = torch.load(tmp_path / "b" / "0" / "last.pt", weights_only=True)
    assert not same(content["weights"], weights(tmp_path / "a" / "0"))
    assert bool(content["scaler"]) == (amp == "fp16")  # only fp16 needs its loss scaled
    assert {value.dtype for value in content["weights"].values()} == {torch.float32, torch.int64}


# Kills and --resume -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(tmp_path_factory, run):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "a"
    run(folder)
    return folder


@pytest.mark.parametrize("step", [0, 1, 4, 6, 11])  # an epoch has 4 steps
def test_a_run_killed_within_an_epoch_goes_on_to_the_same_weights(tmp_path, run, kill, whole, step):
    folder = tmp_path / "a"
    kill(step, folder)
    before = torch.load(folder / "0" / "last.pt", weights_only=True) if step else {"epoch": 0, "step": 0}
    assert (before["epoch"], before["step"]) == divmod(step, 4)
    result = run(folder, "--resume")
    assert same(weights(folder / "0"), weights(whole / "0"))
    assert result["test"] == json.loads((whole / "result.json").read_text())["test"]
    old, new = ([(line["step"], line["loss"], line["train"]) for line in logged(place / "0")]
                for place in (whole, folder))
    assert old == new


def test_a_finished_training_is_not_repeated(run, whole, monkeypatch):
    monkeypatch.setattr(Training, "gradient", None)
    assert run(whole, "--resume") == json.loads((whole / "result.json").read_text())


@pytest.mark.parametrize("flags, message", [
    ((), "holds a training already: go on with --resume"),
    (("--resume", "--lr", "0.1"), "was made with lr = 0.025, not 0.1"),
    (("--resume", "--arch", "DARTS_V1"), "was made with arch = ")], ids=["used", "setting", "cell"])
def test_another_course_in_the_same_folder_is_refused_and_changes_nothing(run, whole, flags, message):
    before = [(whole / name).read_bytes() for name in ("config.json", "result.json", "0/last.pt")]
    with pytest.raises(InputError, match=message):
        run(whole, *flags)
    assert before == [(whole / name).read_bytes() for name in ("config.json", "result.json", "0/last.pt")]


def test_other_images_in_the_same_folder_are_refused(tmp_path, kill, run):
    kill(2, tmp_path / "a")
    other = write(tmp_path / "other.npz", pictures(60, 7), pictures(20, 7))
    with pytest.raises(InputError, match="was made with another content of data"):
        run(tmp_path / "a", "--resume", "--data", str(other))


def test_a_training_of_before_goes_on(tmp_path, run, kill, whole):
    """Its fingerprint, which held the same, was called `course`."""
    folder = tmp_path / "a"
    kill(6, folder)
    content = torch.load(folder / "0" / "last.pt", weights_only=True)
    course = content.pop("fingerprint")
    assert course.keys() == {
        "epochs", "batch_size", "layers", "init_channels", "auxiliary", "auxiliary_weight", "lr", "momentum",
        "weight_decay", "grad_clip", "cutout", "drop_path_prob", "amp", "sync_bn", "cell", "seed",
        "processes", "images"}
    torch.save(content | {"course": course}, folder / "0" / "last.pt")
    with pytest.raises(InputError, match="config.json was made with lr = 0.025, not 0.1"):
        run(folder, "--resume", "--lr", "0.1")
    assert run(folder, "--resume")["test"] == json.loads((whole / "result.json").read_text())["test"]
    assert same(weights(folder / "0"), weights(whole / "0"))


def test_a_finished_training_of_before_is_not_repeated(tmp_path, run, whole, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "a")
    stored = json.loads((folder / "0" / "result.json").read_text())
    stored["course"] = stored.pop("fingerprint")
    (folder / "0" / "result.json").write_text(json.dumps(stored))
    monkeypatch.setattr(Training, "gradient", None)
    assert run(folder, "--resume") == json.loads((whole / "result.json").read_text())
    with pytest.raises(InputError, match="config.json was made with lr = 0.025, not 0.1"):
        run(folder, "--resume", "--lr", "0.1")


# Faults -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("where", ["loss", "weights"])
def test_a_diverging_run_leaves_the_checkpoint_intact(tmp_path, run, kill, monkeypatch, where):
    folder = tmp_path / "a"
    kill(6, folder)
    before = (folder / "0" / "last.pt").read_bytes()
    poisoned = []

    def poison(self, *args):
        method(self, *args)
        with torch.no_grad():
            values = [self.sums] if where == "loss" else self.network.parameters()
            poisoned.append([value.mul_(float("nan")) for value in values])

    name = "gradient" if where == "loss" else "update"
    method = getattr(Training, name)
    with monkeypatch.context() as patch:
        patch.setattr(Training, name, poison)
        with pytest.raises(InputError, match="diverged in epoch 2 .* lower --lr"):
            run(folder, "--resume", "--checkpoint_minutes", "0")
    assert poisoned and (folder / "0" / "last.pt").read_bytes() == before
    run(folder, "--resume")


def test_a_learning_rate_far_too_high_is_one_line_and_exit_code_2(tmp_path, run, capsys):
    with pytest.raises(SystemExit) as end:
        main_guard(lambda: run(tmp_path / "a", "--lr", "1e30"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and last.startswith("error: the training diverged in epoch 1")


def test_a_damaged_checkpoint(tmp_path, run, kill):
    kill(2, tmp_path / "a")
    (tmp_path / "a" / "0" / "last.pt").write_bytes(b"half")
    with pytest.raises(InputError, match="damaged"):
        run(tmp_path / "a", "--resume")


@pytest.mark.parametrize("arch, message", [
    ("DARTS_V3", "cannot read 'DARTS_V3' as a DARTS genotype"), ("random:x", "give random:SEED")])
def test_a_cell_that_is_none(run, tmp_path, arch, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "a", "--arch", arch)
    assert not (tmp_path / "a").exists()


def test_cells_by_name_file_and_seed(tmp_path):
    v2 = darts.NAMED["DARTS_V2"]
    (tmp_path / "cell.txt").write_text(train.SPACE.text(v2) + "\n")
    (tmp_path / "best.json").write_text(json.dumps({"architecture": train.SPACE.text(v2)}))
    (tmp_path / "bad.json").write_text("{}")
    for text in ("DARTS_V2", train.SPACE.text(v2), str(tmp_path / "cell.txt"), str(tmp_path / "best.json")):
        assert architecture_of(text) == v2
    assert architecture_of("random:1") == architecture_of("random:1") != architecture_of("random:2")
    with pytest.raises(InputError, match="bad.json: it has no architecture"):
        architecture_of(str(tmp_path / "bad.json"))


def test_the_params_file_is_the_default_recipe():
    given = vars(parse(train.Config, ["--param", "local:params/train_cifar10.json"], ""))
    assert given == given | vars(CifarRecipe())


def test_batches_of_one_image_are_refused():
    with pytest.raises(InputError, match="some process gets a batch of 1"):
        fingerprint_of(Training(CifarRecipe(**SMALL | {"batch_size": 2}), darts.NAMED["DARTS_V2"], 0, CPU),
                       pictures(5, 0))


# Data parallel ----------------------------------------------------------------------------------------------

WORKER = """
import os, sys, torch, train
from cifar.augment import padded
from cifar.training import Training
from runtime.workers import open_worker
from spaces import darts
from toys.cifar import parallel_recipe, pictures
folder, port, *flags = sys.argv[1:]
with open_worker("cpu", 1) as worker:
    training = Training(parallel_recipe(), darts.NAMED["DARTS_V2"], 0, worker)
    data, step = pictures(13, 0), torch.arange(13)
    training.gradient(padded(data.pixels), data.labels, step.tensor_split(2)[worker.rank], 13)
    torch.save([p.grad for p in training.network.parameters()], f"{folder}/{worker.rank}.pt")
os.environ["MASTER_PORT"] = port
train.main(flags)
"""


@pytest.fixture(scope="module")
def parallel(tmp_path_factory, data) -> Path:
    """What two processes started as by torchrun leave: their gradients of one step, and a whole training in
    a/."""
    folder = tmp_path_factory.mktemp("parallel")
    flags = ["--data", str(data), "--save", str(folder / "a"), *TINY, "--epochs", "2"]
    run_two(WORKER, str(folder), free_port(), *flags)
    return folder


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one_that_accumulates(parallel):
    alone = Training(parallel_recipe(), darts.NAMED["DARTS_V2"], 0, CPU)
    data = pictures(13, 0)
    for share in torch.arange(13).tensor_split(2):
        alone.gradient(padded(data.pixels), data.labels, share, 13)
    first, second = (torch.load(parallel / f"{rank}.pt", weights_only=True) for rank in range(2))
    for parameter, a, b in zip(alone.network.parameters(), first, second, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_train_to_the_end_and_write_once(parallel):
    assert len(json.loads((parallel / "a" / "result.json").read_text())["test"]) == 1
    assert len((parallel / "a" / "0" / "log.jsonl").read_text().splitlines()) == 2
    assert torch.load(parallel / "a" / "0" / "last.pt", weights_only=True)["fingerprint"]["processes"] == 2


def test_synchronised_normalisation_is_for_cuda():
    with pytest.raises(InputError, match="--sync_bn works on CUDA only"):
        Training(CifarRecipe(**SMALL, sync_bn=True), darts.NAMED["DARTS_V2"], 0,
                 Worker(torch.device("cpu"), 0, 2))


# Seeds side by side -----------------------------------------------------------------------------------------

@pytest.mark.slow
def test_seeds_in_processes_of_their_own_end_in_the_same_weights(tmp_path, run, whole):
    result = run(tmp_path / "a", "--seeds", "0-1", "--jobs", "2")
    assert result["seeds"] == [0, 1] and same(weights(tmp_path / "a" / "0"), weights(whole / "0"))


def test_processes_share_batches_or_seeds(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="use one of the two"):
        run(tmp_path / "a", "--jobs", "2")
