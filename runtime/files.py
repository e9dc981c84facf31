"""Atomic files, append-only lines, the cache directory, and pickles that cannot run code."""
from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from platformdirs import user_cache_dir

ROOT = Path(__file__).resolve().parents[1]  # the folder of the scripts


def cache_dir() -> Path:
    """The folder of derived tables, made if absent: $GMAE_NAS_CACHE, else the platform's cache directory."""
    folder = Path(os.environ.get("GMAE_NAS_CACHE") or user_cache_dir("gmae-nas")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Writing ----------------------------------------------------------------------------------------------------

def atomic_write(path: Path, writer: Callable[[BinaryIO], None]) -> None:
    """Calls writer(file) on a temporary file beside path, then renames it: no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes the text as UTF-8, atomically."""
    atomic_write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value) -> None:
    """Writes the value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def append_line(path: Path, values: dict) -> None:
    """Appends one JSON line and syncs it to disk."""
    with open(path, "a") as file:
        file.write(json.dumps(values) + "\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> list[bytes]:
    """Reads the lines of an append-only file, if it exists. An unfinished last line is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return content[:end].splitlines()


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes the arrays atomically, as an .npz behind its SHA-256."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    atomic_write(path, lambda file: file.write(hashlib.sha256(content).digest() + content))


# Reading ----------------------------------------------------------------------------------------------------

def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Reads the arrays that `save_arrays` wrote; None if the file is absent or its checksum is wrong."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def sha256_of(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file. algorithm: any of hashlib, by name."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class _PlainPickle(pickle.Unpickler):
    """Loads dictionaries, lists, strings, numbers and the classes that are admitted by name."""

    def __init__(self, file: BinaryIO, admitted: Mapping[str, Any], **options):
        super().__init__(file, **options)
        self.admitted = admitted

    def find_class(self, module: str, name: str) -> Any:
        place = f"{module}.{name}".replace("numpy.core.", "numpy._core.")  # numpy 2's name for it
        if place not in self.admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        admitted = self.admitted[place]
        return super().find_class(*place.rsplit(".", 1)) if admitted is None else admitted


def load_plain_pickle(path: Path, admitted: Mapping[str, Any] = {}, **options) -> Any:
    """Reads a pickle of plain data. One that asks for anything else could run code and is refused.

    admitted: {"module.name": the class to use in its place, or None for that class itself}. Raises OSError,
    or whatever pickle raises for a damaged or refused file (pickle.UnpicklingError and other types).
    """
    with open(path, "rb") as file:
        return _PlainPickle(file, admitted, **options).load()
