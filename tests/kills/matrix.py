"""The kill matrix: which runs, when they are killed, and what must be true of them in the end.

A case starts a run, kills it, starts it again with --resume (or by the same command, if that resumes),
perhaps kills it again, and so on to its end. Then its files must be those of a run that was never killed.
Everything follows from the name of the run and the number of the case. FULL=1 makes many cases per run.
"""
from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import spaces
from kills.runs import End, ForkServer, Fresh, Kill, Logs, finish
from runtime.verify import compare_folders
from strategies import STRATEGIES
from toys.cifar import pictures
from toys.cifar import write as write_pictures

FULL = os.environ.get("FULL") == "1"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MODULES = ["search", "pretrain", "finetune", "train", "gen_json_301", "benchmarks.baselines",
           "benchmarks.predictor_record", "figs.predictors", "figs.ablation", "ablations.jobs",
           "ablations.report", "ablations.labels", "xgboost"]  # not those that are run by -m

NETWORK = "--width 8 --layers 1 --heads 2 --threads 1 --device cpu"
SEARCH = ("search.py --outdir {out}/run --labels {labels} --N 20 --N0 6 --K 4 --C 12 --population 6 "
          "--epochs 2 " + NETWORK)


class Script(NamedTuple):
    """A command, with {out} for its folder and {labels}, {images}, {grid} for what it reads."""

    command: str
    resume: str = "--resume"  # the flag of all starts but the first, if any
    cases: int = 7  # in a FULL run; otherwise one, or none of the slowest


SEARCHES = {f"search-{algo}": Script(f"{SEARCH} --search_algo {algo} --kernel_share 0.5")
            for algo in STRATEGIES} | {
    "search-jobs": Script(f"{SEARCH} --search_algo random,re --seeds 0,1 --jobs 2", cases=5),
    "search-trains": Script(
        "search.py --outdir {out}/run --oracle train --search_space darts --data {images} --N 6 --N0 3 --K 3 "
        "--C 4 --search_algo random --budget epochs=1,layers=3,init_channels=2,batch_size=16,auxiliary=false "
        "--threads 1 --device cpu"),
}
TRAININGS = {
    "pretrain": Script(
        "pretrain.py --save {out}/run --tasks mask,edges,contrast --iterations 40 --batch_size 16 --archs 50 "
        "--export {out}/run/encoder.pt --no-tensorboard " + NETWORK, cases=14),
    "finetune": Script(
        "finetune.py --save {out}/run --labels {labels} --finetune_train_samples 20 --seeds 0-3 --members 1 "
        "--epochs 10 " + NETWORK, cases=14),
    "train": Script(
        "train.py --save {out}/run --data {images} --layers 3 --init_channels 2 --batch_size 16 --epochs 3 "
        "--no-auxiliary --seeds 0,1 --checkpoint_minutes 0 --no-tensorboard --threads 1 --device cpu",
        cases=14),
}
OTHERS = {
    "gen_json_301": Script("gen_json_301.py --out {out}/cells.jsonl --n 30000", resume="", cases=10),
    "benchmarks.predictor": Script(
        "-m benchmarks.predictor --out {out}/record.json --work {out}/work --labels {labels} --n_labels "
        "10,20 --methods xgboost,path_mlp --seeds 0,1 --together 1 --threads 1 --device cpu", resume="",
        cases=10),
    "ablations": Script(
        "-m ablations.run --grids {grid} --out {out}/runs --figs {out}/figs --results {out}/results --seeds "
        "0-1 --threads 1 --device cpu", resume="", cases=10),
}
SCRIPTS = SEARCHES | TRAININGS | OTHERS
GRID = """name: small
title: small
sizes: 20
labels: {labels}
cells: 40
pretrain: --space nasbench201 --tasks mask --iterations 20 --batch_size 8 --archs 50 --width 8 --layers 1
finetune: --space nasbench201 --protocol gmae --finetune_fixed_encoder --epochs 1 --members 1 --width 8
setting | paper at 20 | pretrain.py      | finetune.py
few     | .2          | --mask_ratio 0.1 |
many    | .1          | --mask_ratio 0.8 |
scratch |             | -                |
"""


def cases(scripts: dict[str, Script]) -> Callable:
    """Parametrises a test with (name, number) of the cases of these scripts."""
    found = [(name, number) for name, script in scripts.items()
             for number in range(script.cases if FULL else script.cases > 5)]
    return pytest.mark.parametrize("name, number", found, ids=[f"{name}-{number}" for name, number in found])


