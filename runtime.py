"""What every script needs around its main job: settings, seeds, device, logs, checkpoints, progress, errors.

Settings are a dataclass. A field is a flag, its default the lowest of four sources:
defaults < params file (`--param local:FILE`) < sweep (`--param local:FILE,nni`) < flags given on the command line.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import json
import math
import os
import re
import sys
import time
import typing
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from models.transfer import transfer
from spaces import InputError
from spaces.cache import atomic_write

ROOT = Path(__file__).resolve().parent
console = Console(stderr=True)  # progress
output = Console(width=None if sys.stdout.isatty() else 140, soft_wrap=True, markup=False, highlight=False)  # results


# Settings ------------------------------------------------------------------------------------------------------------

def setting(default, help: str, choices: tuple = (), within: tuple[float, float] = (-math.inf, math.inf)):
    """A dataclass field that becomes a flag with this help text. `within` bounds a number, both ends included."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "within": within})


class Parser(argparse.ArgumentParser):
    """Its errors are InputErrors: one line like every other."""

    def error(self, message: str):
        raise InputError(f"{message}; see --help")


def parse(config_class, argv: list[str] | None, description: str):
    """Settings of a script from its four sources. Unknown keys and wrong values raise InputError.

    A bool is a pair of flags, `--x` and `--no-x`; neither given leaves the value of the lower source.
    """
    types = typing.get_type_hints(config_class)
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                    argument_default=argparse.SUPPRESS, allow_abbrev=False)
    for field in dataclasses.fields(config_class):
        help = f"{field.metadata['help']} (default: {field.default})".replace("%", "%%")
        if types[field.name] is bool:
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, help=help)
        else:
            choices = ",".join(filter(None, field.metadata["choices"]))
            shape = f"{{{choices}}}" if choices else types[field.name].__name__.upper()
            parser.add_argument(f"--{field.name}", metavar=shape, help=help)
    flags = vars(parser.parse_args(argv))
    source = flags.get("param", getattr(config_class, "param", "default"))
    values = {}
    for given, where in (*map(stored_settings, source.split(",")), (flags, "command line")):
        values.update({name: checked(config_class, types, name, value, where) for name, value in given.items()})
    return config_class(**values)


def stored_settings(source: str) -> tuple[dict, str]:
    """The settings that `--param` names, and what to call them in an error."""
    if source == "default":
        return {}, "defaults"
    if source == "nni":
        try:
            import nni  # slow to import, and only a sweep needs it
        except ImportError:
            raise InputError("--param nni: the package nni is not installed (it has no build for every platform)") from None
        parameters = nni.get_next_parameter() or {}
        log_trial(parameters=parameters)
        return parameters, "nni"
    if not source.startswith("local:"):
        raise InputError(f"--param {source}: give local:FILE, nni or default, or several with commas, the last one winning")
    path = Path(source.removeprefix("local:")).expanduser()
    try:
        stored = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--param: cannot read {path}: {error.strerror}; the shipped files are in {ROOT / 'params'}") from None
    except ValueError as error:
        raise InputError(f"--param: {path} is not JSON: {error}") from None
    if not isinstance(stored, dict):
        raise InputError(f"--param: {path} must hold one JSON object of settings")
    return stored, str(path)


def report(source: str, value: float, final: bool = True) -> None:
    """Tell the sweep how this trial of it does, higher being better; nothing where the `--param` source is no sweep."""
    if "nni" not in source.split(","):
        return
    import nni

    if final:
        log_trial(value=value)
        nni.report_final_result(value)
    else:
        nni.report_intermediate_result(value)


def log_trial(**values) -> None:
    """Add to trial.json in the folder that a sweep gives each trial: NNI itself mixes up which trial had which parameters."""
    if folder := os.environ.get("NNI_OUTPUT_DIR"):
        path = Path(folder, "trial.json")
        write_json(path, (json.loads(path.read_text()) if path.exists() else {}) | values)


def checked(config_class, types: dict, name: str, value, where: str):
    """The value in the type of the field `name`."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1)
        raise InputError(f"{where}: unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help"))
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
    choices, (low, high) = fields[name].metadata["choices"], fields[name].metadata["within"]
    if kind is not str and not (low <= value <= high and math.isfinite(value)):
        raise InputError(f"{where}: {name} must be {bounds(low, high)}, not {value}")
    if choices and value not in choices:
        raise InputError(f"{where}: {name} must be one of {', '.join(choice or 'empty' for choice in choices)}, not {value!r}")
    return value


def bounds(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    return f"at least {low}" if math.isinf(high) else f"from {low} to {high}"


def encoder_settings(settings) -> dict:
    """What `models.build_encoder` needs, out of a script's settings; a checkpoint keeps it."""
    config = {name: getattr(settings, name) for name in ("base_model", "width", "layers", "heads", "dropout", "direction")}
    if config["width"] % config["heads"]:
        raise InputError(f"--width {config['width']} does not divide among --heads {config['heads']}")
    if not config["direction"] and config["base_model"] != "transformer":
        raise InputError(f"--no-direction: it is a switch of the transformer, and base_model is {config['base_model']}")
    return config


