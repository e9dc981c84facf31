"""Files: whole or absent, lines that last, arrays that are checked, and nothing left by killed writers."""
from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from runtime.checkpoint import save_checkpoint
from runtime.errors import InputError
from runtime.files import (
    append_line,
    atomic_write,
    cache_dir,
    load_arrays,
    path_of,
    remove_abandoned,
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


# What a killed writer leaves --------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.files import atomic_write

def half(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()

atomic_write(Path(sys.argv[1]), half)
"""


def start_writer(path: Path) -> subprocess.Popen:
    """A process that has written half of a file, and waits."""
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout.readline() == "writing\n"
    return writer


def test_the_next_writer_removes_what_a_killed_one_left_but_nothing_of_a_living_one(tmp_path):
    killed, living = start_writer(tmp_path / "f"), start_writer(tmp_path / "f")
    killed.kill()
    killed.wait()
    assert len(list(tmp_path.glob(".f.*.tmp"))) == 2
    write_text(tmp_path / "f", "whole")
    assert len(list(tmp_path.glob(".f.*.tmp"))) == 1 and (tmp_path / "f").read_text() == "whole"
    living.communicate()
    assert (tmp_path / "f").read_text() == "half" and list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_only_temporary_files_are_removed(tmp_path):
    for name in (".f.tmp", ".hidden", ".f.0123.tmp", "f.tmp", f".g.{'0' * 32}.tmp", f".f.{'0' * 32}.tmp"):
        (tmp_path / name).touch()
    write_text(tmp_path / "f", "whole")
    assert not (tmp_path / f".f.{'0' * 32}.tmp").exists() and len(list(tmp_path.iterdir())) == 6
    remove_abandoned(tmp_path)
    assert not (tmp_path / f".g.{'0' * 32}.tmp").exists() and len(list(tmp_path.iterdir())) == 5


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    """A limit on the size of a file stands for the disk."""
    path, limits = tmp_path / "f", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_text(path, "old")
    (tmp_path / "lines").write_text("x" * 999 + "\n")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        for write in (lambda: write_text(path, "x" * 5000), lambda: append_line(tmp_path / "lines", {"a": 1}),
                      lambda: save_checkpoint(path, a=torch.zeros(999))):
            with pytest.raises(OSError) as error:
                write()
            assert error.value.filename in (str(path), str(tmp_path / "lines"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and sorted(tmp_path.iterdir()) == [path, tmp_path / "lines"]
    assert whole_lines(tmp_path / "lines") == [b"x" * 999]


@pytest.mark.parametrize("text, words", [("", "a path is empty"), ("a\0b", "NUL"),
                                         ("~nosuchuser/x", "no such user")], ids=["empty", "nul", "user"])
def test_paths_that_no_file_can_have(text, words):
    with pytest.raises(InputError, match=words):
        path_of(text)
