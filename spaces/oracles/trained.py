"""The base of oracles whose answers take a training each: bookkeeping on the disk, trainings side by side.

The folder holds trainings.jsonl, one line per finished training (append-only), and trainings/<key's digest>/
for each training alone. An architecture with a line is never trained again; one that failed has a line, too.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from runtime.errors import InputError
from runtime.executors import Executor
from runtime.files import append_line, whole_lines
from runtime.guarded import checked_json
from spaces.base import Record, Space


class TrainingLine(msgspec.Struct):
    """A line of trainings.jsonl: a finished training, by `TrainedOracle.record`."""

    key: str
    oracle: str
    seed: int
    validation: float | None  # None: it failed
    seconds: float
    digest: str = ""
    test: float | None = None
    cost: float | None = None  # seconds, if not those of the clock
    failed: str | None = None  # the reason
    stderr: str = ""  # what a program that failed said last


class Task(Protocol):
    """The arguments of one training, which go to another process."""

    architecture: str
    folder: str


class Setup(NamedTuple):
    """What every training of an oracle has in common."""

    space: Space
    seed: int
    folder: Path
    executor: Executor


class TrainedOracle:
    """Answers a query by training. A subclass has `task`, and `run`, which another process can import."""

    line: type[TrainingLine] = TrainingLine
    what = "recipe"  # of a training, for messages

    def __init__(self, name: str, digest: str, setup: Setup):
        """Reads the finished trainings of the folder, if any.

        name, digest: they state the recipe, so a search with another one is another search. Raises InputError
        for a folder whose trainings have another.
        """
        self.name, self.digest = name, digest
        self.space, self.seed, self.folder, self.executor = setup
        self.lines, self.records = self.folder / "trainings.jsonl", {}
        self.failed = 0
        for number, content in enumerate(whole_lines(self.lines), 1):
            place = f"{self.lines}:{number}: no training with this {self.what} and seed"
            line = checked_json(content, self.line, place, "give another folder")
            if not self.same(line):
                raise InputError(f"{place}: give another folder")
            self.remember(line)

    def same(self, line: TrainingLine) -> bool:
        return line.digest == self.digest

    def covers(self, key: str) -> bool:
        return True  # anything can be trained

    def query(self, arch: Any) -> Record:
        self.prepare([arch])
        return self.records[self.space.key(arch)]

    def prepare(self, archs: Sequence[Any], on_answer: Callable[[int], None] = lambda answered: None) -> None:
        """Trains the archs that have not been trained, and records each as soon as it is finished.

        on_answer(number of archs trained so far) is called after each training.
        """
        missing = {key: arch for key, arch in ((self.space.key(arch), arch) for arch in archs)
                   if key not in self.records}
        tasks = [self.task(key, arch) for key, arch in missing.items()]
        for answered, (task, result) in enumerate(
                self.executor.map(self.run(), tasks), len(archs) - len(missing) + 1):
            self.record(self.space.key(self.space.parse(task.architecture)), task, result)
            on_answer(answered)

    def run(self) -> Callable[[Task], dict]:
        """The function that carries out a task; its result has the fields of a line from `validation` on."""
        raise NotImplementedError

    def task(self, key: str, arch: Any) -> Task:
        raise NotImplementedError

    def place(self, key: str) -> Path:
        """The folder of one training."""
        return self.folder.absolute() / "trainings" / hashlib.sha256(key.encode()).hexdigest()[:16]

    def record(self, key: str, task: Task, result: dict) -> None:
        line = {"key": key, "architecture": task.architecture, "oracle": self.name, "seed": self.seed,
                "digest": self.digest, **result}
        append_line(self.lines, line)
        self.remember(msgspec.convert(line, self.line))

    def remember(self, line: TrainingLine) -> None:
        """Adds the record of a line of trainings.jsonl."""
        cost = line.seconds if line.cost is None else line.cost
        self.records[line.key] = Record(line.validation, line.test, cost)
        self.failed += line.failed is not None
