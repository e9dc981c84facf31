"""The ablation scripts: every grid to its table, record and picture at a tiny budget; what is done, changed
or killed."""
from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

import pretrain
import spaces
from ablations import grid as grids
from ablations import jobs, report, run
from ablations import labels as tables
from figs import ablation as picture
from finetune import Config
from models.batch import Batch
from models.encoders import build_encoder
from runtime.checkpoint import load_checkpoint
from runtime.errors import InputError
from runtime.seeding import seeded
from spaces.base import Graphs
from spaces.labels.read import read_labels

SCRIPTS = sorted(path.stem for path in (ROOT / "ablations").glob("*.sh")
                 if path.stem not in ("all", "common"))
ALIKE = {"masking_ratio": 1}  # settings that mean the same: 5 % and 15 % of at most 7 vertices are one vertex
ONE_PRETRAINING = "--tasks mask --iterations 20 --batch_size 8 --archs 50 --width 8 --layers 1 --heads 2"


def bash(name: str, **environment: str) -> subprocess.CompletedProcess:
    settings = {"SCALE": "tiny", "DEVICE": "cpu", "THREADS": "1"}
    return subprocess.run(["bash", str(ROOT / "ablations" / f"{name}.sh")],
                          env=os.environ | settings | environment, capture_output=True, text=True,
                          check=False)


@pytest.fixture(scope="module")
def tables_of_labels(tmp_path_factory, random_labels) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("labels")
    return {name: random_labels(folder / f"{space}.jsonl", space, 60)
            for name, space in (("LABELS", "nasbench101"), ("LABELS301", "nasbench301"))}


def start(folder: Path, text: str, *flags: str) -> list[dict]:
    path = folder / "grids.txt"
    path.write_text(text)
    return run.main(["--grids", str(path), "--out", str(folder), "--figs", str(folder),
                     "--results", str(folder), "--seeds", "0-1", "--device", "cpu", "--threads", "1", *flags])


@pytest.fixture(scope="module")
def everything(tmp_path_factory, tables_of_labels):
    """What all.sh prints, the folder in which it was run, and the records."""
    printed = bash("all", PRINT="1", CELLS="50", **tables_of_labels)
    assert printed.returncode == 0, printed.stderr
    folder = tmp_path_factory.mktemp("all")
    return printed.stdout, folder, start(folder, printed.stdout)


# All grids --------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_every_script_ends_in_a_record_and_a_picture(everything):
    text, folder, records = everything
    assert sorted(record["name"] for record in records) == SCRIPTS == sorted(g.name for g in grids.read(text))
    for record in records:
        assert len(record["rows"]) == len(record["grid"]["settings"])
        assert all(len(row["tau"]) == 2 for row in record["rows"])
        assert json.loads((folder / f"ablation_{record['name']}.json").read_text())["rows"] == record["rows"]
        assert (folder / f"ABLATION_{record['name'].upper()}.png").stat().st_size > 5_000


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_says_the_same(everything, monkeypatch):
    text, folder, records = everything
    monkeypatch.setattr(jobs.Job, "run", lambda job: pytest.fail(f"{job} was run again"))
    again = start(folder, text)
    assert {r["name"]: r["rows"] for r in again} == {r["name"]: r["rows"] for r in records}


