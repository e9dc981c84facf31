"""Sweeps with Optuna: what is taken and refused, whose trial is whose, pruning, kills, several processes."""
from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import nni4nasbench101
import nni4nasbench301
import pretrain
import spaces
from runtime.errors import InputError
from runtime.settings import parse, report_to_sweep
from spaces.labels.read import EMBEDDED, read_labels
from sweeps import launch, optuna_backend
from sweeps.launch import SweepConfig, open_folder
from sweeps.optuna_backend import JournalLock, Sweep, distributions, seconds_in
from sweeps.space import choice, log_uniform, uniform
from toys.processes import interrupted_once, needs_proc, none_left

LINE = {"x": uniform(0, 1)}
FAKE = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from runtime.settings import report_to_sweep

folder = Path(os.environ["GMAE_NAS_TRIAL"])
number, parameters = int(folder.name), json.loads((folder / "trial.json").read_text())["parameters"]
assert sys.argv[1:] == ["--save", str(folder)]
{body}
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """fake(body) is the command of a trial that runs this Python text, which knows number and parameters."""
    monkeypatch.setattr(optuna_backend, "POLL", 0.05)

    def write(body: str) -> list[str]:
        path = tmp_path / "fake.py"
        path.write_text(FAKE.format(root=str(ROOT), body=body))
        return [sys.executable, str(path)]

    return write


def sweep_of(folder: Path, start: list[str], **flags) -> Sweep:
    return Sweep(SweepConfig(backend="optuna", **flags), LINE, start, folder / "out")


def rows_of(folder: Path) -> list[dict]:
    return list(csv.DictReader((folder / "trials.csv").open()))


# What is taken, and what is refused -------------------------------------------------------------------------

def test_search_spaces_are_those_of_nni():
    taken = distributions({
        "a": choice(0.0, 1e-3), "b": uniform(0, 1), "c": log_uniform(1e-4, 1e-2),
        "d": {"_type": "quniform", "_value": [0.1, 0.5, 0.1]}, "e": {"_type": "randint", "_value": [1, 5]}})
    assert taken == {
        "a": CategoricalDistribution((0.0, 1e-3)), "b": FloatDistribution(0, 1),
        "c": FloatDistribution(1e-4, 1e-2, log=True), "d": FloatDistribution(0.1, 0.5, step=0.1),
        "e": IntDistribution(1, 4)}  # NNI's upper bound is outside


@pytest.mark.parametrize("script", [nni4nasbench101, nni4nasbench301])
def test_every_table_of_ours_is_taken(script):
    for table in script.TABLES.values():
        assert distributions(table).keys() == table.keys()


@pytest.mark.parametrize("kind, values, words", [
    ("normal", [0, 1], "Optuna has no normal"), ("qloguniform", [1, 9, 1], "Optuna has no qloguniform"),
    ("randint", [0.5, 3], "Optuna has no randint like"),
    ("quniform", [0.05, 1, 0.1], "multiples of the step 0.1")])
def test_search_spaces_without_a_counterpart(kind, values, words):
    with pytest.raises(InputError, match=f"search space: lr: .*{words}"):
        distributions({"lr": {"_type": kind, "_value": values}})


@pytest.mark.parametrize("flags, words", [
    (["--port", "9000"], "--port is for NNI alone"), (["--no-private"], "--private is for NNI alone"),
    (["--config", "own.yml"], "--config is for NNI alone"),
    (["--training_service", "remote"], "--training_service is for NNI alone"),
    (["--tuner", "Anneal"], "--tuner Anneal is for NNI alone: give TPE or Random"),
    (["--tuner", "GridSearch"], "--tuner GridSearch"),
    (["--duration", "soon"], "--duration soon: give a time"),
    (["--trial_duration", "-1"], "--trial_duration -1: give a time"), (["--backend", "ray"], "nni, optuna")])
def test_flags_that_are_refused_before_anything_starts(tmp_path, flags, words):
    with pytest.raises(InputError, match=words) as end:
        nni4nasbench101.main(["--backend", "optuna", "--stage", "train", "--space", "nasbench201",
                              "--outdir", str(tmp_path / "out"), *flags])
    assert "\n" not in str(end.value) and not (tmp_path / "out").exists()


def test_without_its_package_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="optuna is not installed: pip install"):
        optuna_backend.check_config(SweepConfig(backend="optuna"), LINE)


