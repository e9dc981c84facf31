"""Sweeps: what is swept, what NNI is told, whose result is whose, what is exported. Real ones:
test_sweep_runs.py."""
from __future__ import annotations

import csv
import json
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import nni
import numpy as np
import pytest
from conftest import ROOT
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.experiment.data import TrialJob

import finetune
import nni4nasbench101
import nni4nasbench301
import pretrain
import spaces
from figs import sweep as picture
from runtime.errors import InputError
from runtime.settings import parse, report_to_sweep
from sweeps import experiment as watcher
from sweeps.experiment import Trial, ask, best_of, experiment, free_port, join, need_tuner, uninterrupted
from sweeps.launch import (
    STAGES,
    SweepConfig,
    command,
    export,
    left_to_sweep,
    recipe,
    write_csv,
)
from sweeps.space import check_space, choice, log_uniform, uniform
from sweeps.tuner import TPE

SCRIPTS = {"101": nni4nasbench101, "301": nni4nasbench301}


def job(name: str, listed: dict, listed_id: int, status: str = "SUCCEEDED",
        final: tuple[int, float] | None = None, folder: Path = Path("elsewhere")) -> TrialJob:
    """A trial as NNI's manager lists it; final = (parameterId, value) as the trial itself sent them."""
    given = json.dumps({"parameter_id": listed_id, "parameter_source": "algorithm", "parameters": listed,
                        "parameter_index": 0})
    metric = [] if final is None else [{"timestamp": 1, "trialJobId": name, "parameterId": str(final[0]),
                                        "type": "FINAL", "sequence": 0, "data": json.dumps(str(final[1]))}]
    return TrialJob(trialJobId=name, status=status, startTime=1000, endTime=3500, sequenceId=listed_id,
                    logPath=str(folder), hyperParameters=[given], finalMetricData=metric)


def trial(value: float | None, status: str = "SUCCEEDED", folder: Path = Path("elsewhere"),
          **parameters) -> Trial:
    return Trial(0, "abc", status, value, 1.0, parameters, folder)


# Whose result is whose --------------------------------------------------------------------------------------

def test_results_are_joined_on_parameter_id_where_nni_swaps_the_pairs():
    jobs = [job("a", {"lr": 0.1}, 0, final=(1, 0.7)), job("b", {"lr": 0.2}, 1, final=(0, 0.5)),
            job("c", {"lr": 0.3}, 2, final=(2, 0.6))]
    rows = [(t.parameter_id, t.trial, t.parameters, t.value, t.seconds) for t in join(jobs)]
    assert rows == [(0, "b", {"lr": 0.1}, 0.5, 2.5), (1, "a", {"lr": 0.2}, 0.7, 2.5),
                    (2, "c", {"lr": 0.3}, 0.6, 2.5)]


def test_a_trial_without_result_has_the_parameters_that_it_logged(tmp_path):
    (tmp_path / "trial.json").write_text('{"parameters": {"lr": 0.2}}')
    jobs = [job("a", {"lr": 0.1}, 0, "FAILED", folder=tmp_path), job("b", {"lr": 0.2}, 1, "FAILED")]
    rows = [(t.parameter_id, t.parameters, t.failed) for t in join(jobs)]
    assert rows == [(None, {"lr": 0.2}, True), (None, {}, True)]


def test_a_log_that_contradicts_nni_is_an_error(tmp_path):
    (tmp_path / "trial.json").write_text('{"parameters": {"lr": 0.9}}')
    with pytest.raises(InputError, match="disagrees"):
        join([job("a", {"lr": 0.1}, 0, final=(0, 0.7), folder=tmp_path)])


@pytest.mark.parametrize("status, value, failed", [
    ("FAILED", None, True), ("SUCCEEDED", None, True), ("SUCCEEDED", 0.5, False), ("RUNNING", None, False),
    ("SYS_CANCELED", None, False), ("EARLY_STOPPED", None, False)])
def test_what_counts_as_failed(status, value, failed):
    assert trial(value, status).failed is failed


def test_the_best_is_the_earliest_of_the_highest():
    trials = [trial(0.5, a=0), trial(0.7, a=1), trial(None, a=2), trial(0.7, a=3)]
    assert best_of(trials).parameters == {"a": 1} and best_of([trial(None)]) is None


def test_tpe_keeps_what_is_still_tried_when_nni_ends_another_trial():
    space = {"x": uniform(0, 1)}
    broken, mended = TpeTuner("maximize", 0), TPE("maximize", 0)
    for tuner in (broken, mended):
        tuner.update_search_space(space)
        tuner.generate_parameters(0), tuner.generate_parameters(1)
        tuner.trial_end(1, True)  # trial 0 in truth
    with pytest.raises(KeyError):
        broken.receive_trial_result(1, {}, 0.5)
    mended.receive_trial_result(1, {}, 0.5)
    assert list(mended._running_params) == [0]


