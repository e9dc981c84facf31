"""Good files, made by the project's own commands at tiny budgets: one folder per stage."""
from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

import spaces
from cifar.oracle import OracleSettings, evaluate, open_training
from runtime.executors import InProcess
from spaces.declared.space import SHIPPED
from spaces.oracles.trained import Setup
from sweeps.earlier import append_trial
from sweeps.experiment import Trial
from toys.cifar import pictures
from toys.cifar import write as write_pictures

ONE = "--threads 1 --device cpu"
NETWORK = f"--width 8 --layers 1 --heads 2 {ONE}"
PRETRAIN = f"pretrain --tasks mask,flow --batch_size 8 --archs 40 --no-tensorboard {NETWORK}"
FINETUNE = f"finetune --finetune_train_samples 10 --members 1 --epochs 1 --seeds 0 {NETWORK}"
SEARCH = ("search --search_algo random --N 12 --N0 6 --K 3 --C 12 --population 6 --epochs 1 --no-pictures "
          f"--protocol val-test {NETWORK}")
ASKED = f"search --search_algo ae --N 12 --N0 4 --C 12 --population 6 --no-pictures {ONE}"
SIZES = "layers=3,init_channels=2,batch_size=16,auxiliary=false"
TRAINED = ("search --search_algo random --oracle train --search_space darts --N 4 --N0 2 --K 2 --C 4 "
           f"--no-pictures {ONE} --data {{folder}}/images.npz --budget epochs=1,{SIZES}")
TRAIN = ("train --layers 3 --init_channels 2 --batch_size 16 --epochs 2 --no-auxiliary --no-tensorboard "
         f"{ONE} --data {{folder}}/images.npz")
GRID = """name: small
title: small
sizes: 10
labels: {folder}/labels.csv
cells: 20
pretrain: --space nasbench201 --tasks mask --iterations 2 --batch_size 8 --archs 40 --width 8 --layers 1
finetune: --space nasbench201 --protocol gmae --epochs 1 --members 1 --width 8 --layers 1
setting | paper at 10 | pretrain.py      | finetune.py
few     | .2          | --mask_ratio 0.1 |
scratch |             | -                |
"""
SWEEP = """experimentName: small
trialConcurrency: 1
maxTrialNumber: 1
searchSpace:
  lr_encoder: {_type: loguniform, _value: [0.001, 0.1]}
  epochs: {_type: choice, _value: [1, 2]}
tuner:
  name: Random
trainingService:
  platform: local
"""
CELL = ("('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 2), ('skip_connect', 0), ('dil_conv_3x3', 2)")
GENOTYPE = (f"Genotype(normal=[{CELL}], normal_concat=[2, 3, 4, 5], reduce=[{CELL}], "
            "reduce_concat=[2, 3, 4, 5])\n")
Run = Callable[[str], None]  # a command, which must succeed


# Labels -----------------------------------------------------------------------------------------------------

def cells(name: str, n: int) -> list[str]:
    """The keys of n cells of a space."""
    space, rng = spaces.get(name), np.random.default_rng(1)
    return list(dict.fromkeys(map(space.key, space.sample(2 * n, rng))))[:n]


def rows(n: int) -> list[tuple[str, float, float]]:
    """(key, validation, test) of n cells of NAS-Bench-201, percent."""
    val = np.random.default_rng(2).permutation(n) / 4 + 80
    return [(key, v, v - 1.5) for key, v in zip(cells("nasbench201", n), val.tolist())]


def csv_text(n: int, scale: float = 1.0, dataset: str = "") -> str:
    """A label table, its accuracies in percent times `scale`."""
    lines = [f"{key},{scale * v:.5g},{scale * t:.5g}" for key, v, t in rows(n)]
    return "\n".join([f"arch,{dataset}val_accuracy,{dataset}test_accuracy", *lines]) + "\n"


