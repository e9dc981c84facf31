"""Layered layout of a small DAG: boxes in rows from top to bottom (Sugiyama, Tagawa and Toda 1981).

An edge that spans several rows gets a corridor of its own in each row between, so that it never crosses a box.
"""
from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np
from scipy.optimize import lsq_linear

CORRIDOR = 0.1  # width that a passing edge is given
GAP = 0.2  # between neighbours in a row
ROW_GAP = 0.46  # between rows

Edge = tuple[int, int]


class Layout(NamedTuple):
    """Lengths are in the unit of the sizes given, from the lower left corner.

    center  float[n, 2] of each box
    routes  float[2r, 2] for each edge: the lower end of its first box, a corridor's two ends in each row between, the
            upper end of its last box
    size    (width, height) of the whole
    """

    center: np.ndarray
    routes: list[np.ndarray]
    size: tuple[float, float]


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """sizes: (width, height) of n boxes; edges: (from, to) with from < to.

    Boxes that nothing enters go to the top row, box n-1 alone to the bottom row.
    """
    rows = row_of(len(sizes), edges)
    widths = [width for width, _ in sizes]
    chains, links = [], []  # an edge's vertices from top to bottom; all steps from one row to the next
    for u, v in edges:
        corridor = range(len(rows), len(rows) + rows[v] - rows[u] - 1)
        rows += range(rows[u] + 1, rows[v])
        widths += [CORRIDOR] * len(corridor)
        chains.append([u, *corridor, v])
        links += zip(chains[-1], chains[-1][1:])
    order = fewest_crossings(rows, links)
    x = abscissas(order, widths, links)
    heights = [max([sizes[v][1] for v in row if v < len(sizes)], default=0) for row in order]
    top = sum(heights) + ROW_GAP * (len(heights) - 1)
    y = top - np.cumsum([0, *heights[:-1]]) - ROW_GAP * np.arange(len(heights)) - np.array(heights) / 2  # [rows]
    center = np.column_stack([x, y[rows]])  # [vertices, 2]
    half = np.array([[0, height / 2] for height in heights])[rows]  # [vertices, 2]
    ends = np.stack([center + half, center - half], axis=1)  # [vertices, 2, 2] upper and lower
    routes = [ends[chain].reshape(-1, 2)[1:-1] for chain in chains]  # [2r, 2]
    return Layout(center[:len(sizes)], routes, (float((x + np.array(widths) / 2).max()), float(top)))


def row_of(n: int, edges: Sequence[Edge]) -> list[int]:
    """Rows by longest path; a box then sinks to just above the first that it feeds. Sources stay at the top."""
    row = [0] * n
    for u, v in sorted(edges):
        row[v] = max(row[v], row[u] + 1)
    row[n - 1] = max(max(row[:n - 1], default=-1) + 1, row[n - 1])
    entered = {v for _, v in edges}
    for u in reversed(range(n)):
        fed = [row[v] for source, v in edges if source == u]
        if u in entered and fed:
            row[u] = min(fed) - 1
    return row


def fewest_crossings(rows: Sequence[int], links: Sequence[Edge]) -> list[list[int]]:
    """The vertices of each row from left to right: barycentre sweeps from several starts, then exchanges of neighbours.

    Of orders with equally many crossings the one that is nearest to the numbering, the first row before all.
    """
    neighbours = [{v: [] for v in range(len(rows))} for _ in range(2)]  # above, below
    for u, v in links:
        neighbours[0][v].append(u)
        neighbours[1][u].append(v)
    start = [[v for v, row in enumerate(rows) if row == r] for r in range(max(rows) + 1)]
    rng = np.random.default_rng(0)  # the same picture every time
    best = None

    def barycentre(v: int) -> float:  # of the neighbours in the row before; places count from a row's middle
        return float(np.mean([place[u] for u in neighbours[side][v] or [v]]))

    for attempt in range(12):
        order = [row if attempt == 0 else rng.permutation(row).tolist() for row in start]
        for sweep in range(12):
            side = sweep % 2
            for row in order if side == 0 else reversed(order):
                place = {v: i - len(r) / 2 for r in order for i, v in enumerate(r)}
                row.sort(key=barycentre)
            for candidate in (order, [row[::-1] for row in order]):
                cost = crossings(candidate, links), disorder(candidate[:1]), disorder(candidate)
                if best is None or cost < best[0]:
                    best = cost, [list(row) for row in candidate]
    return exchange(best[1], links)


def exchange(order: list[list[int]], links: Sequence[Edge]) -> list[list[int]]:
    """Swap neighbours in a row as long as that removes a crossing."""
    count, improved = crossings(order, links), True
    while improved and count:
        improved = False
        for row in order:
            for i in range(len(row) - 1):
                row[i:i + 2] = row[i + 1], row[i]
                swapped = crossings(order, links)
                if swapped < count:
                    count, improved = swapped, True
                else:
                    row[i:i + 2] = row[i + 1], row[i]
    return order


def disorder(order: list[list[int]]) -> int:
    """How many pairs in a row stand against their numbering."""
    return sum(u > v for row in order for i, u in enumerate(row) for v in row[i + 1:])


def crossings(order: list[list[int]], links: Sequence[Edge]) -> int:
    """How many pairs of links cross."""
    if not links:
        return 0
    place = {v: (r, i) for r, row in enumerate(order) for i, v in enumerate(row)}
    r, a, b = np.array([(*place[u], place[v][1]) for u, v in links]).T  # row of the upper end, places of both ends
    return int((np.equal.outer(r, r) & np.less.outer(a, a) & np.greater.outer(b, b)).sum())


def abscissas(order: list[list[int]], widths: Sequence[float], links: Sequence[Edge]) -> np.ndarray:
    """x of the centres: short and above all straight links, without overlap, the left edge at 0.

    Least squares over the links in the variables (first of a row, then the distances along it), whose only constraints
    are the smallest distances.
    """
    place = [v for row in order for v in row]  # variable -> vertex
    x_of = np.zeros((len(place), len(place)))  # x = x_of @ variables
    least = []
    for row in order:
        for i, v in enumerate(row):
            x_of[v, len(least) - i:len(least) + 1] = 1
            least.append(-np.inf if i == 0 else (widths[row[i - 1]] + widths[v]) / 2 + GAP)
    rows = np.array([x_of[u] - x_of[v] for u, v in links] + list(0.02 * x_of))  # the last: to the middle, faintly
    leaving, entering = (np.bincount(ends, minlength=len(place)) for ends in np.array(links, int).reshape(-1, 2).T)
    fan = np.array([max(leaving[u], entering[v]) for u, v in links], int)
    weight = np.append(fan ** -0.5, np.ones(len(place)))
    alone = np.flatnonzero(fan == 1)
    for _ in range(12):  # reweighting makes a link that is its ends' only one straight rather than nearly so
        x = x_of @ lsq_linear(rows * weight[:, None], np.zeros(len(rows)), (least, np.inf)).x
        bend = np.array([x[u] - x[v] for u, v in links])
        weight[alone] = 2 / np.sqrt(abs(bend[alone]) + 0.004)
    return x - (x - np.array(widths) / 2).min()