# What a trial reports ---------------------------------------------------------------------------------------

@pytest.fixture
def told(monkeypatch, tmp_path) -> list:
    """What NNI was told: ("intermediate" or "final", value)."""
    told = []
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"lr": 0.01})
    for kind in ("intermediate", "final"):
        monkeypatch.setattr(nni, f"report_{kind}_result", lambda value, kind=kind: told.append((kind, value)))
    return told


@pytest.mark.parametrize("source, listening", [
    ("default", False), ("local:nni.json", False), ("nni", True), ("local:a.json,nni", True)])
def test_only_a_sweep_is_told(told, source, listening):
    report_to_sweep(source, 0.25, final=False)
    report_to_sweep(source, 0.5)
    assert told == ([("intermediate", 0.25), ("final", 0.5)] if listening else [])


def test_a_trial_logs_its_parameters_and_its_result(told, tmp_path):
    assert parse(pretrain.Config, ["--param", "nni"], "").lr == 0.01
    assert json.loads((tmp_path / "trial.json").read_text()) == {"parameters": {"lr": 0.01}}
    report_to_sweep("nni", 0.5)
    assert json.loads((tmp_path / "trial.json").read_text()) == {"parameters": {"lr": 0.01}, "value": 0.5}


def test_pretraining_reports_its_probe_and_ends_with_it(told, tmp_path):
    space, rng = spaces.get("nasbench201"), np.random.default_rng(0)
    keys = {space.key(arch) for arch in space.sample(40, rng)}
    (tmp_path / "l.csv").write_text("arch,val_accuracy\n"
                                    + "".join(f"{key},{90 + rng.random():.4f}\n" for key in keys))
    pretrain.main(["--param", "nni", "--width", "8", "--layers", "1", "--heads", "2", "--tasks", "mask",
                   "--iterations", "21", "--batch_size", "8", "--archs", "20", "--threads", "1",
                   "--device", "cpu", "--no-tensorboard", "--finetune_train_samples", "4",
                   "--finetune_fixed_encoder", "--labels", str(tmp_path / "l.csv"),
                   "--save", str(tmp_path / "run")])
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [kind for kind, _ in told] == ["intermediate"] * 10 + ["final"]  # every second step, and the last
    assert [value for _, value in told] == [event["probe_tau"] for event in logged]
    assert logged[-1]["step"] == 21


# What is swept ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_script_takes_every_value_of_its_table(script, stage):
    table = script.TABLES[stage]
    assert left_to_sweep(table, []) == table


def test_a_setting_given_as_a_flag_is_not_swept():
    table = {"lr": log_uniform(1e-4, 1e-2), "dropout": choice(0.0, 0.1), "resume": choice(True)}
    assert left_to_sweep(table, ["--lr=0.1", "--no-resume", "--seed", "3"]).keys() == {"dropout"}
    with pytest.raises(InputError, match="fix everything"):
        left_to_sweep({"lr": choice(0.1)}, ["--lr", "0.1"])


@pytest.mark.parametrize("table, word",
                         [({"lrr": choice(0.1)}, "did you mean 'lr'"),
                          ({"dropout": uniform(0, 2)}, "dropout")])
def test_a_table_that_a_script_could_not_take_is_refused(table, word):
    with pytest.raises(InputError, match=word):
        check_space(table, pretrain, "search space")


# What NNI is told -------------------------------------------------------------------------------------------

def configured(tmp_path: Path, yaml: str = "", **flags):
    """NNI's configuration for these flags and this YAML."""
    if yaml:
        (tmp_path / "own.yml").write_text(yaml)
        flags["config"] = str(tmp_path / "own.yml")
    return experiment(SweepConfig(**flags), {"lr": choice(0.1)}, lambda local, n: f"run {local} {n}",
                      tmp_path)


def test_the_defaults(tmp_path):
    wanted = configured(tmp_path)
    assert (wanted.trial_concurrency, wanted.max_trial_number, wanted.trial_command) == (1, 20, "run True 1")
    assert wanted.training_service.platform == "local" and wanted.search_space == {"lr": choice(0.1)}
    assert wanted.experiment_working_directory == str(tmp_path / "nni")
    assert Path(wanted.trial_code_directory) == Path.cwd()
    assert wanted.tuner.class_name == "sweeps.tuner.TPE"
    assert wanted.tuner.class_args == {"optimize_mode": "maximize", "seed": 0}


