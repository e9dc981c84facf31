"""The NAS-Bench-301 ensemble: the cells' vectors, the folder format, what is refused, and the scripts that
use it.

The ensemble is fitted here and stored as the official one is.
"""
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xgboost
from conftest import ROOT

import gen_json_301
import search
import spaces
from runtime.errors import InputError
from spaces import darts
from spaces.base import Record
from spaces.labels.read import read_labels
from spaces.oracles import open_oracle
from spaces.oracles.xgb301 import COLUMNS, CONSTANTS, EnsembleOracle, vectors

NB301 = spaces.get("nasbench301")
CELLS = np.random.default_rng(0).integers(darts.SIZE, size=300)
MEMBERS = 3


def fit(x, seed):
    label = 90 + np.random.default_rng(seed).random(len(x))
    return xgboost.train({"max_depth": 3, "seed": seed, "nthread": 1}, xgboost.DMatrix(x, label), 5)


def store(folder, booster, protocol=4, model="xgb"):
    """A member as the package stores it, with its configuration."""
    folder.mkdir(parents=True)
    (folder / "surrogate_model.model").write_bytes(pickle.dumps(booster, protocol))
    (folder / "model_config.json").write_text(json.dumps({"model": model, "param:bananas_enc": False}))
    (folder / "data_config.json").write_text(json.dumps({"seed": 1}))


@pytest.fixture(scope="module")
def boosters():
    return [fit(vectors(CELLS), seed) for seed in range(MEMBERS)]


@pytest.fixture(scope="module")
def folder(boosters, tmp_path_factory):
    """Pickle protocol 3 was Python's own when the official models were stored."""
    folder = tmp_path_factory.mktemp("models") / "xgb_v1.0"
    for member, booster in enumerate(boosters):
        store(folder / f"member_{member}", booster, protocol=3 + member % 2)
    return folder


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the ensemble that a test may damage; its members' models."""
    shutil.copytree(folder, tmp_path / "xgb_v1.0")
    return sorted((tmp_path / "xgb_v1.0").rglob("*.model"))


# The vector -------------------------------------------------------------------------------------------------

def test_columns_come_level_by_level_and_by_name():
    assert len(COLUMNS) == 56 and len(CONSTANTS) == 22
    assert [name.rpartition(":")[2] for name in COLUMNS[8:23]] == [
        "auxiliary", "drop_path_prob", "edge_normal_0", "edge_normal_1", "edge_reduce_0", "edge_reduce_1",
        "init_channels", "inputs_node_normal_3", "inputs_node_normal_4", "inputs_node_normal_5",
        "inputs_node_reduce_3", "inputs_node_reduce_4", "inputs_node_reduce_5", "layers", "network"]
    assert [int(name.rpartition("_")[2])
            for name in COLUMNS[32:]] == [10, 11, 12, 13, 2, 3, 4, 5, 6, 7, 8, 9] * 2


def test_vector_of_a_cell_as_the_package_builds_it():
    """DARTS_V2, computed with nasbench301 0.3 and ConfigSpace 0.6.1."""
    columns = [
        0.58634518, 0, 0, 0, 0.16666444, 0.30999992, 0, 0, 0, 0,  # batch size to drop path
        3, 3, 0, 0,  # edges 0 and 1 of the normal and the reduction cell: sep_conv_3x3, max_pool_3x3
        0.00315,  # channels
        0, 0, 1, 2, 1, 4,  # inputs 0_1, 0_1, 0_2 and 1_2, 0_2, 1_2
        # layers to mixup
        0.00075, 0, 0, -3.68887945, 0.89887640, -8.11172808, 0.00995, 1e-12, 0, 0, 0.70512784,
        -1, 5, -1, -1, 3, 3, -1, 2, 3, -1, -1, 2,  # normal edges 10..13, 2..9
        0, 2, -1, -1, -1, 0, 2, 0, -1, 2, -1, -1,  # reduction edges 10..13, 2..9
    ]
    assert vectors(darts.numbers_of([darts.NAMED["DARTS_V2"]]))[0] == pytest.approx(columns, abs=1e-7)


# The ensemble -----------------------------------------------------------------------------------------------

def test_answers_are_mean_and_deviation_of_the_members(folder, boosters):
    oracle = open_oracle(str(folder), NB301)
    members = np.array([booster.predict(xgboost.DMatrix(vectors(CELLS))) for booster in boosters], np.float64)
    val, cost, std = oracle.query_many(CELLS)
    assert np.array_equal(val, members.mean(0)) and np.array_equal(std, members.std(0)) and cost is None
    assert oracle.name == "NAS-Bench-301 xgb_v1.0 (mean of 3 boosters)"


def test_one_is_answered_as_many_are(folder):
    oracle = EnsembleOracle(folder)
    archs = darts.genotypes(CELLS[:3])
    assert [oracle.query(arch) for arch in archs] == [Record(v, None, None)
                                                      for v in oracle.query_many(CELLS[:3]).val]
    assert oracle.covers(NB301.key(archs[0]))


def test_each_member_predicts_all_cells_at_once(folder, monkeypatch):
    oracle, sizes, predict = EnsembleOracle(folder), [], xgboost.Booster.predict
    monkeypatch.setattr(xgboost.Booster, "predict", lambda self, rows: sizes.append(rows.num_row())
                        or predict(self, rows))
    oracle.query_many(CELLS)
    assert sizes == [len(CELLS)] * MEMBERS


def test_the_folder_above_one_ensemble_is_that_ensemble(folder):
    assert EnsembleOracle(folder.parent).name == EnsembleOracle(folder).name


TO_THE_END = """
import ctypes, json, sys
from spaces.oracles.xgb301 import EnsembleOracle
json.kept = EnsembleOracle(sys.argv[1])
for module in ("json", "xgboost.core"):  # neither is collected, and Python clears the latter first
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(sys.modules[module]))
"""


