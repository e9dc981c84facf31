"""Settings are a dataclass: each field is a flag, and its default is the lowest of four sources.

defaults < params file (`--param local:FILE`) < sweep (`--param local:FILE,nni`, or `optuna`) < flags on the
command line.

The declaration of a field says whether it matters to a resumed run (`setting(..., role=...)`). So every
--resume works alike: `fingerprint(config)` is stored beside the run, and `check_same(stored, now, path)`
compares.
"""
from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import math
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import ROOT, append_line, path_of, write_json
from runtime.guarded import read_checked, read_json

ROLES = {  # role: the heading of its flags in --help
    "data": "data: what is read, and the seeds",
    "recipe": "recipe: how it is done",
    "output": "output: what is written, and where",
    "machine": "machine: where and how fast; changes no result",
}
DECIDES = ("recipe", "data")  # roles of the settings that --resume may not change
CONTENT = "sha256:"  # begins the value of a setting that stands for the content of a file
LARGEST_PARAMS = 2**20  # bytes of a params file
MOST_SEEDS = 10_000
SWEEPS = {  # source of settings: the environment variable that names the folder of a trial
    "nni": "NNI_OUTPUT_DIR", "optuna": "GMAE_NAS_TRIAL"}


def setting(default, help: str, choices: tuple = (), within: tuple[float, float] = (-math.inf, math.inf),
            role: str = "recipe", several: bool = False):
    """A dataclass field that becomes a flag with this help text.

    within: the bounds of a number, both ends included. role: a key of ROLES. several: the flag may be given
    more than once; its value is all of them with commas.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}")
    return dataclasses.field(
        default=default, metadata={"help": help, "choices": choices, "within": within, "role": role,
                                   "several": several})


# The resume contract ----------------------------------------------------------------------------------------

def fingerprint(config, of: type | None = None, roles: Sequence[str] = DECIDES) -> dict[str, Any]:
    """{name: value} of the settings that decide a run's result, those with one of the roles.

    of: a base of the config's class; only its settings.
    """
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(of or config)
            if field.metadata["role"] in roles}


def by_content(decided: Mapping[str, Any], **digests: str | None) -> dict[str, Any]:
    """The fingerprint with the settings that name files replaced by what these hold; None = no file.

    So a file under another name is the same, and another file under the same name is not.
    """
    return {**decided, **{name: digest and CONTENT + digest for name, digest in digests.items()}}


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any], path: Path,
               spelled: Mapping[str, Any] = {}) -> None:
    """Raises InputError if a setting of a run differs from the one that `path` was written with.

    A setting that an earlier version did not know, and so did not store, must be empty or off.
    spelled: the settings behind the digests of `by_content`, which earlier versions stored.
    """
    for name, value in now.items():
        before = stored.get(name)
        unknown = name not in stored and not value
        if before == value or unknown or name in spelled and (before or "") == spelled[name]:
            continue
        if str(before).startswith(CONTENT) and str(value).startswith(CONTENT):
            raise InputError(f"{path} was made with another content of {name}: give the same file to go on, "
                             "or name another folder")
        raise InputError(f"{path} was made with {name} = {before!r:.60}, not {value!r:.60}: give the same to "
                         "go on, or name another folder")


def command_of(script: str, config, folder: str) -> list[str]:
    """The script and the flags that make this config, for `runtime.verify`; `{folder}` stands for its output.

    folder: the setting that names the output folder.
    """
    words = [script]
    for field in dataclasses.fields(config):
        value = "{folder}" if field.name == folder else getattr(config, field.name)
        if value != field.default and field.name not in ("param", "resume"):
            words += [f"--{'' if value else 'no-'}{field.name}"] if isinstance(value, bool) else [
                f"--{field.name}", str(value)]
    return words


def part(config, of: type):
    """Only those settings of the config that belong to `of`, a base of its class."""
    return of(**{field.name: getattr(config, field.name) for field in dataclasses.fields(of)})


class TrialFile(typing.TypedDict, total=False):
    """trial.json, by `log_trial`."""

    parameters: dict[str, Any]
    value: float


# Reading settings -------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputErrors, one line each."""

    def error(self, message: str):
        raise InputError(f"{message}; see --help")


def parse(config_class, argv: list[str] | None, description: str,
          before: Callable[[dict], tuple[dict, str]] = lambda flags: ({}, "")):
    """Reads the settings of a script from the four sources. Unknown keys and wrong values raise InputError.

    A bool is a pair of flags, `--x` and `--no-x`; without either, the value of the lower source holds.
    before(flags): a source between defaults and --param, like the folder that the flags name.
    """
    types = typing.get_type_hints(config_class)
    parser = Parser(usage="%(prog)s [flags]", description=description, argument_default=argparse.SUPPRESS,
                    formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    groups = {heading: parser.add_argument_group(heading) for heading in headings(config_class)}
    for field in dataclasses.fields(config_class):
        default = "empty" if field.default == "" else field.default
        help = f"{field.metadata['help']} (default: {default})".replace("%", "%%")
        group = groups[heading_of(config_class, field)]
        if types[field.name] is bool:
            group.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, help=help)
        else:
            choices = ",".join(filter(None, field.metadata["choices"]))
            shape = f"{{{choices}}}" if choices else types[field.name].__name__.upper()
            group.add_argument(f"--{field.name}", metavar=shape, help=help,
                               action="append" if field.metadata["several"] else "store")
    flags = {name: ",".join(value) if isinstance(value, list) else value
             for name, value in vars(parser.parse_args(argv)).items()}
    source = flags.get("param", getattr(config_class, "param", "default"))
    return combined(config_class, before(flags), *map(stored_settings, source.split(",")),
                    (flags, "command line"))


