"""The table of kinds of files: where a good one is, what form it has, and which command reads it.

A new kind is one line in TABLES or RUNS (and a stage in stages.py, if none makes such a file). In a command,
{file} is the path of the file that is broken, {folder} that of its stage.
"""
from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults.stages import ASKED, FINETUNE, ONE, PRETRAIN, SEARCH, TRAIN, TRAINED, rows

Check = Callable[[Path], str]  # what is wrong with the files of a folder after a success; "" if nothing


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    place: its stage / its path there, a pattern if a digest is in it. form: a key of trees.FORMS, or text,
    literal, yaml, binary. people: whether people write such files, in editors of theirs. optional: whether
    the command can do without. spared: faults that leave a file for which the command takes long.
    """

    name: str
    place: str
    form: str
    command: str
    check: Check = lambda folder: ""
    people: bool = False
    optional: bool = False
    spared: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0, 2)  # exit codes that are right

    @property
    def stage(self) -> str:
        return self.place.partition("/")[0]

    @property
    def file(self) -> str:
        return self.place.partition("/")[2]


# Checks -----------------------------------------------------------------------------------------------------

def numbers(folder: Path) -> str:
    """The accuracies that a search read of a table with a broken row are true, but for that row's."""
    true = {key: (val, test) for key, val, test in rows(12)}
    read = [json.loads(line) for line in (folder / "out/history.jsonl").read_text().splitlines()]
    wrong = [line for line in read if line["key"] not in true or not all(
        given is None or abs(given - value) < 1e-3
        for given, value in zip((line["validation"], line["test"]), true[line["key"]]))]
    return f"{len(wrong)} numbers are wrong, like {wrong[0]}" if len(wrong) > 1 else ""


def finite(folder: Path) -> str:
    """The scores of cells are numbers."""
    with open(folder / "scores.csv", newline="") as file:
        scores = [float(row["score"]) for row in csv.DictReader(file)]
    return "" if scores and np.isfinite(scores).all() else f"the scores are {scores}"


def sound(name: str) -> Check:
    """A file of results holds no number that is none."""
    def check(folder: Path) -> str:
        text = (folder / name).read_text()
        return f"{name} holds {text[:300]}" if "NaN" in text or "Infinity" in text else ""

    return check


# Commands ---------------------------------------------------------------------------------------------------

LABELS = SEARCH + " --labels {file} --outdir {folder}/out"
PROBE = PRETRAIN + " --iterations 1 --finetune_train_samples 10 --labels {file} --save {folder}/out"
SCORE = f"finetune {ONE} --out {{folder}}/scores.csv --score "
PARAMS = PRETRAIN + " --iterations 2 --save {folder}/out --param local:{file}"
BUDGET = ("search --search_algo random --oracle train --search_space darts --N 2 --N0 2 --K 1 --C 2 "
          f"--no-pictures {ONE} --data {{folder}}/images.npz --outdir {{folder}}/out --budget local:{{file}}")
ARCH = TRAIN + " --epochs 1 --save {folder}/out --arch {file}"
IMAGES = TRAIN + " --epochs 1 --save {folder}/out --arch DARTS_V2"
CELLS = PRETRAIN + " --iterations 2 --space nasbench301 --save {folder}/out --data {file}"
PART = "gen_json_301 --n 30 --out {file}"
YAHPO = "gen_json_301 --n 5 --out {folder}/new.jsonl --oracle {folder}/yahpo.onnx"
ENSEMBLE = "gen_json_301 --n 5 --out {folder}/new.jsonl --oracle {folder}/xgb_v1.0"
START = FINETUNE + " --labels {folder}/labels.csv --save {folder}/out --model_state_dict {file}"
SEARCH_START = (SEARCH + " --search_algo r --labels {folder}/labels.csv --outdir {folder}/out "
                "--encoder_model_state_dict {file}")
