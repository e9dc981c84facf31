"""Ask and tell: nothing is lost, asked twice or beyond N, in any order and however often it is killed."""
from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

import search
import spaces
from runtime.errors import InputError
from spaces.metrics import Metric
from strategies.asking import Answer, Search
from strategies.history import best_of
from toys import trainer

SPACE = spaces.get("nasbench201")
SMALL = spaces.get("nasbench_macro")
FULL = os.environ.get("FULL") == "1"
QUICK = {"population": 6, "tournament": 3, "N0": 5, "C": 30}


def value_of(space, arch) -> float:
    """A smooth function of an architecture, percent."""
    return 50 + 40 * float(np.mean(np.array(arch) / (np.array(space.choices) - 1)))


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# The rules --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("algo", ["random", "re", "ls", "policy", "ae", "bo", "rl", "r"])
@pytest.mark.parametrize("seed", range(10 if FULL else 1))
def test_random_calls_lose_and_repeat_nothing(tmp_path, algo, seed):
    """A twin that is killed and opened again before each call, its files torn, asks and knows the same."""
    dice, N = random.Random(f"{algo}{seed}"), 40
    settings = {**QUICK, "search_algo": algo, "seed": seed, "N": N}
    living, folder = Search(SPACE, tmp_path / "living", **settings), tmp_path / "killed"
    asked, told = {}, {}
    while len(told) < N:
        for name in ("asked.jsonl", "history.jsonl"):  # a kill in the middle of a write
            if folder.exists() and dice.random() < 0.5:
                with open(folder / name, "a") as file:
                    file.write('{"ask": 3, "answ'[:dice.randint(1, 16)])
        killed = Search(SPACE, folder, **settings)
        waiting = [key for key in asked if key not in told]
        move = dice.random()
        if move < 0.35 and len(asked.keys() | told.keys()) < N:
            k = dice.randint(1, 6)
            archs = living.ask(k)
            assert killed.ask(k) == archs
            keys = [SPACE.key(arch) for arch in archs]
            assert len(set(keys)) == len(keys) <= k and not set(keys) & (asked.keys() | told.keys())
            asked |= dict(zip(keys, archs))
            assert len(asked.keys() | told.keys()) <= N
        elif move < 0.8 and waiting:
            chosen = dice.sample(waiting, dice.randint(1, len(waiting)))
            answers = [Answer(asked[key], None if dice.random() < 0.2 else value_of(SPACE, asked[key]))
                       for key in chosen]
            repeated = [Answer(SPACE.parse(key), value) for key, value in told.items() if dice.random() < 0.1]
            for each in (living, killed):
                assert each.tell_all([*answers, *repeated]) == len(answers)
            told |= {key: answer.value for key, answer in zip(chosen, answers)}
        elif move < 0.9 and len(asked.keys() | told.keys()) < N:
            arch = SPACE.sample(1, np.random.default_rng(dice.randrange(10**6)))[0]
            key = SPACE.key(arch)
            if key not in asked and key not in told:
                for each in (living, killed):
                    each.tell(arch, value_of(SPACE, arch))
                told[key] = value_of(SPACE, arch)
        assert killed.pending.keys() == living.pending.keys() == asked.keys() - told.keys()
    for each in (living, Search(SPACE, folder, **settings)):
        assert {query.key: query.validation for query in each.history[:]} == told
        with pytest.raises(InputError, match="a larger N goes on"):
            each.ask()
    for name in ("asked.jsonl", "history.jsonl"):
        assert (tmp_path / "living" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("algo", ["bo", "rl"])
def test_told_in_order_it_is_the_search_of_the_script(tmp_path, algo):
    program = ROOT / "tests" / "toys" / "trainer.py"
    command = shlex.join(["command:", sys.executable, str(program), "{key}", "{outdir}"])
    search.main(["--search_algo", algo, "--N", "24", "--outdir", str(tmp_path), "--threads", "1",
                 "--no-pictures", "--oracle", command])
    queries = lines_of(tmp_path / "history.jsonl")
    asked = Search("nasbench201", search_algo=algo, N=24)
    for k in (10, 5, 5, 4):
        for arch in asked.ask(k):
            asked.tell(arch, trainer.answer(SPACE.key(arch))["accuracy"])
    assert [(query.key, query.score) for query in asked.history[:]] == [
        (query["key"], query["score"]) for query in queries]


@pytest.mark.parametrize("algo", ["bo", "ls"])
def test_it_finds_more_than_chance_with_answers_pending(algo):
    """Four are always in training; a random search of 60 finds 81.9 on average, the best is 90."""
    best = []
    for seed in range(3):
        asked = Search(SMALL, search_algo=algo, N=60, seed=seed)
        running = asked.ask(8)
        while running:
            for arch in [running.pop(0) for _ in range(min(4, len(running)))]:
                asked.tell(arch, value_of(SMALL, arch))
            if len(asked.history) + len(running) < 60:
                running += asked.ask(4)
        best.append(asked.best.validation)
    assert len(asked.history) == 60 and np.mean(best) > 85


def test_the_whole_of_a_small_space_is_asked_once(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"name": "tiny", "operations": ["skip_connect", "none"],
                                "positions": ["a", "b", "c"]}))
    asked = Search(str(path), search_algo="ls", N=100, N0=2)
    seen = []
    for _ in range(3):
        archs = asked.ask(3)
        seen += archs
        for arch in archs:
            asked.tell(arch, 50 + sum(arch))
    assert len(seen) == len(set(seen)) == 8
    with pytest.raises(InputError, match="every architecture of the space"):
        asked.ask()


