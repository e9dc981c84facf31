"""The problem of a search: the oracle under a query protocol, the pool that it covers, and its optimum."""
from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

import spaces
from runtime.errors import InputError
from runtime.log import console
from spaces import Space
from spaces.base import Oracle
from spaces.metrics import Metric
from spaces.oracles import open_oracle
from spaces.oracles.table import TableOracle
from strategies.base import CandidatePool
from strategies.limits import Limits

# protocol: the accuracy that a query returns and that chooses the best
QUERY_PROTOCOLS = {"val-test": "validation", "oracle-test": "test"}


class Benchmark(NamedTuple):
    """The settings that name a space and its labels."""

    space: str
    cell_marks: bool
    labels: str
    dataset: str
    run: int
    protocol: str
    metric: Metric


@lru_cache(maxsize=1)
def open_benchmark(named: Benchmark) -> tuple[Space, Oracle]:
    """Opens the space, and the oracle of all architectures that have the protocol's value.

    A process reads a label table once.
    """
    space, protocol = spaces.get(named.space, named.cell_marks), named.protocol
    oracle = open_oracle(
        named.labels, space, dataset=named.dataset, run=named.run, metric=named.metric)
    if isinstance(oracle, TableOracle):
        table = oracle.table
        if protocol == "oracle-test":
            table = dataclasses.replace(table, val=table.test)
        return space, TableOracle(table.select(~np.isnan(table.val)), space)
    if protocol == "oracle-test":
        raise InputError(
            f"--protocol oracle-test: {oracle.name} knows no test accuracy: give a label table that does")
    return space, oracle


def within(oracle: Oracle, limits: Limits) -> Oracle:
    """The oracle, without the rows of its table that break a limit; stderr says how many are left."""
    if not limits or not isinstance(oracle, TableOracle):
        return oracle
    kept = limits.keep(oracle.table.keys)
    if not kept.any():
        raise InputError(
            f"--limit {limits}: none of the {len(kept):,} architectures of {oracle.name} keeps it")
    console.print(f"{kept.sum():,} of {len(kept):,} architectures keep {limits}", highlight=False)
    return TableOracle(oracle.table.select(kept), oracle.space)


def open_pool(space: Space, oracle: Oracle, N: int, protocol: str, limits: Limits) -> CandidatePool:
    """The pool of all architectures that the oracle covers and that keep the limits.

    Raises InputError if they are fewer than N.
    """
    if isinstance(oracle, TableOracle):
        pool = CandidatePool(space, oracle.covers, oracle.table.keys)
    else:
        keys = limits.listed(space) if limits else None
        pool = CandidatePool(
            space, lambda key: oracle.covers(key) and limits.keeps(key), keys, str(limits))
    if N > pool.left:
        raise InputError(f"--N {N}: {oracle.name} has {QUERY_PROTOCOLS[protocol]} values of only "
                         f"{pool.left} architectures" + f" that keep {limits}" * bool(limits))
    return pool


def stop_utility(oracle: Oracle, stop_at_best: bool) -> float:
    """The utility at which a search stops: the best in the table with --stop_at_best, else infinity."""
    if not stop_at_best:
        return math.inf
    if not isinstance(oracle, TableOracle):
        raise InputError(
            f"--stop_at_best: the best value that {oracle.name} can give is not known: leave it out")
    return float(oracle.table.utility("val").max())


def optimum(oracle: Oracle, chosen_by: str) -> dict | None:
    """The best validation and test value in a table, each of any architecture, and the number of cells.

    A test value is None if unknown. Returns None for an oracle without a table.
    """
    if not isinstance(oracle, TableOracle):
        return None
    table = oracle.table
    best = np.nanmin if table.metric.lower_is_better else np.nanmax
    test = None if np.isnan(table.test).all() else float(best(table.test))
    return {"validation": float(best(table.val)) if chosen_by == "validation" else None, "test": test,
            "cells": len(table), "complete": len(table) == oracle.space.size}
