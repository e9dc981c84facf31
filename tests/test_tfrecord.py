"""The reader of NAS-Bench-101's official TFRecords, on synthetic files of their format."""
from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spaces
from runtime.errors import InputError
from spaces.labels import tfrecord
from spaces.labels.read import read_labels
from spaces.labels.tfrecord import protobuf_fields, read_nasbench101, records

HASHES = [hashlib.md5(bytes([i])).hexdigest() for i in range(5)]


# A writer, from the published format ------------------------------------------------------------------------

def varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def nested(number: int, message: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(message)) + message


def model_metrics(val: float, test: float, seconds: float, evaluations: int = 3) -> bytes:
    """The last evaluation holds the given values, the earlier ones others that must not be read."""
    message = b""
    for step in range(evaluations):
        last = step == evaluations - 1
        numbers = (108.0 * step / 2, seconds if last else 1.0, 1.0, val if last else 0.1,
                   test if last else 0.2)
        values = b"".join(double(number, value) for number, value in enumerate(numbers, 1))
        message += nested(1, values + nested(6, b"model.ckpt"))
    return message + varint(2 << 3) + varint(2_694_282) + double(3, 3 * seconds)


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2 ** 32)


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def record(module_hash, val=0.9, test=0.8, seconds=1000.0, epochs=108, metrics=None) -> bytes:
    metrics = model_metrics(val, test, seconds) if metrics is None else metrics
    return framed(json.dumps([module_hash, epochs, "0100" + "0" * 5, "input,conv3x3-bn-relu,output",
                              base64.b64encode(metrics).decode()]).encode())


def official(path: Path, hashes, budgets=(108,)) -> Path:
    """Three runs of each cell at each budget; run r of cell i has validation .5 + .001 i + .01 r at 108
    epochs."""
    with open(path, "wb") as file:
        for i, module_hash in enumerate(hashes):
            for epochs in budgets:
                for r in range(3):
                    val = 0.5 + 0.001 * i + 0.01 * r - (108 - epochs) / 1000
                    file.write(record(module_hash, val, val - 0.1, 100.0 * i + r, epochs))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for what is parsed here; the table of all cells keeps its own place."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(tfrecord, "cache_dir", lambda: folder)
    return folder


# Reading ----------------------------------------------------------------------------------------------------

def test_every_run_of_every_cell_in_the_order_of_the_file(tmp_path):
    runs = read_nasbench101(official(tmp_path / "f.tfrecord", HASHES))
    assert runs.keys == HASHES
    np.testing.assert_allclose(runs.val, 50 + 0.1 * np.arange(5)[:, None] + np.arange(3))
    np.testing.assert_allclose(runs.test, runs.val - 10)
    np.testing.assert_allclose(runs.seconds, 100 * np.arange(5)[:, None] + np.arange(3))


def test_only_the_asked_epoch_budget_is_read(tmp_path):
    full = official(tmp_path / "full.tfrecord", HASHES, budgets=(4, 12, 36, 108))
    only = official(tmp_path / "only.tfrecord", HASHES)
    np.testing.assert_array_equal(read_nasbench101(full).val, read_nasbench101(only).val)
    assert read_nasbench101(full, epochs=4).val[0, 0] == pytest.approx(50 - 10.4)


def test_runs_of_a_cell_need_not_stand_together(tmp_path):
    path = tmp_path / "f.tfrecord"
    path.write_bytes(b"".join(record(h, val=0.1 * r + 0.01 * i) for r in range(3)
                              for i, h in enumerate(HASHES)))
    np.testing.assert_allclose(read_nasbench101(path).val[4], [4, 14, 24])


def test_the_second_reading_comes_from_the_cache(tmp_path, cache, monkeypatch):
    path = official(tmp_path / "f.tfrecord", HASHES)
    first = read_nasbench101(path)
    monkeypatch.setattr(tfrecord, "records", None)
    second = read_nasbench101(path)
    assert second.keys == first.keys and len(list(cache.iterdir())) == 1
    for name in ("val", "test", "seconds"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))


def test_a_changed_file_is_parsed_again(tmp_path):
    path = official(tmp_path / "f.tfrecord", HASHES)
    read_nasbench101(path)
    official(path, HASHES[::-1])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
    assert read_nasbench101(path).keys == HASHES[::-1]


@pytest.mark.parametrize("damage", [lambda b: b[:-50], lambda b: b"", lambda b: b[:400] + b"\xff" + b[401:]])
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, damage):
    path = official(tmp_path / "f.tfrecord", HASHES)
    good = read_nasbench101(path)
    stored = next(cache.iterdir())
    stored.write_bytes(damage(stored.read_bytes()))
    again = read_nasbench101(path)
    assert again.keys == good.keys
    np.testing.assert_array_equal(again.val, good.val)


# Faults -----------------------------------------------------------------------------------------------------

def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


LENGTH = len(record(HASHES[0]))


