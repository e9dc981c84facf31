"""What has to be run for a grid: pre-trainings and fine-tunings, each in a folder named after its settings.

The name is a digest of every setting that can change the result, of the content of the files it reads, and of the encoder
it starts from. So settings shared by several grids are computed once, what is done is found again, and a changed setting
can never meet an old result. (A change of the code can: then give another output folder.)
"""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Iterable

import finetune
import pretrain
import runtime
from ablations.grid import Grid, Setting, filled
from spaces import InputError

SCRIPTS = {"pretrain": pretrain, "finetune": finetune}
ASIDE = {"save", "param", "resume", "device", "threads", "tensorboard", "export"}  # they leave the result as it is
FILES = ("labels", "data", "model_state_dict")  # settings that may name a file: its content counts


@dataclass(frozen=True)
class Job:
    """One run of a script. `flags` are all but --save; what they amount to is in the name of the folder, which alone
    makes two jobs the same."""

    folder: Path
    script: str = field(compare=False)
    flags: tuple[str, ...] = field(compare=False)

    @property
    def done(self) -> bool:
        return (self.folder / "result.json").exists()  # which both scripts write last

    def run(self) -> None:
        """In this process; what the script prints goes to output.txt in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "output.txt", "a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            SCRIPTS[self.script].main([*self.flags, "--save", str(self.folder)])


@dataclass(frozen=True)
class Run:
    """What the jobs of one invocation share: where they write, the seeds, and the machine (flags that change no result)."""

    out: Path
    seeds: str
    machine: tuple[str, ...]

    def pretraining(self, grid: Grid, setting: Setting) -> Job | None:
        if setting.pretrain is None:
            return None
        return self.job("pretrain", (*grid.pretrain, *setting.pretrain, "--resume", "--no-tensorboard"))

    def finetuning(self, grid: Grid, setting: Setting, labels: str, n: int) -> Job:
        given = filled((*grid.finetune, *setting.finetune), n)
        return self.job("finetune", (*given, "--labels", labels, "--finetune_train_samples", str(n), "--seeds", self.seeds),
                        self.pretraining(grid, setting))

    def job(self, script: str, flags: tuple[str, ...], start: Job | None = None) -> Job:
        """start: the pre-training whose encoder it starts from. InputError for flags that the script does not take."""
        settings = dataclasses.asdict(runtime.parse(SCRIPTS[script].Config, list(flags), script))
        settings = {name: value for name, value in settings.items() if name not in ASIDE}
        for name in FILES:
            if settings.get(name):
                settings[name] = content(settings[name])
        if start:
            settings["model_state_dict"] = start.folder.name
            flags = (*flags, "--model_state_dict", str(start.folder / "last.pt"))
        return Job(self.out / script / digest(settings), script, (*flags, *self.machine))


def content(source: str) -> str:
    """What stands for a file among settings; an embedded name stands for itself."""
    path = Path(source).expanduser()
    return content_of(path, path.stat().st_mtime_ns) if path.is_file() else source


@lru_cache
def content_of(path: Path, changed: int) -> str:
    """Of its bytes; `changed` is there so that an edited file is read again."""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            hasher.update(block)
    return hasher.hexdigest()


def digest(value) -> str:
    """12 hex digits that stand for plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def chains(jobs: Iterable[tuple[Job | None, Job]]) -> list[tuple[Job, ...]]:
    """What is left to do of pairs (pre-training or None, fine-tuning): every fine-tuning once, behind the pre-training it
    needs. Chains do not depend on each other."""
    after: dict[Job | None, dict[Job, None]] = {}
    for first, then in jobs:
        if not then.done:
            after.setdefault(first, {})[then] = None
    alone = [(job,) for job in after.pop(None, {})]
    return [(first, *then) for first, then in after.items()] + alone


def work(chain: tuple[Job, ...]) -> str | None:
    """Run a chain; returns what went wrong, in one line. A grid goes on without a setting that fails."""
    for job in chain:
        if job.done:
            continue
        try:
            job.run()
        except InputError as error:
            return f"{job.script}.py {' '.join(job.flags)}: {error}"
    return None
