"""The queries of a search on disk: history.jsonl, append-only, which is all that resuming needs."""
from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Sequence

from runtime import whole_lines
from spaces import InputError, Space
from spaces.oracles import Record
from strategies.base import Query


class History:
    """A line a query, on the disk before the next is asked. len() counts them, a slice is a list of Query."""

    def __init__(self, path: Path, space: Space, limit: int):
        """Reads what is there; a last line that a kill has torn is cut off. InputError at a line of another search."""
        self.path, self.space, self.queries = path, space, []
        for number, line in enumerate(whole_lines(path), 1):
            try:
                fields = json.loads(line)
                query = Query(**fields, arch=space.parse(fields["architecture"]))
                if query.query != number or number > limit or query.key != space.key(query.arch):
                    raise ValueError
            except (ValueError, TypeError, KeyError, AttributeError):
                raise InputError(f"{path}:{number}: this is not query {number} of {limit} of a search on {space.name}: "
                                 "give another --outdir") from None
            self.queries.append(query)

    def append(self, t: int, arch: Any, record: Record, score: float | None) -> None:
        """The oracle's answer to the next query, made in round t."""
        key, text = self.space.key(arch), self.space.text(arch)
        query = Query(len(self) + 1, t, key, text, record.val, record.test, score, record.cost, arch)
        fields = query._asdict()
        del fields["arch"]
        with open(self.path, "a") as file:
            file.write(json.dumps(fields) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.queries.append(query)

    def expect(self, archs: Sequence[Any], start: int) -> None:
        """InputError unless the queries from index `start` on are the first of these architectures."""
        for query, arch in zip(self.queries[start:], archs):
            if query.key != self.space.key(arch):
                raise InputError(f"{self.path}:{query.query}: holds {query.key} where this search chooses "
                                 f"{self.space.key(arch)}: another device or thread count? Give another --outdir")

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, part: slice) -> list[Query]:
        return self.queries[part]


@contextmanager
def alone_in(folder: Path, patience: float = 5.0) -> Iterator[None]:
    """Makes the folder, and keeps other searches out of it. InputError where that fails or one stays for so many seconds.

    The lock is the kernel's and goes with the process, however that ends; patience is for a Ray task that is run again
    while its lost worker is still being taken down.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise InputError(f"--outdir {folder}: {error.strerror}; name another folder") from None
    with lock:
        latest = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > latest:
                    raise InputError(f"{folder}: another process searches there: let it end, or give another "
                                     "--outdir") from None
                time.sleep(0.1)
            except OSError:
                break  # a file system without locks
        yield


def best_of(queries: Sequence[Query]) -> Query:
    """The one with the highest validation accuracy; the first of equal ones. Never chosen by test."""
    return max(queries, key=lambda query: query.validation)