def test_what_is_refused(tmp_path):
    asked = Search(SPACE, tmp_path / "s", search_algo="random", N=4, N0=2)
    a, b, c = asked.ask(3)
    asked.tell(a, 90)
    asked.tell(a, 90)
    outside = [arch for arch in SPACE.sample(9, np.random.default_rng(5)) if arch not in (a, b, c)]
    for answers, said in [
            ([Answer(a, 91.0)], "answers never change"), ([Answer(a, None)], "answers never change"),
            ([Answer(b, float("nan"))], "no finite number"), ([Answer(b, 101.0)], "no percentage"),
            ([Answer(b, 50.0, -1.0)], "no percentage"),
            ([Answer(b, 50.0), Answer(b, 51.0)], "answers never change"),
            ([Answer(arch, 50.0) for arch in outside[:2]], "more than N = 4")]:
        with pytest.raises(InputError, match=said):
            asked.tell_all(answers)
        assert len(asked.history) == 1
    with pytest.raises(InputError, match="at least one"):
        asked.ask(0)
    asked.tell(outside[0], 50)
    with pytest.raises(InputError, match="a larger N goes on"):
        asked.ask()
    for changed in ({"seed": 1}, {"N": 3}, {"search_algo": "re"}):
        with pytest.raises(InputError, match="was made with"):
            Search(SPACE, tmp_path / "s", **{"search_algo": "random", "N": 4, "N0": 2, **changed})
    longer = Search(SPACE, tmp_path / "s", search_algo="random", N=6, N0=2)
    assert len(longer.ask(9)) == 2
    for settings in ({"search_algo": "bo,ae"}, {"search_algo": "best"}, {"n": 3}, {"N": "many"}):
        with pytest.raises(InputError):
            Search(SPACE, tmp_path / "other", **settings)


@pytest.mark.parametrize("value", [np.float32(61.5), np.int64(61), torch.tensor(61.5), 61])
def test_numbers_of_any_library_are_told(tmp_path, value):
    asked = Search(SPACE, tmp_path / "s", search_algo="random", N=4, N0=2)
    asked.tell(asked.ask()[0], value, cost=np.float64(3))
    assert Search(SPACE, tmp_path / "s", search_algo="random", N=4, N0=2).best.validation == float(value)


@pytest.mark.parametrize(
    "told", [(True,), ("61",), (61, float("nan")), (61, None, float("inf")), (61, False), ([61],)])
def test_what_is_no_number_is_refused_before_it_is_written(tmp_path, told):
    asked = Search(SPACE, tmp_path / "s", search_algo="random", N=4, N0=2, metric=Metric("loss", True))
    arch = asked.ask()[0]
    with pytest.raises(InputError, match="number"):
        asked.tell(arch, *told)
    assert not (tmp_path / "s" / "history.jsonl").exists()


