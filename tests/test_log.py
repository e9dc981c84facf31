"""What a run tells: log lines, numbers, where they were made."""
from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch

from runtime.log import Log, command_line, mean_std, plus_minus, provenance


def events(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_log_is_one_json_line_an_event_and_grows(tmp_path):
    for step in (1, 2):
        log = Log(tmp_path / "run")
        log.write(step, loss=0.5)
        log.close()
    assert [(event["step"], event["loss"]) for event in events(tmp_path / "run")] == [(1, 0.5), (2, 0.5)]


def test_a_resumed_run_drops_later_lines_and_a_torn_one(tmp_path):
    log = Log(tmp_path)
    for step in (1, 2, 3):
        log.write(step, loss=0.5)
    log.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 2, "los')
    log = Log(tmp_path, keep=2)
    log.write(3, loss=0.1)
    log.close()
    assert [(event["step"], event["loss"]) for event in events(tmp_path)] == [(1, 0.5), (2, 0.5), (3, 0.1)]


def test_curves_go_to_tensorboard_if_asked(tmp_path):
    for tensorboard in (False, True):
        log = Log(tmp_path / str(tensorboard), tensorboard)
        log.write(1, loss=0.5, name="x", tau=None)
        log.close()
        assert (tmp_path / str(tensorboard) / "tensorboard").exists() == tensorboard


# Numbers ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mean, std, decimals, text", [
    (0.70714, 0.01234, 4, "0.7071 ± 0.0123"), (0.70714, None, 4, "0.7071"), (94.375, 0.0, 2, "94.38 ± 0.00"),
    (-0.00004, 1.0, 1, "-0.0 ± 1.0"), (3, None, 0, "3")])
def test_plus_minus(mean, std, decimals, text):
    assert plus_minus(mean, std, decimals) == text


def test_four_decimals_by_default():
    assert plus_minus(0.5, 0.25) == "0.5000 ± 0.2500" and plus_minus(*mean_std([1.0])) == "1.0000"


def test_the_deviation_is_that_of_a_sample():
    mean, std = mean_std([1.0, 2.0, 4.0])
    assert (mean, std) == (pytest.approx(7 / 3), pytest.approx(np.std([1, 2, 4], ddof=1)))
    assert mean_std([2.5]) == (2.5, None) and type(mean_std(np.array([1.0, 3.0]))[1]) is float


def test_a_record_says_where_it_was_made():
    record = provenance()
    assert record["versions"]["torch"] == torch.__version__ and "CPUs" in record["machine"]
    assert json.loads(json.dumps(record)) == record


def test_a_command_can_be_typed_again(monkeypatch):
    flags = ["--labels", "my labels.csv", "--seeds", "0-9"]
    command = shlex.split(command_line("benchmarks.predictor", flags))
    assert command == ["python", "-m", "benchmarks.predictor", *flags]
    monkeypatch.setattr("sys.argv", ["predictor.py", "--seeds", "3"])
    assert command_line("benchmarks.predictor", None) == "python -m benchmarks.predictor --seeds 3"
