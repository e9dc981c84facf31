"""The cache directory, and writing a file so that it is either whole or absent."""
from __future__ import annotations

import hashlib
import io
import os
import uuid
from pathlib import Path
from typing import BinaryIO, Callable

import numpy as np
from platformdirs import user_cache_dir


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
    """Stores the arrays, atomically: the SHA-256 of what follows, then an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    atomic_write(path, lambda file: file.write(hashlib.sha256(content).digest() + content))


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What `save_arrays` stored; None where the file is absent or disagrees with its checksum."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
