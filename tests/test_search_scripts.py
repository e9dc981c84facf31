"""search101.sh, search201.sh, search301.sh: each to its picture and record at a tiny budget; a second run of
one goes on."""
from __future__ import annotations

import json
import os
import subprocess

import pytest
from conftest import ROOT


def script(name: str, **environment: str) -> subprocess.CompletedProcess:
    settings = {"TINY": "1", "SEEDS": "0", "ALGOS": "r,re", "THREADS": "1", "DEVICE": "cpu",
                "ENCODER": "default"}
    return subprocess.run(["bash", str(ROOT / name)], env=os.environ | settings | environment,
                          capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name, space, tag, protocols", [
    ("search101.sh", "nasbench101", "101", 2), ("search201.sh", "nasbench201", "201", 1),
    ("search301.sh", "nasbench301", "301", 1)])
def test_the_chain_ends_in_a_picture_and_a_record(tmp_path, random_labels, name, space, tag, protocols):
    settings = {"LABELS": random_labels(tmp_path / "labels.jsonl", space), "OUT": str(tmp_path / "out"),
                "FINETUNE_LABELS": "40"}
    first = script(name, **settings)
    assert first.returncode == 0, first.stderr[-2000:]
    record = tmp_path / "out" / f"search{tag}.json"
    assert (tmp_path / "out" / f"SEARCH{tag}.png").stat().st_size > 10_000 and json.loads(record.read_text())
    histories = {path: path.read_bytes() for path in (tmp_path / "out").rglob("history.jsonl")}
    assert len(histories) == 2 * protocols
    assert all(history.count(b"\n") == 24 for history in histories.values())
    if space == "nasbench201":  # the stages that are gone through again are the same in all
        again = script(name, **settings)
        assert again.returncode == 0 and "finetune: done before" in again.stdout
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("history.jsonl")} == histories


@pytest.mark.parametrize("name, command", [
    ("search101.sh", "python -m spaces.download nasbench101"),
    ("search301.sh", "python -m spaces.download nasbench301")])
def test_without_labels_one_line_says_how_to_get_them(tmp_path, name, command):
    end = script(name, LABELS=str(tmp_path / "absent"), OUT=str(tmp_path / "out"))
    assert end.returncode == 2 and command in end.stderr and end.stderr.count("\n") == 1
