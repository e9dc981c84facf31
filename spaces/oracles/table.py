"""The oracle of a label table, and the budget that counts an oracle's queries.

Scripts hold a `QueryBudget`, never a bare oracle, so the number of queries is a hard limit.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import InputError
from spaces.base import Oracle, Record, Space
from spaces.labels.read import Labels


class TableOracle:
    """Answers from a label table."""

    def __init__(self, table: Labels, space: Space):
        self.name, self.table, self.space = table.name, table, space

    @property
    def digest(self) -> str:
        return self.table.digest

    def covers(self, key: str) -> bool:
        return key in self.table.row

    def query(self, arch: Any) -> Record:
        key = self.space.key(arch)
        if key not in self.table.row:
            raise InputError(
                f"{self.name} has no label for {key}: search labelled cells only or take another table")
        row = self.table.row[key]
        values = (float(column[row]) for column in (self.table.val, self.table.test, self.table.cost))
        return Record(*(None if math.isnan(value) else value for value in values))


class BudgetExhausted(Exception):
    """A query beyond the limit was refused; the oracle was not asked."""


class QueryBudget:
    """Owns an oracle: counts every query, repeated and failed ones too, and refuses any beyond the limit."""

    def __init__(self, oracle: Oracle, limit: int):
        self.name, self.covers = oracle.name, oracle.covers
        self.spent, self.limit = 0, limit
        self._oracle = oracle

    def hopeless(self) -> str:
        """What to say and do if all answers are failures, the end of a message."""
        return getattr(self._oracle, "hopeless", lambda: f"ask {self.name}")()

    @property
    def left(self) -> int:
        return self.limit - self.spent

    def prepare(self, archs: Sequence[Any], on_answer: Callable[[int], None]) -> None:
        """Announces the next queries, so that an oracle that trains can train side by side; counts nothing.

        on_answer(number of them with an answer so far) is called whenever that takes time.
        """
        getattr(self._oracle, "prepare", lambda archs, on_answer: None)(archs[:self.left], on_answer)

    def query(self, arch: Any) -> Record:
        if self.spent >= self.limit:
            raise BudgetExhausted(f"all {self.limit} queries of the budget are spent")
        self.spent += 1
        return self._oracle.query(arch)
