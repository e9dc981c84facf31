"""The queries of a search on disk: history.jsonl, append-only, which is all that resuming needs."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Sequence

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


def best_of(queries: Sequence[Query]) -> Query:
    """The one with the highest validation accuracy; the first of equal ones. Never chosen by test."""
    return max(queries, key=lambda query: query.validation)
