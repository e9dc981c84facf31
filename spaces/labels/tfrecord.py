"""Reads the official NAS-Bench-101 TFRecords without TensorFlow: checked records, and just enough protobuf.

A record is u64 length, u32 masked CRC-32C of the length, the data, u32 masked CRC-32C of the data; all
little-endian. The data is JSON: [module hash, epochs, adjacency, operations, base64 of a protobuf
ModelMetrics]. Each run of a cell is one record; its ModelMetrics has evaluations at the start, half-way and
at the end of training, of which the last counts.
"""
from __future__ import annotations

import re
import struct
from array import array
from binascii import a2b_base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import msgspec
import numpy as np

from runtime.errors import InputError
from runtime.files import cache_dir, load_arrays, save_arrays, sha256_of
from runtime.log import byte_progress

HEADER = struct.Struct("<QI")  # length of the data, masked CRC-32C of those eight bytes
FOOTER = struct.Struct("<I")  # masked CRC-32C of the data
HASH = re.compile("[0-9a-f]{32}")
DOUBLE, FLOAT = struct.Struct("<d"), struct.Struct("<f")
RUNS = 3  # every cell was trained three times at each epoch budget
FINAL = 2  # index of the last of a run's three evaluations
EVALUATION = 1  # field number of the repeated EvaluationData in ModelMetrics
TRAINING_TIME, VALIDATION, TEST = 2, 4, 5  # field numbers of EvaluationData
RecordData = tuple[str, int, msgspec.Raw, msgspec.Raw, str]  # hash, epochs, adjacency, operations, metrics
LARGEST = 2**20  # bytes of a record; those of NAS-Bench-101 have about 1,000
MEND = "download the file again (python -m spaces.download nasbench101)"


@dataclass(frozen=True, eq=False)
class Runs:
    """The content of a NAS-Bench-101 file at one epoch budget: cells, and their runs in the file's order.

    keys     N module hashes
    val      float64[N, 3]  final validation accuracy of each run, percent
    test     float64[N, 3]  final test accuracy of each run, percent
    seconds  float64[N, 3]  training time of each run
    """

    keys: list[str]
    val: np.ndarray
    test: np.ndarray
    seconds: np.ndarray


def is_tfrecord(head: bytes) -> bool:
    """Whether a file that starts with these bytes holds TFRecords, by the checksum of the first length."""
    return len(head) >= HEADER.size and HEADER.unpack_from(head)[1] == masked_crc(head[:8])


