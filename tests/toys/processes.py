"""Processes that a test started, directly or not, and that should have ended."""
from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")


def none_left(folder: Path, seconds: float = 60) -> None:
    """Waits until no process names the folder; fails if some still do after that time."""
    until = time.monotonic() + seconds
    while left := processes_of(folder):
        assert time.monotonic() < until, left
        time.sleep(0.2)


def processes_of(folder: Path) -> list[int]:
    """The processes whose command line or environment names the folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            said = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in said and int(place.name) != os.getpid():
            found.append(int(place.name))
    return found