@pytest.mark.slow
def test_settings_that_grids_share_are_computed_once(everything):
    text, folder, _ = everything
    rows = {grid.name: rows_of(grid, folder) for grid in grids.read(text)}
    places = (("pretrain_task", 0), ("masking_ratio", 4), ("pretrain_target", 0), ("encoder_decoder", 0),
              ("finetune_target", 2), ("finetune_mode", 0))
    papers = {rows[name][i].first for name, i in places}
    ours = {rows[name][i].first for name, i in (("our_pretext", 0), ("our_ensemble", 3), ("direction", 0))}
    assert len(papers) == len(ours) == 1 and all(job.done for job in papers | ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_value_of_a_grid_reaches_the_model(everything, name):
    """Other flags of pretrain.py, other pre-trained weights; other flags of either script, another
    predictor."""
    text, folder, _ = everything
    grid = next(grid for grid in grids.read(text) if grid.name == name)
    pretrained, predictors = {}, {}
    for row in rows_of(grid, folder):
        if row.first:
            pretrained[row.setting.pretrain] = flat(load_checkpoint(row.first.folder / "last.pt")["weights"])
        content = load_checkpoint(row.then.folder / "predictor.pt")
        share = content["kernel"] and content["kernel"]["share"]
        predictors[row.setting.name] = (share, *(flat(weights) for weights in content["weights"]))
    same = ALIKE.get(name, 0)
    assert len(set(pretrained.values())) == len(pretrained) - same
    assert len(set(predictors.values())) == len(grid.settings) - same


def rows_of(grid: grids.Grid, folder: Path) -> tuple[run.Row, ...]:
    return run.plan(grid, jobs.AblationRun(folder, "0-1", ())).rows


def flat(weights: dict) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest()


@pytest.mark.slow
def test_a_script_by_itself_and_without_its_labels(tmp_path, tables_of_labels):
    end = bash("pretrain_target", OUT=str(tmp_path), CELLS="40", **tables_of_labels)
    assert end.returncode == 0 and "Operations to reconstruct" in end.stdout, end.stderr[-2000:]
    assert (tmp_path / "ABLATION_PRETRAIN_TARGET.png").exists()


@pytest.mark.parametrize("name", [*SCRIPTS, "all"])
def test_without_labels_one_line_says_how_to_get_them(tmp_path, name):
    end = bash(name, LABELS=str(tmp_path / "absent"), LABELS301=str(tmp_path / "absent"))
    assert end.returncode == 2 and "python -m spaces.download nasbench" in end.stderr
    assert end.stderr.count("\n") == 1


def test_help_teaches_and_an_unknown_scale_is_refused():
    command = ["bash", str(ROOT / "ablations" / "direction.sh"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "forward from backward" in shown and "SCALE" in shown
    end = bash("direction", SCALE="huge")
    assert end.returncode == 2 and "choose tiny, cpu or paper" in end.stderr


# One grid ---------------------------------------------------------------------------------------------------

@pytest.fixture
def small(tables_of_labels) -> str:
    return (f"name: small\ntitle: small\nsizes: 20\nlabels: {tables_of_labels['LABELS']}\ncells: 40\n"
            f"pretrain: --space nasbench101 {ONE_PRETRAINING}\n"
            "finetune: --space nasbench101 --protocol gmae --finetune_fixed_encoder --epochs 1 --members 1 "
            "--kernel_share 0\n"
            "setting | paper at 20 | pretrain.py      | finetune.py\n"
            "few     | .2          | --mask_ratio 0.1 |\n"
            "many    | .1          | --mask_ratio 0.8 |\n")


def test_a_changed_flag_is_run_and_nothing_else(tmp_path, small, monkeypatch):
    start(tmp_path, small)
    ran, real = [], jobs.Job.run
    monkeypatch.setattr(jobs.Job, "run", lambda job: (ran.append(job.script), real(job)))
    start(tmp_path, small.replace("0.8", "0.7"))
    assert ran == ["pretrain", "finetune"]
    start(tmp_path, small.replace("--epochs 1", "--epochs 2"))
    assert ran[2:] == ["finetune", "finetune"]


def test_other_labels_are_another_result(tmp_path, small, tables_of_labels):
    first, other = (rows_of(grids.read(text)[0], tmp_path)
                    for text in (small, small.replace("cells: 40", "cells: 45")))
    assert first[0].first == other[0].first and first[0].then.folder != other[0].then.folder


def test_a_killed_pre_training_goes_on_to_the_same_weights(tmp_path, small, monkeypatch):
    (tmp_path / "killed").mkdir(), (tmp_path / "whole").mkdir()
    killed, whole = (rows_of(grids.read(small)[0], tmp_path / name)[0].first for name in ("killed", "whole"))
    real = pretrain.Run.save

    def save_and_die(*given):
        real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain.Run, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "killed", small)
    monkeypatch.undo()
    assert not killed.done and load_checkpoint(killed.folder / "last.pt")["step"] == 2
    start(tmp_path / "killed", small)
    whole.run()
    a, b = (load_checkpoint(job.folder / "last.pt") for job in (killed, whole))
    assert a["step"] == 20 and flat(a["weights"]) == flat(b["weights"])


def test_a_setting_that_fails_is_named_and_the_other_grid_is_finished(tmp_path, small):
    broken = small.replace("name: small", "name: broken")
    broken = broken.replace("--mask_ratio 0.8", "--mask_ratio 0.8 --lr 1e30")
    with pytest.raises(InputError, match="1 of 3 settings failed.*diverged"):
        start(tmp_path, broken + "\n" + small)
    assert (tmp_path / "ablation_small.json").exists() and not (tmp_path / "ablation_broken.json").exists()


@pytest.mark.slow
def test_several_jobs_give_what_one_gives(tmp_path, small):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    one, two = start(tmp_path / "one", small)[0], start(tmp_path / "two", small, "--jobs", "2")[0]
    assert one["rows"] == two["rows"]


@pytest.mark.parametrize("change, message", [
    (("| --mask_ratio 0.1 |", "| --mask_ration 0.1 |"), "mask_ration"),
    (("--epochs 1", "--epoch 1"), "epoch"), (("sizes: 20", "sizes: some"), "sizes"),
    ((".2          |", ".2 .3       |"), "at most 1"), (("many ", "few  "), "one name"),
    (("cells: 40\n", ""), "lacks cells"), (("few     |", "few"), "cannot read")])
def test_a_faulty_grid_is_refused_before_anything_runs(tmp_path, small, change, message):
    with pytest.raises(InputError, match=message):
        start(tmp_path, small.replace(*change))
    assert not (tmp_path / "pretrain").exists()


def test_one_pre_training_serves_all_that_need_it_whatever_its_flags_look_like(tmp_path, small):
    """--mask_ratio 0.10 is 0.1, so there are two pre-trainings for three settings, and no two chains write
    one folder."""
    text = small + "same    | | --mask_ratio 0.10 | --epochs 2\nscratch | | - |\n"
    chains = jobs.chains((row.first, row.then) for row in rows_of(grids.read(text)[0], tmp_path))
    assert [[job.script for job in chain] for chain in chains] == [["pretrain", "finetune", "finetune"],
                                                                   ["pretrain", "finetune"], ["finetune"]]


def test_the_cells_drawn_do_not_depend_on_the_order_of_the_file(tmp_path, small, tables_of_labels):
    grid = grids.read(small)[0]
    lines = Path(grid.labels).read_text().splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    turned = grids.read(small.replace(grid.labels, str(tmp_path / "turned.jsonl")))[0]
    space, config = spaces.get("nasbench101"), Config(space="nasbench101")
    drawn = [read_labels(tables.table(g, config, tmp_path), space) for g in (grid, turned)]
    assert len(drawn[0]) == 40 and set(drawn[0].keys) == set(drawn[1].keys)
    whole = grids.read(small.replace("cells: 40", "cells: 0"))[0]
    assert tables.table(whole, config, tmp_path) == grid.labels


# What it says -----------------------------------------------------------------------------------------------

def rows(**tau: tuple) -> list[dict]:
    """Settings a, b, c, whose paper values fall in that order."""
    return [{"setting": name, "n_labels": 20, "tau": list(values), "mean": float(np.mean(values)), "std": .1,
             "paper": paper}
            for (name, values), paper in zip(tau.items(), (.9, .8, .7))]


@pytest.mark.parametrize("tau, verdict, ours", [
    ({"a": (.6, .7), "b": (.5, .6), "c": (.3, .4)}, "yes", "a 0.650 > b 0.550 > c 0.350"),
    ({"a": (.6, .7), "b": (.5, .8), "c": (.3, .4)}, "undecided", "a 0.650 ≈ b 0.650 > c 0.350"),
    ({"a": (.5, .9), "b": (.6, .7), "c": (.3, .4)}, "yes", "a 0.700 ≈ b 0.650 > c 0.350"),
    ({"a": (.6, .7), "b": (.6, .7), "c": (.3, .4)}, "yes", "a 0.650 = b 0.650 > c 0.350"),
    ({"a": (.6, .7), "b": (.5, .6), "c": (.7, .8)}, "no", "a 0.650 > b 0.550 < c 0.750")])
def test_the_verdict_on_the_order(tau, verdict, ours):
    found = report.ordering(rows(**tau)[::-1])
    assert (found["verdict"], found["ours"], found["paper"]) == (verdict, ours, "a 0.900 > b 0.800 > c 0.700")


def test_no_order_without_two_numbers_of_the_paper():
    assert report.ordering([row | {"paper": None} for row in rows(a=(.6, .7), b=(.5, .6))]) is None


def test_the_panel_shows_the_paper_as_open_markers():
    axes = picture.panel(rows(a=(.6, .7), b=(.5, .6), c=(.3, .4)), "title").axes[0]
    open_markers = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xdata().tolist() for line in open_markers] == [[.9, .8, .7]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


# Direction --------------------------------------------------------------------------------------------------

def encoder(direction: bool) -> torch.nn.Module:
    config = {"base_model": "transformer", "width": 8, "layers": 2, "heads": 2, "dropout": 0.0,
              "direction": direction}
    with seeded(0):
        return build_encoder(config, 5).eval()


@pytest.mark.parametrize("direction", [True, False])
def test_without_direction_a_graph_looks_like_its_reverse(direction):
    ops, adj = torch.tensor([[0, 1, 2, 3, 4]]), torch.zeros(1, 5, 5, dtype=torch.uint8)
    for i, j in ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (0, 4)):
        adj[0, i, j] = 1
    graph = {"n": torch.tensor([5], dtype=torch.uint8), "marks": torch.zeros(1, 5, dtype=torch.uint8),
             "ops": ops.to(torch.uint8)}
    forward, backward = (Batch.of(Graphs(adj=a, **graph)) for a in (adj, adj.transpose(1, 2).contiguous()))
    h = [encoder(direction)(batch) for batch in (forward, backward)]
    assert torch.allclose(*h, atol=1e-5) == (not direction)


def test_direction_is_the_default_of_older_checkpoints_and_of_one_encoder_only():
    older = {"base_model": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    assert build_encoder(older, 5).direction
    with pytest.raises(InputError, match="--no-direction"):
        pretrain.main(["--base_model", "gat", "--no-direction", "--archs", "10"])
