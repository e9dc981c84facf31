"""The oracle of a user's own task: a query runs a program, which trains and prints the metric.

    search.py --oracle 'command: python train_mine.py {architecture}'

Each of the words after `command:` is one argument; {architecture}, {json}, {key}, {seed} and {outdir} in them
are replaced. There is no shell, so no architecture can become a command. The last line that the program
prints is a JSON object with the metric, {"accuracy": 93.1}. A program that fails, runs too long or prints no
finite number is a failed training: it is recorded with what it said last, never repeated, and counts as the
worst seen.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from runtime.errors import InputError, one_line
from runtime.executors import ProcessPool, ThreadPool
from runtime.files import write_json
from runtime.guarded import read_json
from runtime.log import console
from runtime.programs import End, run_program, stop_programs
from runtime.settings import setting
from spaces.base import Space
from spaces.metrics import Metric
from spaces.oracles.trained import Setup, TrainedOracle, TrainingLine

PREFIX = "command:"
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PLACEHOLDERS = ("architecture", "json", "key", "seed", "outdir")
NAMES = ("accuracy", "validation", "val_accuracy", "value")  # under which the accuracy may stand
SAID = 2000  # characters of a failed program's stderr that are recorded


@dataclass
class CommandSettings:
    """How long a user's program may run."""

    oracle_timeout: float = setting(
        0.0, "oracle command: seconds after which a training counts as failed (0 = never)",
        within=(0, math.inf), role="data")


class CommandTask(NamedTuple):
    """The arguments of `run_task`."""

    architecture: str
    words: tuple[str, ...]
    names: tuple[str, ...]  # under which the metric may stand
    seconds: float
    cwd: str
    folder: str
    digest: str


def parse_command(text: str) -> list[str]:
    """The words of 'command: PROGRAM ...'; raises InputError for one that cannot be run."""
    try:
        words = shlex.split(text.removeprefix(PREFIX))
    except ValueError as error:
        raise InputError(f"--oracle {text}: {error}: quote it as for a shell") from None
    found = {name for word in words for name in PLACEHOLDER.findall(word)}
    unknown = sorted(found - set(PLACEHOLDERS))
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    if unknown:
        raise InputError(f"--oracle {text}: no placeholder {{{unknown[0]}}}: choose of {known}")
    if not found & {"architecture", "json", "key"}:
        raise InputError(f"--oracle {text}: the program is not told the architecture: give it "
                         "{architecture}, {json} or {key}")
    if not shutil.which(words[0]):
        raise InputError(f"--oracle {text}: there is no program {words[0]!r} to run: check its path")
    return words


def filled(words: list[str], values: dict[str, str]) -> tuple[str, ...]:
    """The words with each placeholder replaced, within its word; what is put in is not looked at again."""
    return tuple(PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words)


def described(space: Space, arch: Any) -> dict:
    """The content of {json}: text, key, and in a declared space the operation of each position."""
    return {"key": space.key(arch), "architecture": space.text(arch),
            **(space.document(arch) if hasattr(space, "document") else {})}


# One training -----------------------------------------------------------------------------------------------

def run_task(task: CommandTask) -> dict:
    """Runs the program, unless its folder has the answer; returns the fields of a line of trainings.jsonl."""
    folder = Path(task.folder)
    path = folder / "answer.json"
    if path.exists():  # whoever asked for it was lost before it could be recorded
        known = read_json(path, "remove it")
        if isinstance(known, dict) and known.pop("digest", None) == task.digest:
            return known
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        answer = judged(run_program(task.words, folder, task.seconds, task.cwd), task)
    except OSError as error:
        answer = {"validation": None, "failed": f"it cannot be started: {error.strerror}", "stderr": ""}
    answer["seconds"] = time.perf_counter() - started
    write_json(path, {"digest": task.digest, **answer})
    return answer


