"""Real NNI experiments at a tiny budget: a stage of each space, one whose trials fail, one that is
interrupted."""
from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

import finetune
import nni4nasbench101
import nni4nasbench301
from sweeps.private import available
from toys.processes import interrupted_once, needs_proc, none_left

pytestmark = pytest.mark.slow

TWO = ["--trials", "2", "--concurrency", "2"]
TINY = ["--device", "cpu", "--members", "1", "--epochs", "1", "--kernel_share", "0",
        "--finetune_train_samples", "12", "--seeds", "1000"]
OWN = "trialCommand: '{command}'\nsearchSpace: {{lr_encoder: {{_type: uniform, _value: [0.001, 0.01]}}}}\n"


def own(folder: Path, command: str) -> list[str]:
    """The flags of a sweep whose trials run this command instead of ours."""
    (folder / "own.yml").write_text(OWN.format(command=command))
    return ["--space", "nasbench201", "--config", str(folder / "own.yml"), "--outdir", str(folder / "out")]


def check(folder: Path, value_of) -> dict:
    """The exported best is the best logged trial; every trial's row holds what its own folder says. Returns
    the best's row."""
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [(row["parameter_id"], row["status"]) for row in rows] == [("0", "SUCCEEDED"), ("1", "SUCCEEDED")]
    for row in rows:
        place, = (folder / "nni").glob(f"[!_]*/environments/*/trials/{row['trial']}")
        logged, config = (json.loads((place / name).read_text()) for name in ("trial.json", "config.json"))
        assert float(row["value"]) == logged["value"] == value_of(place)
        assert all(str(value) == row[name] and config[name] == value
                   for name, value in logged["parameters"].items())
    best = max(rows, key=lambda row: float(row["value"]))
    result, stored = (json.loads((folder / name).read_text()) for name in ("result.json", "best.json"))
    assert result["best"]["trial"] == best["trial"] and result["best"]["value"] == float(best["value"])
    swept = json.loads((folder / "config.json").read_text())["search_space"]
    assert all(float(best[name]) == stored[name] for name in swept if not isinstance(stored[name], str))
    assert (folder / "trials.png").stat().st_size > 5000
    return best


def tau(folder: Path) -> float:
    return json.loads((folder / "result.json").read_text())["tau_mean"]


def probe(folder: Path) -> float:
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["probe_tau"]


def test_nasbench201_from_scratch_and_the_best_again(tmp_path, random_labels):
    table, out = random_labels(tmp_path / "l.jsonl", "nasbench201", 40), tmp_path / "out"
    flags = [*TINY, "--width", "8", "--layers", "1", "--heads", "2"]
    nni4nasbench101.main(["--space", "nasbench201", "--stage", "train", "--labels", table,
                          "--outdir", str(out), *TWO, "--", *flags])
    best = check(out, tau)
    again = finetune.main(["--protocol", "gmae", "--threads", "1", "--device", "cpu", "--seeds", "1000",
                           "--finetune_train_samples", "12", "--labels", table,
                           "--param", f"local:{out / 'best.json'}", "--save", str(tmp_path / "again")])
    assert again["tau_mean"] == pytest.approx(float(best["value"]), abs=1e-9)


def test_nasbench101_from_the_shipped_encoder_by_its_wrapper(tmp_path, random_labels):
    """Paths are the caller's."""
    random_labels(tmp_path / "l.jsonl", "nasbench101", 40)
    command = [ROOT / "nni4nasbench101finetune.sh", "--labels", "l.jsonl", "--outdir", "out", *TWO,
               "--", *TINY]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    check(tmp_path / "out", tau)
    said = "in a network of its own" if available() else "listens on every network interface"
    assert said in run.stderr
    assert "measure it again on seeds 0-9" in run.stdout


def test_nasbench301_pretraining(tmp_path, random_labels):
    table = random_labels(tmp_path / "l.jsonl", "nasbench301", 40)
    flags = ["--device", "cpu", "--width", "8", "--layers", "1", "--heads", "2", "--iterations", "2",
             "--batch_size", "8", "--archs", "20", "--finetune_train_samples", "8"]
    out = tmp_path / "out"
    nni4nasbench301.main(["--stage", "pretrain", "--labels", table, "--outdir", str(out), "--tuner", "Random",
                          *TWO, "--", *flags])
    check(out, probe)


def test_a_sweep_whose_trials_all_fail_ends_with_code_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        nni4nasbench101.main([*own(tmp_path, "echo words of a trial >&2; exit 3"), *TWO])
    assert end.value.code == 1
    assert "2 of 2 trials failed; the first: words of a trial" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "result.json").read_text())["failed"] == 2


def test_an_interrupt_stops_the_trials_and_keeps_their_table(tmp_path):
    flags = own(tmp_path, "echo $$ > $NNI_OUTPUT_DIR/pid; exec sleep 1000")
    with interrupted_once(tmp_path, "out/nni/*/environments/*/trials/*/pid") as started:
        nni4nasbench101.main(flags)
    assert (tmp_path / "out" / "trials.csv").read_text().count("\n") == 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(started[0].read_text()), 0)


@needs_proc
def test_a_killed_sweep_leaves_no_process_and_goes_on_with_what_is_finished(tmp_path):
    """The first trial ends, the second sleeps for ever; the next sweep makes the second and a third."""
    script = ("echo x >> tried; n=$(wc -l < tried); test $n -eq 2 && exec sleep 1000; "
              "exec python report.py")
    (tmp_path / "report.py").write_text(
        "import nni\nnni.get_next_parameter()\nnni.report_final_result({\"default\": 0.5})\n")
    script = script.replace("python report.py", f"{sys.executable} {tmp_path / 'report.py'}")
    script = script.replace("tried", str(tmp_path / "tried"))
    flags = [*own(tmp_path, script), "--trials", "3"]
    launcher = subprocess.Popen([sys.executable, str(ROOT / "nni4nasbench101.py"), *flags], cwd=tmp_path,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = tmp_path / "out" / "trials.jsonl"
    while not (lines.exists() and len((tmp_path / "tried").read_text().split()) == 2):
        assert launcher.poll() is None
        time.sleep(0.2)
    launcher.kill()
    launcher.wait()
    none_left(tmp_path)
    first = lines.read_text()
    nni4nasbench101.main([*flags, "--resume"])
    assert lines.read_text().startswith(first) and (tmp_path / "tried").read_text().count("x") == 4
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open()))
    assert [row["parameter_id"] for row in rows] == ["0", "1", "2"]
    assert {row["value"] for row in rows} == {"0.5"} and len({row["lr_encoder"] for row in rows}) == 3
    assert not list((tmp_path / "out").glob(".*.tmp")) and not (tmp_path / "out" / ".holder").exists()


def test_results_that_are_no_numbers_are_failed_trials(tmp_path):
    (tmp_path / "report.py").write_text(
        "import nni\nlr = nni.get_next_parameter()['lr_encoder']\n"
        "nni.report_final_result(float('nan') if lr > 0.003 else 0.25)\n")
    flags = own(tmp_path, f"exec {sys.executable} {tmp_path / 'report.py'}")
    with pytest.raises(SystemExit):
        nni4nasbench101.main([*flags, "--trials", "4"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["trials"] == 4 and result["failed"] >= 1
    assert result["best"] is None or result["best"]["value"] == 0.25