PRETRAIN_ON = PRETRAIN + " --iterations 8 --resume --save {folder}/run"
FINETUNE_ON = FINETUNE + " --labels {folder}/labels.csv --resume --save {folder}/"
SEARCH_ON = SEARCH + " --labels {folder}/labels.csv --resume --outdir {folder}/"
TRAINED_ON = TRAINED + " --resume --outdir {folder}/run"
TRAIN_ON = TRAIN + " --resume --save {folder}/"
ASKED_ON = f"search --no-pictures {ONE} --outdir {{folder}}/run"
COMPARE = "benchmarks.search --runs {folder}/runs --within 5 --out {folder}/out.json"
RECORD = (f"benchmarks.predictor --methods xgboost --n_labels 10 --seeds 0,1 {ONE} "
          "--labels {folder}/labels.csv --out {file} --work {folder}/work")
QUICK = ("benchmarks.quickstart --pretrain {folder}/pretrain --run {folder}/run --search {folder}/search "
         "--labels {folder}/labels.csv")
ABLATION = (f"ablations.run --grids {{folder}}/small.grid --seeds 0 {ONE} --out {{folder}}/runs "
            "--figs {folder}/figs --results {folder}/results")
SWEEP = "nni4nasbench101 --space nasbench201 --trials 1 --labels {folder}/labels.csv"
SWEEP_ON = SWEEP + " --resume --outdir {folder}/run --config {folder}/sweep.yml"


# The table --------------------------------------------------------------------------------------------------

