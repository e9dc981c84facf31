"""The trials of a sweep on disk, trials.jsonl, and how a sweep goes on from them."""
from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from runtime.errors import InputError
from runtime.files import append_line, whole_lines
from runtime.guarded import checked_json, read_checked
from sweeps.experiment import Trial, TrialFile, number_in


class TrialLine(msgspec.Struct):
    """A line of trials.jsonl: a trial that has ended, see `sweeps.experiment.Trial`."""

    parameter_id: int | None
    trial: str
    status: str
    value: float | None
    seconds: float | None
    parameters: dict[str, Any]
    folder: str


def append_trial(folder: Path, trial: Trial) -> None:
    append_line(folder / "trials.jsonl", dataclasses.asdict(trial) | {"folder": str(trial.folder)})


def read_trials(folder: Path) -> list[Trial]:
    """Reads the trials of a sweep that have ended, also those that a kill kept from being recorded.

    A trial leaves its parameters and its result in its own folder.
    """
    path, trials = folder / "trials.jsonl", []
    for number, line in enumerate(whole_lines(path), 1):
        fields = msgspec.structs.asdict(checked_json(line, TrialLine, f"{path}:{number}", "remove the line"))
        trials.append(Trial(**fields | {"folder": Path(fields["folder"])}))
    known = {trial.trial for trial in trials}
    for place in sorted((folder / "nni").glob("[!_]*/environments/*/trials/*/trial.json")):
        stored = read_checked(place, TrialFile, "remove it")
        value = number_in(stored.get("value"))
        if place.parent.name not in known and value is not None:
            first = 1 + max((trial.parameter_id or 0 for trial in trials), default=-1)
            trials.append(Trial(first, place.parent.name, "SUCCEEDED", value, None,
                                stored.get("parameters", {}), place.parent))
            append_trial(folder, trials[-1])
    return trials


def continued(wanted, earlier: list[Trial], seed: int):
    """NNI's configuration of the trials that are missing; TPE is told the earlier results.

    Raises InputError for a tuner that would propose the same once more.
    """
    wanted = copy.deepcopy(wanted)
    wanted.max_trial_number -= len(earlier)
    tuner = wanted.tuner
    name = tuner and (getattr(tuner, "name", None) or tuner.class_name)
    if name not in ("sweeps.tuner.TPE", "Random", "Anneal"):
        raise InputError(f"--resume: tuner {name} would propose the same settings again: give TPE, Random or "
                         "Anneal, or another --outdir")
    tuner.class_args = dict(tuner.class_args or {})
    if "seed" in tuner.class_args:  # else its first, random proposals were those of before
        tuner.class_args["seed"] = (tuner.class_args["seed"] or seed) + len(earlier)
    if name == "sweeps.tuner.TPE":
        tuner.class_args["earlier"] = [{"parameter": trial.parameters, "value": trial.value}
                                       for trial in earlier if trial.value is not None]
    return wanted
