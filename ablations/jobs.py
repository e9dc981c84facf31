"""The jobs of a grid: pre-training and fine-tuning runs, each in a folder named after its settings.

The name is a digest of every setting that can change the result, of the content of the files that are read,
and of the encoder that the run starts from. So settings shared by several grids are computed once, finished
runs are found again, and a changed setting never meets an old result. (A change of the code can: then give
another output folder.)
"""
from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import finetune
import pretrain
from ablations.grid import Grid, Setting, filled
from runtime.errors import InputError
from runtime.files import path_of, sha256_of
from runtime.settings import fingerprint, parse

SCRIPTS = {"pretrain": pretrain, "finetune": finetune}
FILES = ("labels", "data", "model_state_dict")  # settings that may name a file: its content counts


@dataclass(frozen=True)
class Job:
    """One run of a script; `flags` are all but --save.

    The name of the folder stands for the settings, so jobs with the same folder are equal.
    """

    folder: Path
    script: str = field(compare=False)
    flags: tuple[str, ...] = field(compare=False)

    @property
    def done(self) -> bool:
        return (self.folder / "result.json").exists()  # written last by both scripts

    def result(self) -> dict:
        """The content of a finished fine-tuning's result.json; raises InputError if it is damaged."""
        return finetune.read_result(self.folder / "result.json")

    def run(self) -> None:
        """Runs the script in this process; its output goes to output.txt in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (open(self.folder / "output.txt", "a") as file, contextlib.redirect_stdout(file),
              contextlib.redirect_stderr(file)):
            SCRIPTS[self.script].main([*self.flags, "--save", str(self.folder)])


@dataclass(frozen=True)
class AblationRun:
    """The shared part of all jobs of one invocation: output folder, seeds, and machine.

    The machine is flags that change no result.
    """

    out: Path
    seeds: str
    machine: tuple[str, ...]

    def pretraining(self, grid: Grid, setting: Setting) -> Job | None:
        if setting.pretrain is None:
            return None
        return self.job("pretrain", (*grid.pretrain, *setting.pretrain, "--resume", "--no-tensorboard"))

    def finetuning(self, grid: Grid, setting: Setting, labels: str, n: int) -> Job:
        given = filled((*grid.finetune, *setting.finetune), n)
        return self.job(
            "finetune",
            (*given, "--labels", labels, "--finetune_train_samples", str(n), "--seeds", self.seeds,
             "--resume"),
            self.pretraining(grid, setting))

    def job(self, script: str, flags: tuple[str, ...], start: Job | None = None) -> Job:
        """The job with these flags; start: the pre-training whose encoder it starts from, if any.

        Raises InputError for flags that the script does not take.
        """
        settings = fingerprint(parse(SCRIPTS[script].Config, list(flags), script))
        for name in FILES:
            if settings.get(name):
                settings[name] = content(settings[name])
        if start:
            settings["model_state_dict"] = start.folder.name
            flags = (*flags, "--model_state_dict", str(start.folder / "last.pt"))
        return Job(self.out / script / digest(settings), script, (*flags, *self.machine))


def content(source: str) -> str:
    """The digest of a file named in a setting; an embedded name stands for itself."""
    path = path_of(source)
    return content_of(path, path.stat().st_mtime_ns) if path.is_file() else source


@lru_cache
def content_of(path: Path, changed: int) -> str:
    """The digest of a file's bytes; because of `changed`, an edited file is read again."""
    return sha256_of(path)


def digest(value) -> str:
    """12 hexadecimal digits that identify plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def chains(jobs: Iterable[tuple[Job | None, Job]]) -> list[tuple[Job, ...]]:
    """The unfinished jobs of pairs (pre-training or None, fine-tuning), as chains independent of each other.

    Every fine-tuning is there once, behind the pre-training that it needs.
    """
    after: dict[Job | None, dict[Job, None]] = {}
    for first, then in jobs:
        if not then.done:
            after.setdefault(first, {})[then] = None
    alone = [(job,) for job in after.pop(None, {})]
    return [(first, *then) for first, then in after.items()] + alone


def work(chain: tuple[Job, ...]) -> str | None:
    """Runs a chain; returns the error, if any, in one line, so that a grid continues without the setting."""
    for job in chain:
        if job.done:
            continue
        try:
            job.run()
        except InputError as error:
            return f"{job.script}.py in {job.folder}: {error}"
    return None
