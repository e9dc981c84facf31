"""The part of a sweep that talks to Optuna: what is proposed, trials as processes, pruning, results.

    sweep = Sweep(config, space, [sys.executable, "finetune.py", "--param", "optuna"], folder)
    state = sweep.run()
    trials = sweep.trials()

All that is known of the sweep is in its folder: Optuna's journal and a folder per trial. So several
processes, also of machines that share the folder, may run the same sweep. Each holds a lock per trial of its
own; a trial whose lock is free was given up by a killed process, and another one runs it again.
"""
from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from runtime.errors import InputError
from runtime.files import whole_lines, write_json
from runtime.guard import guarded
from runtime.guarded import checked_json, read_checked
from runtime.locks import exclusive
from runtime.log import progress_bar
from runtime.seeding import mix
from runtime.settings import SWEEPS, TrialFile
from sweeps.experiment import DEFAULT_TRIALS, Trial, number_in, show

POLL = 0.5  # seconds between two looks at the trials
PATIENCE = 120.0  # seconds that other processes may take to start their trials
OF_NNI = ("config", "training_service", "private", "port")  # settings that mean nothing to Optuna
STATUS = {  # Optuna's state of a trial: NNI's word for it
    "RUNNING": "RUNNING", "COMPLETE": "SUCCEEDED", "PRUNED": "EARLY_STOPPED", "FAIL": "FAILED"}
AGAIN = "again"  # attribute of a trial: the number of the one that it repeats
STOPPED = "stopped"  # attribute of a trial that took too long
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# A trial is pruned if its best value is below the median of the others' at the same report. The first reports
# of a run are noise, and a median of fewer trials is, too.
PRUNING = {"n_startup_trials": 4, "n_warmup_steps": 2, "n_min_trials": 3}


# Configuration ----------------------------------------------------------------------------------------------

def check_config(config, space: Mapping[str, dict]) -> None:
    """Raises InputError for settings and search spaces that this backend cannot take."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError("the package optuna is not installed: pip install -r requirements.txt") from None
    for name in OF_NNI:
        if getattr(config, name) != getattr(type(config), name):
            raise InputError(f"--{name} is for NNI alone: leave it out, or give --backend nni")
    for name in ("duration", "trial_duration"):
        seconds_in(getattr(config, name), f"--{name}")
    sampler(config.tuner, config.seed)
    distributions(space)


def sampler(tuner: str, seed: int):
    """Optuna's sampler for a tuner of NNI's; raises InputError if there is none."""
    from optuna import samplers

    if tuner in ("", "TPE"):
        return samplers.TPESampler(seed=seed, constant_liar=True)
    if tuner == "Random":
        return samplers.RandomSampler(seed)
    raise InputError(f"--tuner {tuner} is for NNI alone: give TPE or Random, or --backend nni")


def distributions(space: Mapping[str, dict]) -> dict[str, Any]:
    """Optuna's distributions of a search space in NNI's notation, already checked by `check_space`.

    Raises InputError for one without a counterpart.
    """
    return {name: distribution(name, entry["_type"], entry["_value"]) for name, entry in space.items()}


def distribution(name: str, kind: str, values: list):
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind == "choice":
        return CategoricalDistribution(values)
    low, high = values[:2]
    if kind in ("uniform", "loguniform"):
        return FloatDistribution(low, high, log=kind == "loguniform")
    if kind == "randint" and all(float(value).is_integer() for value in values):
        return IntDistribution(int(low), int(high) - 1)
    if kind == "quniform":
        step = values[2]
        if all(math.isclose(end / step, round(end / step), abs_tol=1e-9) for end in (low, high)):
            return FloatDistribution(low, high, step=step)
        raise InputError(f"search space: {name}: Optuna needs bounds that are multiples of the step {step:g}")
    raise InputError(f"search space: {name}: Optuna has no {kind} like {values}: give --backend nni, or "
                     "choice, uniform, loguniform, quniform or randint")


def seconds_in(text: str, flag: str) -> float:
    """Reads a time like 90, 90m or 2h; infinite if it is empty."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([smhd]?)", text)
    if text and not match:
        raise InputError(f"{flag} {text}: give a time like 90s, 30m or 2h")
    return float(match[1]) * UNITS[match[2]] if match else math.inf


# Storage ----------------------------------------------------------------------------------------------------