def labels(folder: Path, run: Run) -> None:
    """Label tables of 12 cells, as CSV, JSON lines, gzipped, as fractions."""
    (folder / "labels.csv").write_text(csv_text(12))
    (folder / "fractions.csv").write_text(csv_text(12, 0.01, "cifar100_"))
    (folder / "labels.jsonl").write_text("".join(json.dumps(
        {"arch": key, "val_accuracy": v, "test_accuracy": t, "cost": 60.0}) + "\n" for key, v, t in rows(12)))
    (folder / "labels.csv.gz").write_bytes(gzip.compress(csv_text(12).encode(), mtime=0))


def official(folder: Path, run: Run) -> None:
    """NAS-Bench-101 in its official format, 12 cells."""
    from test_tfrecord import official

    official(folder / "nasbench.tfrecord", cells("nasbench101", 12))


# Networks ---------------------------------------------------------------------------------------------------

def predictors(folder: Path, run: Run) -> None:
    """A predictor and cells to score for each kind of space."""
    for name in ("nasbench101", "nasbench201", "darts"):
        short = name.removeprefix("nasbench")
        keys = cells(name, 20)
        space = spaces.get(name)
        (folder / "labels.csv").write_text("\n".join(["arch,val_accuracy,test_accuracy", *(
            f'"{key}",{80 + i},{79 + i}' for i, key in enumerate(keys))]) + "\n")
        run(f"{FINETUNE} --space {name} --labels {folder}/labels.csv --save {folder}/run --kernel_share 0.5")
        (folder / "run/predictor.pt").rename(folder / f"{short}.pt")
        shutil.rmtree(folder / "run")
        (folder / f"{short}.txt").write_text("".join(space.text(space.parse(key)) + "\n" for key in keys[:5]))
    (folder / "labels.csv").write_text(csv_text(20))


def pretraining(folder: Path, run: Run) -> None:
    """A pre-training that was killed at half of its 8 steps, and one on another space."""
    (folder / "labels.csv").write_text(csv_text(20))
    run(f"{PRETRAIN} --iterations 8 --save {folder}/run")
    config = (folder / "run/config.json").read_bytes()
    shutil.rmtree(folder / "run")
    run(f"{PRETRAIN} --iterations 4 --save {folder}/run")
    (folder / "run/config.json").write_bytes(config)
    run(f"{PRETRAIN} --iterations 4 --space nasbench101 --save {folder}/other")


def finetuning(folder: Path, run: Run) -> None:
    """A fine-tuning killed before the end, and a finished one."""
    (folder / "labels.csv").write_text(csv_text(20))
    for name in ("finished", "killed"):
        run(f"{FINETUNE} --labels {folder}/labels.csv --save {folder}/{name}")
    (folder / "killed/result.json").unlink()
    (folder / "killed/parts").mkdir(exist_ok=True)
    (folder / "killed/predictor.pt").rename(folder / "killed/parts/0.pt")


# Searches ---------------------------------------------------------------------------------------------------

def searching(folder: Path, run: Run) -> None:
    """A finished search, and one that was killed after 8 of 12 queries."""
    (folder / "labels.csv").write_text(csv_text(20))
    for name in ("finished", "killed"):
        run(f"{SEARCH} --labels {folder}/labels.csv --outdir {folder}/{name}")
    cut(folder / "killed", 8)


def cut(run: Path, queries: int) -> None:
    """Lets a search look as if it had been killed."""
    for name in ("best.json", "curve.csv"):
        (run / name).unlink()
    path = run / "history.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:queries]))


def asking(folder: Path, run: Run) -> None:
    """A declared space, and a search in it that was asked twice and told once, and is to be told again."""
    shutil.copy(SHIPPED["nasbench_macro"], folder / "mine.json")
    run(f"{ASKED} --search_space {folder}/mine.json --outdir {folder}/run --ask 3")
    lines = [json.loads(line) for line in (folder / "run/asked.jsonl").read_text().splitlines()]
    keys = [entry["key"] for entry in lines[0]["architectures"]]
    answers = [json.dumps({"key": key, "accuracy": 90 + i}) + "\n" for i, key in enumerate(keys)]
    (folder / "told.jsonl").write_text("".join(answers[:2]))
    (folder / "results.jsonl").write_text(answers[2] + json.dumps({"key": keys[0], "accuracy": 90}) + "\n")
    run(f"{ASKED} --outdir {folder}/run --tell {folder}/told.jsonl --ask 2")


