"""The queries of a search on disk: history.jsonl, append-only, all that a resumed search needs."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runtime.errors import InputError
from runtime.files import append_line, whole_lines
from runtime.guarded import checked_json
from spaces import Space
from spaces.base import Record
from spaces.metrics import Metric
from strategies.base import Query


class HistoryLine(msgspec.Struct):
    """A line of history.jsonl: the fields of a Query up to `cost`."""

    query: int
    round: int
    key: str
    architecture: str
    validation: float | None
    test: float | None
    score: float | None
    cost: float | None


class History:
    """The queries so far, one line each, on the disk before the next is asked.

    len() is their number, a slice is a list of Query. In a slice a failed training counts as the worst that
    was seen up to its end (0 before any success), so a resumed search sees what the first one saw.
    """

    def __init__(self, path: Path, space: Space, limit: int, metric: Metric = Metric()):
        """Reads the file, if it exists, and cuts off a last line torn by a kill.

        Raises InputError at a line of another search.
        """
        self.path, self.space, self.sign, self.queries = path, space, metric.sign, []
        for number, line in enumerate(whole_lines(path), 1):
            place = f"{path}:{number}: this is not query {number} of {limit} of a search on {space.name}"
            mend = "give another --outdir"
            fields = checked_json(line, HistoryLine, place, mend)
            try:
                query = Query(**msgspec.structs.asdict(fields), arch=space.parse(fields.architecture),
                              sign=self.sign)
            except InputError as error:
                raise InputError(f"{place} ({error}): {mend}") from None
            if query.query != number or number > limit or query.key != space.key(query.arch):
                raise InputError(f"{place}: {mend}")
            self.queries.append(query)

    def append(self, t: int, arch: Any, record: Record, score: float | None) -> None:
        """Adds the oracle's answer to the next query, made in round t."""
        key, text = self.space.key(arch), self.space.text(arch)
        query = Query(len(self) + 1, t, key, text, record.val, record.test, score, record.cost, arch,
                      self.sign)
        append_line(self.path, dict(zip(HistoryLine.__struct_fields__, query)))
        self.queries.append(query)

    def expect(self, archs: Sequence[Any], start: int) -> None:
        """Raises InputError unless the queries from index `start` on are the first of these architectures."""
        for query, arch in zip(self.queries[start:], archs):
            if query.key != self.space.key(arch):
                raise InputError(f"{self.path}:{query.query}: this search chooses another architecture here "
                                 "(another device or thread count?): give another --outdir")

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, part: slice) -> list[Query]:
        queries = self.queries[part]
        if not any(query.failed for query in queries):
            return queries
        seen = [query.utility for query in self.queries[:part.stop] if not query.failed]
        return [query._replace(worst=min(seen, default=0.0)) for query in queries]


def best_of(queries: Sequence[Query]) -> Query:
    """The query with the best validation value, the first of equal ones; never chosen by test.

    A failed one is best only if all failed.
    """
    return max(queries, key=lambda query: (not query.failed, query.utility))