def test_times():
    assert [seconds_in(text, "") for text in ("", "90", "90s", "1.5m", "2 h", "1d")] == [
        math.inf, 90, 90, 90, 7200, 86400]


def test_a_sweep_goes_on_with_the_backend_that_began_it(tmp_path):
    flags = ["--labels", EMBEDDED]
    open_folder(tmp_path, SweepConfig(), flags, LINE)
    with pytest.raises(InputError, match="backend = 'nni', not 'optuna'"):
        open_folder(tmp_path, SweepConfig(backend="optuna", resume=True), flags, LINE)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["decided"]["backend"]  # as it was when there was NNI alone
    (tmp_path / "config.json").write_text(json.dumps(stored))
    open_folder(tmp_path, SweepConfig(resume=True), flags, LINE)


# What a trial hears and says --------------------------------------------------------------------------------

def test_a_trial_reads_its_parameters_and_leaves_its_results(tmp_path, monkeypatch):
    monkeypatch.setenv("GMAE_NAS_TRIAL", str(tmp_path))
    monkeypatch.delenv("NNI_OUTPUT_DIR", raising=False)
    (tmp_path / "trial.json").write_text('{"parameters": {"lr": 0.01}}')
    assert parse(pretrain.Config, ["--param", "default,optuna"], "").lr == 0.01
    for value in (0.1, 0.2):
        report_to_sweep("default,optuna", value, final=False)
    report_to_sweep("default,optuna", 0.5)
    assert json.loads((tmp_path / "trial.json").read_text()) == {"parameters": {"lr": 0.01}, "value": 0.5}
    assert optuna_backend.intermediate_values(tmp_path) == [0.1, 0.2]
    with pytest.raises(InputError, match="no finite number"):
        report_to_sweep("optuna", math.nan, final=False)


def test_outside_a_sweep_there_are_no_parameters_of_it(monkeypatch):
    monkeypatch.delenv("GMAE_NAS_TRIAL", raising=False)
    with pytest.raises(InputError, match="--param optuna: for trials of a sweep"):
        parse(pretrain.Config, ["--param", "optuna"], "")


# Pruning and failures ---------------------------------------------------------------------------------------

def test_a_trial_below_the_median_is_pruned(tmp_path, fake):
    start = fake("""
for step in range(4):
    report_to_sweep("optuna", 0.1 if number == 4 else 0.5 + step / 10, final=False)
if number == 4:
    time.sleep(1000)
report_to_sweep("optuna", parameters["x"])
""")
    sweep = sweep_of(tmp_path, start, trials=6)
    assert sweep.run() == "DONE"
    trials = sweep.trials()
    assert [trial.status for trial in trials] == 4 * ["SUCCEEDED"] + ["EARLY_STOPPED", "SUCCEEDED"]
    assert trials[4].value is None and not trials[4].failed and trials[4].seconds < 60
    assert all(trial.value in (None, trial.parameters["x"]) for trial in trials)


@pytest.mark.parametrize("reports, pruned", [(2, False), (3, True)])
def test_early_reports_prune_nothing(tmp_path, fake, reports, pruned):
    start = fake(f"""
for step in range({reports} if number == 4 else 4):
    report_to_sweep("optuna", 0.1 if number == 4 else 0.5, final=False)
if number == 4:
    time.sleep(1)
report_to_sweep("optuna", 0.5)
""")
    sweep = sweep_of(tmp_path, start, trials=5, concurrency=4)
    sweep.run()
    assert (sweep.trials()[4].status == "EARLY_STOPPED") is pruned


def test_trials_without_a_result_have_failed_and_late_ones_were_stopped(tmp_path, fake):
    start = fake("""
if number == 0:
    report_to_sweep("optuna", 0.5)
    sys.exit(3)
elif number == 1:
    pass
elif number == 2:
    time.sleep(1000)
else:
    report_to_sweep("optuna", 0.5)
""")
    sweep = sweep_of(tmp_path, start, trials=4, concurrency=2, trial_duration="3s")
    sweep.run()
    trials = sweep.trials()
    assert [(trial.status, trial.value, trial.failed) for trial in trials] == [
        ("FAILED", None, True), ("FAILED", None, True), ("SYS_CANCELED", None, False),
        ("SUCCEEDED", 0.5, False)]


