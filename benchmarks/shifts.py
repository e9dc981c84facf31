"""Labelled and ranked cells of different kinds: which half of a table is labelled, and which is ranked.

A search labels the best cells that it finds, and ranks others: a predictor that was measured on a random
split only may fail there.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.batch import Batch
from models.features.facts import FACTS, portable_facts
from spaces import Space


def by_fact(fact: str) -> Callable[[Space, Batch, np.ndarray], np.ndarray]:
    return lambda space, table, label: portable_facts(table, space.vocabulary)[:, FACTS.index(fact)].numpy()


# name: (what it compares, a function of space, table and label [N] -> float[N]); more is labelled
SHIFTS = {
    "accuracy": ("the better half is labelled", lambda space, table, label: label),
    "size": ("the half with more parameters is labelled", by_fact("log parameters")),
    "operations": ("the half with more spatial layers is labelled", by_fact("log spatial layers")),
}


def labelled_half(shift: str, space: Space, table: Batch, label: np.ndarray) -> np.ndarray:
    """bool[N]: True at the half of N cells to draw labels from; the others are ranked.

    label: float[N], higher is better, nan if unknown. Equal cells of a fact are divided at random.
    """
    value = SHIFTS[shift][1](space, table.to("cpu"), label)
    order = np.lexsort((np.random.default_rng(0).random(len(value)), np.nan_to_num(value, nan=-np.inf)))
    half = np.zeros(len(value), bool)
    half[order[len(order) // 2:]] = True
    return half
