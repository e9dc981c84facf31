"""The Pareto front of a finished search: its metric against a second number, as CSV and picture."""
from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.errors import InputError
from runtime.files import write_text
from spaces.metrics import Metric
from strategies.base import Query
from strategies.limits import Facts


class Second(NamedTuple):
    """The second objective."""

    name: str
    lower_is_better: bool

    @classmethod
    def parse(cls, text: str) -> Second:
        """Reads NAME, of which less is better, or NAME:max."""
        name, colon, way = text.strip().lower().partition(":")
        if not name or colon and way not in ("min", "max"):
            raise InputError(f"--second {text}: write NAME (less is better) or NAME:max")
        return cls(name, way != "max")


class Front(NamedTuple):
    """Points of a picture: N queries, the front among them, and the true front of the table, if known."""

    metric: Metric
    second: Second
    first: np.ndarray  # float[N]: values of the metric
    other: np.ndarray  # float[N]: values of the second
    best: np.ndarray  # bool[N]: on the front
    true: np.ndarray | None  # float[F, 2]: (second, metric), in the order of the second


def front_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """bool[N]: the points that no other one dominates; utilities, of which more is better. nan: never.

    A point dominates another if it is at least as good in both and better in one.
    """
    known = np.isfinite(first) & np.isfinite(second)
    order = np.lexsort((-first, -second))  # by the second, best first; of equal ones the best first first
    order = order[known[order]]
    best = np.zeros(len(first), bool)
    if not len(order):
        return best
    x, y = second[order], first[order]
    so_far = np.concatenate([[-np.inf], np.maximum.accumulate(y)[:-1]])  # of all earlier points
    groups = np.concatenate([[True], x[1:] != x[:-1]])
    highest = y[np.flatnonzero(groups)[np.cumsum(groups) - 1]]  # of the points with the same second
    before = so_far[np.flatnonzero(groups)[np.cumsum(groups) - 1]]  # of the points with a better second
    best[order] = (y == highest) & (y > before)
    return best


def fronts(queries: Sequence[Query], metric: Metric, second: Second, facts: Facts,
           table: dict[str, float] | None) -> Front:
    """The points of a search. table: {key: value of the metric} of all that could be queried, if known."""
    first = np.array([np.nan if query.failed else query.validation for query in queries])
    other = facts.of(second.name, [query.key for query in queries])
    sign = -1.0 if second.lower_is_better else 1.0
    true = None
    if table:
        values, seconds = np.array(list(table.values())), facts.of(second.name, list(table))
        points = np.stack([seconds, values], 1)[front_of(metric.sign * values, sign * seconds)]
        true = points[np.argsort(points[:, 0], kind="stable")]
    return Front(metric, second, first, other, front_of(metric.sign * first, sign * other), true)


def write_front(path: Path, queries: Sequence[Query], front: Front) -> None:
    """Writes pareto.csv: the queries on the front, in the order of the second number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", front.metric.name, front.second.name, "test", "key", "architecture"))
    rows = sorted(np.flatnonzero(front.best).tolist(), key=lambda row: (front.other[row], row))
    writer.writerows((queries[row].query, front.first[row], front.other[row], queries[row].test,
                      queries[row].key, queries[row].architecture) for row in rows)
    write_text(path, text.getvalue())
