"""Reading what may come from strangers: whatever a file holds, it is read, or refused in one line."""
from __future__ import annotations

import json
import os
import pickle
import struct
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import files
from runtime.errors import LONGEST, InputError
from runtime.guarded import (
    DEEPEST,
    checked_json,
    load_plain_pickle,
    need_file,
    parse_json,
    parse_literal,
    read_bytes,
    read_text,
)

# Files ------------------------------------------------------------------------------------------------------

def refused(call, *words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert all(word in text for word in words) and "\n" not in text and len(text) <= LONGEST + 5, text


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: read_bytes(tmp_path / "pipe"), "pipe", "a pipe or a device")
    refused(lambda: read_bytes(Path("/dev/zero")), "a pipe or a device")
    refused(lambda: read_bytes(tmp_path, "give a table"), "a folder", "give a table")
    refused(lambda: read_bytes(tmp_path / "absent"), "no such file")
    refused(lambda: read_bytes(tmp_path / "a" / ("x" * 300)), "x")
    (tmp_path / "f").write_bytes(b"12345")
    assert need_file(tmp_path / "f") == 5 and read_bytes(tmp_path / "f", largest=5) == b"12345"
    refused(lambda: read_bytes(tmp_path / "f", largest=4), "5 bytes")


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    for content in ("τ".encode(), "τ".encode("utf-8-sig")):
        (tmp_path / "f").write_bytes(content)
        assert read_text(tmp_path / "f") == "τ"
    for content, word in (("τ".encode("utf-16"), "UTF-16"), (b"\xff", "no UTF-8")):
        (tmp_path / "f").write_bytes(content)
        refused(lambda: read_text(tmp_path / "f"), word, str(tmp_path / "f"))


# JSON and literals ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 5000, "[" * 200 + "]" * 200, "{", "", "9" * 5000,
                                  '["' + "]" * 300 + "[" * 300], ids=lambda text: text[:6])
def test_json_that_is_none_or_too_deep(text):
    refused(lambda: parse_json(text, "f.json:3"), "f.json:3: ")


def test_a_quote_that_nothing_closes_costs_no_more_than_another():
    """In quadratic time this would take days."""
    refused(lambda: parse_json("{" + "[" * 101 + '"' + '\\"' * 10**6, "f"), "f: ")


def test_brackets_in_texts_do_not_count():
    value = {"a": "[" * 999, "b": "\\\"[" * 99}
    assert parse_json(json.dumps(value), "f") == value
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(deep, "f")) == deep
    assert parse_json(json.dumps([[]] * 999), "f") == [[]] * 999


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 15000 + "1", "x=", "a b", "1" * 30000, "(" * 99 + "1"],
                         ids=lambda text: text[:3])
def test_literals_that_are_none(text):
    refused(lambda: parse_literal(text, "f.txt:1"), "f.txt:1")


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_json_or_refused(text):
    for parse in (parse_json, parse_literal):
        try:
            parse(text, "f")
        except InputError as error:
            assert str(error).startswith("f: ")


# Schemas ----------------------------------------------------------------------------------------------------

class Line(msgspec.Struct):
    step: int
    name: str = ""


def test_a_schema_names_the_fault_and_its_place():
    assert checked_json(b'{"step": 1, "more": []}', Line, "f:1") == Line(1)
    refused(lambda: checked_json(b'{"step": "1"}', Line, "f:1"), "f:1: step must be int, not str")
    refused(lambda: checked_json(b'{"name": "1"}', Line, "f:1"), "f:1: ", "step")
    for content in (b"{", b"", b"[]", b'{"step": NaN}', b"\xff", b'{"step": 1, "more": ' + b"[" * 5000):
        refused(partial(checked_json, content, Line, "f:1"), "f:1: ")


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
        with pytest.raises(InputError, match=asked):
            load_plain_pickle(path, admitted)
    assert not os.path.exists(trace)


def test_a_class_must_be_admitted_by_name(tmp_path):
    path = stored(tmp_path / "p", OrderedDict(a=1))
    with pytest.raises(InputError, match="it asks for collections.OrderedDict"):
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
    with pytest.raises(InputError, match="UnicodeDecodeError"):
        load_plain_pickle(tmp_path / "p")


def test_no_file_and_a_cut_one(tmp_path):
    with pytest.raises(InputError, match="absent: no such file"):
        load_plain_pickle(tmp_path / "absent")
    path = stored(tmp_path / "p", list(range(100)))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="damaged"):
        load_plain_pickle(path)


def test_a_number_that_python_would_allocate_for_is_refused(tmp_path):
    """The pickle of a text that is said to be value number 2^32 - 2."""
    (tmp_path / "p").write_bytes(b"\x80\x02U\x01x" + b"r" + struct.pack("<I", 2**32 - 2) + b".")
    refused(lambda: load_plain_pickle(tmp_path / "p"), "has the number 4,294,967,294")
