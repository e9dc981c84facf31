"""The search space of a sweep, in NNI's notation, checked before anything starts."""
from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from runtime.errors import InputError
from runtime.settings import checked

BOUNDS = {"randint": 2, "uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3}  # low, high (, step)
SPREADS = {"normal": 2, "lognormal": 2, "qnormal": 3, "qlognormal": 3}  # mean, std (, step)
TYPES = ("choice", *BOUNDS, *SPREADS)


def choice(*values) -> dict:
    """One of the values."""
    return {"_type": "choice", "_value": list(values)}


def uniform(low: float, high: float) -> dict:
    return {"_type": "uniform", "_value": [low, high]}


def log_uniform(low: float, high: float) -> dict:
    """Uniform on a logarithmic scale."""
    return {"_type": "loguniform", "_value": [low, high]}


def check_space(space: Any, script: ModuleType | None, where: str) -> None:
    """Raises InputError for a search space that NNI would hang on, or with a value that a trial would refuse.

    script: the one that trials run; None if they run a command of the user's own, whose settings we do not
    know.
    """
    if not isinstance(space, Mapping) or not space:
        raise InputError(f"{where}: the search space must be an object with a setting or more, like "
                         '{"lr": {"_type": "loguniform", "_value": [0.001, 0.1]}}')
    for name, entry in space.items():
        place = f"{where}: {name}"
        if not isinstance(entry, Mapping) or set(entry) != {"_type", "_value"}:
            raise InputError(f"{place} must be an object of _type and _value")
        kind, values = entry["_type"], entry["_value"]
        if kind not in TYPES:
            raise InputError(f"{place}: _type {kind!r} is none of {', '.join(TYPES)}")
        if not isinstance(values, list) or not values:
            raise InputError(f"{place}: _value must be a list, and not empty")
        if kind != "choice":
            need_range(kind, values, place)
        if script:
            for value in values if kind == "choice" else values[:2] if kind in BOUNDS else values[:1]:
                checked(script.Config, name, value, where)


def need_range(kind: str, values: list, place: str) -> None:
    """Raises InputError unless the values describe a range or a distribution."""
    count = BOUNDS.get(kind) or SPREADS[kind]
    if len(values) != count or not all(is_number(value) for value in values):
        raise InputError(f"{place}: {kind} takes {count} finite numbers, not {values!r:.60}")
    if kind in BOUNDS and not values[0] < values[1]:
        raise InputError(f"{place}: the range [{values[0]:g}, {values[1]:g}] is empty: give low < high")
    if kind in ("loguniform", "qloguniform") and values[0] <= 0:
        raise InputError(f"{place}: {kind} needs bounds above 0, not {values[0]:g}")
    if kind in SPREADS and values[1] <= 0 or count == 3 and values[2] <= 0:
        raise InputError(f"{place}: {kind} needs a {'deviation' if kind in SPREADS else 'step'} above 0")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
