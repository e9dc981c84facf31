"""The part of a sweep that talks to NNI: configuration, port, start, progress, and results of trials.

    with free_port(8080) as port, running(experiment(config, table, command, folder), port) as sweep:
        state = watch(sweep, total)
        trials = join(sweep.list_trial_jobs())

NNI 3.0 has faults that this file and sweeps/tuner.py work around; each is described where it is met.
"""
from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import ROOT, path_of
from runtime.guard import guarded
from runtime.guarded import need_file, read_checked
from runtime.log import console, progress_bar
from runtime.settings import TrialFile
from sweeps import private

POLL = 1.0  # seconds between two queries of the trials' states
ASK_ATTEMPTS = 4
START_ATTEMPTS = 6  # NNI gives its tuner 10 seconds to start, too few on a busy machine
DEFAULT_TRIALS = 20
IDLE = 180.0  # seconds without a running trial after which a sweep counts as stuck
ENDED = ("DONE", "STOPPED", "ERROR")  # states of an NNI experiment
UNFINISHED = ("WAITING", "RUNNING", "UNKNOWN")  # states of a trial
TUNERS = {  # name: its arguments
    "TPE": ("optimize_mode", "seed"), "Random": ("seed",), "Anneal": ("optimize_mode",), "GridSearch": ()}


# Configuration ----------------------------------------------------------------------------------------------

def experiment(config, table: dict, command: Callable[[bool, int], str], folder: Path):
    """NNI's configuration of a sweep; raises InputError if NNI refuses it.

    config, a SweepConfig: its flags beat the user's YAML, which beats the defaults of this file, the table
    and the command. command(whether trials run on this machine, trials at a time) is the shell command of a
    trial.
    """
    if config.config:
        need_file(path_of(config.config), "give an NNI experiment YAML")
    try:
        wanted = configured(config, table, command, folder)
        if wanted.search_space_file is not None:
            beside = path_of(config.config).parent  # to which NNI takes its paths as relative
            need_file(beside / path_of(wanted.search_space_file), "name the file of the search space")
        return wanted.canonical_copy()
    except ImportError:
        raise InputError("the package nni is not installed (it has no build for every platform)") from None
    except InputError:
        raise
    except Exception as error:  # NNI and its YAML reader raise half a dozen types
        where = f"--config {config.config}" if config.config else "NNI"
        raise InputError(f"{where}: {' '.join(str(error).split()) or type(error).__name__}") from None


def space_source(config) -> str:
    """The file that the search space of `experiment` was read from, for errors."""
    from nni.experiment import ExperimentConfig

    if not config.config:
        return "search space"
    return str(ExperimentConfig.load(config.config).search_space_file or config.config)


def configured(config, table: dict, command: Callable[[bool, int], str], folder: Path):
    from nni.experiment import AlgorithmConfig, CustomAlgorithmConfig, ExperimentConfig
    from nni.experiment.config.utils import is_missing, unset_base_path

    try:
        wanted = ExperimentConfig.load(config.config) if config.config else ExperimentConfig()
    finally:
        unset_base_path()  # NNI leaves it set after a file that it refuses, and then refuses every other
    wanted.experiment_working_directory = folder / "nni"
    platform = getattr(wanted.training_service, "platform", "")  # NNI's marker of a missing value has none
    if is_missing(wanted.training_service) or config.training_service not in ("", platform):
        wanted.training_service = ExperimentConfig(config.training_service or "local").training_service
    if wanted.search_space is None and wanted.search_space_file is None:
        wanted.search_space = table
    if config.concurrency or is_missing(wanted.trial_concurrency):
        wanted.trial_concurrency = config.concurrency or 1
    wanted.max_trial_number = config.trials or wanted.max_trial_number or DEFAULT_TRIALS
    wanted.max_experiment_duration = config.duration or wanted.max_experiment_duration
    wanted.max_trial_duration = config.trial_duration or wanted.max_trial_duration
    if wanted.trial_command is None:
        local = getattr(wanted.training_service, "platform", "") == "local"
        wanted.trial_command = command(local, wanted.trial_concurrency)
        wanted.trial_code_directory = Path.cwd() if local else ROOT
    if config.tuner or (wanted.tuner is None and wanted.advisor is None):
        name = config.tuner or "TPE"
        values = {"optimize_mode": "maximize", "seed": config.seed}
        wanted.tuner = AlgorithmConfig(name=name, class_args={key: values[key] for key in TUNERS[name]})
    if wanted.tuner and getattr(wanted.tuner, "name", None):
        need_tuner(wanted.tuner.name, wanted.tuner.class_args)
        if wanted.tuner.name.lower() == "tpe":
            wanted.tuner = CustomAlgorithmConfig(class_name="sweeps.tuner.TPE", code_directory=ROOT,
                                                 class_args=wanted.tuner.class_args)
    return wanted


