"""Starts runs in no time: imports once what the scripts need, then forks a process for each run.

    python tests/kills/server.py MODULE ...      # requests on stdin and answers on stdout, JSON lines

A request has argv, mark, folder, logs = {stdout, stderr, events} and kill. The answers are {"pid"} at its
start and {"code"} at its end, -SIGNAL if it was killed. `events` gets a line per change of a file below
`folder`: opened for writing, renamed, removed. kill = [number, signal]: the process sends itself the signal
before that change.
"""
from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import count

MARK = "KILLS_RUN"  # a variable of the environment that all processes of a run inherit
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate"}


def serve(modules: list[str]) -> dict | None:
    """Answers all requests, then returns None; in a forked process, the request that it is to run."""
    for name in modules:
        importlib.import_module(name)
    answers = os.dup(1)
    say(answers, ready=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os.close(answers)
            return json.loads(line)
        say(answers, pid=pid)
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        say(answers, code=end.si_status if end.si_code == os.CLD_EXITED else -end.si_status)
        sys.stdin.readline()  # the answer was read: now the number of the process may be another's
        os.waitpid(pid, 0)
    return None


def say(file: int, **answer) -> None:
    os.write(file, json.dumps(answer).encode() + b"\n")


def run(argv: list[str], mark: str, logs: dict[str, str], folder: str, kill: tuple[int, int] | None) -> None:
    """Runs a script, or a module behind -m, as if this process had been started for it."""
    os.setsid()
    os.environ[MARK] = mark
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate((os.devnull, logs["stdout"], logs["stderr"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (the process's)
    events = os.open(logs["events"], os.O_WRONLY | os.O_CREAT)
    sys.addaudithook(watcher(folder, events, kill))
    sys.argv = argv[argv[0] == "-m":]
    code = 0
    try:
        if argv[0] == "-m":
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except KeyboardInterrupt:  # before main_guard, where Python lets the signal end the process
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the work is done
    threading._shutdown()  # ends as an interpreter does, but for the second in which it frees its memory
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def watcher(folder: str, events: int, kill: tuple[int, int] | None) -> Callable[[str, tuple], None]:
    """The audit hook that counts changes of files, and kills at one of them."""
    numbers, inside = count(), folder + os.sep

    def watch(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            path, changes = arguments[0] if event in CHANGES else "", event in CHANGES
        if changes and not isinstance(path, int) and os.fsdecode(path).startswith(inside):
            number = next(numbers)
            os.write(events, f"{number} {event} {os.fsdecode(path)}\n".encode())
            if kill and kill[0] == number:
                os.kill(os.getpid(), kill[1])

    return watch


if __name__ == "__main__":
    request = serve(sys.argv[1:])
    if request:
        run(**request)
