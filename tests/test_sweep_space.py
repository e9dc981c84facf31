"""What a sweep refuses before anything starts, and results that are none."""
from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import finetune
import nni4nasbench101
from runtime.errors import InputError
from runtime.settings import report_to_sweep
from sweeps import private
from sweeps.experiment import need_tuner, number_in
from sweeps.space import check_space, uniform
from sweeps.tuner import TPE


@pytest.mark.parametrize("entry, words", [
    ({"_type": "loguniform", "_value": [0.1, 0.001]}, "the range [0.1, 0.001] is empty"),
    ({"_type": "log_uniform", "_value": [0.1, 1]}, "_type 'log_uniform' is none of choice"),
    ({"_type": "uniform", "_value": [0.1]}, "uniform takes 2 finite numbers"),
    ({"_type": "uniform", "_value": ["0", "1"]}, "takes 2 finite numbers"),
    ({"_type": "uniform", "_value": [0, math.inf]}, "takes 2 finite numbers"),
    ({"_type": "loguniform", "_value": [0, 1]}, "needs bounds above 0"),
    ({"_type": "quniform", "_value": [0, 1, 0]}, "needs a step above 0"),
    ({"_type": "normal", "_value": [0.1, -1]}, "needs a deviation above 0"),
    ({"_type": "choice", "_value": []}, "not empty"), ({"_type": "choice"}, "_type and _value"),
    ({"_type": ["choice"], "_value": [1]}, "_type ['choice'] is none of"),
    ({"_type": "uniform", "_value": [0.1, 2]}, "dropout must be from 0 to 0.95"), (3, "must be an object"),
], ids=lambda value: "" if isinstance(value, dict) else str(value)[:24])
def test_a_search_space_that_makes_no_sense(entry, words):
    with pytest.raises(InputError) as error:
        check_space({"dropout": entry}, finetune, "space.json")
    assert words in str(error.value) and str(error.value).startswith("space.json: ")


@pytest.mark.parametrize("space", [{}, [], None, "x"], ids=str)
def test_no_search_space(space):
    with pytest.raises(InputError, match="must be an object with a setting or more"):
        check_space(space, finetune, "space.json")


def test_the_settings_of_a_command_of_ones_own_are_not_known():
    check_space({"warp": uniform(0, 1)}, None, "space.json")
    with pytest.raises(InputError, match="unknown setting 'warp'"):
        check_space({"warp": uniform(0, 1)}, finetune, "space.json")


@pytest.mark.parametrize("space, words", [
    ("{lr_encoder: {_type: uniform, _value: [1, 0]}}", "is empty"),
    ("{warp: {_type: uniform, _value: [0, 1]}}", "unknown setting 'warp'")], ids=["reversed", "unknown"])
def test_a_space_of_the_users_yaml_is_checked_before_anything_starts(tmp_path, random_labels, space, words):
    (tmp_path / "own.yml").write_text(f"searchSpace: {space}\n")
    with pytest.raises(InputError, match=words):
        nni4nasbench101.main(["--space", "nasbench201", "--config", str(tmp_path / "own.yml"), "--labels",
                              random_labels(tmp_path / "l.jsonl", "nasbench201", 30), "--outdir",
                              str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_tuners():
    need_tuner("TPE", {"optimize_mode": "maximize", "seed": 0})
    with pytest.raises(InputError, match="tuner 'Tpee' is none of .*Random.*TPE"):
        need_tuner("Tpee")
    with pytest.raises(InputError, match="tuner TPE: .*optimise_mode"):
        need_tuner("TPE", {"optimise_mode": "maximize"})


@pytest.mark.parametrize("result, number", [
    (0.5, 0.5), ("0.5", 0.5), ({"default": 0.5, "more": 1}, 0.5), (math.nan, None), ("inf", None),
    (None, None), ({"more": 1}, None), ({"default": "x"}, None), ([0.5], None), ("NaN", None)], ids=str)
def test_only_a_finite_number_is_a_result(result, number):
    assert number_in(result) == number


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_trial_does_not_report_what_is_no_number(monkeypatch, value):
    with pytest.raises(InputError, match="no finite number"):
        report_to_sweep("nni", value)


LISTEN = """
import socket, sys, time
from pathlib import Path
from sweeps.private import settle_in

settle_in()
with socket.create_server(("", int(sys.argv[1]))):
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10).close()
    Path(sys.argv[2], "up").touch()
    time.sleep(1000)
"""


@pytest.mark.skipif(not private.available(), reason="this machine gives no network namespace to a user")
def test_what_listens_in_a_private_network_is_out_of_reach_and_ends_with_the_launcher(tmp_path):
    (tmp_path / "listen.py").write_text(LISTEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = "import sys; from sweeps.private import run_inside; run_inside(sys.argv[1], sys.argv[2:])"
    launcher = subprocess.Popen(
        [sys.executable, "-c", launch, str(tmp_path / "listen.py"), str(port), str(tmp_path)], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not (tmp_path / "up").exists():
        assert launcher.poll() is None
        time.sleep(0.05)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    launcher.kill()
    assert launcher.stdout.read() == b""  # ends when the last process that holds it does


def test_tpe_goes_on_from_earlier_trials_and_forgets_failed_ones():
    earlier = [{"parameter": {"x": 0.1 * i}, "value": 0.1 * i} for i in range(10)]
    tuner = TPE("maximize", 0, earlier=earlier)
    tuner.update_search_space({"x": uniform(0, 1)})
    assert sorted(-record.loss for record in tuner._history[("x",)]) == pytest.approx(
        [0.1 * i for i in range(10)])
    tuner.generate_parameters(0), tuner.generate_parameters(1)
    for number, value in enumerate((math.nan, {"default": 0.7})):
        tuner.receive_trial_result(number, {}, value)
    assert not tuner._running_params and len(tuner._history[("x",)]) == 11
