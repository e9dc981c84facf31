"""A sweep that is killed and resumed has every trial once, their best as its best, and nothing running."""
from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest

from kills.matrix import FULL, NETWORK, faults
from kills.runs import Fresh, Kill, Logs, finish

pytestmark = pytest.mark.slow

TRIALS = 3
COMMAND = ("nni4nasbench101.py --stage train --space nasbench201 --labels {labels} --outdir {out} --trials "
           f"{TRIALS} --tuner Random --port 18080 -- --members 1 --epochs 1 --kernel_share 0 --seeds 1000 "
           f"--finetune_train_samples 12 {NETWORK}")
KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) if FULL else (signal.SIGKILL,)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_killed_sweep_goes_on(matrix, kind):
    pytest.importorskip("nni", reason="needs nni, which some platforms lack")
    folder = matrix.folder / "sweep"
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = COMMAND.format(out=out, **matrix.inputs).split()
    cut, wrong, said = words.index("--"), [], []
    for kill in (Kill(kind, file="result.json"), None):  # of the first trial
        flags = words if kill else [*words[:cut], "--resume", *words[cut:]]
        logs = Logs(folder / "logs")
        end = finish(Fresh(flags, logs), out, logs, kill)
        said.append(f"{kill or 'to the end'}: code {end.code} in {end.seconds:.1f} s")
        wrong += faults(end, kill)
    assert not wrong, "\n".join([*said, *wrong])
    check(out)


def check(out: Path) -> None:
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert len(rows) == len({row["trial"] for row in rows}) == TRIALS
    assert all(row["status"] == "SUCCEEDED" and row["value"] for row in rows)
    best = max(rows, key=lambda row: float(row["value"]))
    result, stored = (json.loads((out / name).read_text()) for name in ("result.json", "best.json"))
    assert result["best"]["trial"] == best["trial"] and result["trials"] == TRIALS
    assert all(float(best[name]) == value for name, value in stored.items()
               if name in best and isinstance(value, float))
    assert not [path for path in out.glob(".*") if path.name.endswith((".tmp", "holder"))]