def combined(config_class, *sources: tuple[dict, str]):
    """Builds the settings from sources (values, name of the source), the last one winning.

    Raises InputError as `checked` does.
    """
    values = {}
    for given, where in sources:
        values.update({name: checked(config_class, name, value, where) for name, value in given.items()})
    return config_class(**values)


def headings(config_class) -> list[str]:
    """The headings of --help: data, recipe, the shared recipes, output, machine."""
    used = dict.fromkeys(heading_of(config_class, field) for field in dataclasses.fields(config_class))
    first, last = [ROLES["data"], ROLES["recipe"]], [ROLES["output"], ROLES["machine"]]
    shared = [heading for heading in used if heading not in ROLES.values()]
    return [heading for heading in (*first, *shared, *last) if heading in used]


def heading_of(config_class, field: dataclasses.Field) -> str:
    """The heading of a flag in --help: its role or, in a shared recipe, the first line of its docstring."""
    home = next(base for base in reversed(config_class.__mro__)
                if field.name in inspect.get_annotations(base))
    if home is config_class or field.metadata["role"] != "recipe":
        return ROLES[field.metadata["role"]]
    return inspect.getdoc(home).partition("\n")[0].rstrip(".")


def stored_settings(source: str) -> tuple[dict, str]:
    """Reads the settings that `--param` names, and returns them with the name of their source for errors."""
    if source == "default":
        return {}, "defaults"
    if source == "nni":
        try:
            import nni  # slow to import, and only a sweep needs it
        except ImportError:
            raise InputError(
                "--param nni: the package nni is not installed (some platforms have no build)") from None
        parameters = nni.get_next_parameter() or {}
        log_trial(source, parameters=parameters)
        return parameters, source
    if source == "optuna":
        folder = trial_folder(source)
        if not folder:
            raise InputError(f"--param optuna: for trials of a sweep, whose folder {SWEEPS[source]} names")
        trial = read_checked(folder / "trial.json", TrialFile, largest=LARGEST_PARAMS)
        return trial.get("parameters", {}), source
    if not source.startswith("local:"):
        raise InputError(f"--param {source}: give local:FILE, nni or default, or several with commas, "
                         "the last one winning")
    path = path_of(source.removeprefix("local:"))
    stored = read_json(path, f"the shipped files are in {ROOT / 'params'}", LARGEST_PARAMS)
    if not isinstance(stored, dict):
        raise InputError(f"--param: {path} must hold one JSON object of settings")
    return stored, str(path)


def report_to_sweep(source: str, value: float, final: bool = True) -> None:
    """Reports the value of this trial, higher is better, if the `--param` source is a sweep."""
    sweeps = [name for name in source.split(",") if name in SWEEPS]
    if sweeps and not math.isfinite(value):
        raise InputError(f"the result of this trial is {value}, which is no finite number")
    for sweep in sweeps:
        if final:
            log_trial(sweep, value=value)
        if sweep == "nni":
            import nni

            (nni.report_final_result if final else nni.report_intermediate_result)(value)
        elif not final and (folder := trial_folder(sweep)):
            append_line(folder / "intermediate.jsonl", {"value": value})


def log_trial(sweep: str, **values) -> None:
    """Adds the values to trial.json in the trial's folder of a sweep, if any.

    NNI's own records mix up which trial had which parameters; for Optuna, this file is the record.
    """
    if folder := trial_folder(sweep):
        path = folder / "trial.json"
        write_json(path, (read_json(path) if path.exists() else {}) | values)


def trial_folder(sweep: str) -> Path | None:
    """The folder of this trial, if this process is one of the sweep's."""
    name = os.environ.get(SWEEPS[sweep])
    return Path(name) if name else None


def checked(config_class, name: str, value, where: str):
    """Converts the value to the type of field `name`. Raises InputError for an unknown name or wrong value.

    where: the name of its source, for the message.
    """
    types = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1)
        raise InputError(f"{where}: unknown setting {name!r}"
                         + (f"; did you mean {near[0]!r}?" if near else "; see --help"))
    kind = types[name]
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{where}: {name} must be true or false, not {value!r}")
        return value
    try:
        if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
            raise ValueError
        number = float(value) if kind is int else None
        if number is not None and number != int(number):
            raise ValueError
        value = int(number) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: {name} must be of type {kind.__name__}, not {value!r}") from None
    if kind is str and "\0" in value:
        raise InputError(f"{where}: {name} has a NUL character: {value!r}")
    choices, (low, high) = fields[name].metadata["choices"], fields[name].metadata["within"]
    if kind is not str and not (low <= value <= high and math.isfinite(value)):
        raise InputError(f"{where}: {name} must be {bounds(low, high)}, not {value}")
    if choices and value not in choices:
        raise InputError(f"{where}: {name} must be one of "
                         f"{', '.join(choice or 'empty' for choice in choices)}, not {value!r}")
    return value


def bounds(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    return f"at least {low}" if math.isinf(high) else f"from {low} to {high}"


def parse_seeds(text: str) -> list[int]:
    """Reads seeds: '0,1,5-7' -> [0, 1, 5, 6, 7]."""
    seeds = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(f"--seeds {text}: give numbers and ranges, like 0,1,2 or 0-9")
        if last >= 2**63 or len(seeds) + last - first >= MOST_SEEDS:
            raise InputError(f"--seeds {text}: give at most {MOST_SEEDS:,} seeds, each below 2^63")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds {text}: a seed stands twice")
    return seeds