def searches(folder: Path, run: Run) -> None:
    """Two strategies with a seed each."""
    (folder / "labels.csv").write_text(csv_text(20))
    run(f"{SEARCH} --labels {folder}/labels.csv --outdir {folder}/runs --search_algo random,re --seeds 0")


def trained(folder: Path, run: Run) -> None:
    """A search by training that was killed in the last of its trainings."""
    write_pictures(folder / "images.npz", pictures(80, 3), pictures(40, 4))
    run(TRAINED.format(folder=folder) + f" --outdir {folder}/run")
    cut(folder / "run", 2)
    path = folder / "run/trainings.jsonl"
    *lines, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines))
    space = spaces.get("darts")
    wanted = OracleSettings("train", str(folder / "images.npz"), f"epochs=1,{SIZES}")
    setup = Setup(space, 0, folder / "run", InProcess())
    oracle = open_training(wanted, {"device": "cpu", "threads": 1}, setup)
    task = oracle.task(json.loads(last)["key"], space.parse(json.loads(last)["architecture"]))
    shutil.rmtree(task.folder)
    with mock.patch.object(Path, "unlink"):  # the checkpoint is removed at the end
        evaluate(*task)
    (Path(task.folder) / "result.json").unlink()


def training(folder: Path, run: Run) -> None:
    """A finished training of a cell, one that was killed before its end, and files that name a cell."""
    write_pictures(folder / "images.npz", pictures(80, 3), pictures(40, 4))
    (folder / "genotype.txt").write_text(GENOTYPE)
    for name in ("finished", "killed"):
        run(f"{TRAIN.format(folder=folder)} --save {folder}/{name}")
    (folder / "killed/0/result.json").unlink()
    (folder / "killed/result.json").unlink()
    (folder / "best.json").write_text(json.dumps({
        "architecture": GENOTYPE.strip(), "key": "k", "validation": 90.0, "test": None, "query": 1, "N": 1,
        "space": "darts", "algo": "r", "dataset": "cifar10", "protocol": "val-test",
        "chosen_by": "validation", "oracle": "o", "optimum": None, "pretrained": None, "seed": 0}))


# The rest ---------------------------------------------------------------------------------------------------

def settings(folder: Path, run: Run) -> None:
    """Files of settings."""
    (folder / "params.json").write_text(json.dumps(
        {"lr": 0.001, "iterations": 2, "tasks": "mask", "cell_marks": True}))
    (folder / "budget.json").write_text(json.dumps(
        {"epochs": 1, "layers": 3, "init_channels": 2, "batch_size": 16, "auxiliary": False}))
    write_pictures(folder / "images.npz", pictures(80, 3), pictures(40, 4))


def generated(folder: Path, run: Run) -> None:
    """Cells of NAS-Bench-301, whole and cut."""
    run(f"gen_json_301 --n 30 --out {folder}/cells.jsonl")
    lines = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "part.jsonl").write_bytes(b"".join(lines[:20]))


def surrogates(folder: Path, run: Run) -> None:
    """A network in YAHPO's format and an ensemble in that of NAS-Bench-301, which know nothing."""
    from test_xgb301 import CELLS, fit, store

    from spaces.nasbench301 import CATEGORIES
    from spaces.oracles.xgb301 import vectors
    from spaces.oracles.yahpo import INACTIVE_NAME, PREFIX

    (folder / "yahpo.onnx").write_bytes(onnx(len(CATEGORIES)))
    (folder / "yahpo_encoding.json").write_text(json.dumps({
        PREFIX + name: {option: code for code, option in enumerate([*options, INACTIVE_NAME])}
        for name, options in CATEGORIES.items()}))
    store(folder / "xgb_v1.0" / "0", fit(vectors(CELLS[:20]), 0))


