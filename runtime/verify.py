"""Run the command of a finished folder again, in a temporary one, and compare every file with the first.

    python -m runtime.verify runs/search/nasbench201/r/0
    python -m runtime.verify runs/search/nasbench201 --threads 2     # all runs below it, with two CPU threads

The command is in the folder's config.json. Left out are wall times, the settings that name a place or a
machine, TensorBoard curves and locks; tensors and numbers are compared exactly, and pictures byte for byte.
The exit code is 0 if all is the same, 1 if something differs, 2 if a command cannot be run.
"""
from __future__ import annotations

import csv
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from rich.table import Table

from runtime.checkpoint import load_checkpoint
from runtime.errors import InputError, main_guard
from runtime.files import ROOT, path_of
from runtime.guarded import parse_json, read_checked, read_json, read_text
from runtime.log import console, output
from runtime.settings import parse, setting

SCRIPTS = ("search.py", "pretrain.py", "finetune.py", "train.py")
FOLDERS = ("--save", "--outdir")  # flags that name the folder of a run
ELSEWHERE = ("--export",)  # flags that name a file, which verification writes to the temporary folder
UNSEEN = re.compile(r"\..*(lock|holder|tmp)|output\.txt")  # files of a process, not of a result
LEFT_OUT = frozenset({  # keys that are not compared: wall times, places, the machine
    "time", "seconds", "images_per_second", "config", "command", "commands", "save", "outdir", "out",
    "export", "param", "resume", "threads"})


@dataclass
class Config:
    folder: str = setting("", "folder of a finished run, or of several; the first word may name it, too",
                          role="data")
    cwd: str = setting(".", "folder where the run was started, for its relative paths", role="data")
    threads: int = setting(0, "CPU threads of torch (0 = as in the run's command)", within=(0, 1024),
                           role="machine")


def main(argv: list[str] | None = None) -> dict[str, dict[str, str]]:
    """Returns {run: {file: what differs, "" if nothing}}; exits with code 1 if anything does."""
    words = sys.argv[1:] if argv is None else argv
    config = parse(Config, ["--folder", *words] if words and words[0][:1] != "-" else words, __doc__)
    folder, found = path_of(config.folder), {}
    runs = runs_in(folder)
    commands = {run: command_in(run / "config.json") for run in runs}  # all faults before the first run
    for number, (run, command) in enumerate(commands.items(), 1):
        console.print(f"run {number} of {len(runs)}, {run}: {command[0]}")
        found[str(run)] = verified(run, command, config)
        output.print(table(run, found[str(run)]))
    files = [text for differing in found.values() for text in differing.values()]
    different = sum(map(bool, files))
    output.print(f"{len(files) - different} of {len(files)} files of {len(runs)} runs are the same")
    if different:
        sys.exit(1)
    return found


# The command ------------------------------------------------------------------------------------------------

class Recorded(TypedDict):
    """What verification needs of a config.json."""

    command: list[str]


def runs_in(folder: Path) -> list[Path]:
    """The folder itself if it is one of a run, else those below it. Raises InputError if there is none."""
    if (folder / "config.json").exists():
        return [folder]
    found = sorted(path.parent for path in folder.rglob("config.json"))
    if not found:
        raise InputError(f"{folder}: no config.json in it or below: name the folder of a finished run")
    return [run for run in found if not set(found) & set(run.parents)]


def command_in(path: Path) -> list[str]:
    """The command of a config.json: a script of ours and flags that write to one folder alone.

    Raises InputError for anything else, as the file may come from a stranger.
    """
    mend = "only runs that recorded their command can be verified: make the run anew"
    command = read_checked(path, Recorded, mend)["command"]
    if not command or command[0] not in SCRIPTS:
        raise InputError(f"{path}: command must begin with one of {', '.join(SCRIPTS)}: {mend}")
    for flag, value in zip(command[1:], [*command[2:], ""]):
        if "=" in flag and flag.startswith("--") or flag in FOLDERS and value != "{folder}":
            raise InputError(f"{path}: command has {flag} {value}, in place of the pairs of words that the "
                             f"scripts record: {mend}")
    if command.count("{folder}") != 1:
        raise InputError(f"{path}: command must name " + "{folder}, its output, once: " + mend)
    return command