def test_a_sweep_ends_after_its_time_with_its_trials(tmp_path, fake):
    sweep = sweep_of(tmp_path, fake("time.sleep(1000)"), trials=9, concurrency=2, duration="1s")
    assert sweep.run() == "DONE" and [trial.status for trial in sweep.trials()] == ["RUNNING", "RUNNING"]
    assert all(job.process.returncode == -signal.SIGKILL for job in sweep.jobs)


# One folder, several processes ------------------------------------------------------------------------------

def test_the_trials_of_a_killed_launcher_are_run_again_and_those_of_a_living_one_are_not(tmp_path, fake):
    start = fake("time.sleep(1000)")
    first, second = (sweep_of(tmp_path, start, trials=2) for _ in range(2))
    first.begin(), second.begin()
    try:
        before = first.trials()
        assert [trial.trial for trial in before] == ["0000", "0001"]
        assert before[0].parameters != before[1].parameters  # although both have the same seed
        first.jobs[0].stop()
        first.jobs[0].held.close()  # as a kill does
        second.concurrency = 2
        second.begin()
        now = second.trials()
        assert [(trial.trial, trial.parameters) for trial in now] == [
            ("0001", before[1].parameters), ("0002", before[0].parameters)]
        second.begin()
        assert second.trials() == now
    finally:
        for job in second.jobs:
            job.stop()


def test_a_result_that_a_kill_kept_from_being_recorded_counts(tmp_path, fake):
    sweep = sweep_of(tmp_path, fake('report_to_sweep("optuna", 0.5)'), trials=1)
    sweep.begin()
    sweep.jobs[0].process.wait()
    sweep.jobs[0].held.close()
    assert sweep_of(tmp_path, fake("sys.exit(1)"), trials=1).run() == "DONE"
    trial, = sweep.trials()
    assert (trial.trial, trial.status, trial.value) == ("0000", "SUCCEEDED", 0.5)


def test_the_next_line_of_a_journal_does_not_join_a_torn_one(tmp_path):
    path = tmp_path / "journal.log"
    for before, after in ((b"", b""), (b"{}\n", b"{}\n"), (b'{}\n{"op', b"{}\n")):
        path.write_bytes(before)
        lock = JournalLock(path)
        lock.acquire()
        lock.release()
        assert path.read_bytes() == after


def test_a_damaged_journal_is_one_line(tmp_path, fake):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.log").write_text("not a journal\nat all\n")
    with pytest.raises(InputError, match=r"journal\.log: .*another --outdir"):
        sweep_of(tmp_path, fake(""))


@pytest.fixture
def flags(tmp_path, random_labels) -> list[str]:
    table = random_labels(tmp_path / "l.jsonl", "nasbench201", 40)
    return ["--backend", "optuna", "--stage", "train", "--space", "nasbench201", "--labels", table,
            "--outdir", str(tmp_path / "out")]


def test_an_interrupt_stops_the_trials_and_keeps_their_table_and_a_resumed_sweep_ends(
        tmp_path, fake, flags, monkeypatch):
    start = fake("""
(folder / "pid").write_text(str(os.getpid()))
if number == 1:
    time.sleep(1000)
report_to_sweep("optuna", parameters["dropout"])
""")
    monkeypatch.setattr(launch, "program", lambda *_: start)
    with interrupted_once(tmp_path, "out/trials/0001/pid") as started:
        nni4nasbench101.main([*flags, "--trials", "3"])
    first = rows_of(tmp_path / "out")
    assert [row["status"] for row in first] == ["SUCCEEDED", "RUNNING"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(started[0].read_text()), 0)
    result = nni4nasbench101.main([*flags, "--trials", "3", "--resume"])
    rows = rows_of(tmp_path / "out")
    assert [row["parameter_id"] for row in rows] == ["0", "2", "3"] and result["trials"] == 3
    names = [name for name in rows[0] if name not in ("parameter_id", "trial", "status", "value", "seconds")]
    assert [rows[1][name] for name in names] == [first[1][name] for name in names]
    result = nni4nasbench101.main([*flags, "--trials", "4", "--resume"])
    assert rows_of(tmp_path / "out")[:3] == rows and (result["trials"], result["failed"]) == (4, 0)