def onnx(columns: int) -> bytes:
    """A network (x_cat int32[N, columns], x_cont float[N, 1]) -> float[N, 2], in ONNX's protocol buffers."""
    from test_tfrecord import nested, varint

    def number(field: int, value: int) -> bytes:
        return varint(field << 3) + varint(value)

    def value(name: str, kind: int, width: int) -> bytes:
        shape = nested(1, nested(2, b"N")) + nested(1, number(1, width))
        return nested(1, name.encode()) + nested(2, nested(1, number(1, kind) + nested(2, shape)))

    weight = number(1, 1) + number(1, 2) + number(2, 1) + nested(8, b"w")
    weight += nested(9, struct.pack("<2f", 0.9, 40.0))
    node = nested(1, b"x_cont") + nested(1, b"w") + nested(2, b"y") + nested(4, b"MatMul")
    graph = (nested(1, node) + nested(2, b"g") + nested(5, weight) + nested(11, value("x_cat", 6, columns))
             + nested(11, value("x_cont", 1, 1)) + nested(12, value("y", 1, 2)))
    return number(1, 8) + nested(7, graph) + nested(8, number(2, 13))


def records(folder: Path, run: Run) -> None:
    """A record of a comparison of predictors."""
    (folder / "labels.csv").write_text(csv_text(20))
    run(f"benchmarks.predictor --methods xgboost --n_labels 10 --seeds 0 --labels {folder}/labels.csv "
        f"--out {folder}/record.json --work {folder}/work {ONE}")


def quickstarts(folder: Path, run: Run) -> None:
    """All that the last step of quickstart.sh reads."""
    (folder / "labels.csv").write_text(csv_text(20))
    run(f"{PRETRAIN} --iterations 2 --save {folder}/pretrain")
    for name in ("scratch", "finetune", "shipped"):
        run(f"{FINETUNE} --labels {folder}/labels.csv --save {folder}/run/{name}")
    run(f"{SEARCH} --labels {folder}/labels.csv --outdir {folder}/search")


def ablations(folder: Path, run: Run) -> None:
    """A finished ablation, and its text."""
    (folder / "labels.csv").write_text(csv_text(20))
    (folder / "small.grid").write_text(GRID.format(folder=folder))
    run(f"ablations.run --grids {folder}/small.grid --out {folder}/runs --figs {folder}/figs --results "
        f"{folder}/results --seeds 0 {ONE}")


def sweeps(folder: Path, run: Run) -> None:
    """The configuration of a sweep, with its search space in it or beside it, and a finished sweep."""
    (folder / "labels.csv").write_text(csv_text(20))
    (folder / "sweep.yml").write_text(SWEEP)
    (folder / "space.json").write_text(json.dumps({"epochs": {"_type": "choice", "_value": [1, 2]},
                                                   "lr_encoder": {"_type": "uniform", "_value": [0.1, 0.2]}}))
    run(f"nni4nasbench101 --config {folder}/sweep.yml --space nasbench201 --labels {folder}/labels.csv "
        f"--outdir {folder}/run --trials 1")
    trial = Trial(0, "abc", "SUCCEEDED", 0.5, 1.0, {"lr_encoder": 0.01, "epochs": 1}, folder)
    append_trial(folder / "run", trial)
    head, space = SWEEP.split("searchSpace:\n")
    _, _, tuner = space.partition("tuner:")
    (folder / "beside.yml").write_text(f"{head}searchSpaceFile: space.json\ntuner:{tuner}")


STAGES = {stage.__name__: stage for stage in (
    labels, official, predictors, pretraining, finetuning, searching, asking, searches, trained, training,
    settings, generated, surrogates, records, quickstarts, ablations, sweeps)}
