"""runtime/verify.py: the same command gives the same files; what was changed by hand is found."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import finetune
import gen_json_301
import pretrain
import search
import train
from runtime import verify
from runtime.errors import InputError
from runtime.verify import compare_folders, difference
from toys.cifar import pictures, write
from toys.labels import write_labels

NETWORK = "--width 8 --layers 1 --heads 2 --device cpu"
COMMANDS = {
    "search": "--outdir {} --labels labels.csv --N 12 --N0 6 --K 3 --C 8 --epochs 2 --kernel_share 0.5 "
              + NETWORK,
    "pretrain": "--save {} --tasks mask,edges,contrast --iterations 10 --batch_size 16 --archs 50 " + NETWORK,
    "finetune": "--save {} --labels labels.csv --finetune_train_samples 20 --seeds 0,1 --members 1 "
                "--epochs 3 " + NETWORK,
    "train": "--save {} --data images.npz --layers 3 --init_channels 4 --batch_size 16 --epochs 1 "
             "--no-tensorboard --device cpu",
    "gen_json_301": "--out {}/cells.jsonl --n 300",
}
MAINS = {"search": search, "pretrain": pretrain, "finetune": finetune, "train": train,
         "gen_json_301": gen_json_301}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with inputs, where runs are started."""
    folder = tmp_path_factory.mktemp("place")
    write_labels(folder / "labels.csv")
    write(folder / "images.npz", pictures(80, 3), pictures(40, 4))
    return folder


@pytest.fixture(autouse=True)
def started_there(place, monkeypatch):
    monkeypatch.chdir(place)


def run(name: str, folder: str, threads: int = 1) -> Path:
    """Runs the script in this process."""
    before = torch.get_num_threads()
    flags = COMMANDS[name].format(folder).split()
    MAINS[name].main(flags if name == "gen_json_301" else [*flags, "--threads", str(threads)])
    torch.set_num_threads(before)
    return Path(folder)


# The same command twice -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_gives_the_same_bytes(name):
    first, second = (run(name, f"{name}-{number}") for number in (1, 2))
    found = compare_folders(first, second)
    assert found and not any(found.values()), found
    for path in first.rglob("history.jsonl"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "gen_json_301"])
def test_two_threads_give_the_same_but_for_rounding(name):
    """Equal bytes are not promised, as sums in another order round otherwise, and a training amplifies it."""
    one, two = run(name, f"{name}-one"), run(name, f"{name}-two", threads=2)
    found = {file: text for file, text in compare_folders(one, two).items() if text}
    print(f"{name}, 2 threads: {found or 'equal'}")
    assert all(": by up to " in text for text in found.values()), found
    assert all(float(text.rpartition(" ")[2]) < 0.05 for file, text in found.items() if "log" in file), found


# Verification -----------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_search_is_verified_from_another_folder(place, tmp_path, monkeypatch, capsys):
    run("search", "verified")
    monkeypatch.chdir(tmp_path)
    found = verify.main([str(place / "verified"), "--cwd", str(place)])[str(place / "verified")]
    assert list(found) == ["best.json", "best_cell.png", "config.json", "curve.csv", "curve.png",
                           "history.jsonl", "log.jsonl"]
    assert not any(found.values()) and "7 of 7 files of 1 runs are the same" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_of_several_runs_the_changed_one_is_found(place, capsys):
    first = run("pretrain", "several/first")
    shutil.copytree(first, "several/second")
    content = torch.load("several/second/last.pt", weights_only=True)
    content["losses"][3] += 0.5
    torch.save(content, "several/second/last.pt")
    with pytest.raises(SystemExit) as end:
        verify.main(["several", "--threads", "1"])
    assert end.value.code == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "last.pt" in line and "│" in line]
    assert "same" in lines[0] and "losses.3: by up to 0.5" in lines[1]


def test_the_command_writes_to_the_temporary_folder_alone(place, monkeypatch):
    folder, started = place / "exporting", []
    folder.mkdir()
    command = ["pretrain.py", "--export", "encoder.pt", "--save", "{folder}"]
    (folder / "config.json").write_text(json.dumps({"command": command}))

    def start(words, **options):
        started.append(words)
        Path(words[-1]).mkdir()
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(verify.subprocess, "run", start)
    with pytest.raises(SystemExit):  # its config.json is missing now
        verify.main([str(folder)])
    (python, script, _, export, _, save), = started
    assert (python, script) == (sys.executable, str(ROOT / "pretrain.py"))
    assert Path(export).parent == Path(save).parent != place and not Path(save).exists()


