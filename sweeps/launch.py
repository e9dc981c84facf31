"""A sweep over hyper-parameters with NNI or Optuna: the command of a trial, and the export at the end.

    python nni4nasbench101.py --stage finetune --labels nasbench_only108.tfrecord --trials 20 --concurrency 2

The scripts are nni4nasbench101.py and nni4nasbench301.py; each has its own tables of swept settings.
"""
from __future__ import annotations

import csv
import dataclasses
import io
import os
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rich.table import Table

import finetune
import pretrain
import spaces
from figs.sweep import plot
from runtime.errors import InputError
from runtime.files import path_of, sha256_of, write_json, write_text
from runtime.guarded import read_checked, read_json
from runtime.locks import exclusive
from runtime.log import console, output
from runtime.settings import SWEEPS, by_content, check_same, checked, fingerprint, parse, setting
from spaces.labels.protocols import RANKING_PROTOCOLS
from spaces.labels.read import EMBEDDED, default_labels
from sweeps import optuna_backend, private
from sweeps.earlier import append_trial, continued, read_trials
from sweeps.experiment import (
    TUNERS,
    Trial,
    ask,
    best_of,
    experiment,
    free_port,
    join,
    running,
    space_source,
    watch,
)
from sweeps.space import check_space

ABOUT = """
A trial is finetune.py or pretrain.py with --param nni, or optuna. Flags after -- go to every trial. A setting
among them is fixed, not swept; with --param local:FILE among them, that file gives the settings that are not
swept.

The result of a trial is Kendall's tau on validation accuracies of cells that it did not train on: the mean
over its seeds, or in stage pretrain the tau of the fine-tuning probe at the end. Test accuracy chooses
nothing. The best tau of a sweep is optimistic, as it was chosen for being high: measure the winner on other
seeds (trials use seeds from 1000 on, which leaves 0-9 for that).

--outdir gets trials.csv (every trial), best.json (ready for --param local:), trials.png (parallel
coordinates), result.json, config.json and nni/ (NNI's files, with the folder of each trial) or trials/ (those
of Optuna). The exit code is 1 if a trial failed.
"""


class Stage(NamedTuple):
    script: ModuleType
    flags: str  # of every trial, before the user's


STAGES = {
    "pretrain": Stage(pretrain, "--seed 1000 --finetune_train_samples 200 --no-tensorboard"),
    "finetune": Stage(finetune, "--seeds 1000-1001 --model_state_dict default"),
    "train": Stage(finetune, "--seeds 1000-1001"),
}


@dataclass
class SweepConfig:
    """How settings are swept.

    Each script adds the spaces that it sweeps.
    """

    stage: str = setting(
        "finetune", "pretrain, finetune (from the shipped encoder) or train (from scratch)", tuple(STAGES),
        role="data")
    backend: str = setting(
        "nni", "what proposes settings and runs trials: nni (a server; other machines by --config) or optuna "
        "(a journal in --outdir; prunes; any number of processes, started with --resume, work on it)",
        tuple(SWEEPS))
    labels: str = setting(
        "", "label table that trials train and are measured on (empty = the space's default)", role="data")
    outdir: str = setting("", "folder of the results (empty = runs/sweep/SPACE/STAGE)", role="output")
    trials: int = setting(
        0, "number of trials in all (0 = the one in --config, or 20)", within=(0, 10**6))
    resume: bool = setting(
        False, "go on with the sweep in --outdir, if there is one: keeps its trials and makes those that are "
        "missing, also for a larger --trials", role="output")
    concurrency: int = setting(
        0, "trials at a time (0 = the number in --config, or 1)", within=(0, 1024), role="machine")
    tuner: str = setting(
        "", "NNI tuner that proposes settings (empty = the one in --config, which may be any of NNI's, or "
        "TPE); Anneal needs pip install nni[Anneal]; Optuna has TPE and Random", ("", *TUNERS))
    seed: int = setting(0, "seed of the tuner", within=(0, 2**31 - 1))
    training_service: str = setting(
        "", "where trials run (empty = the one in --config, or local); remote, kubeflow and NNI's others "
        "take their machines from --config; there, python3 runs a copy of this folder, and --labels is a "
        "path on those machines", role="machine")
    duration: str = setting(
        "", "end the sweep after this time, like 90m or 2h, even if trials are running", role="output")
    trial_duration: str = setting("", "end a trial after this time", role="output")
    private: bool = setting(
        True, "run the sweep in a network of its own, where Linux allows it and trials run on this machine: "
        "nobody else can reach NNI, and its web page cannot be seen (off = on every interface, without a "
        "password)", role="machine")
    port: int = setting(
        8080, "port of NNI's web page; if it or the next is taken, another is used", within=(1024, 65534),
        role="machine")
    config: str = setting(
        "", "NNI experiment YAML of your own; flags beat it, and it beats the table, the command and the "
        "defaults of this script")


