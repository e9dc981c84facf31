"""Runs of the scripts in sessions of their own, killed at given moments, and what they leave behind."""
from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from conftest import ROOT

from kills.server import MARK

SERVER = Path(__file__).with_name("server.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg",
                            "PYTHONPATH": str(ROOT)}
PATIENCE = 240  # seconds after which a run counts as hanging
GRACE = 5  # seconds in which the processes of a killed run must end


class Kill(NamedTuple):
    """A signal and its moment: before a change of a file, by its number, or after seconds, or after a file.

    Ctrl-C is for all processes of a run, the other signals are for its first.
    """

    signal: signal.Signals
    change: int | None = None
    after: float = 0.0
    file: str = ""

    def __str__(self) -> str:
        moment = f"after {self.file or format(self.after, '.2f') + ' s'}"
        return f"{self.signal.name} {moment if self.change is None else f'at change {self.change}'}"


class End(NamedTuple):
    """How a run ended: exit code (-signal if killed), seconds, stderr, changed files, processes left."""

    code: int
    seconds: float
    stderr: str
    changes: list[str]
    left: list[str]


class Process(Protocol):
    """A started run, the first process of its session."""

    pid: int

    def code(self, seconds: float) -> int | None:
        """Its exit code; None if it runs on after that time. Until `reap` its number is nobody else's."""

    def reap(self) -> None:
        """Forgets an ended process."""


class Logs:
    """The files of one run, stdout, stderr and its changes of files, and the mark of its processes."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        number, self.mark = len(list(folder.glob("*.stderr"))), uuid.uuid4().hex
        self.stdout, self.stderr, self.events = (
            folder / f"{number}.{what}" for what in ("stdout", "stderr", "events"))


class ForkServer:
    """Starts scripts in forks of a warm process, which imported the modules."""

    def __init__(self, modules: Sequence[str]):
        self.process = subprocess.Popen([sys.executable, SERVER, *modules], cwd=ROOT, env=ENVIRONMENT,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer(PATIENCE)

    def start(self, argv: Sequence[str], folder: Path, logs: Logs, kill: Kill | None) -> Forked:
        at = [kill.change, kill.signal] if kill and kill.change is not None else None
        files = {what: str(getattr(logs, what)) for what in ("stdout", "stderr", "events")}
        self.send({"argv": [*argv], "mark": logs.mark, "folder": str(folder), "kill": at, "logs": files})
        return Forked(self, self.answer(PATIENCE)["pid"])

    def send(self, request: dict) -> None:
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> dict | None:
        """The next answer; None if there is none in that time."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(PATIENCE)


class Forked(Process):
    def __init__(self, server: ForkServer, pid: int):
        self.server, self.pid = server, pid

    def code(self, seconds: float) -> int | None:
        answer = self.server.answer(seconds)
        return answer and answer["code"]

    def reap(self) -> None:
        self.server.send({})


class Fresh(Process):
    """A script in an interpreter of its own."""

    def __init__(self, argv: Sequence[str], logs: Logs):
        environment = ENVIRONMENT | {MARK: logs.mark}
        with open(logs.stdout, "wb") as stdout, open(logs.stderr, "wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *argv], cwd=ROOT, env=environment, stdout=stdout, stderr=stderr,
                stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=hear_interrupts)  # noqa: PLW1509
        self.pid = self.process.pid

    def code(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while not (found := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)):
            if time.monotonic() > end:
                return None
            time.sleep(0.002)
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def reap(self) -> None:
        self.process.wait()


def hear_interrupts() -> None:
    """Lets Ctrl-C through, which a suite in the background of a shell ignores."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: Process, out: Path, logs: Logs, kill: Kill | None) -> End:
    """Waits for the end of a run; kills it, unless it does that itself. out: the folder of `kill.file`."""
    began, code = time.monotonic(), None
    if kill and kill.change is None:
        code = process.code(kill.after)
        while code is None and kill.file and not list(out.rglob(kill.file)):
            code = process.code(0.01)
        if code is None:
            while os.getpgid(process.pid) != process.pid:  # a fork has not begun its session yet
                time.sleep(0.001)
            (os.killpg if kill.signal == signal.SIGINT else os.kill)(process.pid, kill.signal)
    code = process.code(PATIENCE) if code is None else code
    seconds = time.monotonic() - began
    if code is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.code(PATIENCE)
    left = processes_left(process.pid, logs.mark)
    process.reap()
    assert code is not None, f"a run did not end in {PATIENCE} s, after {kill}: {logs.stderr}"
    changes = logs.events.read_text().splitlines() if logs.events.exists() else []
    return End(code, seconds, logs.stderr.read_text(errors="replace"), changes, left)


def processes_left(session: int, mark: str) -> list[str]:
    """The processes of a run that are alive after GRACE seconds; they are killed."""
    end = time.monotonic() + GRACE
    while (found := list(members(session, mark))) and time.monotonic() < end:
        time.sleep(0.05)
    for pid, _ in found:
        os.kill(pid, signal.SIGKILL)
    return [f"{pid} {command}" for pid, command in found]


def members(session: int, mark: str) -> Iterator[tuple[int, str]]:
    """Yields (pid, command) of the living processes that are of a session or bear the mark of a run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
        except OSError:  # it has ended
            continue
        state, _, _, of = status.rpartition(")")[2].split()[:4]
        if (marked or int(of) == session) and state not in "ZX":
            yield int(folder.name), command.replace(b"\0", b" ").decode(errors="replace")[:100]
