"""Reads the grid of an ablation, as the scripts in this folder write it: shared lines, then one per setting.

    name: masking_ratio
    title: share of the operations that is masked
    sizes: 423
    labels: /data/nasbench101.csv.gz
    cells: 20001
    pretrain: --space nasbench101 --param local:params/pretrain_nasbench101.json
    finetune: --space nasbench101 --protocol gmae --finetune_batch_size {tenth}
    setting | paper at 423 | pretrain.py       | finetune.py
    5 %     | .601         | --mask_ratio 0.05 |
    random  |              | -                 | --finetune_fixed_encoder

A setting adds its flags of pretrain.py and finetune.py to the shared ones, and overrides these; `-` means
without pre-training. The paper's numbers are in the order of the sizes in the heading. {tenth} is a tenth of
the labels. A blank line ends a grid, so a text can have several.
"""
from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from runtime.errors import InputError

SHARED = ("name", "title", "sizes", "labels", "cells", "pretrain", "finetune")
COLUMNS = 4


@dataclass(frozen=True)
class Setting:
    """One line: its name, {labels: the paper's tau}, and its flags; pretrain is None without pre-training."""

    name: str
    paper: dict[int, float]
    pretrain: tuple[str, ...] | None
    finetune: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """The settings of an ablation and their shared lines.

    sizes: numbers of labels to fine-tune on; labels: their source; cells: how many cells of it are used
    (0 = all).
    """

    name: str
    title: str
    sizes: tuple[int, ...]
    labels: str
    cells: int
    pretrain: tuple[str, ...]
    finetune: tuple[str, ...]
    settings: tuple[Setting, ...]


def read(text: str) -> list[Grid]:
    """Reads the grids in a text, one or more; raises InputError for a line that makes no sense."""
    grids = [read_one(block.strip().splitlines()) for block in re.split(r"\n[ \t]*\n", text) if block.strip()]
    if not grids:
        raise InputError("no grid was given: run one of the scripts in ablations/")
    return grids


def read_one(lines: list[str]) -> Grid:
    shared, rows = {}, []
    for line in lines:
        name, colon, value = line.partition(":")
        if "|" not in line and colon and name in SHARED and name not in shared:
            shared[name] = value.strip()
        elif line.count("|") == COLUMNS - 1:
            rows.append([cell.strip() for cell in line.split("|")])
        else:
            raise InputError(f"grid {shared.get('name', '')}: cannot read {line.strip()!r}: a setting is "
                             "'name | paper | flags of pretrain.py | flags of finetune.py'")
    missing = [name for name in SHARED if name not in shared]
    if missing or len(rows) < 2:
        raise InputError(f"grid {shared.get('name', '')}: it lacks "
                         f"{', '.join(missing) or 'settings below its heading'}")
    name, (heading, *rows) = shared["name"], rows
    at = whole_numbers(heading[1], name)
    settings = tuple(Setting(row[0], dict(zip(at, paper_numbers(row, len(at), name))),
                             None if row[2] == "-" else flags(row[2]), flags(row[3])) for row in rows)
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):
        raise InputError(f"grid {name}: two settings have one name")
    sizes = whole_numbers(shared["sizes"], name)
    if not sizes or min(sizes) < 2:
        raise InputError(f"grid {name}: sizes {shared['sizes']!r}: give numbers of labels, like 100,424")
    cells, *_ = *whole_numbers(shared["cells"], name), 0
    return Grid(name, shared["title"], sizes, shared["labels"], cells, flags(shared["pretrain"]),
                flags(shared["finetune"]), settings)


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """The whole numbers in a text, in their order; raises InputError if one is there twice."""
    numbers = tuple(map(int, re.findall(r"\d+", text)))
    if len(set(numbers)) < len(numbers):
        raise InputError(f"grid {name}: a number stands twice in {text!r}")
    return numbers


def paper_numbers(row: list[str], most: int, name: str) -> list[float]:
    try:
        numbers = [float(word) for word in row[1].split()]
        if len(numbers) > most:
            raise ValueError
    except ValueError:
        raise InputError(f"grid {name}, {row[0]}: {row[1]!r} must be at most {most} numbers, one per size of "
                         "the heading") from None
    return numbers


def flags(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(text))


def filled(given: tuple[str, ...], n: int) -> tuple[str, ...]:
    """The flags for n labels, with {tenth} replaced."""
    return tuple(flag.replace("{tenth}", str(max(2, n // 10))) for flag in given)
