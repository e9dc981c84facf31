"""Executors of independent runs: this process, a pool of processes, or tasks on an existing Ray cluster.

    with open_executor(settings) as executor:
        for task, result in executor.map(function, tasks):

`function` is defined at the top of a module and takes one task; task and result can be pickled. Results come
in the order of completion. An exception of the function is raised here and stops the rest. A task that is run
again after its worker was lost finds its own files, so a function that resumes from them loses little.
"""
from __future__ import annotations

import importlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from runtime.errors import InputError
from runtime.log import progress_bar
from runtime.settings import setting

MAX_RETRIES = 5  # of a task whose worker was lost


@dataclass
class ExecutorSettings:
    """Where several runs are computed."""

    executor: str = setting(
        "local", "where several runs are computed: local = this machine, ray = a running Ray cluster",
        ("local", "ray"), role="machine")
    jobs: int = setting(
        1, "local: runs at a time, one process per run", within=(1, 1024), role="machine")
    address: str = setting(
        "auto", "ray: HOST:PORT of the cluster's head, or auto = the one of this machine; every node must "
        "see this folder and the output folder under the same path", role="machine")
    cpus_per_run: int = setting(
        1, "CPUs per run: reserved by Ray, and torch's threads if --threads is 0", within=(1, 1024),
        role="machine")
    gpus_per_run: float = setting(
        0.0, "ray: GPUs per run; 0.5 lets two runs share one, 0 = on the CPU", within=(0, math.inf),
        role="machine")

    @property
    def apart(self) -> bool:
        """Whether each run has its own process."""
        return self.executor != "local" or self.jobs > 1


class Executor(Protocol):
    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yields (task, function(task)) of every task, in the order of completion."""


@contextmanager
def open_executor(settings: ExecutorSettings) -> Iterator[Executor]:
    """Opens the executor that the settings name. Raises InputError if it is not available."""
    if settings.executor == "ray":
        with _connection(settings.address) as ray:
            yield RayTasks(ray, settings.cpus_per_run, settings.gpus_per_run)
    else:
        yield ProcessPool(settings.jobs) if settings.jobs > 1 else InProcess()


def compute_all(settings: ExecutorSettings, function: Callable[[Any], Any], tasks: Sequence[Any],
                name: Callable[[Any], str]) -> None:
    """Calls function(task) for every task, on the executor of the settings; the results are dropped.

    A bar shows the time left; without a terminal, one line per task does. name(task) is the name shown.
    """
    with open_executor(settings) as executor, progress_bar() as bar:
        row = bar.add_task("", total=len(tasks))
        for task, _ in executor.map(function, tasks):
            bar.update(row, advance=1, description=f"{name(task)}: done")
            if not bar.console.is_terminal:
                state = bar.tasks[row]
                left = state.elapsed * state.remaining / state.completed
                bar.console.print(f"{state.description}; {state.completed:.0f} of {len(tasks)} in "
                                  f"{state.elapsed:.0f} s, about {left:.0f} s left")


class InProcess:
    """Runs one task after the other in this process."""

    def map(self, function, tasks):
        return ((task, function(task)) for task in tasks)


class ProcessPool:
    """Runs tasks in processes of this machine, spawned: threads and CUDA do not survive a fork.

    The processes end with this one, however it ends, and at once if it is interrupted or a task fails.
    """

    def __init__(self, jobs: int):
        self.jobs = jobs

    def map(self, function, tasks):
        pool = ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"), initializer=end_with_parent)
        others = set(active_children())
        try:
            with no_interrupts():  # the workers, which inherit it, leave Ctrl-C to this process
                futures = {pool.submit(function, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(f"--jobs {self.jobs}: a process was killed, perhaps for want of memory; "
                             "fewer --jobs and --resume go on") from None
        except BaseException:  # a task's files are whole at any moment, so none is waited for
            for worker in set(active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


class ThreadPool:
    """Runs tasks that wait for other programs in threads of this process."""

    def __init__(self, jobs: int, stop: Callable[[], None]):
        """stop(): makes all running tasks raise, if this process is interrupted or one of them fails."""
        self.jobs, self.stop = jobs, stop

    def map(self, function, tasks):
        pool = ThreadPoolExecutor(self.jobs)
        futures = {pool.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):  # one may just have begun
                self.stop()
                time.sleep(0.05)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    """Lets this process end when its parent does, also if that is killed: its end of a pipe then closes."""
    def watch() -> None:
        wait([parent_process().sentinel])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=watch, daemon=True).start()


class RayTasks:
    """Runs tasks on a Ray cluster; one whose worker or node was lost is run again elsewhere."""

    def __init__(self, ray, cpus: int, gpus: float):
        self.ray, self.options = ray, {"num_cpus": cpus, "num_gpus": gpus, "max_retries": MAX_RETRIES}

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
            raise InputError(f"--executor ray: a task was lost {MAX_RETRIES + 1} times "
                             f"({type(error).__name__}); --resume goes on") from None


def importable(function: Callable) -> Callable:
    """Returns the function as a worker can import it: from the script's module instead of __main__.

    A worker's __main__ is another script.
    """
    if function.__module__ != "__main__":
        return function
    return getattr(importlib.import_module(Path(sys.modules["__main__"].__file__).stem), function.__name__)


@contextmanager
def _connection(address: str):
    """Yields the module ray, connected to a cluster that is already running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    host, _, port = address.partition(":")
    if host in ("localhost", "127.0.0.1"):  # keeps this address; otherwise Ray replaces it by the public one
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "--executor ray: ray is not installed: pip install -r requirements-scale.txt") from None
    try:
        if address != "auto":  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False,
                 runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}})
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers ({type(error).__name__}); give HOST:PORT of one, "
            "or start one with `ray start --head` in a network that you trust: Ray asks for no password"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()
