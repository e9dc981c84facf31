"""One process per folder: the second is told who holds it, and the first removes what killed ones left."""
from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from runtime.errors import InputError
from runtime.files import named, remove_abandoned, write_json


def need_free(marker: Path, resume: bool) -> None:
    """Raises InputError if a folder holds a run, of which this file is the sign, and --resume is off."""
    if marker.exists() and not resume:
        raise InputError(f"{marker.parent} holds a run already: go on with --resume or give another --save")


@contextlib.contextmanager
def exclusive(folder: Path, flag: str, patience: float = 1.0, name: str = "") -> Iterator[None]:
    """Makes the folder, keeps other processes out of it, and removes temporary files of killed ones.

    flag: the one that names the folder, for messages. name: of a file in it that alone is held. Raises
    InputError if the folder cannot be made, or if another process holds it for `patience` seconds. The lock
    ends with the process, however that ends. A folder's `.lock` stays, empty; `.holder` says who holds it.
    """
    lock = FileLock(folder / f".{name}.lock".replace("..", "."), timeout=patience)
    holder = folder / f".{name}.holder".replace("..", ".")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        while not is_current(lock):  # removed, with the lock of a single file, when its holder ended
            lock.release()
            lock.acquire()
    except Timeout:
        raise InputError(f"{folder / name}: held by {said_by(holder)}: let it end, or give another {flag}"
                         ) from None
    except OSError as error:
        raise InputError(f"{flag} {folder}: {error.strerror}; name another folder") from None
    except NotImplementedError:  # a file system without locks
        pass
    try:
        remove_abandoned(folder, name or None)
        with named(holder):
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(),
                                "since": datetime.now().astimezone().isoformat(timespec="seconds")})
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
            if name:
                os.unlink(lock.lock_file)
        lock.release()


def is_current(lock: FileLock) -> bool:
    """Whether the file that is locked is the one that others would find."""
    try:
        return os.path.samestat(os.fstat(lock._lock_file_fd), os.stat(lock.lock_file))
    except FileNotFoundError:
        return False


def said_by(holder: Path) -> str:
    """Who holds a folder, in words."""
    try:
        said = json.loads(holder.read_text())
        return f"process {int(said['pid'])} on {str(said['host'])[:60]} since {str(said['since'])[:40]}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
