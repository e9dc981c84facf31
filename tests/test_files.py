"""Files: whole or absent, lines that last, arrays that are checked, and pickles that run nothing."""
from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime import files
from runtime.checkpoint import save_checkpoint
from runtime.files import (
    append_line,
    atomic_write,
    cache_dir,
    load_arrays,
    load_plain_pickle,
    save_arrays,
    sha256_of,
    whole_lines,
    write_json,
    write_text,
)

# Writing ----------------------------------------------------------------------------------------------------

class Refuses:
    """Neither JSON nor a pickle can hold it, so a writer fails half way."""

    def __reduce__(self):
        raise RuntimeError("disk full")


@pytest.mark.parametrize("write", [write_json, lambda path, value: save_checkpoint(path, **value)],
                         ids=["json", "checkpoint"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, write):
    path = tmp_path / "folder" / "file"
    write(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises((RuntimeError, TypeError)):
        write(path, {"a": 2, "b": Refuses()})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_json_comes_back(tmp_path):
    value = {"tau": [0.1, None], "name": "ä"}
    write_json(tmp_path / "new" / "f.json", value)
    assert json.loads((tmp_path / "new" / "f.json").read_text()) == value


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "new" / "f.txt", "τ = 0.5\n")
    assert (tmp_path / "new" / "f.txt").read_bytes() == "τ = 0.5\n".encode()


# Lines ------------------------------------------------------------------------------------------------------

def test_lines_are_appended_and_on_the_disk_at_once(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(1) or sync(number))
    path = tmp_path / "history.jsonl"
    for query in range(3):
        append_line(path, {"query": query, "tau": None})
        assert len(synced) == query + 1
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"query": query, "tau": None} for query in range(3)]
    assert whole_lines(path) == path.read_bytes().splitlines()


def test_a_value_that_is_no_json_leaves_the_lines_as_they_were(tmp_path):
    path = tmp_path / "history.jsonl"
    append_line(path, {"query": 0})
    with pytest.raises((TypeError, RuntimeError)):
        append_line(path, {"query": Refuses()})
    assert path.read_text() == '{"query": 0}\n'


@pytest.mark.parametrize("torn", [b"", b"{", b'{"query": 1}', b"\xc3"])
def test_an_unfinished_last_line_is_cut_off_the_file(tmp_path, torn):
    path = tmp_path / "history.jsonl"
    append_line(path, {"query": 0})
    with open(path, "ab") as file:
        file.write(torn)
    assert whole_lines(path) == [b'{"query": 0}'] and path.read_bytes() == b'{"query": 0}\n'
    append_line(path, {"query": 1})
    assert whole_lines(path) == [b'{"query": 0}', b'{"query": 1}']


def test_no_file_has_no_lines(tmp_path):
    assert whole_lines(tmp_path / "absent") == [] and not (tmp_path / "absent").exists()


# The cache --------------------------------------------------------------------------------------------------

def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GMAE_NAS_CACHE", str(tmp_path / "deep" / "cache"))
    assert cache_dir() == tmp_path / "deep" / "cache" and cache_dir().is_dir()


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "f"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"new")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_arrays_come_back_and_every_flipped_bit_is_seen(tmp_path, rng):
    path, array = tmp_path / "f", rng.random(50)
    save_arrays(path, array=array)
    content = path.read_bytes()
    np.testing.assert_array_equal(load_arrays(path)["array"], array)
    for at, byte in enumerate(content):
        path.write_bytes(content[:at] + bytes([byte ^ 1 << rng.integers(8)]) + content[at + 1:])
        assert load_arrays(path) is None


def test_no_arrays_if_there_is_no_file(tmp_path):
    assert load_arrays(tmp_path / "f") is None


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_the_digest_is_that_of_all_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()
    assert sha256_of(tmp_path / "f", "md5") == hashlib.md5(content).hexdigest()


# Pickles ----------------------------------------------------------------------------------------------------

class Command:
    """Its pickle makes a folder where it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def stored(path: Path, value, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_data_comes_back(tmp_path, protocol):
    value = {"a": [1, 2.5, None, True], "b": ("x", b"y", {"c": {1, 2}})}
    # protocols 2 and 3 ask for these
    admitted = {"builtins.set": set, "__builtin__.set": set, "_codecs.encode": None}
    assert load_plain_pickle(stored(tmp_path / "p", value, protocol), admitted) == value


@pytest.mark.parametrize("call, asked", [
    (lambda trace: (os.mkdir, trace), "posix.mkdir"),
    (lambda trace: (exec, f"import os; os.mkdir({trace!r})"), "builtins.exec"),
    (lambda trace: (files.write_text, Path(trace), "x"), "runtime.files.write_text"),
], ids=["mkdir", "exec", "ours"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_that_would_run_code_is_refused_before_it_does(tmp_path, call, asked, wrapped):
    trace = str(tmp_path / "trace")
    command = Command(*call(trace))
    path = stored(tmp_path / "p", {"table": [command]} if wrapped else command)
    for admitted in ({}, {"builtins.bytearray": bytearray, "collections.OrderedDict": None}):
        with pytest.raises(pickle.UnpicklingError, match=asked):
            load_plain_pickle(path, admitted)
    assert not os.path.exists(trace)


def test_a_class_must_be_admitted_by_name(tmp_path):
    path = stored(tmp_path / "p", OrderedDict(a=1))
    with pytest.raises(pickle.UnpicklingError, match="it asks for collections.OrderedDict"):
        load_plain_pickle(path)
    assert load_plain_pickle(path, {"collections.OrderedDict": None}) == OrderedDict(a=1)
    assert type(load_plain_pickle(path, {"collections.OrderedDict": dict})) is dict


def test_another_class_takes_the_place_of_an_admitted_one(tmp_path):
    path = stored(tmp_path / "p", Path("x"))
    place = f"{type(Path('x')).__module__}.{type(Path('x')).__qualname__}"
    assert load_plain_pickle(path, {place: lambda *parts: SimpleNamespace(parts=parts)}).parts == ("x",)


def test_arrays_under_the_names_of_both_numpys(tmp_path):
    """numpy 1 pickled numpy.core, numpy 2 pickles numpy._core."""
    content = pickle.dumps({"images": np.arange(3)}, 2)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    admitted = dict.fromkeys(
        ("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype", "_codecs.encode"))
    for text in (content, old):
        (tmp_path / "p").write_bytes(text)
        assert load_plain_pickle(tmp_path / "p", admitted)["images"].tolist() == [0, 1, 2]
    assert old != content


def test_options_are_those_of_pickle(tmp_path):
    """Python 2's texts are bytes."""
    (tmp_path / "p").write_bytes(b"U\x01\xe9.")
    assert load_plain_pickle(tmp_path / "p", encoding="bytes") == b"\xe9"
    with pytest.raises(UnicodeDecodeError):
        load_plain_pickle(tmp_path / "p")


def test_no_file_and_a_cut_one(tmp_path):
    with pytest.raises(OSError):
        load_plain_pickle(tmp_path / "absent")
    path = stored(tmp_path / "p", list(range(100)))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        load_plain_pickle(path)