# Table: what is swept ---------------------------------------------------------------------------------------

def left_to_sweep(table: dict, given: list[str]) -> dict:
    """The table without the settings that the flags `given` to every trial fix.

    Raises InputError if nothing is left.
    """
    fixed = {word[2:].split("=")[0].removeprefix("no-") for word in given if word.startswith("--")}
    left = {name: space for name, space in table.items() if name not in fixed}
    if not left:
        raise InputError("the flags after -- fix everything that this stage sweeps")
    if len(left) < len(table):
        console.print(f"fixed by a flag, so not swept: {', '.join(name for name in table if name in fixed)}")
    return left


# Launch -----------------------------------------------------------------------------------------------------

def run_sweep(config_class, tables: dict[str, dict], about: str, argv: list[str] | None = None) -> dict:
    """Runs the sweep of the flags with the table of its stage; returns the content of result.json."""
    argv = sys.argv[1:] if argv is None else argv
    cut = argv.index("--") if "--" in argv else len(argv)
    config, given = parse(config_class, argv[:cut], about + ABOUT), argv[cut + 1:]
    if private.inside():
        private.settle_in()
    stage = STAGES[config.stage]
    table = left_to_sweep(tables[config.stage], given)
    flags = ["--space", config.space, "--labels", label_source(config), "--protocol", "gmae",
             *stage.flags.split(), *given]
    settings = parse(stage.script.Config, flags, "")
    refuse_test_accuracy(settings)
    folder = folder_of(config)
    need_free(folder, config)
    flags += ["--param", f"{settings.param},{config.backend}"]
    if config.backend == "optuna":
        optuna_backend.check_config(config, table)
        check_space(table, stage.script, "search space")
        return run_optuna(config, settings, table, flags, folder)
    wanted = experiment(config, table, partial(command, stage.script, flags), folder)
    ours = Path(stage.script.__file__).name in wanted.trial_command
    check_space(wanted.search_space, stage.script if ours else None, space_source(config))
    if wants_privacy(config):
        return run_privately(config_class, config, argv)
    with exclusive(folder, "--outdir"):
        open_folder(folder, config, flags, wanted.search_space)
        earlier = read_trials(folder)
        state, trials = "DONE", earlier
        if len(earlier) < wanted.max_trial_number:
            state, trials = carry_on(config, wanted, earlier, folder)
        write_csv(folder / "trials.csv", trials)
        return export(config, settings, kinds_in(wanted.search_space), trials, state, folder)


def run_optuna(config, settings, table: dict, flags: list[str], folder: Path) -> dict:
    """Runs a sweep, or helps other processes to, with Optuna; returns the content of result.json."""
    with exclusive(folder, "--outdir", optuna_backend.PATIENCE, "config.json"):
        open_folder(folder, config, flags, table)
    start = program(STAGES[config.stage].script, flags, True, config.concurrency or 1)
    sweep = optuna_backend.Sweep(config, table, start, folder)
    try:
        state = sweep.run()
    finally:  # also after Ctrl-C
        write_csv(folder / "trials.csv", sweep.trials())
    with exclusive(folder, "--outdir", optuna_backend.PATIENCE, "result.json"):  # others end at that moment
        return export(config, settings, kinds_in(table), sweep.trials(), state, folder)


def kinds_in(space: dict) -> dict[str, str]:
    """NNI's kind of each parameter."""
    return {name: entry["_type"] for name, entry in space.items()}