@pytest.mark.parametrize("content, message", [
    (flipped(record(HASHES[0]) * 3, LENGTH), f"byte {LENGTH}: the length of the record disagrees"),
    (flipped(record(HASHES[0]) * 3, LENGTH + 9), f"byte {LENGTH}: the length of the record disagrees"),
    (flipped(record(HASHES[0]) * 3, LENGTH + 20), f"byte {LENGTH}: the record disagrees"),
    (flipped(record(HASHES[0]) * 3, 2 * LENGTH - 1), f"byte {LENGTH}: the record disagrees"),
    (record(HASHES[0]) * 2 + record(HASHES[0])[:-1], f"byte {2 * LENGTH}: the file is cut off"),
    (record(HASHES[0]) * 2 + b"123", f"byte {2 * LENGTH}: the file is cut off"),
    (record(HASHES[0]) * 2, "1 cells, .* do not have 3 runs"),
    (record(HASHES[0]) * 4, "do not have 3 runs"),
    (record(HASHES[0], epochs=4) * 3, "no records at 108 epochs"),
    (b"", "no records"),
    (framed(b"{}"), "byte 0: not a NAS-Bench-101 record"),
    (framed(b'"\xff"'), "byte 0: not a NAS-Bench-101 record"),
    (record("xyz"), "'xyz' is no module hash"),
    (record(7), "not a NAS-Bench-101 record"),
    (record(HASHES[0], val=1.5), "validation 1.5.*out of its range"),
    (record(HASHES[0], test=float("nan")), "test nan.*out of its range"),
    (record(HASHES[0], seconds=float("inf")), "time inf.*out of its range"),
    (record(HASHES[0], metrics=model_metrics(0.9, 0.9, 1.0, evaluations=2)), "2 evaluations instead of 3"),
    (record(HASHES[0], metrics=model_metrics(0.9, 0.9, 1.0)[:-3]), "a protobuf field is cut off"),
    (record(HASHES[0], metrics=nested(1, b"") * 3), "lacks an accuracy"),
    (record(HASHES[0], metrics=(varint(1 << 3) + varint(5)) * 3), "not a NAS-Bench-101 record"),
])
def test_a_faulty_file_is_one_line_that_names_the_place(tmp_path, cache, content, message):
    path = tmp_path / "f.tfrecord"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_nasbench101(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert not any(cache.iterdir())


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(message):
    try:
        list(protobuf_fields(message))
    except ValueError:
        pass


@given(st.lists(st.binary(max_size=60), min_size=1), st.data())
def test_records_return_what_was_written_and_see_every_flipped_bit(tmp_path_factory, contents, data):
    path = tmp_path_factory.mktemp("records") / "f.tfrecord"
    written = b"".join(map(framed, contents))
    path.write_bytes(written)
    assert [content for _, content in records(path)] == contents
    bit = data.draw(st.integers(0, 8 * len(written) - 1))
    path.write_bytes(bytes(byte ^ (1 << bit % 8 if i == bit // 8 else 0) for i, byte in enumerate(written)))
    with pytest.raises(InputError):
        list(records(path))


def test_protobuf_integers_of_several_bytes_and_floats():
    message = varint(1 << 3) + varint(2 ** 40 + 5) + varint(300 << 3 | 5) + struct.pack("<f", 0.5)
    assert list(protobuf_fields(message)) == [(1, 2 ** 40 + 5), (300, 0.5)]


# As labels --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def nasbench101():
    return spaces.get("nasbench101")


@pytest.fixture
def cells(nasbench101, rng) -> list[str]:
    return sorted({nasbench101.key(arch) for arch in nasbench101.sample(20, rng)})


def test_labels_are_one_run_and_the_mean_test(tmp_path, nasbench101, cells):
    path = official(tmp_path / "nasbench_only108.tfrecord", cells)
    for run in range(3):
        table = read_labels(path, nasbench101, run=run)
        assert table.keys == cells and f"validation of run {run}" in table.name
        np.testing.assert_allclose(table.val, 50 + 0.1 * np.arange(len(cells)) + run)
        np.testing.assert_allclose(table.test, 41 + 0.1 * np.arange(len(cells)))
        np.testing.assert_allclose(table.cost, 100 * np.arange(len(cells)) + run)


def test_the_format_is_found_by_content(tmp_path, nasbench101, cells):
    assert read_labels(official(tmp_path / "labels", cells), nasbench101).keys == cells


@pytest.mark.parametrize("arguments, message", [
    ({"run": 3}, "no run 3"), ({"run": -1}, "no run -1"), ({"dataset": "cifar100"}, "cifar10 only")])
def test_what_the_file_does_not_hold(tmp_path, nasbench101, cells, arguments, message):
    with pytest.raises(InputError, match=message):
        read_labels(official(tmp_path / "f.tfrecord", cells), nasbench101, **arguments)


def test_an_unknown_cell_is_refused(tmp_path, nasbench101):
    with pytest.raises(InputError, match=f"f.tfrecord: cell 0: .*{HASHES[0]}"):
        read_labels(official(tmp_path / "f.tfrecord", HASHES), nasbench101)
