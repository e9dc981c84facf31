"""Layered layout of a small DAG, from top to bottom: rows by longest path, places by barycentre sweeps.

An edge that spans several rows gets a corridor in each row between, so that it crosses no box.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

CORRIDOR = 0.1  # width of a passing edge
STRAIGHT = 10  # pull of a corridor on the next one, relative to that of a box: keeps long edges straight
GAP = 0.2  # between neighbours in a row
ROW_GAP = 0.46  # between rows
SWEEPS, SORTING = 30, 6  # over all rows; only the first sweeps also sort each row


class Layout(NamedTuple):
    """Places of boxes and edges, from the lower left corner, in the unit of the widths.

    center  float[n, 2] of each box
    routes  float[2r, 2] of each edge: the lower end of its first box, both ends of its corridor in each row
            between, the upper end of its last box
    size    (width, height) of the whole
    """

    center: np.ndarray
    routes: list[np.ndarray]
    size: tuple[float, float]


def layered(widths: Sequence[float], height: float, edges: Sequence[tuple[int, int]]) -> Layout:
    """Places n boxes of these widths and one height; edges are (from, to) with from < to.

    Boxes without a predecessor stand in the top row, box n-1 alone in the bottom row.
    """
    n, rows, chains = len(widths), row_of(len(widths), edges), []
    for u, v in edges:
        chains.append([u, *range(len(rows), len(rows) + rows[v] - rows[u] - 1), v])
        rows += range(rows[u] + 1, rows[v])
    widths = np.array([*widths, *[CORRIDOR] * (len(rows) - n)])  # [vertices] boxes, then corridors
    x = abscissas(rows, widths, [link for chain in chains for link in pairwise(chain)])
    y = (max(rows) - np.array(rows)) * (height + ROW_GAP) + height / 2
    upper, lower = np.column_stack([x, y + height / 2]), np.column_stack([x, y - height / 2])
    ends = np.stack([upper, lower], axis=1)  # [vertices, 2, 2]
    routes = [ends[chain].reshape(-1, 2)[1:-1] for chain in chains]  # [2r, 2]
    return Layout(ends.mean(1)[:n], routes, (float((x + widths / 2).max()), float(upper[:, 1].max())))


def row_of(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Returns rows by longest path; a box with predecessors then sinks to just above the first it feeds."""
    row = [0] * n
    for u, v in sorted(edges):
        row[v] = max(row[v], row[u] + 1)
    row[n - 1] = max([-1, *row[:n - 1]]) + 1
    for u in sorted({u for u, _ in edges} & {v for _, v in edges}, reverse=True):
        row[u] = min(row[v] for source, v in edges if source == u) - 1
    return row


def abscissas(rows: Sequence[int], widths: np.ndarray, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns x of the centres, the left edge at 0. The top row, the inputs, keeps its order."""
    order = [[v for v, row in enumerate(rows) if row == r] for r in range(max(rows) + 1)]
    x, below = np.zeros(len(rows)), np.zeros((len(rows), len(rows)))
    for u, v in links:
        below[u, v] = STRAIGHT if widths[u] == widths[v] == CORRIDOR else 1
    for row in order:
        x[row] = apart(np.arange(len(row)), widths[row])
    for sweep in range(SWEEPS):  # down, pulled by the neighbours above; up, by those below; at last by both
        pull = below + below.T if sweep >= SORTING else below if sweep % 2 else below.T
        for row in order[::-1] if sweep % 2 else order:
            wanted = {v: pull[v] @ x / pull[v].sum() if pull[v].any() else x[v] for v in row}
            if sweep < SORTING and row is not order[0]:
                row.sort(key=wanted.get)
            x[row] = apart(np.array([wanted[v] for v in row]), widths[row])
    return x - (x - widths / 2).min()


def apart(wanted: np.ndarray, widths: np.ndarray, gap: float = GAP) -> np.ndarray:
    """Returns places in the same order, without overlap and nearest to `wanted` by least squares."""
    packed = np.cumsum(widths + gap) - widths / 2
    return packed + isotonic_regression(wanted - packed).x