def masked_crc(data: bytes) -> int:
    """The CRC-32C, rotated and shifted as in TensorFlow, so that a checksum of checksums stays useful."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, data) of every record; raises InputError if one is cut off or fails a checksum."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            header = file.read(HEADER.size)
            if len(header) < HEADER.size:
                raise _cut_off(path, offset)
            length, length_crc = HEADER.unpack(header)
            if length_crc != masked_crc(header[:8]):
                raise _damaged(path, offset, "the length of the record disagrees with its checksum")
            if length > LARGEST:
                raise _damaged(path, offset, f"a record of {length:,} bytes is none of NAS-Bench-101")
            end = offset + HEADER.size + length + FOOTER.size
            if end > size:
                raise _cut_off(path, offset)
            data = file.read(length)
            if FOOTER.unpack(file.read(FOOTER.size))[0] != masked_crc(data):
                raise _damaged(path, offset, "the record disagrees with its checksum")
            yield offset, data
            offset = end


def need_whole_records(path: Path, looked_at: int = 1000) -> None:
    """Raises InputError unless the first records pass their checksums and the last one ends the file.

    Follows the lengths of all records, each with its checksum, but reads the data of `looked_at` alone.
    """
    size = path.stat().st_size
    for number, (offset, _) in enumerate(records(path)):
        if number == looked_at:
            break
    else:
        return
    with open(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            header = file.read(HEADER.size)
            if len(header) < HEADER.size or HEADER.unpack(header)[1] != masked_crc(header[:8]):
                raise _damaged(path, offset, "the length of the record disagrees with its checksum")
            length = HEADER.unpack(header)[0]
            last, offset = offset, offset + HEADER.size + length + FOOTER.size
        if offset > size:
            raise _cut_off(path, last)
        if length > LARGEST:
            raise _damaged(path, last, f"a record of {length:,} bytes is none of NAS-Bench-101")
        file.seek(last + HEADER.size)
        data = file.read(size - last - HEADER.size - FOOTER.size)
        if FOOTER.unpack(file.read(FOOTER.size))[0] != masked_crc(data):
            raise _damaged(path, last, "the record disagrees with its checksum")


def protobuf_fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yields (number, value) of a protobuf message's fields, nested messages as bytes.

    Raises ValueError if the message is cut off.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == 0:
            value, at = _varint(message, at)
        elif wire_type == 1 and at + 8 <= end:
            value, at = DOUBLE.unpack_from(message, at)[0], at + 8
        elif wire_type == 2:
            length, at = _varint(message, at)
            value, at = message[at:at + length], at + length
            if at > end:
                raise ValueError("a protobuf field is cut off")
        elif wire_type == 5 and at + 4 <= end:
            value, at = FLOAT.unpack_from(message, at)[0], at + 4
        else:
            raise ValueError(f"a protobuf field is cut off or of unknown wire type {wire_type}")
        yield tag >> 3, value


def read_nasbench101(path: Path, epochs: int = 108) -> Runs:
    """Reads all runs at an epoch budget: parses the file once, later takes them from the cache.

    nasbench_full.tfrecord has the budgets 4, 12, 36 and 108. Raises InputError, with file and byte offset, if
    a record is damaged or makes no sense, or if a cell does not have three runs.
    """
    cached = cache_dir() / f"nasbench101-{sha256_of(path)[:32]}-{epochs}.arrays"
    arrays = load_arrays(cached)
    if arrays is None or not _sound(arrays):
        arrays = _parse(path, epochs)
        save_arrays(cached, **arrays)
    return Runs(arrays["keys"].astype(str).tolist(), arrays["val"], arrays["test"], arrays["seconds"])


def _sound(arrays: dict[str, np.ndarray]) -> bool:
    """Whether cached arrays have the form and the ranges of `_parse`."""
    if arrays.keys() != {"keys", "val", "test", "seconds"} or arrays["keys"].dtype != "S32":
        return False
    values = [arrays[name] for name in ("val", "test", "seconds")]
    return all(value.shape == (len(arrays["keys"]), RUNS) and value.dtype == float
               and ((0 <= value) & (value <= most)).all() for value, most in zip(values, (100, 100, np.inf)))


def _parse(path: Path, epochs: int) -> dict[str, np.ndarray]:
    """The fields of `Runs` as arrays, the keys as bytes[N, 32]."""
    rows: dict[str, int] = {}
    cells, values = array("q"), array("d")  # per record a row number, and three values (val, test, seconds)
    with byte_progress() as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)
        for count, (offset, data) in enumerate(records(path)):
            if count % 4096 == 0:
                progress.update(task, completed=offset, description=f"{path.name}: {count:,} records")
            try:
                module_hash, budget, _, _, metrics = msgspec.json.decode(data, type=RecordData)
                if budget != epochs:
                    continue
                final = _final_values(a2b_base64(metrics))
                if not HASH.fullmatch(module_hash):
                    raise ValueError(f"{module_hash!r} is no module hash")
            except (ValueError, TypeError, RecursionError) as error:
                raise _damaged(path, offset, f"not a NAS-Bench-101 record ({error})") from None
            cells.append(rows.setdefault(module_hash, len(rows)))
            values.extend(final)
        progress.update(task, completed=path.stat().st_size)
    if not rows:
        raise InputError(f"{path}: no records at {epochs} epochs: is it a file of NAS-Bench-101?")
    return _by_cell(path, list(rows), np.array(cells), np.array(values).reshape(-1, 3))


def _final_values(metrics: bytes) -> tuple[float, float, float]:
    """Validation and test accuracy in percent and seconds at the end of a run, from its ModelMetrics."""
    evaluations = [value for number, value in protobuf_fields(metrics) if number == EVALUATION]
    if len(evaluations) <= FINAL:
        raise ValueError(f"it has {len(evaluations)} evaluations instead of {FINAL + 1}")
    final = dict(protobuf_fields(evaluations[FINAL]))
    if not {VALIDATION, TEST, TRAINING_TIME} <= final.keys():
        raise ValueError("the final evaluation lacks an accuracy or the training time")
    val, test, seconds = final[VALIDATION], final[TEST], final[TRAINING_TIME]
    if not (0 <= val <= 1 and 0 <= test <= 1 and 0 <= seconds < float("inf")):
        raise ValueError(f"validation {val}, test {test} or training time {seconds} is out of its range")
    return 100 * val, 100 * test, seconds


def _by_cell(path: Path, hashes: list[str], cells: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """Gathers the records of each cell to arrays [N, RUNS].

    cells: int64[R], the row of each record; values: float64[R, 3].
    """
    runs = np.bincount(cells)  # [N]
    wrong = np.flatnonzero(runs != RUNS)
    if wrong.size:
        raise InputError(
            f"{path}: {wrong.size} cells, {hashes[wrong[0]]} the first, do not have {RUNS} runs: {MEND}")
    order = np.argsort(cells, kind="stable")  # [R], a cell's records side by side, still in the file's order
    val, test, seconds = values[order].reshape(-1, RUNS, 3).transpose(2, 0, 1)  # each [N, RUNS]
    return {"keys": np.array(hashes, "S32"), "val": val, "test": test, "seconds": seconds}


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The variable-length integer at a position, and the position after it."""
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a protobuf integer is cut off")


def _cut_off(path: Path, offset: int) -> InputError:
    return _damaged(path, offset, "the file is cut off within the record")


def _damaged(path: Path, offset: int, what: str) -> InputError:
    return InputError(f"{path}: record at byte {offset}: {what}: {MEND}")