def judged(end: End, task: CommandTask) -> dict:
    """The answer in what a program printed, or the reason why it has failed."""
    reason, answer = fault_of(end, task), {}
    if reason is None:
        last = next((line for line in reversed(end.stdout.splitlines()) if line.strip()), "")
        answer = parse_answer(last, task.names)
        reason = answer.pop("failed", None)
    if reason is not None:
        return {"validation": None, "failed": one_line(reason), "stderr": end.stderr[-SAID:]}
    return answer


def fault_of(end: End, task: CommandTask) -> str | None:
    if end.code is None:
        return f"it did not end in {task.seconds:g} s"
    if end.code < 0:
        return f"it was killed by {signal.Signals(-end.code).name}"
    return f"exit code {end.code}" if end.code else None


def names_of(metric: Metric) -> tuple[str, ...]:
    """The names, in lower case, under which an answer may have the metric."""
    return NAMES if metric.is_accuracy else (metric.name, "value")


def parse_answer(line: str, names: tuple[str, ...]) -> dict:
    """The numbers in the last line of a program; {"failed": reason} if there are none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return {"failed": f"its last line is no JSON object: {line[:80]!r}"}
    return numbers_in(content, names)


def numbers_in(content: dict, names: tuple[str, ...]) -> dict:
    """{"validation", and "test" and "cost" if any} of an answer, or {"failed": reason}."""
    content = {str(name).lower(): value for name, value in content.items()}
    name = next((name for name in names if name in content), None)
    if name is None:
        return {"failed": f"there is no {names[0]} in {', '.join(content) or 'an empty object':.80}"}
    value = number(content[name])
    if value is None:
        return {"failed": f"{name} is no finite number: {content[name]!r:.60}"}
    rest = {"test": content.get("test", content.get(f"test_{names[0]}")), "cost": content.get("cost")}
    rest = {key: number(entry) for key, entry in rest.items() if number(entry) is not None}
    if names == NAMES and not all(0 <= share <= 100 for share in (value, rest.get("test", 0))):
        return {"failed": f"{name} {value:g} is no percentage; name another metric by --metric"}
    return {"validation": value, **rest}


def number(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


# The oracle -------------------------------------------------------------------------------------------------

class CommandOracle(TrainedOracle):
    """Answers a query by a user's program."""

    what = "command"

    def __init__(self, text: str, metric: Metric, seconds: float, setup: Setup):
        """text: 'command: PROGRAM ...'. seconds: after which a training has failed; 0 = never."""
        self.words, self.seconds, self.cwd = parse_command(text), seconds, os.getcwd()
        self.names = names_of(metric)
        decided = [self.words, metric.name, metric.lower_is_better, setup.seed, seconds]
        self.first_failure = ""
        if isinstance(setup.executor, ProcessPool):  # the programs are processes: threads can wait for them
            setup = setup._replace(executor=ThreadPool(setup.executor.jobs, stop_programs))
        super().__init__(f"{PREFIX} {shlex.join(self.words)}",
                         hashlib.sha256(json.dumps(decided).encode()).hexdigest(), setup)

    def run(self) -> Callable[[CommandTask], dict]:
        return run_task

    def task(self, key: str, arch: Any) -> CommandTask:
        folder, text = str(self.place(key)), self.space.text(arch)
        values = {"architecture": text, "key": key, "json": json.dumps(described(self.space, arch)),
                  "seed": str(self.seed), "outdir": folder}
        return CommandTask(
            text, filled(self.words, values), self.names, self.seconds, self.cwd, folder, self.digest)

    def record(self, key: str, task: CommandTask, result: dict) -> None:
        super().record(key, task, result)
        if "failed" in result:
            console.print(f"failed: {task.architecture}: {result['failed']}; see {task.folder}", markup=False,
                          highlight=False, soft_wrap=True)

    def remember(self, line: TrainingLine) -> None:
        super().remember(line)
        if line.failed and not self.first_failure:
            said = (line.stderr.strip().splitlines() or [line.failed])[-1]
            self.first_failure = f"{line.failed}: {said}" if said != line.failed else said

    def hopeless(self) -> str:
        """The end of a message about a search in which every training failed."""
        return (f"the first one: {self.first_failure:.120}; {self.lines} has them all: mend the program, and "
                "give another --outdir")
