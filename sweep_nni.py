"""What a sweep needs of NNI: its configuration, a port, a start that lasts, a look at the trials, and whose result is whose.

    with free_port(8080) as port, running(experiment(config, table, command, folder), port) as sweep:
        state = watch(sweep, total)
        trials = join(sweep.list_trial_jobs())

NNI 3.0 has faults that this file and sweep_tuner.py work around; each is said where it is met.
"""
from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator

import runtime
from spaces import InputError

POLL = 1.0  # seconds between two looks at the trials
ASK_ATTEMPTS = 4
START_ATTEMPTS = 6  # NNI gives its tuner 10 seconds to start, which is too little on a busy machine
ENDED = ("DONE", "STOPPED", "ERROR")  # states of an NNI experiment
UNFINISHED = ("WAITING", "RUNNING", "UNKNOWN")  # states of a trial
TUNERS = {"TPE": ("optimize_mode", "seed"), "Random": ("seed",), "Anneal": ("optimize_mode",), "GridSearch": ()}  # arguments


# Configuration --------------------------------------------------------------------------------------------------------

def experiment(config, table: dict, command: Callable[[bool, int], str], folder: Path):
    """NNI's configuration: flags (a sweep.Config) beat their YAML, which beats the defaults of this file, the table and the
    command. command(whether trials run on this machine, trials at a time). InputError where NNI refuses it."""
    try:
        return configured(config, table, command, folder).canonical_copy()
    except ImportError:
        raise InputError("the package nni is not installed (it has no build for every platform)") from None
    except InputError:
        raise
    except Exception as error:  # NNI and its YAML reader raise half a dozen types
        where = f"--config {config.config}" if config.config else "NNI"
        raise InputError(f"{where}: {' '.join(str(error).split()) or type(error).__name__}") from None


def configured(config, table: dict, command: Callable[[bool, int], str], folder: Path):
    from nni.experiment import AlgorithmConfig, CustomAlgorithmConfig, ExperimentConfig
    from nni.experiment.config.utils import is_missing, unset_base_path

    try:
        wanted = ExperimentConfig.load(config.config) if config.config else ExperimentConfig()
    finally:
        unset_base_path()  # which NNI leaves set after a file that it refuses, and then refuses every other
    wanted.experiment_working_directory = folder / "nni"
    platform = getattr(wanted.training_service, "platform", "")  # NNI's word for a value that is missing has none
    if is_missing(wanted.training_service) or config.training_service not in ("", platform):
        wanted.training_service = ExperimentConfig(config.training_service or "local").training_service
    if wanted.search_space is None and wanted.search_space_file is None:
        wanted.search_space = table
    if config.concurrency or is_missing(wanted.trial_concurrency):
        wanted.trial_concurrency = config.concurrency or 1
    wanted.max_trial_number = config.trials or wanted.max_trial_number or 20
    wanted.max_experiment_duration = config.duration or wanted.max_experiment_duration
    wanted.max_trial_duration = config.trial_duration or wanted.max_trial_duration
    if wanted.trial_command is None:
        local = getattr(wanted.training_service, "platform", "") == "local"
        wanted.trial_command = command(local, wanted.trial_concurrency)
        wanted.trial_code_directory = Path.cwd() if local else runtime.ROOT
    if config.tuner or (wanted.tuner is None and wanted.advisor is None):
        name = config.tuner or "TPE"
        need_tuner(name)
        values = {"optimize_mode": "maximize", "seed": config.seed}
        wanted.tuner = AlgorithmConfig(name=name, class_args={key: values[key] for key in TUNERS[name]})
    if wanted.tuner and (wanted.tuner.name or "").lower() == "tpe":
        wanted.tuner = CustomAlgorithmConfig(class_name="sweep_tuner.TPE", code_directory=runtime.ROOT,
                                             class_args=wanted.tuner.class_args)
    return wanted


def need_tuner(name: str) -> None:
    """InputError where the tuner's own package is missing: NNI would say so only in a log."""
    from nni.tools.package_utils.tuner_factory import create_validator_instance

    try:
        create_validator_instance("tuners", name)
    except ImportError:
        raise InputError(f"--tuner {name} needs another package: pip install 'nni[{name}]==3.0'") from None


# A running experiment -------------------------------------------------------------------------------------------------