def need_tuner(name: str, arguments: dict | None = None) -> None:
    """Makes the tuner, to raise InputError for what NNI would only log, a minute later."""
    from nni.tools.package_utils.config_manager import get_all_algo_meta
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

    known = sorted(meta.name for meta in get_all_algo_meta() if meta.algo_type == "tuner")
    if name.lower() not in map(str.lower, known):
        raise InputError(f"tuner {name!r} is none of {', '.join(known)}")
    logging.disable(logging.INFO)
    try:
        create_builtin_class_instance(name, dict(arguments or {}), "tuners")
    except ImportError:
        raise InputError(f"tuner {name} needs another package: pip install 'nni[{name}]==3.0'") from None
    except Exception as error:  # each tuner has types of its own
        raise InputError(f"tuner {name}: {error or type(error).__name__}") from None
    finally:
        logging.disable(logging.NOTSET)


# A running experiment ---------------------------------------------------------------------------------------

@contextmanager
def free_port(wanted: int) -> Iterator[int]:
    """Yields the port `wanted` if it and the next one (for remote services) are free, else another such port.

    The UDP port of the same number is held meanwhile: NNI opens its own late, and a sweep that is launched at
    the same moment must not choose it, too.
    """
    port = wanted
    while True:
        held = socket.socket(type=socket.SOCK_DGRAM)
        try:
            with socket.socket() as first, socket.socket() as second:
                for tcp, number in ((first, port), (second, port + 1)):
                    # connections that have just ended do not matter
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tcp.bind(("", number))
            held.bind(("127.0.0.1", port))
            break
        except (OSError, OverflowError):
            held.close()
            with socket.socket() as any_port:
                any_port.bind(("", 0))
                port = any_port.getsockname()[1]
    with held:
        yield port


@contextmanager
def running(wanted, port: int) -> Iterator[Any]:
    """Starts the experiment and yields it; stops it and its trials in the end, whatever the cause."""
    from nni.runtime.log import silence_stdout

    silence_stdout()
    if private.inside():
        console.print("NNI runs in a network of its own; --no-private shows its web page", soft_wrap=True)
    else:
        console.print(f"NNI's web page: http://localhost:{port}; note that it listens on every network "
                      "interface, without a password, until the sweep ends", soft_wrap=True)
    sweep = None
    with guarded():
        try:
            with uninterrupted():
                sweep = start(wanted, port)
            yield sweep
        finally:
            with uninterrupted():
                if sweep:
                    sweep.stop()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays Ctrl-C to the end: half-started or half-stopped, NNI's manager would be left behind."""
    caught = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: caught.append(True)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)
    if caught:
        raise KeyboardInterrupt


def start(wanted, port: int):
    """Starts the experiment and waits for its tuner; raises InputError if that does not succeed."""
    from nni.experiment import Experiment, launcher

    # 60 seconds: a busy machine needs more than 3
    launcher._check_rest_server = partial(launcher._check_rest_server, retry=60)
    for _ in range(START_ATTEMPTS):
        sweep = Experiment(wanted)
        try:
            sweep.start(port)
            while (state := sweep.get_status()) not in ENDED:
                if "Dispatcher started" in dispatcher_log(sweep):
                    return sweep
                time.sleep(POLL / 4)
        except Exception as error:  # NNI lets through whatever went wrong inside it
            state = f"{type(error).__name__}: {error}"
        sweep.stop()
    raise InputError(f"NNI did not start ({state}); its logs are in {wanted.experiment_working_directory}")


def dispatcher_log(sweep) -> str:
    """The log of the tuner's process."""
    path = Path(sweep.config.experiment_working_directory, sweep.id, "log", "dispatcher.log")
    return path.read_text(errors="replace") if path.exists() else ""


