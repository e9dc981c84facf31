"""Output of a run: log lines and TensorBoard curves, progress bars, mean ± std, provenance of numbers."""
from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from runtime.files import append_line, atomic_write, named, remove_abandoned, whole_lines
from runtime.guarded import checked_json

console = Console(stderr=True)  # for progress; `output` is for results
output = Console(width=None if sys.stdout and sys.stdout.isatty() else 140, soft_wrap=True, markup=False,
                 highlight=False)


class LogLine(TypedDict):
    """A line of log.jsonl: a step, and numbers of any name."""

    step: int


class Log:
    """One JSON line per event in `log.jsonl` (append-only) and, if asked, TensorBoard scalars beside it."""

    def __init__(self, folder: Path, tensorboard: bool = False, keep: int | None = None):
        """keep: the step that a resumed run starts from; later lines and a torn last one are dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        self.path, self.board = folder / "log.jsonl", None
        if keep is not None:
            steps = [checked_json(line, LogLine, f"{self.path}:{number}", "remove the line")["step"]
                     for number, line in enumerate(whole_lines(self.path), 1)]
            kept = [line + b"\n" for line, step in zip(whole_lines(self.path), steps) if step <= keep]
            if len(kept) < len(steps):
                atomic_write(self.path, lambda file: file.writelines(kept))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            with named(folder / "tensorboard"):
                self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, **values) -> None:
        append_line(self.path, {"step": step, "time": round(time.time(), 3), **values})
        if self.board:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, step)

    def close(self) -> None:
        if self.board:
            with named(self.path.with_name("tensorboard")):
                self.board.close()
        if self.board:
            self.board.close()


# Progress ---------------------------------------------------------------------------------------------------

class Rate(ProgressColumn):
    """Steps per second so far."""

    def render(self, task):
        return Text(f"{task.speed:.4g}/s" if task.speed else "")


def progress_bar(console: Console = console) -> Progress:
    """A progress bar on stderr: description, bar, count, rate, time left."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(),
                    TimeRemainingColumn(), console=console)


def byte_progress() -> Progress:
    """A progress bar over bytes: share done, rate, time left. On stderr, and only if it is a terminal.

    Add a task with `add_task(description, total=bytes, completed=bytes)` and `update` it.
    """
    console = Console(stderr=True)
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    TimeRemainingColumn(), console=console, disable=not console.is_terminal)


# Numbers ----------------------------------------------------------------------------------------------------

def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the latter None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def plus_minus(mean: float, std: float | None, decimals: int = 4) -> str:
    """'0.7071 ± 0.0123', or '0.7071' if there is no standard deviation."""
    return f"{mean:.{decimals}f}" + ("" if std is None else f" ± {std:.{decimals}f}")


def provenance() -> dict:
    """The machine and the versions that a record was made with."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def command_line(module: str, argv: Sequence[str] | None) -> str:
    """The shell command of `python -m module` with these flags; None = those of this process."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)])
