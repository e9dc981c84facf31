"""Processes that a test started, directly or not: interrupted at a moment, and looked for at the end."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")


def wait_for(mark: Path) -> None:
    """For a minute at most."""
    end = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.05)


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


@contextlib.contextmanager
def interrupted_once(folder: Path, pattern: str) -> Iterator[list[Path]]:
    """Presses Ctrl-C as soon as a file of the folder that matches the pattern has text; yields these files.

    Fails if the block does not end by that.
    """
    found, done = [], threading.Event()

    def interrupt() -> None:
        while not found and not done.is_set():
            found.extend(path for path in folder.glob(pattern) if path.read_text().strip())
            time.sleep(0.05)
        if found:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # a suite in the background of a shell ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield found
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
