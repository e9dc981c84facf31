"""Files that are trees of values: JSON, JSON lines, CSV, checkpoints, .npz; and faults of single values.

    tree = read("json", content)
    for name, content in fields("json", content): ...

A form is (read, write). A tree is made of dicts and lists; a place in it is a tuple of keys and indices.
"""
from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

DEEP, DIGITS = 5000, (400, 5000)
LONG = {f"@{n} digits@": "9" * n for n in DIGITS} | {  # marks of what no library would write
    "@deep list@": "[" * DEEP + "]" * DEEP, "@deep object@": '{"a":' * DEEP + "1" + "}" * DEEP}
JUNK = {  # of JSON and checkpoints: a value of another type or size
    "null": None, "text": "text", "empty": "", "negative": -1, "huge": 1e308, "fraction": 0.5, "true": True,
    "zero": 0, "list": [1, [2]], "no list": [], "object": {"a": {"b": None}}, "nan": math.nan,
    "inf": math.inf, "big": 2**40}
CELLS = {  # of CSV
    "empty": "", "text": "text", "negative": "-1", "inf": "inf", "nan": "nan", "exponent": "1e999",
    "digits": "9" * 400, "more digits": "9" * 5000, "list": "[" * DEEP, "quote": '"', "nul": "\0",
    "percent": "91 %", "comma": "91,2", "hexadecimal": "0x10", "underscore": "9_1", "arabic": "٩١"}
ARRAYS = {  # of .npz
    "empty": np.zeros(0), "float": np.full((80, 32, 32, 3), 0.5), "nan": np.full(80, np.nan),
    "one": np.int64(1), "text": np.array(["a"]), "none": np.array([None]), "negative": np.full(80, -1),
    "large": np.full(80, 10), "wide": np.zeros((80, 64, 64, 3), np.uint8), "complex": np.zeros(80, complex)}


# Forms ------------------------------------------------------------------------------------------------------

class Form(NamedTuple):
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    junk: dict[str, Any]


def write_json(tree: Any) -> bytes:
    return filled(json.dumps(tree, indent=2) + "\n")


def filled(text: str) -> bytes:
    """The text with what the marks stand for."""
    for mark, value in LONG.items():
        text = text.replace(f'"{mark}"', value)
    return text.encode()


def write_lines(tree: list) -> bytes:
    return filled("".join(json.dumps(line) + "\n" for line in tree))


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


def write_csv(rows: list[list[str]]) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode()


def read_checkpoint(content: bytes) -> dict:
    return torch.load(io.BytesIO(content), weights_only=True)


def write_checkpoint(tree: dict) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


def write_npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def nested(depth: int) -> list:
    """A list in a list, and so on; deeper, torch.save itself fails."""
    tree = []
    for _ in range(depth):
        tree = [tree]
    return tree


FORMS = {
    "json": Form(json.loads, write_json, JUNK | {mark: mark for mark in LONG}),
    "jsonl": Form(lambda content: [json.loads(line) for line in content.splitlines()], write_lines,
                  JUNK | {mark: mark for mark in LONG}),
    "csv": Form(read_csv, write_csv, CELLS),
    "checkpoint": Form(read_checkpoint, write_checkpoint, JUNK | {
        "digits": 10**400, "deep": nested(150), "tensor": torch.ones(2, 3), "no tensor": torch.zeros(0)}),
    "npz": Form(read_npz, write_npz, ARRAYS),
}


# Faults -----------------------------------------------------------------------------------------------------

