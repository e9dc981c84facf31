"""Oracles, which answer "how good is this architecture?".

An oracle has a `name` (for every result), `covers(key)` (whether it can answer, without a query) and
`query(arch)`; see `spaces.base.Oracle`.
"""
from __future__ import annotations

from typing import Any

from runtime.errors import InputError
from runtime.files import path_of
from spaces.base import Oracle, Space
from spaces.labels.read import need_accuracy, read_labels
from spaces.metrics import Metric
from spaces.oracles.table import TableOracle


def open_oracle(text: str, space: Space, **reader: Any) -> Oracle:
    """Opens the oracle that a user names: a surrogate, or else a label table.

    reader: options of `read_labels`. Raises InputError for a missing or damaged file, or one that belongs to
    another space.
    """
    surrogate = open_surrogate(text, space)
    if surrogate:
        need_accuracy(reader.get("metric", Metric()), surrogate.name)
    return surrogate or TableOracle(read_labels(text, space, **reader), space)


def open_surrogate(text: str, space: Space) -> Oracle | None:
    """Opens the surrogate (see `nasbench301.Surrogate`) that a user names; returns None for anything else.

    An .onnx file is YAHPO's, a folder NAS-Bench-301's own ensemble. Raises InputError for a missing or
    damaged file, or if the surrogate does not serve the space.
    """
    if not text:
        return None
    path = path_of(text)
    if path.suffix == ".onnx":
        from spaces.oracles.yahpo import YahpoOracle as surrogate  # needs onnxruntime
    elif path.is_dir():
        from spaces.oracles.xgb301 import EnsembleOracle as surrogate  # needs xgboost
    else:
        return None
    if not isinstance(space, surrogate.serves):
        raise InputError(
            f"{text} labels DARTS cells and cannot serve as oracle of {space.name}: give a label table")
    return surrogate(path)
