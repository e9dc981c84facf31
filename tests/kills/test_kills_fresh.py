"""What a fork cannot show: interpreters of their own, killed while they import, work or have workers."""
from __future__ import annotations

import signal

import pytest

from kills.matrix import FULL
from kills.runs import Kill

pytestmark = pytest.mark.slow

KILLS = {  # at most two seconds of imports come first
    "search-random": [Kill(signal.SIGINT, after=0.4), Kill(signal.SIGINT, file="history.jsonl")],
    "pretrain": [Kill(signal.SIGKILL, after=0.8), Kill(signal.SIGINT, file="last.pt")],
    "train": [Kill(signal.SIGTERM, file="last.pt")],
    "search-jobs": [Kill(signal.SIGKILL, file="history.jsonl")],
}
MORE = {
    "gen_json_301": [Kill(signal.SIGINT, file="cells.jsonl")],
    "finetune": [Kill(signal.SIGINT, file="config.json"), Kill(signal.SIGTERM, file="log.jsonl")],
    "search-trains": [Kill(signal.SIGINT, file="trainings.jsonl"), Kill(signal.SIGKILL, file="last.pt")],
    "search-jobs": [Kill(signal.SIGTERM, file="history.jsonl"), Kill(signal.SIGINT, after=5.0)],
}
CASES = [*KILLS.items(), *(MORE.items() if FULL else [])]


@pytest.mark.parametrize(
    "name, kills", CASES, ids=[f"{name}-{kills[0].signal.name}" for name, kills in CASES])
def test_killed_in_its_own_interpreter_it_goes_on(matrix, name, kills):
    matrix.compare(name, kills, fresh=True)