def test_an_interrupted_ask_changes_nothing(tmp_path, monkeypatch):
    """The strategy has moved on in memory when it is interrupted; the next call reads all again."""
    asked, twin = (Search(SPACE, tmp_path / name, search_algo="ls", N=20) for name in "ab")
    for each in (asked, twin):
        for arch in each.ask(2):
            each.tell(arch, value_of(SPACE, arch))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("strategies.asking.append_line", interrupt)
        with pytest.raises(KeyboardInterrupt):
            asked.ask(3)
    assert asked.ask(3) == twin.ask(3) and asked.pending.keys() == twin.pending.keys()


def test_a_loss_is_minimised():
    asked = Search(SMALL, search_algo="bo", N=40, metric=Metric("loss", lower_is_better=True))
    for _ in range(8):
        for arch in asked.ask(5):
            asked.tell(arch, -value_of(SMALL, arch))
    assert asked.best.validation == min(query.validation for query in asked.history[:]) < -85


# The script -------------------------------------------------------------------------------------------------

def call(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "search.py", *flags], cwd=ROOT, capture_output=True, text=True,
                          check=False)


@pytest.mark.slow
def test_from_the_shell_the_folder_alone_goes_on(tmp_path):
    out = str(tmp_path / "s")
    first = call("--search_space", "nasbench_macro", "--search_algo", "ae", "--N", "12", "--N0", "4",
                 "--outdir", out, "--ask", "4", "--threads", "1")
    assert first.returncode == 0, first.stderr
    todo = [json.loads(line) for line in first.stdout.splitlines()]
    assert len(todo) == 4 and all(len(entry["operations"]) == 8 for entry in todo)
    again = call("--outdir", out, "--pending")
    assert again.stdout == first.stdout  # a kill before the printing loses nothing
    answers = [{"key": entry["key"], "accuracy": 90 + i, "test": 89} for i, entry in enumerate(todo)]
    answers[1] = {"architecture": todo[1]["architecture"], "failed": "out of memory"}
    files = []
    for i, part in enumerate((answers[:1], answers[1:])):
        files.append(tmp_path / f"{i}.jsonl")
        files[-1].write_text("".join(json.dumps(answer) + "\n" for answer in part))
    both = [subprocess.Popen([sys.executable, "search.py", "--outdir", out, "--tell", str(path)], cwd=ROOT,
                             stderr=subprocess.PIPE, text=True) for path in files]  # two jobs of a cluster
    for process in both:
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
    best = json.loads((Path(out) / "best.json").read_text())
    assert (best["validation"], best["test"], best["failed"], best["answered"]) == (93, 89, 1, 4)
    assert (Path(out) / "curve.png").exists() and (Path(out) / "best_cell.png").exists()


@pytest.fixture
def begun(tmp_path, capsys) -> tuple[list[str], list[dict]]:
    out = ["--outdir", str(tmp_path / "s"), "--threads", "1", "--no-pictures"]
    search.main(["--search_algo", "random", "--N", "8", "--N0", "4", *out, "--ask", "4"])
    return out, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(("line", "said"), [
    ('{"accuracy": 90}', "neither key nor architecture"), ("[]", "no JSON object"), ("{", "not JSON"),
    ('{"key": "|none~0|"}', "no NAS-Bench-201 cell"), ('{"key": KEY}', "there is no accuracy"),
    ('{"key": KEY, "accuracy": NaN}', "no finite number"), ('{"key": KEY, "accuracy": 900}', "no percentage"),
    ('{"key": KEY, "accuracy": 90, "failed": "no"}', "yet a value"),
    ('{"key": KEY, "architecture": "000000", "accuracy": 9}', "two architectures"),
    ('{"key": KEY, "accuracy": "90"}', "no finite number"), ("", "has no answer")])
def test_a_wrong_answer_is_refused_with_its_line_and_nothing_is_recorded(tmp_path, begun, line, said):
    out, todo = begun
    path = tmp_path / "results.jsonl"
    good = json.dumps({"key": todo[0]["key"], "accuracy": 90}) + "\n" if line else ""
    path.write_text(good + line.replace("KEY", json.dumps(todo[1]["key"])))
    with pytest.raises(InputError) as error:
        search.main([*out, "--tell", str(path)])
    assert said in str(error.value) and str(error.value).startswith(f"{path}:2" if line else str(path))
    assert not (tmp_path / "s" / "history.jsonl").exists()


