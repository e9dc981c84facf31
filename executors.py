"""Where independent runs are computed: here, in a pool of processes, or as tasks on an existing Ray cluster.

    with open_executor(settings) as executor:
        for task, result in executor.map(function, tasks):

`function` is a module's own function of one task; task and result can be pickled. Results come as they are finished. An
exception of the function is raised here and stops the rest. A task that is run again after its worker was lost finds
what it had written, so a function that resumes from its files loses little.
"""
from __future__ import annotations

import importlib
import math
import os
import socket
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Protocol, Sequence

import runtime
from runtime import setting
from spaces import InputError

LOST_WORKERS = 5  # times that a task is run again


@dataclass
class Settings:
    """The flags of a script that schedules runs."""

    executor: str = setting("local", "where several runs are computed: local = this machine, ray = a running Ray cluster",
                            ("local", "ray"))
    jobs: int = setting(1, "local: runs at a time, each in a process of its own", within=(1, 1024))
    address: str = setting("auto", "ray: HOST:PORT of the cluster's head, or auto = the one of this machine; every node "
                                   "must see this folder and the output folder under the same path")
    cpus_per_run: int = setting(1, "CPUs of a run: what Ray reserves, and torch's threads where --threads is 0",
                                within=(1, 1024))
    gpus_per_run: float = setting(0.0, "ray: GPUs of a run; 0.5 lets two share one, 0 = on the CPU", within=(0, math.inf))

    @property
    def apart(self) -> bool:
        """Whether runs are computed in processes of their own."""
        return self.executor != "local" or self.jobs > 1


class Executor(Protocol):
    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(task, function(task)) for every task, in the order they are finished."""


@contextmanager
def open_executor(settings: Settings) -> Iterator[Executor]:
    """The executor that the settings name. InputError where it cannot be had."""
    if settings.executor == "ray":
        with _connection(settings.address) as ray:
            yield Ray(ray, settings.cpus_per_run, settings.gpus_per_run)
    else:
        yield Pool(settings.jobs) if settings.jobs > 1 else InProcess()


def compute(settings: Settings, function: Callable[[Any], Any], tasks: Sequence[Any], name: Callable[[Any], str]) -> None:
    """function(task) of every task, where the settings say, for what it writes.

    A bar shows the time left; where there is no terminal to draw it on, a line a task does.
    """
    with open_executor(settings) as executor, runtime.progress() as bar:
        row = bar.add_task("", total=len(tasks))
        for task, _ in executor.map(function, tasks):
            bar.update(row, advance=1, description=f"{name(task)}: done")
            if not bar.console.is_terminal:
                state = bar.tasks[row]
                left = state.elapsed * state.remaining / state.completed
                bar.console.print(f"{state.description}; {state.completed:.0f} of {len(tasks)} in {state.elapsed:.0f} s, "
                                  f"about {left:.0f} s left")


class InProcess:
    """One task after the other, right here."""

    def map(self, function, tasks):
        return ((task, function(task)) for task in tasks)


class Pool:
    """Processes of this machine, started afresh: threads and CUDA do not survive a fork."""

    def __init__(self, jobs: int):
        self.jobs = jobs

    def map(self, function, tasks):
        pool = ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"))
        try:
            futures = {pool.submit(function, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(f"--jobs {self.jobs}: a process was killed, perhaps for want of memory; "
                             "fewer --jobs and --resume go on") from None
        finally:
            pool.shutdown(cancel_futures=True)


class Ray:
    """Tasks of a Ray cluster; one whose worker or node was lost is run again elsewhere."""

    def __init__(self, ray, cpus: int, gpus: float):
        self.ray, self.options = ray, {"num_cpus": cpus, "num_gpus": gpus, "max_retries": LOST_WORKERS}

    def map(self, function, tasks):
        remote = self.ray.remote(**self.options)(importable(function))
        pending = {remote.remote(task): task for task in tasks}
        try:
            while pending:
                (done,), _ = self.ray.wait(list(pending), num_returns=1)
                task = pending.pop(done)
                yield task, self.result(done)
        finally:
            for reference in pending:
                self.ray.cancel(reference, force=True)

    def result(self, reference):
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the function raised
        except self.ray.exceptions.RayError as error:
            raise InputError(f"--executor ray: a task was lost {LOST_WORKERS + 1} times ({type(error).__name__}); "
                             "--resume goes on") from None


def importable(function: Callable) -> Callable:
    """The function as a worker can import it: one of the script itself is __main__'s here, and a worker's __main__ is
    another."""
    if function.__module__ != "__main__":
        return function
    return getattr(importlib.import_module(Path(sys.modules["__main__"].__file__).stem), function.__name__)


@contextmanager
def _connection(address: str):
    """The module ray, connected to a cluster that others started; nothing is started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    host, _, port = address.partition(":")
    if host in ("localhost", "127.0.0.1"):  # Ray's switch for keeping such an address; else it asks the public one
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray: ray is not installed: pip install -r requirements-scale.txt") from None
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for a minute
        ray.init(address=address, log_to_driver=False, configure_logging=False,
                 runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}})
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers ({type(error).__name__}); give HOST:PORT of one, or "
                         "start one with `ray start --head` in a network that you trust: Ray asks for no password") from None
    try:
        yield ray
    finally:
        ray.shutdown()