def verified(run: Path, command: list[str], config: Config) -> dict[str, str]:
    """Runs the command again in a temporary folder: {file: what differs from the run}."""
    with tempfile.TemporaryDirectory(prefix="gmae-nas-verify-") as temporary:
        again = Path(temporary, "run")
        words = [str(again) if word == "{folder}" else word for word in command]
        words = [str(Path(temporary, "export")) if before in ELSEWHERE else word
                 for before, word in zip(["", *words], words)]
        threads = ["--threads", str(config.threads)] if config.threads else []
        end = subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:], *threads],
                             cwd=path_of(config.cwd), stdout=subprocess.DEVNULL, check=False)
        if end.returncode:
            raise InputError(f"{run}: its command ended with code {end.returncode}, see above; if it has "
                             "relative paths, give --cwd, the folder where it was started")
        return compare_folders(run, again)


def table(run: Path, differing: dict[str, str]) -> Table:
    shown = Table("file", "again", title=str(run))
    for name, text in differing.items():
        shown.add_row(name, text or "same")
    return shown


# The comparison ---------------------------------------------------------------------------------------------

def compare_folders(old: Path, new: Path) -> dict[str, str]:
    """{file: what differs between the two folders, "" if nothing}, for the files in either."""
    return {name: compare(old / name, new / name) for name in sorted({*files_in(old), *files_in(new)})}


def files_in(folder: Path) -> list[str]:
    """The files of a run, by their paths from its folder on."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in paths
            if not UNSEEN.fullmatch(path.name) and "tensorboard" not in path.parts]


def compare(old: Path, new: Path) -> str:
    """What differs between two files of one name, "" if nothing."""
    if not (old.exists() and new.exists()):
        return "missing now" if old.exists() else "was missing"
    read = READERS.get(old.suffix)
    if not read:
        return "" if old.read_bytes() == new.read_bytes() else "other bytes"
    try:
        return difference(read(old), read(new), left_out(old))
    except InputError as error:
        return str(error)


def left_out(path: Path) -> frozenset[str]:
    """The keys of a file that are not compared."""
    if path.name == "log.jsonl":
        return LEFT_OUT | {"fit", "score", "query"}  # seconds
    if path.with_name("trainings.jsonl").exists():
        return LEFT_OUT | {"cost"}  # of a query: the seconds of a training
    return LEFT_OUT


def json_lines(path: Path) -> list:
    """The lines of a file; those of trainings side by side, which end in any order, sorted."""
    lines = [parse_json(line, f"{path}:{number}")
             for number, line in enumerate(read_text(path).splitlines(), 1)]
    return sorted(lines, key=repr) if path.name == "trainings.jsonl" else lines


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": read_json, ".jsonl": json_lines, ".pt": load_checkpoint,
    ".csv": lambda path: list(csv.DictReader(read_text(path).splitlines())),
}


def difference(old: Any, new: Any, left_out: frozenset[str] = frozenset()) -> str:
    """What differs between nested values: the first that is no number, else the largest difference."""
    before, after = dict(leaves(old, left_out)), dict(leaves(new, left_out))
    where, largest = "", -1.0  # below any difference
    for place in dict.fromkeys([*before, *after]):
        if place not in before or place not in after:
            return f"{place}: {'missing now' if place in before else 'was missing'}"
        if same(before[place], after[place]):
            continue
        size = distance(before[place], after[place])
        if size is None:
            return f"{place}: {said(before[place])}, now {said(after[place])}"
        if size > largest:
            where, largest = place, size
    return "" if largest < 0 else f"{where}: by up to {largest:.3g}"


def leaves(value: Any, left_out: frozenset[str], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (place, value) of the values in nested dictionaries and lists, except below keys left out."""
    if not isinstance(value, (dict, list, tuple)) or not value:
        yield place or "content", value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key not in left_out:
            yield from leaves(inner, left_out, f"{place}.{key}" if place else str(key))


def same(old: Any, new: Any) -> bool:
    """Whether two values are the same, bit by bit if they are tensors."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return (old.dtype, old.shape) == (new.dtype, new.shape) and torch.equal(
            *(value.contiguous().reshape(-1).view(torch.uint8) for value in (old, new)))
    return repr(old) == repr(new)


def distance(old: Any, new: Any) -> float | None:
    """The largest difference of two numbers or tensors of one shape (NaN counts as inf); None for others."""
    tensors = [value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
               for value in (old, new) if isinstance(value, (int, float, torch.Tensor))]
    if len(tensors) < 2 or tensors[0].shape != tensors[1].shape or bool in (type(old), type(new)):
        return None
    return float((tensors[0].double() - tensors[1].double()).abs().nan_to_num(math.inf).max())


def said(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"


if __name__ == "__main__":
    main_guard(main)