def parse_seeds(text: str) -> list[int]:
    """'0,1,5-7' -> [0, 1, 5, 6, 7]."""
    seeds = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(f"--seeds {text}: give numbers and ranges, like 0,1,2 or 0-9")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds {text}: a seed stands twice")
    return seeds


def main_guard(main) -> None:
    """Run a script's main(); a user's mistake becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(2)


# Device and randomness -----------------------------------------------------------------------------------------------

def choose_device(name: str, threads: int) -> torch.device:
    """'auto' is CUDA, else MPS, else the CPU. threads > 0 fixes torch's CPU threads."""
    if threads > 0:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None


@contextlib.contextmanager
def seeded(*numbers: int):
    """Inside, torch's own generators (initial weights, dropout) start from a state that these numbers decide; outside,
    they are as if nothing had been drawn."""
    before = rng_state()
    torch.manual_seed(mix(*numbers))
    try:
        yield
    finally:
        set_rng_state(before)


def rng_state() -> dict:
    """torch's own generators on the devices in use, as a checkpoint keeps them."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def mix(*numbers: int) -> int:
    """One seed of 63 bits out of several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


# Logs and progress ---------------------------------------------------------------------------------------------------

class Log:
    """One JSON line an event in `log.jsonl` (append-only) and, where asked, TensorBoard scalars beside it."""

    def __init__(self, folder: Path, tensorboard: bool = False, keep: int | None = None):
        """keep: a resumed run goes on after this step, so later lines, and a torn last one, are dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        if keep is not None:
            lines = [line for line in whole_lines(folder / "log.jsonl") if json.loads(line)["step"] <= keep]
            atomic_write(folder / "log.jsonl", lambda file: file.write(b"".join(line + b"\n" for line in lines)))
        self.file = open(folder / "log.jsonl", "a")
        self.board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # a second to import

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, **values) -> None:
        self.file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        self.file.flush()
        if self.board:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that was being appended to; an unfinished last one is cut off the file. No file, no lines."""
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return content[:end].splitlines()


class Rate(ProgressColumn):
    """Steps per second so far."""

    def render(self, task):
        return Text(f"{task.speed:.4g}/s" if task.speed else "")


def progress(console: Console = console) -> Progress:
    """A progress bar on stderr: description, bar, count, rate, time left."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(),
                    console=console)


# Files ---------------------------------------------------------------------------------------------------------------

def write_json(path: Path, value) -> None:
    """Atomically."""
    atomic_write(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def save_checkpoint(path: Path, **content) -> None:
    """Atomically; tensors and plain values only, so that it loads with weights_only=True."""
    atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(path: str | Path, needs: tuple[str, ...] = ("space", "ops", "encoder", "weights")) -> dict:
    """A checkpoint's content on the CPU. A missing, damaged or foreign file raises InputError."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: write one with pretrain.py or finetune.py --save DIR")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types on damaged files
        raise InputError(f"{path} is damaged or no checkpoint of this project ({type(error).__name__}): make it anew") from None
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"{path} is no checkpoint of this project: it lacks {', '.join(missing)}")
    return content


def load_encoder(source: str, space, predictor: bool = False) -> dict:
    """The checkpoint of a pre-trained encoder for use on `space`; 'default' is the shipped one with the space's operations.

    One of another space is moved to the operations of this one (`models.transfer`), and a line on stderr says which are
    new. predictor: a predictor.pt of finetune.py will do as well; its content then has "members", the weights of its
    predictors, beside those of the encoder that it started from, None where there was none.
    """
    shipped = sorted((ROOT / "checkpoints").glob("*.pt")) if source == "default" else [Path(source)]
    for path in shipped:
        content = load_checkpoint(path)
        if content["ops"] == list(space.ops):
            break
    else:
        if source == "default":
            raise InputError(f"no shipped encoder knows the operations of {space.name}: pre-train one with pretrain.py")
    marks = content.get("cell_marks", True)
    if marks != getattr(space, "cell_marks", True):
        raise InputError(f"{path} was pre-trained with cell_marks = {marks}: give the same flag here")
    if isinstance(content["weights"], list):
        if not predictor:
            raise InputError(f"{path} is a fine-tuned predictor: give the last.pt of pretrain.py")
        if content["ops"] != list(space.ops):
            raise InputError(f"{path} is a predictor for {content['space']}, whose operations are not those of {space.name}")
        kernel = content.get("kernel")
        return content | {"members": content["weights"], "weights": kernel and kernel["encoder"]}
    if content["ops"] != list(space.ops):
        content = moved(content, path, space)
    return content


def moved(content: dict, path: Path, space) -> dict:
    """A checkpoint for the operations of `space`."""
    try:
        with seeded(0):
            content, new = transfer(content, space.ops)
    except ValueError as error:
        raise InputError(f"{path} was pre-trained on {content['space']}, for {space.name}: {error}") from None
    console.print(f"{path}: pre-trained on {content['space']}; new to it are {', '.join(new) or 'no operations'}")
    return content
