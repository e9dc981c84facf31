"""Checkpoints: tensors and plain values only, so that they load with weights_only=True and run nothing.

A file is checked before it is believed: a regular file, an archive without compression (so that it cannot
unfold to more than its size), the schema of its kind, finite weights; and weights are compared with the
shapes of the module that will hold them before that module is built.
"""
from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from runtime.errors import InputError
from runtime.files import atomic_write, path_of
from runtime.guarded import checked, need_file

LARGEST = 2**36  # bytes of a checkpoint
MOST_STRUCTURE = 2**26  # bytes of the part that is not tensors
WRAPPERS = ("module.", "_orig_mod.")  # put before names by DataParallel, DDP and torch.compile
STATES = {"AdamW": ("step", "exp_avg", "exp_avg_sq"), "SGD": ("momentum_buffer",)}  # per parameter
RESTORE_FAULTS = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError)


class AnyCheckpoint(TypedDict):
    """A checkpoint of any kind."""


def save_checkpoint(path: Path, **content) -> None:
    """Writes the content, tensors and plain values by name, atomically."""
    buffer = io.BytesIO()  # torch hides the cause if a disk is full
    torch.save(content, buffer)
    atomic_write(path, lambda file: file.write(buffer.getbuffer()))


def load_checkpoint(path: str | Path, kind: type = AnyCheckpoint) -> dict:
    """Reads a checkpoint, to the CPU. Raises InputError if the file is missing, damaged or foreign.

    kind: a TypedDict, the schema of the content.
    """
    path = path_of(path)
    need_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types on damaged files
        raise InputError(f"{path} is damaged or no checkpoint of this project ({type(error).__name__}): "
                         "make it anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no checkpoint of this project: it holds a {type(content).__name__}")
    missing = [key for key in kind.__required_keys__ if key not in content]
    if missing:
        raise InputError(f"{path} is no checkpoint of this project: it lacks {', '.join(sorted(missing))}")
    checked(content, kind, path, "make it anew")
    return content


def need_archive(path: Path) -> None:
    """Raises InputError unless the file is an archive as torch.save writes it, and of a reasonable size."""
    mend = "write one with pretrain.py or finetune.py --save DIR"
    if not path.exists():
        raise InputError(f"no checkpoint at {path}: {mend}")
    size = need_file(path, mend)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is damaged or no checkpoint of this project ({type(error).__name__}): "
                         "make it anew") from None
    structure = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if (size > LARGEST or structure > MOST_STRUCTURE or sum(entry.file_size for entry in entries) > size
            or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)):
        raise InputError(f"{path} is no checkpoint as torch.save writes it (compressed or too large): "
                         "make it anew")


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of the tensors, in their order."""
    sha = hashlib.sha256()
    for value in weights.values():
        sha.update(value.cpu().numpy().tobytes())
    return sha.hexdigest()


# Weights ----------------------------------------------------------------------------------------------------

def need_finite(tensors: Mapping[str, torch.Tensor], where: Any) -> None:
    """Raises InputError, which names it, if a tensor has an entry that is not finite."""
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{where}: weight {name} is not finite (NaN or infinite): the training that "
                             "wrote it diverged; take an earlier checkpoint, or train anew")


def unwrapped(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names of the bare module, whatever wrapped it when they were saved."""
    def bare(name: str) -> str:
        parts = name.split(".")
        return ".".join(part for part in parts if f"{part}." not in WRAPPERS)

    return {bare(name): value for name, value in weights.items()}


def need_fitting(build: Callable[[], nn.Module], weights: Mapping[str, torch.Tensor], where: Any) -> None:
    """Raises InputError unless the weights have the names and shapes of the module.

    The module is built without memory, so that a file cannot declare a size that it does not hold.
    """
    try:
        with torch.device("meta"):
            wanted = {name: value.shape for name, value in build().state_dict().items()}
    except RESTORE_FAULTS as error:
        raise InputError(f"{where}: no encoder has the sizes that it names ({error}): make it anew") from None
    need_shapes(weights, wanted, where)


def need_shapes(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, Iterable[int]], where: Any) -> None:
    """Raises InputError, which names the first difference, unless the tensors have these names and shapes."""
    for name in [*wanted, *tensors]:
        if name not in tensors or name not in wanted:
            raise InputError(f"{where}: weight {name} is {'missing' if name in wanted else 'unknown'}: it is "
                             "of another network, or damaged: make it anew")
        if tensors[name].device.type == "meta" or tensors[name].layout != torch.strided:
            raise InputError(f"{where}: weight {name} is no plain tensor: make it anew")
        found, want = list(tensors[name].shape), list(wanted[name])
        if found != want:
            raise InputError(f"{where}: weight {name} is {found}, not {want}: it is of another network, or "
                             "damaged: make it anew")


# Training states --------------------------------------------------------------------------------------------

def restore_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], where: Any) -> None:
    """Loads weights into a module, after a comparison of all names and shapes. Raises InputError."""
    weights = unwrapped(weights)
    need_shapes(weights, {name: value.shape for name, value in module.state_dict().items()}, where)
    need_finite(weights, where)
    module.load_state_dict(weights)


def restore_optimiser(optimiser: torch.optim.Optimizer, state: dict, where: Any) -> None:
    """Loads an optimiser's state, if it fits the parameters. Raises InputError."""
    params = [p for group in optimiser.param_groups for p in group["params"]]
    usual = [{name: value for name, value in group.items() if name != "params"}
             for group in optimiser.param_groups]
    try:
        for own, group in zip(usual, state["param_groups"], strict=True):
            if not all(isinstance(value, (type(own[name]), int, float, type(None)))
                       for name, value in group.items() if name in own):
                raise ValueError("a setting of the optimiser has another type")
        kept = STATES.get(type(optimiser).__name__, ())
        for number, values in state["state"].items():
            if set(values) != set(kept):
                raise ValueError(f"parameter {number} has {', '.join(map(str, values)) or 'nothing'}")
            for name, value in values.items():
                if value is None and name == "momentum_buffer":
                    continue
                if value.shape != (() if name == "step" else params[number].shape):
                    raise ValueError(f"{name} of parameter {number} is {list(value.shape)}")
                need_finite({f"{name} of parameter {number}": value}, where)
        optimiser.load_state_dict(state)
    except InputError:
        raise
    except RESTORE_FAULTS as error:
        raise InputError(f"{where}: the optimiser's state is damaged ({error}): start anew in another folder"
                         ) from None


def restore_state(load: Callable[[Any], Any], state: Any, what: str, where: Any) -> None:
    """Calls load(state), of something that checks its state itself. Raises InputError if it fails."""
    try:
        load(state)
    except RESTORE_FAULTS as error:
        raise InputError(f"{where}: {what} is damaged ({error}): start anew in another folder") from None
