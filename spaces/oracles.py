"""Oracles: what answers "how good is this architecture?", and the budget that counts the answers.

An oracle has a `name` (it goes into every result), `covers(key)` (whether it can answer, without answering) and
`query(arch)`. Scripts hold a `Budget`, never a bare oracle, so that the number of queries is a hard limit.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol, Sequence

from spaces import labels
from spaces.base import InputError, Space


class Record(NamedTuple):
    """One answer. What the oracle does not know is None."""

    val: float | None  # validation accuracy, percent
    test: float | None  # test accuracy, percent
    cost: float | None  # simulated training time, seconds


class Oracle(Protocol):
    """Anything that answers queries about architectures of one space."""

    name: str

    def covers(self, key: str) -> bool:
        """Whether query() can answer for the architecture with this key."""

    def query(self, arch: Any) -> Record:
        """The answer; InputError where there is none."""


class TableOracle:
    """Answers from a label table."""

    def __init__(self, table: labels.Labels, space: Space):
        self.name, self.table, self.space = table.name, table, space

    def covers(self, key: str) -> bool:
        return key in self.table.row

    def query(self, arch: Any) -> Record:
        key = self.space.key(arch)
        if key not in self.table.row:
            raise InputError(f"{self.name} has no label for {key}: search labelled cells only or take another table")
        row = self.table.row[key]
        values = (float(column[row]) for column in (self.table.val, self.table.test, self.table.cost))
        return Record(*(None if math.isnan(value) else value for value in values))


class BudgetExhausted(Exception):
    """A query beyond the limit was refused; the oracle was not asked."""


class Budget:
    """The one owner of an oracle: counts every query, repeated and failed ones too, and refuses any past the limit."""

    def __init__(self, oracle: Oracle, limit: int):
        self.name, self.covers = oracle.name, oracle.covers
        self.spent, self.limit = 0, limit
        self._oracle = oracle

    @property
    def left(self) -> int:
        return self.limit - self.spent

    def prepare(self, archs: Sequence[Any], on_answer: Callable[[int], None]) -> None:
        """These will be queried next: an oracle that trains may train them side by side. Counts nothing.

        on_answer(how many of them it can answer for by now) is called whenever that takes time.
        """
        getattr(self._oracle, "prepare", lambda archs, on_answer: None)(archs[:self.left], on_answer)

    def query(self, arch: Any) -> Record:
        if self.spent >= self.limit:
            raise BudgetExhausted(f"all {self.limit} queries of the budget are spent")
        self.spent += 1
        return self._oracle.query(arch)


def open_oracle(text: str, space: Space, **reader: Any) -> Oracle:
    """The oracle a user names: a surrogate, or else what `labels.read` reads with its options.

    InputError for a missing or damaged file, or one that belongs to another space.
    """
    return open_surrogate(text, space) or TableOracle(labels.read(text, space, **reader), space)


def open_surrogate(text: str, space: Space) -> Oracle | None:
    """The surrogate (see `nasbench301.Surrogate`) that a user names: an .onnx file is YAHPO's, a folder NAS-Bench-301's
    own ensemble; None for all else.

    InputError for a missing or damaged file, or where it does not serve the space.
    """
    path = Path(text).expanduser()
    if path.suffix == ".onnx":
        from spaces.yahpo import YahpoOracle as surrogate  # onnxruntime is wanted only here
    elif text and path.is_dir():
        from spaces.surrogate301 import EnsembleOracle as surrogate  # and xgboost only here
    else:
        return None
    if not isinstance(space, surrogate.serves):
        raise InputError(f"{text} labels DARTS cells and cannot serve as oracle of {space.name}: give a label table")
    return surrogate(path)
