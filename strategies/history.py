"""The queries of a search on disk: history.jsonl, append-only, all that a resumed search needs."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runtime.errors import InputError
from runtime.files import append_line, whole_lines
from spaces import Space
from spaces.base import Record
from strategies.base import Query


class History:
    """The queries so far, one line each, on the disk before the next is asked.

    len() is their number, a slice is a list of Query.
    """

    def __init__(self, path: Path, space: Space, limit: int):
        """Reads the file, if it exists, and cuts off a last line torn by a kill.

        Raises InputError at a line of another search.
        """
        self.path, self.space, self.queries = path, space, []
        for number, line in enumerate(whole_lines(path), 1):
            try:
                fields = json.loads(line)
                query = Query(**fields, arch=space.parse(fields["architecture"]))
                if query.query != number or number > limit or query.key != space.key(query.arch):
                    raise ValueError
            except (ValueError, TypeError, KeyError, AttributeError):
                raise InputError(f"{path}:{number}: this is not query {number} of {limit} of a search on "
                                 f"{space.name}: give another --outdir") from None
            self.queries.append(query)

    def append(self, t: int, arch: Any, record: Record, score: float | None) -> None:
        """Adds the oracle's answer to the next query, made in round t."""
        key, text = self.space.key(arch), self.space.text(arch)
        query = Query(len(self) + 1, t, key, text, record.val, record.test, score, record.cost, arch)
        fields = query._asdict()
        del fields["arch"]
        append_line(self.path, fields)
        self.queries.append(query)

    def expect(self, archs: Sequence[Any], start: int) -> None:
        """Raises InputError unless the queries from index `start` on are the first of these architectures."""
        for query, arch in zip(self.queries[start:], archs):
            if query.key != self.space.key(arch):
                raise InputError(
                    f"{self.path}:{query.query}: holds {query.key}, but this search chooses "
                    f"{self.space.key(arch)}: another device or thread count? Give another --outdir")

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, part: slice) -> list[Query]:
        return self.queries[part]


@contextmanager
def exclusive(folder: Path, patience: float = 5.0) -> Iterator[None]:
    """Makes the folder and keeps other searches out of it.

    Raises InputError if that fails or another search holds it for `patience` seconds. The lock ends with the
    process, however that ends. The patience is for a Ray task that is run again while its lost worker is
    still being shut down.
    """
    lock = FileLock(folder / ".lock", timeout=patience)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another process searches there: let it end, or give another --outdir") from None
    except OSError as error:
        raise InputError(f"--outdir {folder}: {error.strerror}; name another folder") from None
    except NotImplementedError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def best_of(queries: Sequence[Query]) -> Query:
    """The query with the highest validation accuracy, the first of equal ones; never chosen by test."""
    return max(queries, key=lambda query: query.validation)
