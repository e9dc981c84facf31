"""A progress bar over bytes: share done, rate, time left. On stderr, and only where that is a terminal."""
from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


def byte_progress() -> Progress:
    """A context manager; add a task with `add_task(description, total=bytes, completed=bytes)` and `update` it."""
    console = Console(stderr=True)
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    TimeRemainingColumn(), console=console, disable=not console.is_terminal)
