"""Runs commands in no time: imports once what the scripts need, then forks a process for each command.

    python tests/faults/server.py      # requests on stdin and answers on stdout, JSON lines

A request has argv = [module, flag, ...], stdout and stderr (files), seconds, memory (bytes that the process
may take beyond what it has at its start) and user (its number, or null). The answer is {"code"}: the exit
code, or -SIGNAL: SIGXCPU, or SIGALRM, if the seconds did not suffice.
"""
from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

MODULES = (
    "search", "pretrain", "finetune", "train", "gen_json_301", "nni4nasbench101", "ablations.run",
    "benchmarks.predictor", "benchmarks.search", "benchmarks.quickstart", "benchmarks.baselines",
    "figs.predictors", "figs.sweep", "nni.experiment", "nni.tools.package_utils.tuner_factory", "xgboost",
    "spaces.oracles.yahpo", "spaces.oracles.xgb301", "torch._dynamo", "rich.status",
    "encodings.utf_8_sig", "encodings.cp437")  # another user may not read the interpreter's files
HUNG = 3  # times the seconds of processor time: the limit for one that waits and computes nothing


def serve() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    for name in MODULES:
        importlib.import_module(name)
    warm_up()
    os.write(answers, b"{}\n")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os.close(answers)
            run(**json.loads(line))
        _, status = os.waitpid(pid, 0)
        os.write(answers, json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def warm_up() -> None:
    """Fills caches that every command would fill for itself."""
    import numpy as np

    import spaces
    from sweeps import launch

    for name in spaces.SPACES:
        space = spaces.get(name)
        space.encode(space.sample(2, np.random.default_rng(0)))
    launch.carry_on = lambda *_: sys.exit(0)  # a sweep ends where NNI would start


def run(argv: list[str], stdout: str, stderr: str, seconds: int, memory: int, user: int | None) -> None:
    """Runs the main() of a module as its script does, and ends the process."""
    from runtime.errors import main_guard

    for number, path in enumerate((os.devnull, stdout, stderr)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), number)
    limit(seconds, memory)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    sys.argv = argv
    code = 1
    try:
        main_guard(partial(sys.modules[argv[0]].main, argv[1:]))
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def limit(seconds: int, memory: int) -> None:
    """Ends this process after a time, and refuses it more memory."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(HUNG * seconds)


if __name__ == "__main__":
    serve()