def last_error(log: str) -> str:
    """The last error in the log of the tuner's process, in one line."""
    lines = [line.strip() for line in log.splitlines() if "Error" in line or "ERROR" in line]
    return lines[-1] if lines else "its log names no error"


# Trials -----------------------------------------------------------------------------------------------------

def ask(question: Callable[[], Any]):
    """The answer of NNI's manager; asks again if a busy machine keeps it from answering in time."""
    for left in reversed(range(ASK_ATTEMPTS)):
        try:
            return question()
        except OSError as error:  # raised by requests
            if not left:
                raise InputError(f"NNI's manager answers no more ({type(error).__name__}); its logs are in "
                                 "outdir/nni") from None
            time.sleep(POLL)


def watch(sweep, total: int, on_trials: Callable[[list[Trial]], None] = lambda trials: None) -> str:
    """Shows the progress of the trials until the experiment ends; returns its final state.

    on_trials(all trials so far) is called after each look. Ends a sweep whose tuner broke, or in which no
    trial runs for IDLE seconds, and prints the tuner's last error: NNI would wait for ever.
    """
    with progress_bar() as bar:
        task, active = bar.add_task("sweep", total=total), time.monotonic()
        while True:
            state, trials = ask(sweep.get_status), join(ask(sweep.list_trial_jobs))
            on_trials(trials)
            show(bar, task, trials)
            if state in ENDED:
                return state
            if any(trial.status == "RUNNING" for trial in trials):
                active = time.monotonic()
            log, idle = dispatcher_log(sweep), time.monotonic() - active > IDLE
            if "Dispatcher exiting" in log or idle:
                why = f"no trial has run for {IDLE:.0f} s" if idle else "the tuner broke"
                bar.console.print(f"{why}: {last_error(log)}", soft_wrap=True)
                return "ERROR"
            time.sleep(POLL)


def show(bar, task: int, trials: list[Trial]) -> None:
    """Brings the progress bar of a sweep up to date."""
    failed, best = sum(trial.failed for trial in trials), best_of(trials)
    news = f"{f', best {best.value:.4f}' if best else ''}{f', {failed} failed' if failed else ''}"
    bar.update(task, completed=sum(trial.ended for trial in trials), description=f"sweep{news}")


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    If it has no final result, value is None, and so is parameter_id, as NNI's own record of it is unreliable.
    """

    parameter_id: int | None
    trial: str
    status: str
    value: float | None
    seconds: float | None
    parameters: dict
    folder: Path

    @property
    def ended(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def failed(self) -> bool:
        """Whether the trial failed; one that was stopped, by a limit or by hand, did not."""
        return self.status == "FAILED" or (self.status == "SUCCEEDED" and self.value is None)


def number_in(result: Any) -> float | None:
    """The finite number that a trial reported, alone or under "default"; None for anything else."""
    value = result.get("default") if isinstance(result, dict) else result
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def join(jobs: list) -> list[Trial]:
    """Converts NNI's jobs to trials, in the order of their parameterId.

    With several trials at a time, NNI lists a job under the parameters of another. The parameterId of a
    result is right, as the trial itself sends it, and so is trial.json, which the trial writes
    (runtime.settings.log_trial).
    """
    asked = {int(given.parameter_id): given.parameters for job in jobs for given in job.hyperParameters}
    trials = []
    for job in jobs:
        folder = Path(job.logPath)
        own = folder / "trial.json"  # absent on other machines
        logged = read_checked(own, TrialFile) if own.exists() else {}
        final = job.finalMetricData[-1] if job.finalMetricData else None
        identity = int(final.parameterId) if final else None
        parameters = logged.get("parameters", asked.get(identity, {}))
        if parameters != asked.get(identity, parameters):
            raise InputError(f"{own} disagrees with NNI about the parameters of trial {job.trialJobId}")
        ended = job.status not in UNFINISHED and job.startTime
        trials.append(Trial(identity, job.trialJobId, job.status, number_in(final.data) if final else None,
                            (job.endTime - job.startTime) / 1000 if ended else None, parameters, folder))
    return sorted(
        trials, key=lambda trial: (trial.parameter_id is None, trial.parameter_id or 0, trial.trial))


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial with the highest value, the earliest of equal ones."""
    return max(
        (trial for trial in trials if trial.value is not None), key=lambda trial: trial.value, default=None)