def test_the_best_is_the_best_logged_trial_also_where_there_is_no_nni(tmp_path, fake, flags, monkeypatch):
    monkeypatch.setitem(sys.modules, "nni", None)
    start = fake('report_to_sweep("optuna", parameters["dropout"] + parameters["lr_encoder"])')
    monkeypatch.setattr(launch, "program", lambda *_: start)
    result = nni4nasbench101.main([*flags, "--trials", "12", "--concurrency", "4"])
    check_best(tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["parameter_id"] for row in rows] == [str(i) for i in range(12)]
    assert len({row["lr_encoder"] for row in rows}) == 12 and result["trials"] == 12
    assert (tmp_path / "out" / "trials.png").stat().st_size > 5000


def check_best(folder: Path) -> None:
    """best.json has the parameters of the trial with the highest value, here and in the trials' folders."""
    rows = rows_of(folder)
    best = max(rows, key=lambda row: float(row["value"] or -math.inf))
    result, stored = (json.loads((folder / name).read_text()) for name in ("result.json", "best.json"))
    assert (result["best"]["trial"], result["best"]["value"]) == (best["trial"], float(best["value"]))
    swept = json.loads((folder / "config.json").read_text())["search_space"]
    for name in swept:
        assert str(stored[name]) == best[name]
    for row in rows:
        logged = json.loads((folder / "trials" / row["trial"] / "trial.json").read_text())
        assert {name: str(value) for name, value in logged["parameters"].items()} == {
            name: row[name] for name in swept}
        assert row["status"] != "SUCCEEDED" or logged["value"] == float(row["value"])


def write_real_labels(path: Path, count: int = 60) -> str:
    """Writes the first cells of the embedded table, which is whole too slow to rank eight times."""
    labels = read_labels(EMBEDDED, spaces.get("nasbench201"))
    path.write_text("arch,val_accuracy\n" + "".join(
        f"{key},{value}\n" for key, value in zip(labels.keys[:count], labels.val[:count])))
    return str(path)


@pytest.mark.slow
@needs_proc
def test_a_killed_sweep_leaves_no_process_and_two_launchers_end_it_together(tmp_path):
    out = tmp_path / "out"
    flags = ["--backend", "optuna", "--stage", "train", "--space", "nasbench201", "--labels",
             write_real_labels(tmp_path / "l.csv"), "--outdir", str(out), "--trials", "8", "--resume"]
    tiny = ["--device", "cpu", "--threads", "1", "--members", "1", "--epochs", "2", "--seeds", "1000",
            "--finetune_train_samples", "12", "--width", "8", "--layers", "1", "--heads", "2",
            "--kernel_share", "0"]

    def start(name: str, concurrency: int) -> subprocess.Popen:
        with open(tmp_path / name, "wb") as log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "nni4nasbench101.py"), *flags, "--concurrency", str(concurrency),
                 "--", *tiny], cwd=tmp_path, stdout=log, stderr=log)

    def trials() -> list[dict]:
        return [json.loads(path.read_text()) for path in sorted(out.glob("trials/*/trial.json"))]

    launcher = start("first", 2)
    while len(trials()) < 4:  # two have ended, and two have just begun
        assert launcher.poll() is None, (tmp_path / "first").read_text()
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    none_left(tmp_path)
    given_up = [trial["parameters"] for trial in trials() if "value" not in trial]
    assert given_up
    shutil.copytree(out, tmp_path / "killed")
    second = start("second", 1)
    result = nni4nasbench101.main([*flags, "--", *tiny])  # the third
    assert second.wait(100) == 0, (tmp_path / "second").read_text()
    rows = rows_of(out)
    assert len(rows) == 8 and {row["status"] for row in rows} == {"SUCCEEDED"}
    check_best(out)
    ended = [trial["parameters"] for trial in trials() if "value" in trial]
    assert all(ended.count(parameters) == 1 for parameters in given_up)
    assert len({json.dumps(parameters) for parameters in ended}) == len(ended) == 8
    for path in (tmp_path / "killed").glob("trials/*/trial.json"):  # what had ended was not touched
        assert (out / path.relative_to(tmp_path / "killed")).read_text() == path.read_text()
    assert result == json.loads((out / "result.json").read_text())
    assert (result["trials"], result["failed"], result["state"]) == (8, 0, "DONE")
    assert all((out / "trials" / row["trial"] / "predictor.pt").exists() for row in rows)
    none_left(tmp_path)