def test_an_oracle_that_is_kept_to_the_end_of_python_ends_without_a_word(folder):
    """search.py keeps its last oracle; XGBoost cannot free a booster once Python has cleared its module."""
    end = subprocess.run([sys.executable, "-c", TO_THE_END, str(folder)], cwd=ROOT, check=False,
                         capture_output=True, text=True)
    assert (end.returncode, end.stderr) == (0, "")


# What is refused --------------------------------------------------------------------------------------------

def refused(damaged, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        open_oracle(str(damaged[0].parent.parent), NB301)
    assert "\n" not in str(caught.value)


class Command:
    """Its pickle leaves a file behind where it is loaded."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("asked", ["posix.mkdir", "builtins.eval"])
def test_a_pickle_that_would_run_code_is_refused_before_it_does(damaged, tmp_path, asked):
    trace = tmp_path / "trace"
    call = {"posix.mkdir": (os.mkdir, (str(trace),)),
            "builtins.eval": (eval, (f"__import__('os').mkdir({str(trace)!r})",))}
    damaged[1].write_bytes(pickle.dumps(Command(*call[asked])))
    refused(damaged, f"member_1/surrogate_model.model is damaged or no pickled Booster .*asks for {asked}")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"handle": bytearray(b"x")}),
                                     pickle.dumps(bytearray(b"x"))])
def test_what_is_no_booster_is_refused(damaged, content):
    damaged[2].write_bytes(content)
    refused(damaged, "member_2/surrogate_model.model is damaged or no pickled Booster")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_file_is_refused(damaged, share):
    whole = damaged[0].read_bytes()
    damaged[0].write_bytes(whole[:int(len(whole) * share)])
    refused(damaged, "member_0/surrogate_model.model is damaged")


def test_cut_bytes_inside_a_whole_pickle_are_refused(damaged, boosters, monkeypatch):
    whole = boosters[1].__getstate__()["handle"]
    monkeypatch.setattr(xgboost.Booster, "__getstate__", lambda self: {"handle": whole[:len(whole) // 2]})
    damaged[1].write_bytes(pickle.dumps(boosters[1]))
    refused(damaged, "member_1/surrogate_model.model is damaged or no pickled Booster .XGBoostError")


def test_a_model_of_other_features_is_refused(damaged):
    damaged[0].write_bytes(pickle.dumps(fit(vectors(CELLS)[:, :34], 0)))
    refused(damaged, "reads 34 features instead of 56")


def test_configurations_are_checked_first(damaged):
    config = damaged[1].with_name("model_config.json")
    config.write_text('{"model": "xgb_time"}')
    damaged[1].write_bytes(b"")
    refused(damaged, "member_1/model_config.json: this is a model of type 'xgb_time', and only xgb is read")
    config.write_text("{")
    refused(damaged, "member_1/model_config.json: not JSON")
    config.unlink()
    refused(damaged, "member_1/model_config.json: no such file")


def test_a_folder_without_or_with_several_ensembles_is_refused(folder, boosters, tmp_path):
    missing = "no surrogate_model.model below .*python -m spaces.download nasbench301"
    with pytest.raises(InputError, match=missing):
        open_oracle(str(tmp_path), NB301)
    for name in ("gnn_gin_v1.0", "xgb_v1.0"):
        store(tmp_path / name / "0", boosters[0])
    with pytest.raises(InputError, match="several ensembles: give one, .*/gnn_gin_v1.0 or .*/xgb_v1.0$"):
        open_oracle(str(tmp_path), NB301)


def test_it_serves_the_darts_spaces_alone(folder):
    assert open_oracle(str(folder), spaces.get("darts")).name.startswith("NAS-Bench-301")
    with pytest.raises(InputError, match="cannot serve as oracle of nasbench101"):
        open_oracle(str(folder), spaces.get("nasbench101"))


def test_without_xgboost_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "spaces.oracles.xgb301")
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(InputError, match="pip install xgboost-cpu==2.1.4"):
        open_oracle(str(folder), NB301)


# The scripts ------------------------------------------------------------------------------------------------

def generated(path, *flags):
    gen_json_301.main(["--n", "50", "--out", str(path), *flags])
    head, *rows = map(json.loads, Path(path).read_text().splitlines())
    return head["header"], rows


def test_generated_cells_carry_the_mean_and_the_oracles_name(folder, tmp_path):
    header, rows = generated(tmp_path / "cells.jsonl", "--oracle", str(folder))
    assert header["oracle"] == "NAS-Bench-301 xgb_v1.0 (mean of 3 boosters)" and header["noise"] is None
    assert all(set(row) == {"arch", "val_accuracy"} for row in rows)
    val = EnsembleOracle(folder).query_many(darts.numbers_of_keys([row["arch"] for row in rows])).val
    assert [row["val_accuracy"] for row in rows] == val.round(5).tolist()
    table = read_labels(tmp_path / "cells.jsonl", NB301)
    assert table.name.startswith(header["oracle"]) and np.isnan(table.cost).all()


def test_a_search_names_the_oracle(folder, tmp_path):
    search.main(["--search_space", "nasbench301", "--labels", str(folder), "--outdir", str(tmp_path),
                 "--N", "8", "--N0", "4", "--K", "2", "--C", "6", "--epochs", "1", "--width", "8", "--layers",
                 "1", "--heads", "2", "--device", "cpu"])
    best = json.loads(next(tmp_path.rglob("best.json")).read_text())
    assert best["validation"] == EnsembleOracle(folder).query(NB301.parse(best["architecture"])).val
    assert best["oracle"] == "NAS-Bench-301 xgb_v1.0 (mean of 3 boosters)" and best["test"] is None