TABLES = (
    Kind("labels-csv", "labels/labels.csv", "csv", LABELS, numbers, people=True),
    Kind("labels-fractions", "labels/fractions.csv", "csv", LABELS + " --dataset cifar100", numbers,
         people=True),
    Kind("labels-jsonl", "labels/labels.jsonl", "jsonl", LABELS, numbers, people=True),
    Kind("labels-gz", "labels/labels.csv.gz", "binary", LABELS, numbers),
    Kind("labels-tfrecord", "official/nasbench.tfrecord", "binary", LABELS + " --search_space nasbench101"),
    Kind("labels-probe", "pretraining/labels.csv", "csv", PROBE, people=True),
    Kind("cells-101", "predictors/101.txt", "text", SCORE + "{file} --predictor {folder}/101.pt", finite,
         people=True),
    Kind("cells-201", "predictors/201.txt", "text", SCORE + "{file} --predictor {folder}/201.pt", finite,
         people=True),
    Kind("cells-darts", "predictors/darts.txt", "text", SCORE + "{file} --predictor {folder}/darts.pt",
         finite,
         people=True),
    Kind("params", "settings/params.json", "json", PARAMS, people=True),
    Kind("budget", "settings/budget.json", "json", BUDGET, people=True, spared=("small", "missing-key")),
    Kind("genotype", "training/genotype.txt", "literal", ARCH, people=True),
    Kind("best-arch", "training/best.json", "json", ARCH),
    Kind("images", "training/images.npz", "npz", IMAGES),
    Kind("grid", "ablations/small.grid", "text", ABLATION, people=True),
    Kind("sweep-yaml", "sweeps/sweep.yml", "yaml", SWEEP + " --outdir {folder}/out --config {file}",
         people=True),
    Kind("sweep-space", "sweeps/space.json", "json",
         SWEEP + " --outdir {folder}/out --config {folder}/beside.yml",
         people=True),
    Kind("cells-301", "generated/cells.jsonl", "jsonl", CELLS, people=True),
    Kind("cells-301-part", "generated/part.jsonl", "jsonl", PART, optional=True),
    Kind("yahpo", "surrogates/yahpo.onnx", "binary", YAHPO),
    Kind("yahpo-codes", "surrogates/yahpo_encoding.json", "json", YAHPO),
    Kind("ensemble", "surrogates/xgb_v1.0/0/surrogate_model.model", "binary", ENSEMBLE),
    Kind("ensemble-config", "surrogates/xgb_v1.0/0/model_config.json", "json", ENSEMBLE),
    Kind("quickstart", "quickstarts/run/finetune/result.json", "json", QUICK),
    Kind("quickstart-best", "quickstarts/search/best.json", "json", QUICK),
    Kind("record", "records/record.json", "json", RECORD, optional=True),
    Kind("record-figure", "records/record.json", "json", "figs.predictors --records {file}"),
)
RUNS = (
    Kind("predictor", "predictors/201.pt", "checkpoint", SCORE + "{folder}/201.txt --predictor {file}",
         finite),
    Kind("predictor-darts", "predictors/darts.pt", "checkpoint",
         SCORE + "{folder}/darts.txt --predictor {file}",
         finite),
    Kind("predictor-start", "predictors/201.pt", "checkpoint", START, sound("out/result.json")),
    Kind("encoder", "pretraining/run/last.pt", "checkpoint", START, sound("out/result.json")),
    Kind("encoder-search", "pretraining/run/last.pt", "checkpoint", SEARCH_START, sound("out/best.json")),
    Kind("pretrain-last", "pretraining/run/last.pt", "checkpoint", PRETRAIN_ON, sound("run/result.json"),
         optional=True),
    Kind("pretrain-log", "pretraining/run/log.jsonl", "jsonl", PRETRAIN_ON, optional=True),
    Kind("finetune-config", "finetuning/killed/config.json", "json", FINETUNE_ON + "killed", optional=True),
    Kind("finetune-part", "finetuning/killed/parts/0.pt", "checkpoint", FINETUNE_ON + "killed",
         sound("killed/result.json"), optional=True),
    Kind("finetune-result", "finetuning/finished/result.json", "json", FINETUNE_ON + "finished",
         optional=True),
    Kind("search-config", "searching/killed/config.json", "json", SEARCH_ON + "killed"),
    Kind("search-history", "searching/killed/history.jsonl", "jsonl", SEARCH_ON + "killed",
         sound("killed/best.json"), optional=True),
    Kind("search-log", "searching/killed/log.jsonl", "jsonl", SEARCH_ON + "killed", sound("killed/best.json"),
         optional=True),
    Kind("search-best", "searching/finished/best.json", "json", SEARCH_ON + "finished", optional=True),
    Kind("declaration", "asking/mine.json", "json",
         ASKED + " --search_space {file} --outdir {folder}/out --ask 3", people=True),
    Kind("answers", "asking/results.jsonl", "jsonl", ASKED_ON + " --tell {file}", sound("run/best.json"),
         people=True),
    Kind("asked-lines", "asking/run/asked.jsonl", "jsonl",
         ASKED_ON + " --tell {folder}/results.jsonl --ask 2", optional=True),
    Kind("asked-history", "asking/run/history.jsonl", "jsonl", ASKED_ON + " --ask 2", optional=True),
    Kind("asked-config", "asking/run/config.json", "json", ASKED_ON + " --ask 2"),
    Kind("searches-best", "searches/runs/random/0/best.json", "json", COMPARE, sound("out.json"),
         optional=True),
    Kind("searches-curve", "searches/runs/random/0/curve.csv", "csv", COMPARE),
    Kind("trained-lines", "trained/run/trainings.jsonl", "jsonl", TRAINED_ON, sound("run/best.json"),
         optional=True),
    Kind("trained-last", "trained/run/trainings/*/last.pt", "checkpoint", TRAINED_ON, optional=True),
    Kind("train-config", "training/killed/config.json", "json", TRAIN_ON + "killed", optional=True),
    Kind("train-last", "training/killed/0/last.pt", "checkpoint", TRAIN_ON + "killed",
         sound("killed/result.json"),
         optional=True),
    Kind("train-log", "training/killed/0/log.jsonl", "jsonl", TRAIN_ON + "killed", optional=True),
    Kind("train-result", "training/finished/0/result.json", "json", TRAIN_ON + "finished",
         sound("finished/result.json"), optional=True),
    Kind("ablation-result", "ablations/runs/finetune/*/result.json", "json", ABLATION, optional=True),
    Kind("ablation-last", "ablations/runs/pretrain/*/last.pt", "checkpoint", ABLATION, optional=True),
    Kind("sweep-config", "sweeps/run/config.json", "json", SWEEP_ON, optional=True),
    Kind("sweep-trials", "sweeps/run/trials.jsonl", "jsonl", SWEEP_ON, optional=True, codes=(0, 1, 2)),
)
KINDS = TABLES + RUNS
