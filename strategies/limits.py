"""Numbers about architectures besides the metric, and limits on them: params<=4e6, edgegpu_latency_ms<5.

    facts = Facts(space, Sources(["accuracy.csv", "latency.csv"]), space.costs)
    limits = Limits("params<=4e6,latency<5", facts)
    limits.keeps(key)           # False: such an architecture is never queried

A number is a column of a table, or else something that the space computes.
"""
from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import need_file
from spaces import Space
from spaces.labels.read import EMBEDDED, read_labels
from spaces.labels.text import IDENTITY, read_columns
from spaces.labels.tfrecord import is_tfrecord
from spaces.metrics import Metric

RELATIONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
MOST_LISTED = 10**6  # architectures of a space that is listed to know those that keep the limits
LIMIT = re.compile(r"\s*([\w.-]+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*")

Costs = Callable[[Sequence[Any]], dict[str, np.ndarray]]  # architectures -> {name: float[N]}


class Limit(NamedTuple):
    """One bound."""

    name: str
    relation: str
    bound: float

    def holds(self, values: np.ndarray) -> np.ndarray:
        """bool[N]; False where the value is unknown."""
        return RELATIONS[self.relation](values, self.bound)

    def __str__(self) -> str:
        return f"{self.name}{self.relation}{self.bound:.15g}"


def parse_limits(text: str) -> list[Limit]:
    """Reads limits with commas between them."""
    limits = []
    for part in filter(None, map(str.strip, text.split(","))):
        found = LIMIT.fullmatch(part)
        try:
            limits.append(Limit(found[1].lower(), found[2], float(found[3])))
        except (TypeError, ValueError):
            raise InputError(f"--limit {part}: write NAME<=NUMBER, also with <, >= or >, like params<=4e6, "
                             "in quotes") from None
    return limits


class Sources(NamedTuple):
    """Label tables whose columns are known, the first one first."""

    files: Sequence[str]
    dataset: str = "cifar10"

    @classmethod
    def of(cls, labels: str, more: str, dataset: str) -> Sources:
        """The tables behind --labels, if it is one, and --more_labels."""
        first = [labels] if labels and labels != EMBEDDED and is_text(labels) else []
        return cls([*first, *filter(None, map(str.strip, more.split(",")))], dataset)


def is_text(file: str) -> bool:
    """Whether a label source is a text file with columns, and not a surrogate or a TFRecord."""
    path = path_of(file)
    if path.is_dir() or path.suffix in (".onnx", ".tfrecord"):
        return False
    need_file(path, "give a label table")
    with open(path, "rb") as opened:
        return not is_tfrecord(opened.read(16))


class Facts:
    """Numbers about architectures by name."""

    def __init__(self, space: Space, sources: Sources = Sources([]), costs: Costs | None = None):
        """costs: what can be computed of any architecture; default: by the space itself, if it can."""
        self.space, self.sources = space, sources
        self.costs = costs or getattr(space, "costs", None)
        self._columns: dict[str, dict[str, float] | None] = {}

    @cached_property
    def computed(self) -> list[str]:
        if self.costs is None:
            return []
        return list(self.costs(self.space.sample(1, np.random.default_rng(0))))

    def of(self, name: str, keys: Sequence[str]) -> np.ndarray:
        """float[N]: the number of that name of each architecture, nan if unknown."""
        column = self.column(name)
        if column is not None:
            return np.array([column.get(key, np.nan) for key in keys])
        if name not in self.computed:
            known = [*self.computed, *(column for file in self.sources.files
                                       for column in read_columns(path_of(file)) if column not in IDENTITY)]
            raise InputError(f"{name} is neither a column of a table nor computed for {self.space.name}: "
                             f"known are {', '.join(known) or 'none'}; --more_labels FILE brings columns")
        return self.costs([self.space.parse(key) for key in keys])[name] if keys else np.empty(0)

    def column(self, name: str) -> dict[str, float] | None:
        """{key: number} of the first table that has the column; None if none has."""
        if name not in self._columns:
            named = {f"{dataset}{val}{name}" for val in ("", "val_")
                     for dataset in ("", f"{self.sources.dataset.lower()}_")}
            file = next((file for file in self.sources.files if named & {*read_columns(path_of(file))}), None)
            self._columns[name] = None
            if file is not None:
                table = read_labels(file, self.space, self.sources.dataset, metric=Metric(name))
                self._columns[name] = dict(zip(table.keys, table.val.tolist()))
        return self._columns[name]

    def digest(self, names: Sequence[str]) -> str | None:
        """SHA-256 of the columns among these numbers, on which a search with limits depends."""
        columns = {name: column for name in names if (column := self.column(name)) is not None}
        return hashlib.sha256(repr(sorted(columns.items())).encode()).hexdigest() if columns else None


class Limits:
    """The limits of a search; without any, everything keeps them."""

    def __init__(self, text: str, facts: Facts):
        self.limits, self.facts, self._kept = parse_limits(text), facts, {}
        self.keep([])  # finds an unknown name now

    def __bool__(self) -> bool:
        return bool(self.limits)

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits))

    @property
    def digest(self) -> str | None:
        return self.facts.digest([limit.name for limit in self.limits])

    def keep(self, keys: Sequence[str]) -> np.ndarray:
        """bool[N]: which of these architectures keep all limits."""
        kept = np.ones(len(keys), bool)
        for limit in self.limits:
            kept &= limit.holds(self.facts.of(limit.name, keys))
        return kept

    def listed(self, space: Space) -> list[str] | None:
        """The keys of all architectures that keep the limits; None if the space is too large to list."""
        if prod(space.choices) > MOST_LISTED:
            return None
        rows = np.stack(np.unravel_index(np.arange(prod(space.choices)), space.choices), 1)  # [N, D]
        archs = [arch for arch in space.decode(rows) if arch is not None]
        keys = list(dict.fromkeys(space.keys(archs)))
        return [key for key, kept in zip(keys, self.keep(keys)) if kept]

    def keeps(self, key: str) -> bool:
        if not self.limits:
            return True
        if key not in self._kept:
            self._kept[key] = bool(self.keep([key])[0])
        return self._kept[key]
