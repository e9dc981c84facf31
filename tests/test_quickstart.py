"""quickstart.sh, the first thing that a newcomer runs."""
import json
import os
import subprocess

import pytest
from conftest import ROOT

FOLDER = "nasbench201/cifar10"


def quickstart(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(ROOT / "quickstart.sh"), *arguments], capture_output=True, text=True,
                          env=os.environ | environment, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv" / "installed").exists(),
                    reason="needs the environment that test.sh makes")
def test_the_main_job_runs_and_is_summed_up(tmp_path):
    end = quickstart(TINY="1", OUT=str(tmp_path), QUERIES="30", THREADS="1", DEVICE="cpu", SEEDS="0-1")
    assert end.returncode == 0, end.stderr
    summary = json.loads((tmp_path / FOLDER / "summary.json").read_text())
    history = (tmp_path / FOLDER / "search-bo" / "history.jsonl").read_text().splitlines()
    assert summary["queries"] == len(history) == 30 and summary["of"] == 15625
    assert 1 <= summary["rank"] <= 15625
    assert max(json.loads(line)["validation"] for line in history) == summary["validation"]
    assert len(summary["seconds"]) == 5 and all(seconds > 0 for seconds in summary["seconds"].values())
    assert json.loads((tmp_path / FOLDER / "search-bo" / "best.json").read_text())["pretrained"] == "default"
    started = [json.loads((tmp_path / FOLDER / name / "config.json").read_text())["model_state_dict"]
               for name in ("scratch", "finetune", "shipped")]
    assert started == ["", str(tmp_path / "nasbench201" / "pretrain" / "last.pt"), "default"]
    for picture in ("curve.png", "best_cell.png"):
        assert str(tmp_path / FOLDER / "search-bo" / picture) in end.stdout
        assert (tmp_path / FOLDER / "search-bo" / picture).stat().st_size > 1000


def test_help_is_printed_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "bash quickstart.sh [SPACE [DATASET [STRATEGY]]]" in quickstart("--help").stdout


def test_a_space_without_labels_is_refused_before_anything_is_installed():
    end = quickstart("nasbench101", LABELS="")
    assert end.returncode == 2 and end.stderr.count("\n") == 1 and "set LABELS=FILE" in end.stderr
