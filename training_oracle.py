"""The oracle of the real task: a query trains the cell on CIFAR-10 (train.evaluate) and validates it.

    with open_executor(settings) as executor:
        oracle = TrainingOracle(space, {"data": "cifar10.npz", "epochs": 10}, seed=0, folder=outdir, executor=executor)
        oracle.prepare(archs)        # trains all that have not been trained, side by side where the executor can
        oracle.query(archs[0])       # Record(val, test=None, cost=seconds of training)

folder gets trainings.jsonl, one line a finished training (append-only), and trainings/<key's digest>/ with each training's
log and checkpoint. What has a line is never trained again, and a training that was killed goes on where it stopped. One that
diverged is finished, too: its line says so under `failed`, and its accuracy is chance level, so the search goes on and turns
elsewhere.
"""
from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import images
import runtime
import train
from executors import Executor, InProcess
from runtime import setting
from spaces import InputError, Space
from spaces.oracles import Record
from training import FREE_TO_CHANGE, Diverged, device_name

SIZES = ("epochs", "layers", "init_channels", "subset")  # of a budget: said in any case
CHANCE = 10.0  # percent, of ten equally frequent classes
NOT_SAID = ("data", *FREE_TO_CHANGE)  # of a budget: does not decide what a label means, or is said apart


@dataclass
class Settings:
    """The flags of a search whose queries may be trainings."""

    oracle: str = setting("labels", "what answers a query: labels = --labels; train = training the cell on CIFAR-10 (space "
                                    "darts); one that diverges counts as 10 %, chance level", ("labels", "train"))
    data: str = setting("~/datasets", "oracle train: CIFAR-10, a folder with the official archive, or an .npz")
    budget: str = setting("", "oracle train: how a cell is trained, local:FILE or like epochs=10,init_channels=8,layers=5,"
                              "subset=5000 (flags of train.py); empty = the paper's 50 epochs, 32 channels, 8 cells")


class Task(NamedTuple):
    """The arguments of train.evaluate."""

    architecture: str
    budget: dict
    seed: int
    folder: str


def run(task: Task) -> dict:
    """What train.evaluate returns; for a training that diverges chance level, and why under "failed"."""
    started = time.perf_counter()
    try:
        return train.evaluate(*task)
    except Diverged as error:
        (Path(task.folder) / "last.pt").unlink(missing_ok=True)
        recipe = train.parse_budget(task.budget)
        device = device_name(runtime.choose_device(recipe.device, recipe.threads))
        return {"validation": CHANCE, "seconds": time.perf_counter() - started, "device": device, "failed": str(error)}


class TrainingOracle:
    """Answers by training. Its name says how, so that a search with another budget is another search."""

    def __init__(self, space: Space, budget: dict, seed: int, folder: Path, executor: Executor = InProcess()):
        """budget: fields of train.Budget that differ from its defaults; seed: of the halves of the images, weights, order.

        InputError for a space without DARTS cells, a wrong budget, or a folder with trainings of another kind.
        """
        if space.ops != train.SPACE.ops:
            raise InputError(f"--oracle train: {space.name} has no cells that train.py can train; --search_space darts has")
        self.name = name_of(train.parse_budget(budget))
        self.space, self.budget, self.seed, self.executor = space, budget, seed, executor
        self.folder, self.lines, self.records = folder, folder / "trainings.jsonl", {}
        self.failed = 0  # trainings that diverged
        for number, line in enumerate(runtime.whole_lines(self.lines), 1):
            try:
                fields = json.loads(line)
                if (fields["oracle"], fields["seed"]) != (self.name, seed):
                    raise ValueError
                self.learn(fields)
            except (ValueError, TypeError, KeyError):
                raise InputError(f"{self.lines}:{number}: no training with this budget and seed: "
                                 "give another folder") from None

    def covers(self, key: str) -> bool:
        return True  # any cell can be trained

    def query(self, arch: Any) -> Record:
        self.prepare([arch])
        return self.records[self.space.key(arch)]

    def prepare(self, archs: Sequence[Any], on_answer: Callable[[int], None] = lambda answered: None) -> None:
        """Train those that have not been trained, each recorded as soon as it is finished.

        on_answer(how many of archs have been trained) is called after each training.
        """
        missing = {key: arch for key, arch in ((self.space.key(arch), arch) for arch in archs) if key not in self.records}
        tasks = [self.task(key, arch) for key, arch in missing.items()]
        for answered, (task, result) in enumerate(self.executor.map(run, tasks), len(archs) - len(missing) + 1):
            self.record(self.space.key(self.space.parse(task.architecture)), task, result)
            on_answer(answered)

    def task(self, key: str, arch: Any) -> Task:
        place = self.folder.absolute() / "trainings" / hashlib.sha256(key.encode()).hexdigest()[:16]
        return Task(self.space.text(arch), self.budget, self.seed, str(place))

    def record(self, key: str, task: Task, result: dict) -> None:
        line = {"key": key, "architecture": task.architecture, "oracle": self.name, "seed": self.seed, **result}
        with open(self.lines, "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.learn(line)

    def learn(self, line: dict) -> None:
        """A line of trainings.jsonl is true."""
        self.records[line["key"]] = Record(line["validation"], None, line["seconds"])
        self.failed += "failed" in line


def open_training(settings, space: Space, executor: Executor) -> TrainingOracle:
    """The oracle of search.py's settings: trainings land in its outdir, and take its seed, device and threads."""
    if settings.protocol != "val-test":
        raise InputError(f"--protocol {settings.protocol}: --oracle train never opens the test images; leave it out")
    images.read(settings.data, "train")  # a fault is found before the search starts, and an archive is unpacked, once
    budget = parse_budget(settings.budget) | {
        "data": str(Path(settings.data).expanduser().absolute()), "device": settings.device,
        "threads": settings.threads or (settings.cpus_per_run if settings.apart else 0)}
    return TrainingOracle(space, budget, settings.seed, Path(settings.outdir).expanduser(), executor)


def name_of(budget: train.Budget) -> str:
    """The size of the training, and what else differs from the usual one."""
    usual = train.Budget()
    said = [f"{name} {value}" for name, value in vars(budget).items()
            if name in SIZES or name not in NOT_SAID and value != getattr(usual, name)]
    return f"trained on CIFAR-10 ({Path(budget.data).name}): {', '.join(said)}"


def parse_budget(text: str) -> dict:
    """"epochs=10,init_channels=8", or local:FILE with one JSON object -> {"epochs": 10, "init_channels": 8}."""
    if text.startswith("local:"):
        values, _ = runtime.stored_settings(text)
    else:
        values = dict(pair.partition("=")[::2] for pair in filter(None, text.split(",")))
        switch = {"true": True, "false": False}
        values = {name.strip(): switch.get(value.lower(), value) for name, value in values.items()}
    recipe = train.parse_budget(values)
    return {name: getattr(recipe, name) for name in values}