def wants_privacy(config) -> bool:
    """Whether the sweep shall be started once more in a network of its own; a YAML may use other machines."""
    return (config.private and not config.config and config.training_service in ("", "local")
            and not private.inside() and private.available())


def run_privately(config_class, config, argv: list[str]) -> dict:
    """Runs the same command in a network of its own; returns the content of result.json."""
    code = private.run_inside(sys.modules[config_class.__module__].__file__, argv)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        sys.exit(code)
    return read_json(folder_of(config) / "result.json")


def folder_of(config) -> Path:
    return path_of(config.outdir or f"runs/sweep/{config.space}/{config.stage}").absolute()


def carry_on(config, wanted, earlier: list[Trial], folder: Path) -> tuple[str, list[Trial]]:
    """Runs the trials that are missing, in an experiment of their own, which goes on from the earlier ones.

    Returns NNI's final state and all trials. Each is on the disk as soon as it has ended.
    """
    total = wanted.max_trial_number
    if earlier:
        wanted = continued(wanted, earlier, config.seed)
    known = {trial.trial for trial in earlier}
    first = 1 + max((trial.parameter_id for trial in earlier if trial.parameter_id is not None), default=-1)

    def all_of(jobs: list[Trial]) -> list[Trial]:
        return earlier + [trial if trial.parameter_id is None else dataclasses.replace(
            trial, parameter_id=first + trial.parameter_id) for trial in jobs]

    def keep(jobs: list[Trial]) -> None:
        for trial in all_of(jobs):
            if trial.ended and trial.trial not in known:
                known.add(trial.trial)
                append_trial(folder, trial)

    with free_port(config.port) as port, running(wanted, port) as sweep:
        try:
            state = watch(sweep, total - len(earlier), keep)
        finally:  # also after Ctrl-C
            jobs = join(ask(sweep.list_trial_jobs))
            keep(jobs)
            write_csv(folder / "trials.csv", all_of(jobs))
    return state, all_of(jobs)


def need_free(folder: Path, config) -> None:
    """Raises InputError if the folder holds a sweep and --resume is off."""
    begun = any((folder / name).exists() for name in ("config.json", "trials.csv"))
    if begun and not config.resume:
        raise InputError(f"{folder} holds a sweep already: go on with --resume or give another --outdir")


def open_folder(folder: Path, config, flags: list[str], space: dict) -> None:
    """Writes config.json; raises InputError if the folder holds another sweep. Only --trials may differ."""
    need_free(folder, config)
    path = folder / "config.json"
    labels = flags[flags.index("--labels") + 1]
    decided = by_content(fingerprint(config), labels=content(labels), config=content(config.config))
    others = [word for i, word in enumerate(flags) if "--labels" not in (word, flags[i - 1])]
    decided = {name: value for name, value in decided.items() if name != "trials"} | {
        "trial_flags": others, "search_space": space}
    if path.exists():
        stored = read_checked(path, dict[str, Any], "give another --outdir")
        if "decided" not in stored:
            raise InputError(
                f"{path} is of an earlier version, which could not resume: give another --outdir")
        check_same({"backend": "nni"} | stored["decided"], decided, path)  # once there was no other
    else:
        write_json(path, dataclasses.asdict(config) | {
            "trial_flags": flags, "search_space": space, "decided": decided})


def content(source: str) -> str | None:
    """The digest of a file; an embedded name stands for itself."""
    return sha256_of(path_of(source)) if source and path_of(source).is_file() else source or None


def label_source(config) -> str:
    """--labels, or the default table of the space.

    Raises InputError if trials on this machine would not find it.
    """
    labels = config.labels or default_labels(spaces.get(config.space))
    here = not config.config and config.training_service in ("", "local")
    if here and labels != EMBEDDED and not path_of(labels).is_file():
        raise InputError(f"--labels {labels}: no such file")
    return labels


def refuse_test_accuracy(settings) -> None:
    """Raises InputError if the trials' protocol would rank test accuracies, as a sweep chooses."""
    protocol = settings.protocol or spaces.get(settings.space).protocol
    if RANKING_PROTOCOLS[protocol].target == "test":
        allowed = ", ".join(name for name, protocol in RANKING_PROTOCOLS.items() if protocol.target != "test")
        raise InputError(f"--protocol {protocol} ranks test accuracy, which must choose nothing: leave it "
                         f"out, or give one of {allowed}")


