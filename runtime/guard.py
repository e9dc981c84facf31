"""Ends all processes that this one started once it is gone, however it ended.

    with guarded():
        ...  # all that is started here inherits a mark in its environment

    guard = Guard()  # the same without a block: until this process ends
    subprocess.Popen(program, env=guard.environment("training 1"))

Some programs put themselves into a group of their own and survive the process that started them: NNI's
manager, a trainer's daemons. So a guard, a small process, waits for the end of a pipe that only this process
holds. If that comes without a goodbye, it kills every process with the mark.
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

MARK = "GMAE_NAS_MARKS"  # environment variable: the marks of all guards that a process is under, with commas
GOODBYE = b"goodbye"
PATIENCE = 60.0  # seconds, at most, in which processes that are just being started appear


class Guard:
    """The small process, and the mark that it looks for."""

    def __init__(self):
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runtime.guard", self.mark], stdin=subprocess.PIPE, cwd=ROOT,
            start_new_session=True, env={name: value for name, value in os.environ.items() if name != MARK})

    def environment(self, *more: str) -> dict[str, str]:
        """The environment of a process under this guard; more: further marks, to end it alone."""
        return os.environ | {MARK: ",".join(filter(None, [os.environ.get(MARK), self.mark, *more]))}

    def dismiss(self) -> None:
        """Ends all that is marked, then the guard."""
        end_marked(self.mark)
        with contextlib.suppress(OSError):  # it may have been killed
            self._process.communicate(GOODBYE)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Marks all processes that are started in the block, and ends those that are left after it.

    SIGTERM interrupts the block as Ctrl-C does.
    """
    guard, outer = Guard(), os.environ.get(MARK)
    os.environ[MARK] = guard.environment()[MARK]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if outer is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = outer
        guard.dismiss()


def end_marked(mark: str) -> bool:
    """Kills all processes with the mark but this one; returns whether there were any."""
    found = False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # another user's, or ended meanwhile
            if process.pid != os.getpid() and mark in process.environ().get(MARK, "").split(","):
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