def test_flags_beat_the_yaml_and_the_yaml_the_defaults(tmp_path):
    yaml = ("trialConcurrency: 3\nmaxTrialNumber: 7\ntuner: {name: Random}\n"
            "searchSpace: {dropout: {_type: uniform, _value: [0, 1]}}\n")
    wanted = configured(tmp_path, yaml, trials=5)
    assert (wanted.trial_concurrency, wanted.max_trial_number, wanted.tuner.name) == (3, 5, "Random")
    assert list(wanted.search_space) == ["dropout"] and wanted.trial_command == "run True 3"
    assert configured(tmp_path, yaml, tuner="GridSearch", concurrency=2).tuner.name == "GridSearch"
    assert configured(tmp_path, yaml, tuner="GridSearch", concurrency=2).trial_concurrency == 2


def test_tpe_of_a_yaml_is_ours_too(tmp_path):
    tuner = configured(tmp_path, "tuner: {name: TPE, classArgs: {optimize_mode: minimize}}\n").tuner
    assert tuner.class_name == "sweeps.tuner.TPE" and tuner.class_args == {"optimize_mode": "minimize"}


@pytest.mark.filterwarnings("ignore:SSH password")
def test_machines_of_a_yaml_get_a_command_of_their_own(tmp_path):
    machine = "{host: 10.0.0.1, user: me, password: x}"
    wanted = configured(tmp_path, f"trainingService: {{platform: remote, machineList: [{machine}]}}\n")
    assert wanted.trial_command == "run False 1" and Path(wanted.trial_code_directory) == ROOT


@pytest.mark.parametrize("yaml, flags, word", [
    ("", {"training_service": "remote"}, "machine_list"), ("", {"training_service": "moon"}, "moon"),
    ("", {"duration": "soon"}, "soon"), ("trials: 3\n", {}, "own.yml"), ("[1]\n", {}, "own.yml"),
    ("{", {}, "own.yml")])
def test_what_nni_cannot_take_is_one_line(tmp_path, yaml, flags, word):
    with pytest.raises(InputError, match=word) as end:
        configured(tmp_path, yaml, **flags)
    assert "\n" not in str(end.value)


def test_a_tuner_without_its_package_is_refused(monkeypatch):
    monkeypatch.setitem(os.sys.modules, "hyperopt", None)
    monkeypatch.delitem(os.sys.modules, "nni.algorithms.hpo.hyperopt_tuner", raising=False)
    with pytest.raises(InputError, match=r"pip install 'nni\[Anneal\]"):
        need_tuner("Anneal")


def test_the_command_of_a_trial():
    local = command(finetune, ["--labels", "my labels.csv", "--param", "default,nni"], True, 1000)
    assert local.split()[1] == str(ROOT / "finetune.py") and "'my labels.csv'" in local
    assert local.endswith('--param default,nni --threads 1 --save "$NNI_OUTPUT_DIR"')
    remote = command(pretrain, ["--threads", "3"], False, 2)
    assert remote == 'python3 pretrain.py --threads 3 --save "$NNI_OUTPUT_DIR"'


@pytest.mark.parametrize("flags, word", [
    (["--", "--protocol", "nb201"], "test accuracy"), (["--", "--protocol", ""], "test accuracy"),
    (["--", "--epoch", "3"], "epoch"), (["--labels", "absent.csv"], "absent.csv"),
    (["--space", "darts"], "space"), (["--stage", "search"], "stage")])