def write_inputs(folder: Path) -> dict[str, Path]:
    """Writes what the scripts read; returns the paths by the names in their commands."""
    space, rng = spaces.get("nasbench201"), np.random.default_rng(1)
    keys = list(dict.fromkeys(map(space.key, space.sample(70, rng))))[:60]
    val = rng.permutation(60) / 2 + 50
    lines = [f"{key},{v},{v - 1}" for key, v in zip(keys, val)]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(["arch,val_accuracy,test_accuracy", *lines]) + "\n")
    (folder / "small.grid").write_text(GRID.format(labels=labels))
    images = write_pictures(folder / "images.npz", pictures(80, 3), pictures(40, 4))
    return {"labels": labels, "grid": folder / "small.grid", "images": images}


@dataclass
class Matrix:
    """The runs of one test session: below `folder`, one folder per script."""

    server: ForkServer
    folder: Path
    inputs: dict[str, Path]
    unbroken: dict[str, End] = field(default_factory=dict)

    def run(self, name: str, resume: bool, kill: Kill | None = None, fresh: bool = False) -> End:
        """Starts the script in FOLDER/NAME/out, in a fork or a fresh interpreter, and waits for its end."""
        out, logs, script = self.folder / name / "out", Logs(self.folder / name / "logs"), SCRIPTS[name]
        words = [word.format(out=out, **self.inputs) for word in script.command.split()]
        words += [script.resume] if resume and script.resume else []
        process = Fresh(words, logs) if fresh else self.server.start(words, out, logs, kill)
        return finish(process, out, logs, kill)

    def whole(self, name: str) -> End:
        """The run that nobody kills, in FOLDER/NAME/whole; made once."""
        if name not in self.unbroken:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            self.unbroken[name] = end = self.run(name, resume=False)
            assert not faults(end, None), faults(end, None)
            (self.folder / name / "out").rename(self.folder / name / "whole")  # made at the same path as all
        return self.unbroken[name]

    def case(self, name: str, number: int) -> None:
        """Kills a run as planned, and compares it with the whole one."""
        self.compare(name, plan(name, number, self.whole(name)))

    def compare(self, name: str, kills: list[Kill], fresh: bool = False) -> None:
        """Kills, resumes and compares; fails with the moments of the kills and all that is wrong."""
        self.whole(name)
        out = self.folder / name / "out"
        shutil.rmtree(out, ignore_errors=True)
        wrong, done = [], []
        for kill in [*kills, None]:
            end = self.run(name, bool(done), kill, fresh)
            done.append(f"{kill or 'to the end'}: code {end.code} in {end.seconds:.2f} s")
            wrong += faults(end, kill)
            if end.code == 0 or kill is None:
                break
        wrong += [f"left: {path}" for path in out.rglob(".*") if path.name.endswith((".tmp", "holder"))]
        found = compare_folders(out.with_name("whole"), out)
        wrong += [f"{file}: {text}" for file, text in found.items() if text]
        wrong += [f"{path.relative_to(out)}: other bytes" for path in out.rglob("history.jsonl")
                  if name != "search-trains" and path.read_bytes() != whole_of(path, out).read_bytes()]
        report(run=name, starts=done, wrong=wrong)
        assert not wrong, "\n".join([f"{name}: {'; '.join(done)}", *wrong])


def report(**line) -> None:
    """Adds a line to the file $KILLS_REPORT, if that is set."""
    if path := os.environ.get("KILLS_REPORT"):
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


def whole_of(path: Path, out: Path) -> Path:
    """The same file of the run that nobody killed."""
    return out.with_name("whole") / path.relative_to(out)


def plan(name: str, number: int, whole: End) -> list[Kill]:
    """One to three kills that follow from name and number: at changes of files, or at moments, of a run."""
    rng, kills = random.Random(f"{name} {number}"), []
    for later in range(rng.choice((1, 1, 2, 3))):
        kind, share = rng.choice(SIGNALS), rng.uniform(0, 0.95) / (1 + later)  # a resumed run is shorter
        if rng.random() < 0.6:
            kills.append(Kill(kind, change=int(share * len(whole.changes))))
        else:
            kills.append(Kill(kind, after=share * whole.seconds))
    return kills


def faults(end: End, kill: Kill | None) -> list[str]:
    """What is wrong with the end of a run."""
    codes = {0} if kill is None else {0, -kill.signal} | ({130} if kill.signal == signal.SIGINT else set())
    found = [] if end.code in codes else [f"exit code {end.code} after {kill}"]
    importing = end.code == -signal.SIGINT  # Ctrl-C before main_guard is Python's to tell
    if "Traceback" in end.stderr and not importing or found:
        found.append(f"after {kill}, stderr: {end.stderr[-1500:]}")
    return found + [f"after {kill} still running: {process}" for process in end.left]
