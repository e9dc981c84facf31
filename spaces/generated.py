"""Randomly generated search spaces, to pre-train an encoder that knows any: wirings, vocabularies, cells.

    graphs, vocabulary = generated(spaces=1500, each=16, rng=np.random.default_rng(0))

A generated space has a vocabulary of 3 to 7 operations, one or two cells, and a way to wire them: a chain, a
fixed random wiring, or a wiring that each architecture chooses anew. N architectures, V vertices.
"""
from __future__ import annotations

import numpy as np

from spaces.base import Graphs
from spaces.operations import Description, read

OPERATIONS = 150  # different ones in all generated spaces
LARGEST = {1: 9, 2: 5}  # positions of a cell, at most, by the number of cells
INPUTS = 2
ENDS = {"input1": {"is": "input", "number": 0}, "input2": {"is": "input", "number": 1},
        "output": {"is": "output"}}


def drawn_operation(rng: np.random.Generator) -> Description:
    """A random description of an operation that computes something."""
    kind = rng.choice(["convolution", "pooling", "attention", "linear"], p=[0.65, 0.17, 0.08, 0.1])
    if kind == "pooling":
        entry = {"kernel": int(rng.choice([3, 3, 5, 7])), "of": str(rng.choice(["max", "average"])),
                 "norm": bool(rng.random() < 0.3)}
    elif kind == "attention":
        entry = {"heads": int(rng.choice([1, 2, 4])), "residual": bool(rng.random() < 0.7)}
    elif kind == "linear":
        entry = {"expansion": [None, 1.0, 2.0, 4.0][rng.integers(4)], "residual": bool(rng.random() < 0.4)}
    else:
        wide = [None, None, None, 1.0, 2.0, 3.0, 4.0, 6.0][rng.integers(8)]
        depthwise = bool(rng.random() < (0.3 if wide is None else 0.85))
        entry = {
            "kernel": int(rng.choice([1, 3, 3, 5, 7], p=[0.2, 0.3, 0.15, 0.25, 0.1])),
            "dilation": int(rng.choice([1, 1, 1, 2])), "expansion": wide,
            "groups": "channels" if depthwise else int(rng.choice([1, 1, 1, 2, 4])),
            "pointwise": wide is None and depthwise and bool(rng.random() < 0.7),
            "residual": bool(rng.random() < (0.7 if wide else 0.2)),
            "repeats": int(rng.choice([1, 1, 2])),
            "order": str(rng.choice(["conv-norm-relu", "relu-conv-norm"]))}
    return read({"is": str(kind), **entry}, "a generated operation")


def drawn_vocabulary(rng: np.random.Generator) -> dict[str, Description]:
    """The operations of all generated spaces: inputs, output, identity, zero, and OPERATIONS random ones."""
    random = {f"generated{i}": drawn_operation(rng) for i in range(OPERATIONS)}
    return ENDS | {"skip_connect": {"is": "identity"}, "none": {"is": "zero"}} | random


def generated(spaces: int, each: int, cells: int, rng: np.random.Generator,
              vocabulary: dict[str, Description]) -> Graphs:
    """`each` architectures of each of so many random spaces, all over one vocabulary (`drawn_vocabulary`)."""
    drawn = [drawn_space(each, cells, rng, list(vocabulary)) for _ in range(spaces)]
    ops, adj, n, marks = map(np.concatenate, zip(*drawn))
    return Graphs.from_numpy(ops, adj, n, marks)


def drawn_space(each: int, cells: int, rng: np.random.Generator,
                names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Architectures of one random space: ops [N, V], adj [N, V, V], n [N], marks [N, V]."""
    most = cells * (INPUTS + LARGEST[cells] + 1)  # V
    few = rng.choice(np.arange(len(ENDS) + 2, len(names)), int(rng.integers(2, 6)), replace=False)
    rare = [names.index(name) for name in ("skip_connect", "none") if rng.random() < 0.5]
    options = np.array([*few, *rare])
    ops, marks = np.zeros((each, most), np.uint8), np.zeros((each, most), np.uint8)
    adj, first = np.zeros((each, most, most), np.uint8), 0
    free = rng.random() < 0.35  # each architecture has a wiring of its own
    for cell in range(cells):
        inputs, positions = int(rng.integers(1, INPUTS + 1)), int(rng.integers(3, LARGEST[cells] + 1))
        size, chain = inputs + positions + 1, not free and rng.random() < 0.3
        density = rng.uniform(0.1, 0.6)
        last = first + size
        ops[:, first:first + inputs] = [names.index(f"input{i + 1}") for i in range(inputs)]
        ops[:, first + inputs:last - 1] = rng.choice(options, (each, positions))
        ops[:, last - 1] = names.index("output")
        marks[:, first:last] = cell
        wirings = [wiring(inputs, positions, chain, density, rng) for _ in range(each if free else 1)]
        adj[:, first:last, first:last] = np.stack(wirings)
        first = last
    return ops, adj, np.full(each, first), marks


def wiring(inputs: int, positions: int, chain: bool, density: float, rng: np.random.Generator) -> np.ndarray:
    """adj uint8[V, V] of a cell, in which every position lies between an input and the output."""
    size = inputs + positions + 1
    adj = np.zeros((size, size), np.uint8)
    for v in range(inputs, size - 1):
        feeds = (np.arange(v) == v - 1) if chain and v > inputs else rng.random(v) < density  # [v]
        if chain and v == inputs:
            feeds = np.ones(v, bool)
        if not feeds.any():
            feeds[rng.integers(v)] = True
        adj[:v, v] = feeds
    adj[:-1, -1] = rng.random(size - 1) < (0 if chain else density / 2)
    adj[:-1, -1] |= adj[:-1, :-1].sum(1) == 0  # what feeds nothing else feeds the output
    return adj