def test_a_folder_is_one_kind_of_search(tmp_path, begun, labels):
    out, _ = begun
    flags = ["--search_algo", "random", "--N", "8", "--N0", "4"]
    with pytest.raises(InputError, match="go on with --ask and --tell"):
        search.main([*out, *flags, "--labels", labels, "--resume"])
    other = ["--outdir", str(tmp_path / "t"), "--threads", "1", "--no-pictures"]
    search.main([*other, *flags, "--labels", labels])
    with pytest.raises(InputError, match="was made with oracle"):
        search.main([*other, *flags, "--ask", "2"])
    with pytest.raises(InputError, match="seed = 0, not 1"):
        search.main([*out, "--ask", "1", "--seed", "1"])
    search.main([*out, "--ask", "9", "--N", "10"])  # a longer one goes on
    assert len(lines_of(tmp_path / "s" / "asked.jsonl")) == 2


def test_flags_that_mean_nothing_here_are_refused(tmp_path, begun):
    out, _ = begun
    for flag in (["--seeds", "0-1"], ["--protocol", "oracle-test"], ["--oracle", "train"],
                 ["--labels", "a.csv"], ["--second", "x"], ["--more_labels", "a.csv"]):
        with pytest.raises(InputError, match=f"{flag[0]}: not with --ask"):
            search.main([*out, *flag, "--ask", "1"])
    with pytest.raises(InputError, match="no search to go on with"):
        search.main(["--outdir", str(tmp_path / "mistyped"), "--tell", "-"])
    assert not (tmp_path / "mistyped").exists()


def test_the_script_goes_on_with_a_folder_from_python(tmp_path, capsys):
    Search("nasbench_macro", tmp_path / "s", search_algo="re", N=9, N0=4, population=5, tournament=2).ask(2)
    search.main(["--outdir", str(tmp_path / "s"), "--ask", "3", "--threads", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(lines_of(tmp_path / "s" / "asked.jsonl")) == 2


def test_all_failed_is_no_result(tmp_path, begun):
    out, todo = begun
    path = tmp_path / "failed.jsonl"
    path.write_text("".join(json.dumps({"key": entry["key"], "failed": "why"}) + "\n" for entry in todo))
    assert search.main([*out, "--tell", str(path), "--ask", "2"]) == {}
    assert len(lines_of(tmp_path / "s" / "history.jsonl")) == 4
    assert not (tmp_path / "s" / "best.json").exists()


@pytest.mark.slow
def test_calls_that_are_killed_at_any_moment(tmp_path):
    """Loops of asking and telling in a process of their own, killed three times."""
    out = tmp_path / "s"
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(ROOT / "tests")!r})
from strategies.asking import Search
from test_ask_tell import QUICK, SPACE, value_of
search = Search(SPACE, {str(out)!r}, search_algo="re", N=200, **QUICK)
print("open", flush=True)
for suggestion in list(search.pending.values()):
    arch = SPACE.parse(suggestion.architecture)
    search.tell(arch, value_of(SPACE, arch))
while len(search.history) < 200:
    for arch in search.ask(3):
        search.tell(arch, value_of(SPACE, arch))
"""
    for pause in (0.0, 0.1, 0.2, None):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        process.stdout.readline()
        if pause is not None:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    queries = lines_of(out / "history.jsonl")
    asked = [entry["key"] for line in lines_of(out / "asked.jsonl") for entry in line["architectures"]]
    assert len(queries) == len({query["key"] for query in queries}) == 200
    assert len(asked) == len(set(asked)) == 200 and {query["key"] for query in queries} == set(asked)
    assert [query["query"] for query in queries] == list(range(1, 201))


def test_a_temporary_search_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = Search(SPACE, search_algo="random", N=4, N0=2)
    asked.ask(2)
    folder = asked.folder
    assert folder.exists()
    del asked
    assert not folder.exists() or not os.listdir(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_best_of_failures_only():
    asked = Search(SPACE, search_algo="bo", N=6, N0=2)
    for arch in asked.ask(2):
        asked.tell(arch, None)
    with pytest.raises(InputError, match="no answer that is no failure"):
        _ = asked.best
    assert best_of(asked.history[:]).failed and len(asked.ask(3)) == 3
