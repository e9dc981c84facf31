"""Ends everything that a sweep started once the launcher is gone, however it ended.

    with guarded():
        ...  # NNI's manager, its tuner and its trials inherit a mark in their environment

NNI's manager puts itself into a process group of its own and survives a launcher that is killed. So a guard,
a small process, waits for the end of a pipe that only the launcher holds. If that comes without a goodbye, it
kills every process with the mark.
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil

from runtime.files import ROOT

MARK = "GMAE_NAS_SWEEP"  # environment variable, inherited by all that a sweep starts
GOODBYE = b"goodbye"
PATIENCE = 60.0  # seconds, at most, in which processes that are just being started appear


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Marks all processes that are started in the block, and ends those that are left after it.

    SIGTERM interrupts the block as Ctrl-C does.
    """
    mark = uuid.uuid4().hex
    guard = subprocess.Popen(
        [sys.executable, "-m", "sweeps.guard", mark], stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != MARK})
    os.environ[MARK] = mark
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        del os.environ[MARK]
        end_marked(mark)
        with contextlib.suppress(OSError):  # the guard may have been killed
            guard.communicate(GOODBYE)


def end_marked(mark: str) -> bool:
    """Kills all processes with the mark but this one; returns whether there were any."""
    found = False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # another user's, or ended meanwhile
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                process.kill()
                found = True
    return found


def main() -> None:
    mark = sys.argv[1]
    if sys.stdin.buffer.read() == GOODBYE:
        return
    until = time.monotonic() + PATIENCE
    quiet = 0  # looks in a row that found nothing
    while quiet < 10 and time.monotonic() < until:
        quiet = 0 if end_marked(mark) else quiet + 1
        time.sleep(0.2)


if __name__ == "__main__":
    main()