class JournalLock:
    """Lock of Optuna's journal which, unlike Optuna's own, ends with its process, however that ends.

    Removes the unfinished line of a killed process: with the next line behind it, nobody could read it.
    """

    def __init__(self, path: Path):
        self.path, self.lock = path, FileLock(path.with_name(f".{path.name}.lock"))

    def acquire(self) -> bool:
        self.lock.acquire()
        if self.path.stat().st_size:
            with open(self.path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            if torn:
                whole_lines(self.path)
        return True

    def release(self) -> None:
        self.lock.release()


def open_study(folder: Path):
    """Opens the study of the folder, which it makes if absent."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / "journal.log"
    try:
        backend = JournalFileBackend(str(path), JournalLock(path))
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(backend), study_name="sweep", direction="maximize",
            load_if_exists=True, pruner=optuna.pruners.MedianPruner(**PRUNING))
    except Exception as error:  # whatever a damaged line leads to
        raise InputError(f"{path}: {type(error).__name__}: {error}: give another --outdir") from None


# The sweep --------------------------------------------------------------------------------------------------

@dataclass
class Job:
    """A trial that runs as a process of its own."""

    asked: Any  # optuna.trial.Trial
    folder: Path
    process: subprocess.Popen
    held: contextlib.ExitStack  # its lock
    begun: float = field(default_factory=time.monotonic)
    reports: int = 0

    def stop(self) -> None:
        """Kills the process, if it still runs, with all that it started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Sweep:
    """The sweep of a folder, as one of the processes that may run it."""

    def __init__(self, config, space: Mapping[str, dict], start: Sequence[str], folder: Path):
        """start: the words of a trial's command, without --save."""
        self.config, self.space, self.start, self.folder = config, distributions(space), start, folder
        self.total, self.concurrency = config.trials or DEFAULT_TRIALS, config.concurrency or 1
        self.longest = seconds_in(config.trial_duration, "--trial_duration")
        self.jobs: list[Job] = []
        with self.alone():
            self.study = open_study(folder)

    def alone(self):
        """Keeps other processes from giving out trials meanwhile."""
        return exclusive(self.folder, "--outdir", PATIENCE, "ask")

    def run(self) -> str:
        """Runs trials until all of the sweep have ended, also those of other processes; returns DONE.

        Ends its own trials in the end, whatever the cause.
        """
        until = time.monotonic() + seconds_in(self.config.duration, "--duration")
        with guarded(), progress_bar() as bar:
            task = bar.add_task("sweep", total=self.total)
            try:
                while True:
                    self.jobs = [job for job in self.jobs if not self.has_ended(job)]
                    trials = self.trials()
                    show(bar, task, trials)
                    ended = sum(trial.ended for trial in trials)
                    if not self.jobs and ended >= self.total or time.monotonic() > until:
                        return "DONE"
                    if len(self.jobs) < min(self.concurrency, self.total - ended):
                        self.begin()
                    time.sleep(POLL)
            finally:
                for job in self.jobs:
                    job.stop()
                    job.held.close()

    def trials(self) -> list[Trial]:
        """All trials but those that a killed process gave up, and that another one repeats."""
        known = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get(AGAIN) for trial in known}
        return [self.converted(trial) for trial in known
                if trial.state.name in STATUS and trial.number not in repeated]

    def converted(self, trial) -> Trial:
        folder = self.place(trial.number)
        value = trial.value if trial.state.name == "COMPLETE" else None
        status = "SYS_CANCELED" if STOPPED in trial.user_attrs else STATUS[trial.state.name]
        seconds = trial.duration.total_seconds() if trial.duration else None
        return Trial(trial.number, folder.name, status, value, seconds, trial.params, folder)

    def place(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    # Beginning ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts trials until enough run or all are given out, first those that killed processes gave up."""
        with self.alone():
            self.take_over()
            while len(self.jobs) < self.concurrency and len(self.trials()) < self.total:
                self.jobs.append(self.next_job())

    def take_over(self) -> None:
        """Queues the trials of killed processes once more, but for a result that one left unrecorded."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            with contextlib.suppress(InputError), self.hold(trial.number, patience=0.0):
                known = self.study.get_trials(deepcopy=False)
                if known[trial.number].state.is_finished():  # between the two looks
                    continue
                value = result_of(self.place(trial.number))
                repeated = any(other.user_attrs.get(AGAIN) == trial.number for other in known)
                if value is None and not repeated:
                    self.study.enqueue_trial(trial.params, {AGAIN: trial.number})
                if value is None or repeated:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                else:
                    self.study.tell(trial.number, value)

    def hold(self, number: int, patience: float = 1.0):
        """Locks a trial; raises InputError if a process, this one or another, runs it."""
        return exclusive(self.place(number), "--outdir", patience, "trial")

    def next_job(self) -> Job:
        # seeded by the trial, as other processes would begin with the same random proposals
        count = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = sampler(self.config.tuner, mix(self.config.seed, count) % 2**32)
        asked = self.study.ask(self.space)
        folder = self.place(asked.number)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.hold(asked.number))
            write_json(folder / "trial.json", {"parameters": asked.params})
            with open(folder / "trial.stdout", "wb") as out, open(folder / "trial.stderr", "wb") as errors:
                process = subprocess.Popen(
                    [*self.start, "--save", str(folder)], stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                    env=os.environ | {SWEEPS["optuna"]: str(folder)}, start_new_session=True)
            return Job(asked, folder, process, stack.pop_all())

    # Ending -------------------------------------------------------------------------------------------------

    def has_ended(self, job: Job) -> bool:
        """Passes a trial's reports on to Optuna, ends it if it is not worth going on, records its result."""
        from optuna.trial import TrialState

        code = job.process.poll()
        pruned = self.pass_on(job) and code is None and job.asked.should_prune()
        late = code is None and time.monotonic() - job.begun > self.longest
        if code is None and not pruned and not late:
            return False
        job.stop()
        value = result_of(job.folder) if code == 0 else None
        if late and not pruned:
            job.asked.set_user_attr(STOPPED, True)
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        self.study.tell(job.asked, value, state)
        job.held.close()
        return True

    def pass_on(self, job: Job) -> bool:
        """Tells Optuna the intermediate values that are new; returns whether there were any."""
        values = intermediate_values(job.folder)
        for step, value in enumerate(values[job.reports:], job.reports):
            job.asked.report(value, step)
        news, job.reports = len(values) > job.reports, len(values)
        return news


def intermediate_values(folder: Path) -> list[float]:
    """Reads the intermediate values that a trial has reported, without a line that it is just writing."""
    path = folder / "intermediate.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [checked_json(line, dict[str, float], path)["value"] for line in lines]


def result_of(folder: Path) -> float | None:
    """The final result that a trial reported, if it is a finite number."""
    with contextlib.suppress(InputError):
        return number_in(read_checked(folder / "trial.json", TrialFile).get("value"))
    return None
