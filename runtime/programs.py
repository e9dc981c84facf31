"""Runs a user's program: no shell, bounded in time and output, and nothing of it left afterwards.

    end = run_program(["python", "mine.py", "a|b"], folder, seconds=60)
    end.code, end.stdout        # exit code, None if it did not end in time; the last 64 KiB of its output

The program gets a session of its own. Its processes, and theirs, bear a mark: they are killed when it ends,
also those in other sessions, and also if this process is killed (runtime/guard.py).
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runtime.guard import Guard, end_marked

KEPT = 2**16  # bytes of each stream in memory, the last ones
WRITTEN = 2**20  # bytes of each stream on the disk, the first ones
GRACE = 1.0  # seconds for what is left in the pipes when the program has ended


class End(NamedTuple):
    """How a program ended."""

    code: int | None  # -signal if it was killed; None if it did not end in time
    stdout: str  # the last KEPT bytes
    stderr: str


class Stopped(Exception):
    """The program was killed by `stop_programs`, so how it ended means nothing."""


class Programs:
    """The programs of this process: their guard, started with the first, and how often all were stopped."""

    def __init__(self):
        self.lock, self.guard, self.stops = threading.Lock(), None, 0

    def environment(self, mark: str) -> dict[str, str]:
        with self.lock:
            self.guard = self.guard or Guard()
        return self.guard.environment(mark)


PROGRAMS = Programs()


def stop_programs() -> None:
    """Kills all programs that are running, in all threads; their `run_program` raises Stopped."""
    PROGRAMS.stops += 1
    if PROGRAMS.guard:
        end_marked(PROGRAMS.guard.mark)


def run_program(words: Sequence[str], folder: Path, seconds: float = 0, cwd: str | None = None) -> End:
    """Runs the program and waits for its end, `seconds` at most if not 0; the folder gets its output.

    Raises OSError if it cannot be started.
    """
    mark, stops = uuid.uuid4().hex, PROGRAMS.stops
    with contextlib.ExitStack() as files:
        logs = [files.enter_context(open(folder / name, "wb")) for name in ("stdout.txt", "stderr.txt")]
        process = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
            env=PROGRAMS.environment(mark), start_new_session=True)
        readers = [Reader(stream, log) for stream, log in zip((process.stdout, process.stderr), logs)]
        try:
            code = process.wait(seconds or None)
            wait_for(readers)  # what it wrote last
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_all(process, mark)
            wait_for(readers)
            said = [reader.stop() for reader in readers]  # before the logs are closed
        if PROGRAMS.stops != stops:
            raise Stopped
        return End(code, *said)


def end_all(process: subprocess.Popen, mark: str) -> None:
    """Kills the program's session and all that it started, until nothing is left."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while end_marked(mark) and time.monotonic() < until:
        time.sleep(0.02)
    process.wait()


def wait_for(readers: Sequence[Reader]) -> None:
    until = time.monotonic() + GRACE
    for reader in readers:
        reader.join(max(0, until - time.monotonic()))


class Reader(threading.Thread):
    """Empties a pipe, so that a program that says much never waits, nor fills memory or disk."""

    def __init__(self, stream: BinaryIO, log: BinaryIO):
        super().__init__(daemon=True)
        self.stream, self.log, self.room = stream, log, WRITTEN
        self.tail, self.lock, self.stopped = b"", threading.Lock(), False
        self.start()

    def run(self) -> None:
        while piece := os.read(self.stream.fileno(), 2**20):
            with self.lock:
                if self.stopped:  # a process without our mark holds the pipe: nobody listens any more
                    continue
                self.tail = (self.tail + piece)[-KEPT:]
                self.log.write(piece[:self.room])
                self.room -= len(piece[:self.room])
        self.stream.close()

    def stop(self) -> str:
        """The last that was read; nothing is kept from now on."""
        with self.lock:
            self.stopped = True
        return self.tail.decode(errors="replace")