def command(script: ModuleType, flags: list[str], local: bool, concurrency: int) -> str:
    """The shell command of a trial, which saves to the folder that NNI gives it."""
    return f'{shlex.join(program(script, flags, local, concurrency))} --save "$NNI_OUTPUT_DIR"'


def program(script: ModuleType, flags: list[str], local: bool, concurrency: int) -> list[str]:
    """The words of a trial's command, without the folder to save to."""
    path = Path(script.__file__)
    start = [sys.executable, str(path)] if local else ["python3", path.name]
    if local and "--threads" not in flags:  # trials side by side must not compete for the processors
        flags = [*flags, "--threads", str(max(1, (os.cpu_count() or 1) // concurrency))]
    return [*start, *flags]


# Export -----------------------------------------------------------------------------------------------------

def write_csv(path: Path, trials: list[Trial]) -> None:
    """Writes one line per trial: parameterId, its name, status, result, seconds, and every parameter."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["parameter_id", "trial", "status", "value", "seconds", *names])
    for trial in trials:
        row = (trial.parameter_id, trial.trial, trial.status, trial.value, trial.seconds)
        lines.writerow([*row, *(trial.parameters.get(name) for name in names)])
    write_text(path, text.getvalue())


def recipe(settings, parameters: dict, where: str = "NNI") -> dict:
    """The params file of a trial: its parameters, and its other recipe settings that are not default.

    where: the source of the parameters, for errors.
    """
    config_class = type(settings)
    stored = {name: value for name, value in fingerprint(settings, roles=("recipe",)).items()
              if value != getattr(config_class, name)}
    return stored | {name: checked(config_class, name, value, where) for name, value in parameters.items()}


def export(config, settings, kinds: dict[str, str], trials: list[Trial], state: str, folder: Path) -> dict:
    """Writes best.json, trials.png and result.json, and prints the outcome.

    Exits with code 1 if a trial failed or none has a result. settings: those of a trial without its
    parameters. kinds: as `kinds_in` returns them. state: the final one, DONE or an experiment's of NNI.
    """
    best, failed = best_of(trials), [trial for trial in trials if trial.failed]
    winner = best and {"trial": best.trial, "parameter_id": best.parameter_id, "value": best.value}
    result = {"space": config.space, "stage": config.stage, "labels": settings.labels, "state": state,
              "trials": len(trials), "failed": len(failed), "best": winner}
    write_json(folder / "result.json", result)
    if best:
        write_json(folder / "best.json", recipe(settings, best.parameters, f"{folder / 'trials.csv'}"))
        done = [trial for trial in trials if trial.value is not None]
        plot([trial.parameters for trial in done], [trial.value for trial in done], folder / "trials.png",
             f"{config.space}, {config.stage}: {len(done)} trials", kinds)
        print_best(done, folder)
    if failed:
        console.print(
            f"{len(failed)} of {len(trials)} trials failed; the first: {last_words(failed[0].folder)}")
    if state == "ERROR" or not best:
        console.print(f"the sweep ended in state {state} {'with a' if best else 'without'} result; its logs "
                      f"are below {folder}")
    if failed or state == "ERROR" or not best:
        sys.exit(1)
    return result


def last_words(folder: Path) -> str:
    """The last line that a trial wrote to stderr."""
    path = folder / "trial.stderr"
    lines = path.read_text().split("\n") if path.exists() else []
    return next(
        (line.strip() for line in reversed(lines) if line.strip()), f"nothing on stderr, see {folder}")


def print_best(trials: list[Trial], folder: Path, most: int = 5) -> None:
    table = Table("tau", "trial", "parameters", title=f"the best of {len(trials)} trials with a result")
    for trial in sorted(trials, key=lambda trial: -trial.value)[:most]:
        settings = " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                            for name, value in trial.parameters.items())
        table.add_row(f"{trial.value:.4f}", trial.trial, settings)
    output.print(table)
    output.print(
        f"written: {folder / 'best.json'} (--param local:{folder / 'best.json'}), trials.csv, trials.png\n"
        "The best tau was chosen for being high: measure it again on seeds 0-9.")
