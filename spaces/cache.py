"""The cache directory, and writing a file so that it is either whole or absent."""
from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Callable

import numpy as np
from platformdirs import user_cache_dir

# What reading a damaged .npz may raise: for its zip directory, an array's CRC, its header.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, OSError, NotImplementedError)


def cache_dir() -> Path:
    """Where derived tables live: $GMAE_NAS_CACHE where set, else the platform's cache directory. Made if absent."""
    folder = Path(os.environ.get("GMAE_NAS_CACHE") or user_cache_dir("gmae-nas")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def atomic_write(path: Path, writer: Callable[[BinaryIO], None]) -> None:
    """Calls writer(file) on a temporary neighbour of path, then renames it: a reader never sees half a file."""
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


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Stores the arrays as .npz, atomically; the format keeps a CRC-32 of each."""
    atomic_write(path, lambda file: np.savez(file, **arrays))


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What `save_arrays` stored, each array checked against its CRC-32; None where the file is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except DAMAGE:
        return None
