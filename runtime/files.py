"""Paths, atomic files, append-only lines, and the cache directory. Reading is in runtime/guarded.py."""
from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from platformdirs import user_cache_dir

from runtime.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where a file in use cannot be removed in the first place
    fcntl = None

ROOT = Path(__file__).resolve().parents[1]  # the folder of the scripts


def path_of(text: str | Path) -> Path:
    """The path that a user means, `~` expanded. Raises InputError for one that no file can have."""
    if not str(text):
        raise InputError("a path is empty: name a file or a folder")
    if "\0" in str(text):
        raise InputError(f"path {str(text)!r} has a NUL character: name another")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nosuchuser
        raise InputError(f"path {str(text)!r}: there is no such user: write the whole path") from None


def cache_dir() -> Path:
    """The folder of derived tables, made if absent: $GMAE_NAS_CACHE, else the platform's cache directory."""
    folder = path_of(os.environ.get("GMAE_NAS_CACHE") or user_cache_dir("gmae-nas"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Writing ----------------------------------------------------------------------------------------------------

def atomic_write(path: Path, writer: Callable[[BinaryIO], None]) -> None:
    """Calls writer(file) on a temporary file beside path, then renames it: no reader sees half a file.

    First removes what killed writers of the same path left. An OSError names the path.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.name)
        temporary, file = open_temporary(path)
        try:
            with file:
                writer(file)
                file.flush()
                os.fsync(file.fileno())
                if fcntl:  # while it is locked, nobody takes it for abandoned
                    os.replace(temporary, path)
            if not fcntl:
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file for the path; its lock says that the writer lives, and ends with the process."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        file = open(temporary, "xb")  # noqa: SIM115 (the caller's)
        if lock(file) and temporary.exists():
            return temporary, file
        file.close()  # taken for abandoned between these two lines


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Removes the temporary files that killed writers left in a folder, of one file name or of all."""
    for temporary in folder.glob(f".{glob.escape(name) if name else '*'}.{'[0-9a-f]' * 32}.tmp"):
        with contextlib.suppress(OSError):  # another process was faster, or the file is not ours
            with open(temporary, "rb") as file:
                abandoned = lock(file)
            if abandoned:
                temporary.unlink()


def lock(file: BinaryIO) -> bool:
    """Locks an open file; False if another process has."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Gives an OSError the name of the file that was meant: a write to a full disk has none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def write_text(path: Path, text: str) -> None:
    """Writes the text as UTF-8, atomically."""
    atomic_write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value) -> None:
    """Writes the value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def append_line(path: Path, values: dict) -> None:
    """Appends one JSON line and syncs it to disk."""
    with named(path), open(path, "a") as file:
        file.write(json.dumps(values) + "\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> list[bytes]:
    """Reads the lines of an append-only file, if it exists. An unfinished last line is cut off the file."""
    if not path.exists() and not path.is_symlink():  # one that leads nowhere is a fault
        return []
    if not path.is_file():
        raise InputError(f"{path} is no file: remove it, or name another folder")
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


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Reads the arrays that `save_arrays` wrote; None if the file is absent or its checksum is wrong."""
    try:
        stored = path.read_bytes() if path.is_file() else b""
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
