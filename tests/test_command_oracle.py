"""A user's program as the oracle: asked once per architecture; whatever it does, the search goes on."""
from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

import search
import spaces
from runtime.errors import InputError
from runtime.executors import InProcess
from runtime.programs import run_program
from spaces.metrics import Metric
from spaces.oracles.command import CommandOracle, parse_answer, parse_command, run_task
from spaces.oracles.trained import Setup
from strategies.summary import notes
from toys import trainer
from toys.processes import interrupted_once, needs_proc, none_left

TRAINER = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'tests' / 'toys' / 'trainer.py'))}"
COMMAND = f"command: {TRAINER} {{architecture}} {{outdir}}"
SPACE = spaces.get("nasbench201")


def flags(out: Path, oracle: str = COMMAND, *more: str) -> list[str]:
    return ["--search_space", "nasbench201", "--search_algo", "ae", "--oracle", oracle, "--outdir", str(out),
            "--N", "12", "--N0", "5", "--K", "4", "--population", "6", "--no-pictures", "--threads", "1",
            *more]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def oracle_of(folder: Path, text: str = COMMAND) -> CommandOracle:
    return CommandOracle(text, Metric(), 0, Setup(SPACE, 0, folder, InProcess()))


def test_a_search_asks_the_program_once_per_architecture(tmp_path):
    best = search.main(flags(tmp_path / "one"))
    history = lines_of(tmp_path / "one" / "history.jsonl")
    assert len(history) == 12 and best["failed"] == 0 and best["space"] == "nasbench201"
    assert all(
        query["validation"] == trainer.answer(query["architecture"])["accuracy"] for query in history)
    assert best["validation"] == max(query["validation"] for query in history) and best["test"] == 40
    search.main(flags(tmp_path / "two", COMMAND, "--jobs", "2"))
    one, two = ((tmp_path / name / "history.jsonl").read_text() for name in ("one", "two"))
    costs = [[{**query, "cost": None} for query in map(json.loads, text.splitlines())] for text in (one, two)]
    assert costs[0] == costs[1]
    started = (tmp_path / "two" / "trained.txt").read_text().split()
    assert len(started) == len(set(started)) == 12
    assert search.main(flags(tmp_path / "one", COMMAND, "--resume")) == best
    assert len((tmp_path / "one" / "trained.txt").read_text().split()) == 12


def test_another_command_is_another_search(tmp_path):
    search.main(flags(tmp_path / "s"))
    for changed in ((COMMAND + " nan 0.5",), (COMMAND, "--oracle_timeout", "9"), (COMMAND, "--seed", "1")):
        with pytest.raises(InputError):
            search.main(flags(tmp_path / "s", *changed, "--resume"))


@needs_proc
@pytest.mark.parametrize(("crime", "said"), [
    ("flood", "exit code 4"), ("flood-and-answer", None), ("sleep", "did not end in 1"),
    ("nan", "accuracy is no finite number"), ("huge", "accuracy is no finite number"),
    ("bool", "accuracy is no finite number"), ("percent", "1234 is no percentage"),
    ("prose", "no JSON object: 'accuracy: 93 %'"), ("silence", "no JSON object: ''"),
    ("bytes", "no JSON object"), ("code", "exit code 3"), ("kill", "killed by SIGKILL"),
    ("fork", None), ("daemon", None)])
def test_a_hostile_trainer_costs_a_line(tmp_path, crime, said, capsys):
    out = tmp_path / "s"
    seconds = "1.5" if crime == "sleep" else "60"
    best = search.main(flags(out, f"{COMMAND} {crime} 0.4", "--jobs", "2", "--oracle_timeout", seconds))
    history, trainings = lines_of(out / "history.jsonl"), lines_of(out / "trainings.jsonl")
    failed = [line for line in trainings if line.get("failed")]
    assert len(history) == len(trainings) == len({line["key"] for line in trainings}) == 12
    lost = {query["key"] for query in history if query["validation"] is None}
    assert best["validation"] == max(query["validation"] for query in history if query["key"] not in lost)
    none_left(out, seconds=10)
    if said is None:
        assert not failed
        return
    assert 0 < len(failed) < 12 and best["failed"] == len(failed)
    assert all(said in line["failed"] and line["validation"] is None for line in failed)
    assert {line["key"] for line in failed} == lost
    printed = capsys.readouterr().err
    assert printed.count("failed: |") == len(failed)
    assert notes([best]) == [f"{len(failed)} trainings failed and count as the worst seen"]
    if crime == "code":
        assert failed[0]["stderr"].endswith("no, the GPU is\n")
    for path in out.glob("trainings/*/std*.txt"):
        assert path.stat().st_size <= 2**20