@contextmanager
def free_port(wanted: int) -> Iterator[int]:
    """`wanted` where that port and the next one (which remote services use) are free, else another such port.

    The UDP port of the same number is held meanwhile: NNI opens its own late, and a sweep that is launched at the same
    moment must not choose it, too.
    """
    port = wanted
    while True:
        held = socket.socket(type=socket.SOCK_DGRAM)
        try:
            with socket.socket() as first, socket.socket() as second:
                for tcp, number in ((first, port), (second, port + 1)):
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended do not matter
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
    """The experiment, started; it and its trials are stopped in the end, however that comes."""
    from nni.runtime.log import silence_stdout

    silence_stdout()
    runtime.console.print(f"NNI's web page: http://localhost:{port}; note that it listens on every network interface, "
                          "without a password, until the sweep ends", soft_wrap=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # NNI's manager would survive this process
    sweep = None
    try:
        with uninterrupted():
            sweep = start(wanted, port)
        yield sweep
    finally:
        with uninterrupted():
            if sweep:
                sweep.stop()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C inside takes effect at the end: half-started or half-stopped, NNI's manager would be left behind."""
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
    """The experiment with its tuner at work. InputError where that does not succeed."""
    from nni.experiment import Experiment, launcher

    launcher._check_rest_server = partial(launcher._check_rest_server, retry=60)  # seconds; a busy machine needs more than 3
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
    """What the process of the tuner has logged."""
    path = Path(sweep.config.experiment_working_directory, sweep.id, "log", "dispatcher.log")
    return path.read_text() if path.exists() else ""


# Trials ---------------------------------------------------------------------------------------------------------------

def ask(question: Callable[[], Any]):
    """What NNI's manager answers; asked again where a busy machine keeps it from answering in time."""
    for left in reversed(range(ASK_ATTEMPTS)):
        try:
            return question()
        except OSError as error:  # what requests raises
            if not left:
                raise InputError(f"NNI's manager answers no more ({type(error).__name__}); its logs are in outdir/nni") from None
            time.sleep(POLL)


def watch(sweep, total: int) -> str:
    """Show the trials until the experiment ends; returns the state it ended in."""
    with runtime.progress() as bar:
        task = bar.add_task("sweep", total=total)
        while True:
            state, trials = ask(sweep.get_status), join(ask(sweep.list_trial_jobs))
            failed, best = sum(trial.failed for trial in trials), best_of(trials)
            news = f"{f', best {best.value:.4f}' if best else ''}{f', {failed} failed' if failed else ''}"
            bar.update(task, completed=sum(trial.status not in UNFINISHED for trial in trials), description=f"sweep{news}")
            if state in ENDED:
                return state
            if "Dispatcher exiting" in dispatcher_log(sweep):  # the tuner broke; NNI would wait for ever
                return "ERROR"
            time.sleep(POLL)


@dataclass(frozen=True)
class Trial:
    """value is None where the trial has no final result; then parameter_id is, too, as NNI's own word for it is not good."""

    parameter_id: int | None
    trial: str
    status: str
    value: float | None
    seconds: float | None
    parameters: dict
    folder: Path

    @property
    def failed(self) -> bool:
        """A trial that was stopped, by a limit or by hand, did not fail."""
        return self.status == "FAILED" or (self.status == "SUCCEEDED" and self.value is None)


def join(jobs: list) -> list[Trial]:
    """NNI's jobs as trials, in the order of their parameterId.

    With several trials at a time NNI lists a job under the parameters of another. The parameterId of a result is right,
    as the trial itself sends it, and so is trial.json, which the trial writes (runtime.log_trial).
    """
    asked = {int(given.parameter_id): given.parameters for job in jobs for given in job.hyperParameters}
    trials = []
    for job in jobs:
        folder = Path(job.logPath)
        own = folder / "trial.json"  # absent on other machines
        logged = json.loads(own.read_text()) if own.exists() else {}
        final = job.finalMetricData[-1] if job.finalMetricData else None
        identity = int(final.parameterId) if final else None
        parameters = logged.get("parameters", asked.get(identity, {}))
        if parameters != asked.get(identity, parameters):
            raise InputError(f"{own} disagrees with NNI about the parameters of trial {job.trialJobId}")
        ended = job.status not in UNFINISHED and job.startTime
        trials.append(Trial(identity, job.trialJobId, job.status, float(final.data) if final else None,
                            (job.endTime - job.startTime) / 1000 if ended else None, parameters, folder))
    return sorted(trials, key=lambda trial: (trial.parameter_id is None, trial.parameter_id or 0, trial.trial))


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial of the highest value, the earliest of several."""
    return max((trial for trial in trials if trial.value is not None), key=lambda trial: trial.value, default=None)