@pytest.mark.parametrize("content, message", [
    (None, "no config.json"), ("{", "config.json"), ("[]", "must be object"), ("{}", "command"),
    ('{"command": "search.py"}', "command must be array"), ('{"command": []}', "must begin with one of"),
    ('{"command": ["../evil.py", "{folder}"]}', "must begin with one of"),
    ('{"command": ["train.py", "--save", "/elsewhere"]}', "--save /elsewhere"),
    ('{"command": ["train.py", "--save", "{folder}", "--save", "x"]}', "--save x"),
    ('{"command": ["train.py", "--save={folder}", "--save=x"]}', "--save={folder}"),
    ('{"command": ["train.py", "--seeds", "1"]}', "{folder}, its output, once"),
], ids=["no file", "torn", "a list", "no command", "text", "empty", "foreign script", "another folder",
        "a second folder", "with =", "no folder"])
def test_a_folder_without_a_command_of_ours_is_refused_in_one_line(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(verify.subprocess, "run", None)
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as error:
        verify.main([str(tmp_path)])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_command_that_fails_is_no_difference(place):
    folder = place / "failing"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"command": [
        "train.py", "--data", "absent.npz", "--save", "{folder}"]}))
    end = subprocess.run([sys.executable, "-m", "runtime.verify", str(folder)], cwd=ROOT, check=False,
                         capture_output=True, text=True)
    assert end.returncode == 2 and "its command ended with code 2" in end.stderr
    assert "absent.npz" in end.stderr and "Traceback" not in end.stderr


# The comparison ---------------------------------------------------------------------------------------------

def test_every_change_of_a_run_is_found(place, tmp_path):
    first = run("search", "original")
    changes = {"history.jsonl": lambda text: text.replace(b'"round": 2', b'"round": 3'),
               "log.jsonl": lambda text: b"".join(text.splitlines(True)[:-1]),
               "curve.csv": lambda text: text.replace(b"12,", b"13,"), "curve.png": lambda text: text + b"x",
               "best.json": lambda text: text.replace(b'"query": ', b'"query": 1')}
    for name, change in changes.items():
        other = Path(shutil.copytree(first, tmp_path / name))
        (other / name).write_bytes(change((first / name).read_bytes()))
        found = compare_folders(first, other)
        assert [file for file, text in found.items() if text] == [name]
    other = Path(shutil.copytree(first, tmp_path / "other"))
    (other / "best.json").rename(other / "more.json")
    found = compare_folders(first, other)
    assert {name: text for name, text in found.items() if text} == {
        "best.json": "missing now", "more.json": "was missing"}


def test_wall_times_and_places_are_left_out(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name / "tensorboard").mkdir(parents=True)
        (tmp_path / name / ".lock").write_text(name)
        (tmp_path / name / "tensorboard" / "events").write_text(name)
        line = {"step": 1, "time": seconds, "fit": seconds, "query": seconds, "loss": 0.5}
        (tmp_path / name / "log.jsonl").write_text(json.dumps(line))
        (tmp_path / name / "config.json").write_text(json.dumps({"save": name, "seed": 1}))
    assert compare_folders(tmp_path / "a", tmp_path / "b") == {"config.json": "", "log.jsonl": ""}


@pytest.mark.parametrize("old, new, said", [
    ({"a": [1, 2.5]}, {"a": [1, 2.5]}, ""), ({"a": [1, 2.5]}, {"a": [1, 2.0]}, "a.1: by up to 0.5"),
    ({"a": 1.0, "b": 5}, {"a": 1.5, "b": 3}, "b: by up to 2"), ({"a": 1}, {}, "a: missing now"),
    ([1], [1, 2], "1: was missing"), ({"a": "x"}, {"a": 1}, "a: 'x', now 1"),
    (True, 1, "content: True, now 1"), (float("nan"), float("nan"), ""),
    (1.0, float("nan"), "content: by up to inf"), ([], {}, "content: [], now {}"),
    (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.25]), "content: by up to 0.25"),
    (torch.tensor([0.0]), torch.tensor([-0.0]), "content: by up to 0"),
    (torch.zeros(2), torch.zeros(3), "content: torch.float32 [2], now torch.float32 [3]"),
    (torch.tensor(float("nan")), torch.tensor(float("nan")), "")],
    ids=["same", "number", "largest", "missing", "more", "kind", "bool", "nan", "to nan", "empty", "tensor",
         "sign", "shape", "nan tensor"])
def test_the_difference_of_two_values(old, new, said):
    assert difference(old, new) == said