@pytest.mark.parametrize("algo", ["bo", "rl", "r", "ls", "re", "policy", "random"])
def test_every_strategy_lives_with_failures_and_resumes(tmp_path, algo):
    command = f"{COMMAND} code 0.3"
    here = ["--search_algo", algo, "--tournament", "3"]
    best = search.main(flags(tmp_path / "s", command, *here))
    history = (tmp_path / "s" / "history.jsonl").read_bytes()
    assert best["failed"] > 0 and best["validation"] is not None
    (tmp_path / "s" / "best.json").unlink()
    (tmp_path / "s" / "history.jsonl").write_bytes(history[:len(history) // 2])
    again = search.main(flags(tmp_path / "s", command, *here, "--resume"))
    assert again["architecture"] == best["architecture"]
    assert (tmp_path / "s" / "history.jsonl").read_bytes() == history
    assert len((tmp_path / "s" / "trained.txt").read_text().split()) == 12


def test_pictures_of_a_search_that_begins_with_failures(tmp_path):
    more = ("--pictures", "--N", "20", "--N0", "10")
    best = search.main(flags(tmp_path / "s", f"{COMMAND} code 0.7", *more))
    assert best["failed"] >= 5 and (tmp_path / "s" / "curve.png").stat().st_size > 1000
    rows = (tmp_path / "s" / "curve.csv").read_text().splitlines()
    assert len(rows) == 21


def test_a_command_that_always_fails_is_given_up_after_ten_trainings(tmp_path):
    said = r"all 10 trainings failed; the first one: exit code 3: no, the GPU is; .*trainings.jsonl"
    for resume in ([], ["--resume"]):
        with pytest.raises(InputError, match=said):
            search.main(flags(tmp_path / "s", f"{COMMAND} code 1", "--N0", "10", *resume))
    assert len((tmp_path / "s" / "trained.txt").read_text().split()) == 10


def test_any_metric(tmp_path):
    program = tmp_path / "loss.py"
    program.write_text("import sys\nprint('{\"loss\": -%d, \"cost\": 7}' % len(sys.argv[1]))\n")
    oracle = f"command: {shlex.quote(sys.executable)} {shlex.quote(str(program))} {{key}}"
    best = search.main(flags(tmp_path / "s", oracle, "--metric", "loss", "--lower_is_better"))
    history = lines_of(tmp_path / "s" / "history.jsonl")
    assert best["validation"] == min(query["validation"] for query in history) < 0
    assert {query["cost"] for query in history} == {7}


# Words ------------------------------------------------------------------------------------------------------

def test_no_text_becomes_a_command_or_a_second_argument(tmp_path):
    program = tmp_path / "words.py"
    program.write_text("import json, sys\njson.dump(sys.argv[1:], open(sys.argv[1] + '/words', 'w'))\n"
                       "print(json.dumps({'accuracy': 1}))\n")
    text = (f"command: {shlex.quote(sys.executable)} {shlex.quote(str(program))} {{outdir}} "
            "--arch={architecture} '{json}' {seed}{seed} '$(touch gone); `touch gone`' '*' {{key}}")
    oracle = oracle_of(tmp_path / "s", text)
    arch = SPACE.parse("301103")
    assert oracle.query(arch).val == 1
    folder = oracle.place(SPACE.key(arch))
    words = json.loads((folder / "words").read_text())
    assert words[0] == str(folder) and words[1] == f"--arch={SPACE.text(arch)}"
    assert json.loads(words[2]) == {"key": SPACE.key(arch), "architecture": SPACE.text(arch)}
    assert words[3:] == ["00", "$(touch gone); `touch gone`", "*", "{" + SPACE.key(arch) + "}"]
    assert not list(tmp_path.rglob("gone"))


@pytest.mark.parametrize(("text", "said"), [
    ("command: python train.py", "not told the architecture"),
    ("command: python train.py {arch}", "no placeholder {arch}"),
    ("command: python 'train.py {architecture}", "quote it"),
    ("command: no-such-program {architecture}", "no program 'no-such-program'"),
    ("command:", "not told the architecture")])
def test_a_command_that_cannot_work_is_refused_at_once(text, said):
    with pytest.raises(InputError) as error:
        parse_command(text)
    assert said in str(error.value)


def test_other_oracles_are_refused(tmp_path):
    for oracle in ("python train.py {architecture}", "Labels", ""):
        with pytest.raises(InputError, match="give labels, train or 'command"):
            search.main(flags(tmp_path / "s", oracle))
    with pytest.raises(InputError, match="chosen by validation"):
        search.main(flags(tmp_path / "s", COMMAND, "--protocol", "oracle-test"))


def test_answers():
    names = ("loss",)
    all_three = '{"loss": 1, "test": 2.5, "cost": 3}'
    assert parse_answer(all_three, names) == {"validation": 1, "test": 2.5, "cost": 3}
    assert parse_answer('{"Loss": 1}', names) == {"validation": 1}
    assert parse_answer('{"loss": -1e3, "test": NaN, "test_loss": 4}', names) == {"validation": -1000}
    for line in ("", "1", "[]", "{}", '{"loss": "1"}', '{"loss": null}', '{"loss": Infinity}', '{"lost": 1}',
                 "{" * 9999):
        assert "failed" in parse_answer(line, names)


# Kills and losses -------------------------------------------------------------------------------------------

@needs_proc
def test_a_killed_search_leaves_no_program_and_goes_on(tmp_path):
    out = tmp_path / "s"
    slow = tmp_path / "slow.py"
    quick = ROOT / "tests" / "toys" / "trainer.py"
    slow.write_text("import time, sys\nopen(sys.argv[2] + '/begun', 'a').write('x')\ntime.sleep(0.4)\n"
                    f"exec(open({str(quick)!r}).read())\n")
    oracle = COMMAND.replace(str(quick), str(slow))
    process = subprocess.Popen([sys.executable, "search.py", *flags(out, oracle, "--jobs", "2")], cwd=ROOT,
                               stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (out / "trainings.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    none_left(out, seconds=10)
    finished = len(lines_of(out / "trainings.jsonl"))
    search.main(flags(out, oracle, "--jobs", "2", "--resume"))
    trainings = lines_of(out / "trainings.jsonl")
    assert 0 < finished < 12 == len(trainings) == len({line["key"] for line in trainings})
    assert all(line.get("failed") is None for line in trainings)
    starts = sorted(len(path.read_text()) for path in out.glob("trainings/*/begun"))
    assert len(starts) == 12 and sum(starts) <= 12 + 2  # at most the two that were running began again


@needs_proc
def test_interrupted_trainings_are_not_failures(tmp_path):
    out = tmp_path / "s"
    with interrupted_once(out, "trained.txt"):
        search.main(flags(out, f"{COMMAND} sleep 0.7", "--jobs", "2"))
    none_left(out, seconds=10)
    recorded = lines_of(out / "trainings.jsonl") if (out / "trainings.jsonl").exists() else []
    assert not [line for line in recorded if line.get("failed")]
    assert all("failed" not in json.loads(path.read_text()) for path in out.glob("trainings/*/answer.json"))


def test_an_answer_that_was_not_recorded_is_found_again(tmp_path):
    """As by a Ray task that is run again because its node was lost after the training."""
    oracle, arch = oracle_of(tmp_path / "s"), SPACE.parse("013422")
    task = oracle.task(SPACE.key(arch), arch)
    first = run_task(task)
    assert run_task(task) == first and len((tmp_path / "s" / "trained.txt").read_text().split()) == 1
    other = oracle_of(tmp_path / "s", COMMAND + " nan 0").task(SPACE.key(arch), arch)
    run_task(other)
    assert len((tmp_path / "s" / "trained.txt").read_text().split()) == 2


def test_a_program_that_closes_nothing_is_not_waited_for(tmp_path):
    started = time.monotonic()
    end = run_program(["sh", "-c", "sleep 600 & echo done; echo worse >&2"], tmp_path)
    assert (end.code, end.stdout, end.stderr) == (0, "done\n", "worse\n") and time.monotonic() - started < 10
