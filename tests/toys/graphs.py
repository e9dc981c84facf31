"""Small graphs as batches: literal ones, random DAGs, and other drawings of a graph."""
from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import strategies as st

from models.batch import Batch
from spaces.base import Graphs

OPERATIONS = 7


@st.composite
def dags(draw, most: int = 7, distinct: bool = False):
    """ops [V], adj [V, V], marks [V] of a random DAG with at least one edge, in topological order."""
    n = draw(st.integers(2, most))
    op = st.integers(0, OPERATIONS - 1)
    ops = draw(st.lists(op, min_size=n, max_size=n, unique=distinct))
    possible = [(i, j) for j in range(n) for i in range(j)]
    adj = np.zeros((n, n), np.uint8)  # [V, V]
    for i, j in draw(st.sets(st.sampled_from(possible), min_size=1)):
        adj[i, j] = 1
    marks = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    return np.array(ops), adj, np.array(marks)


def batch(ops, adj, marks=None, vertices: int | None = None, filler: int = 0) -> Batch:
    """One graph as a batch, padded to `vertices`; the operations at padding are `filler`."""
    n, vertices = len(ops), vertices or len(ops)
    space = np.full(vertices, filler), np.zeros((vertices, vertices)), np.zeros(vertices)
    space[0][:n], space[1][:n, :n], space[2][:n] = ops, adj, 0 if marks is None else marks
    return Batch.of(Graphs.from_numpy(space[0][None], space[1][None], np.array([n]), space[2][None]))  # B = 1


def other_drawing(ops: torch.Tensor, adj: torch.Tensor, n: int) -> list[int]:
    """Another order of the n vertices in which edges still go to later ones; the same if there is none."""
    for inner in itertools.permutations(range(1, n - 1)):
        order = [0, *inner, n - 1]
        if order != sorted(order) and not adj[order][:, order].tril().any():
            return order + list(range(n, len(ops)))
    return list(range(len(ops)))


def redrawn(graphs: Graphs) -> tuple[Graphs, list[list[int]]]:
    """The graphs in other drawings, and the order of the vertices of each."""
    orders = [other_drawing(*row) for row in zip(graphs.ops, graphs.adj, graphs.n.tolist())]
    ops = torch.stack([ops[order] for ops, order in zip(graphs.ops, orders)])  # [N, V]
    adj = torch.stack([adj[order][:, order] for adj, order in zip(graphs.adj, orders)])  # [N, V, V]
    return Graphs(ops, adj, graphs.n, graphs.marks), orders