def places(tree: Any, path: tuple = (), most: int = 4) -> Iterator[tuple]:
    """Yields the places in a tree to a depth of `most`; of a list only the first, the middle and the last."""
    if not isinstance(tree, (dict, list)) or len(path) == most:
        return
    last = len(tree) - 1
    keys = tree if isinstance(tree, dict) else sorted({0, last // 2, last})[:len(tree)]
    for key in keys:
        yield (*path, key)
        yield from places(tree[key], (*path, key), most)


def parent(tree: Any, place: tuple) -> Any:
    for key in place[:-1]:
        tree = tree[key]
    return tree


def value_at(tree: Any, place: tuple) -> Any:
    return parent(tree, place)[place[-1]]


def changed(form: Form, tree: Any, place: tuple, value: Any) -> bytes:
    """The file with another value at the place."""
    tree = copy.deepcopy(tree)
    parent(tree, place)[place[-1]] = value
    return form.write(tree)


def fields(kind: str, content: bytes) -> list[tuple[str, Callable[[], bytes]]]:
    """Every value in turn replaced by another of each kind of junk."""
    form, tree = FORMS[kind], FORMS[kind].read(content)
    return [(f"{dotted(place)} = {name}", lambda place=place, value=value: changed(form, tree, place, value))
            for place in places(tree) for name, value in form.junk.items()
            if kind != "csv" or len(place) == 2]


def missing(kind: str, content: bytes) -> list[tuple[str, Callable[[], bytes]]]:
    """Every key in turn left out; of CSV, every column."""
    form, tree = FORMS[kind], FORMS[kind].read(content)

    def without(place: tuple) -> bytes:
        less = copy.deepcopy(tree)
        for row in less if kind == "csv" else [parent(less, place)]:
            del row[place[-1]]
        return form.write(less)

    found = [(0, i) for i in range(len(tree[0]))] if kind == "csv" else places(tree)
    return [(f"without {dotted(place)}", lambda place=place: without(place)) for place in found]


def more(kind: str, content: bytes) -> list[tuple[str, Callable[[], bytes]]]:
    """A key that nobody knows, in every object of the first levels; of CSV, a column."""
    form, tree = FORMS[kind], FORMS[kind].read(content)

    def added(place: tuple) -> bytes:
        larger = copy.deepcopy(tree)
        (value_at(larger, place) if place else larger)["unknown"] = np.zeros(3) if kind == "npz" else "text"
        return form.write(larger)

    if kind == "csv":
        return [("a column", lambda: write_csv([[*row, f"{i}"] for i, row in enumerate(tree)]))]
    objects = [place for place in [(), *places(tree, most=1)] if isinstance(
        value_at(tree, place) if place else tree, dict)]
    return [(f"a key in {dotted(place) or 'the file'}", lambda place=place: added(place))
            for place in objects]


def weights(content: bytes) -> list[tuple[str, Callable[[], bytes]]]:
    """Tensors in turn with NaN, infinity, another shape, another type, or without data of their own."""
    form, tree = FORMS["checkpoint"], read_checkpoint(content)
    damages = {
        "nan": lambda value: torch.full_like(value, math.nan) if value.is_floating_point() else value + 2**40,
        "inf": lambda value: torch.full_like(value, math.inf) if value.is_floating_point() else -1 - value,
        "one nan": one_nan,
        "a row more": lambda value: torch.cat([value[None] if not value.dim() else value] * 2),
        "no entry": lambda value: value.flatten()[:0],
        "flat": lambda value: value.reshape(1, -1, 1),
        "text type": lambda value: value.to(torch.complex64),
        "broadcast": lambda value: torch.zeros(1).expand(2**33),
        "sparse": lambda value: torch.zeros(3).to_sparse(),
        "half": lambda value: value.to(torch.int8),
    }
    tensors = [place for place in places(tree, most=6) if isinstance(value_at(tree, place), torch.Tensor)]
    return [(f"{dotted(place)}: {name}", lambda place=place, damage=damage: changed(
        form, tree, place, damage(value_at(tree, place).clone())))
        for place in tensors for name, damage in damages.items()]


def one_nan(value: torch.Tensor) -> torch.Tensor:
    if value.is_floating_point() and value.numel():
        value.view(-1)[-1] = math.nan
    return value


def dotted(place: tuple) -> str:
    return ".".join(map(str, place))