def test_flags_that_are_refused_before_nni_starts(tmp_path, flags, word):
    with pytest.raises(InputError, match=word):
        nni4nasbench101.main(["--space", "nasbench201", "--outdir", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_a_sweep_is_left_alone(tmp_path):
    (tmp_path / "trials.csv").write_text("mine")
    with pytest.raises(InputError, match="another --outdir"):
        nni4nasbench101.main(["--space", "nasbench201", "--outdir", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with free_port(number) as port, free_port(number - 1) as below:  # NNI may need the next one
            assert number not in (port, port + 1, below, below + 1)


def test_sweeps_of_the_same_moment_get_different_ports():
    with free_port(28080) as one, free_port(one) as other:
        assert one != other
    with free_port(one) as again:
        assert again == one


def test_a_manager_that_is_slow_is_asked_again_and_one_that_is_gone_is_given_up(monkeypatch):
    monkeypatch.setattr(watcher, "POLL", 0)
    answers = iter([ConnectionError, TimeoutError, "RUNNING"])

    def question():
        answer = next(answers, ConnectionError)
        if answer != "RUNNING":
            raise answer
        return answer

    assert ask(question) == "RUNNING"
    with pytest.raises(InputError, match="answers no more"):
        ask(question)


def test_an_interrupt_waits_until_nni_has_started_or_stopped():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]


# What is exported -------------------------------------------------------------------------------------------

def test_the_table_of_trials_has_a_line_each(tmp_path):
    trials = [trial(0.5, lr=0.1, tasks="mask,flow"), trial(None, "FAILED", lr=0.2)]
    write_csv(tmp_path / "trials.csv", trials)
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [(row["status"], row["value"], row["lr"], row["tasks"]) for row in rows] == [
        ("SUCCEEDED", "0.5", "0.1", "mask,flow"), ("FAILED", "", "0.2", "")]


def test_the_best_parameters_are_a_params_file(tmp_path):
    flags = ["--space", "nasbench201", "--seeds", "1000", "--save", "x", "--width", "32", "--epochs", "7"]
    settings = parse(finetune.Config, flags, "")
    stored = recipe(settings, {"epochs": 60.0, "lr_encoder": 0.003})
    assert stored == {"width": 32, "epochs": 60, "lr_encoder": 0.003} and type(stored["epochs"]) is int
    (tmp_path / "best.json").write_text(json.dumps(stored))
    config = parse(finetune.Config, ["--param", f"local:{tmp_path / 'best.json'}"], "")
    assert (config.width, config.epochs, config.lr_encoder, config.seeds) == (32, 60, 0.003, "0")


def exported(folder: Path, trials: list[Trial], state: str = "DONE") -> dict:
    settings = SimpleNamespace(space="nasbench201", stage="train")
    return export(settings, finetune.Config(labels="l.csv"), {"lr_encoder": "loguniform"}, trials, state,
                  folder)


def test_a_sweep_without_failures_ends_well(tmp_path):
    result = exported(tmp_path, [trial(0.5, lr_encoder=0.1), trial(0.6, lr_encoder=0.01)])
    assert result["best"]["value"] == 0.6
    assert json.loads((tmp_path / "best.json").read_text()) == {"lr_encoder": 0.01}
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert (tmp_path / "trials.png").stat().st_size > 5000


@pytest.mark.parametrize("others, state, word", [
    ([trial(None, "FAILED", lr_encoder=0.1)], "DONE", "1 of 2 trials failed"),
    ([trial(None, lr_encoder=0.1)], "DONE", "1 of 2 trials failed"), ([], "ERROR", "state ERROR")])
def test_a_failure_is_told_and_ends_with_code_1(tmp_path, capsys, others, state, word):
    with pytest.raises(SystemExit) as end:
        exported(tmp_path, [trial(0.5, lr_encoder=0.2), *others], state)
    assert end.value.code == 1 and word in capsys.readouterr().err and (tmp_path / "best.json").exists()


def test_no_result_at_all_ends_with_code_1(tmp_path, capsys):
    (tmp_path / "trial.stderr").write_text("Traceback\nerror: labels are missing\n\n")
    with pytest.raises(SystemExit) as end:
        exported(tmp_path, [trial(None, "FAILED", folder=tmp_path)])
    assert end.value.code == 1 and "error: labels are missing" in capsys.readouterr().err
    assert not (tmp_path / "best.json").exists()
    assert json.loads((tmp_path / "result.json").read_text())["best"] is None


# The picture ------------------------------------------------------------------------------------------------

def test_an_axis_of_choices_keeps_them_apart():
    heights, ticks = picture.axis([0.1, 0.0, 0.1, 1e-4], "choice")
    assert heights == [5 / 6, 1 / 6, 5 / 6, 0.5] and [label for _, label in ticks] == ["0", "0.0001", "0.1"]
    assert picture.axis([True, False], "")[0] == [0.75, 0.25]


def test_a_logarithmic_axis():
    heights, ticks = picture.axis([1e-4, 1e-2, 1e-3], "loguniform")
    assert heights == pytest.approx([0, 1, 0.5])
    assert [label for _, label in ticks] == ["0.0001", "0.001", "0.01"]
    assert picture.axis([0.0, 1.0, 0.5], "loguniform")[0] == [0, 1, 0.5]
    assert picture.axis([3.0, 3.0], "")[0] == [0.5, 0.5]


# The wrappers -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("tag, script", [
    ("101", "nni4nasbench101.py"), ("201", "nni4nasbench101.py --space nasbench201"),
    ("301", "nni4nasbench301.py")])
def test_a_wrapper_starts_its_script(tag, script, stage):
    path = ROOT / f"nni4nasbench{tag}{stage}.sh"
    lines = path.read_text().splitlines()
    assert lines[-1] == f'in_environment {script} --stage {stage} "$@"' and "set -euo pipefail" in lines
    assert os.access(path, os.X_OK)
