"""Reads files of cells, one per line, in any notation that a space parses."""
from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, NamedTuple

from runtime.errors import InputError
from runtime.guarded import read_text
from spaces.base import Space


class Line(NamedTuple):
    """One cell of a user's file: line number, text, and the parsed architecture."""

    number: int
    text: str
    arch: Any


def read_cells(path: Path, space: Space) -> list[Line]:
    """Reads the cells in a text file, one per line; raises InputError, with the line, for anything else.

    Digits stand for operations, which every library numbers in its own way: stderr names the first cell.
    """
    mend = f"write one cell per line, in the notation of {space.name}"
    cells = []
    for number, text in enumerate(map(str.strip, io.StringIO(read_text(path, mend))), 1):
        try:
            cells += [Line(number, text, space.parse(text))] if text else []
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        if text.isdigit() and len(cells) == 1 and text != space.key(cells[0].arch):
            print(f"{path}:{number}: {text} is {space.text(cells[-1].arch)}", file=sys.stderr)
    if not cells:
        raise InputError(f"{path} holds no cell: {mend}")
    return cells
