"""Reads what may come from strangers: regular files, bounded sizes, JSON and pickles that run nothing.

    text = read_text(path, mend="give a label table")
    value = parse_json(text, where=f"{path}:{line}")
    query = checked_json(line, HistoryLine, where=f"{path}:{line}")      # against a schema

Every fault raises InputError with its place. Schemas are TypedDicts or msgspec Structs, kept beside the code
that writes the file.
"""
from __future__ import annotations

import ast
import io
import json
import pickle
import pickletools
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from runtime.errors import InputError

T = TypeVar("T")

LARGEST = 2**31  # bytes of a text or JSON file; the official NAS-Bench-101 file is read in records
DEEPEST = 100  # brackets within each other
LONGEST_LITERAL = 20_000  # characters of a Python literal; a DARTS genotype has about 500
# a text in quotes, also one that nothing closes: else each of its quotes is tried anew, in quadratic time
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\'(?:[^\'\\]|\\.)*(?:\'|\\?\Z)', re.DOTALL)


# Files ------------------------------------------------------------------------------------------------------

def need_file(path: Path, mend: str = "") -> int:
    """The size of a regular file, bytes.

    Raises InputError, with the mend, if there is none, or if it is a folder, a pipe or a device.
    """
    behind = f": {mend}" if mend else ""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file{behind}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}{behind}") from None
    except ValueError:  # a NUL character
        raise InputError(f"{str(path)!r} is no path of a file{behind}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise InputError(f"{path} is {kind}, not a file{behind}")
    return status.st_size


def read_bytes(path: Path, mend: str = "", largest: int = LARGEST) -> bytes:
    """The content of a regular file of at most `largest` bytes; raises InputError for anything else."""
    size = need_file(path, mend)
    if size > largest:
        raise InputError(f"{path} has {size:,} bytes, more than the {largest:,} that are read: "
                         f"{mend or 'is it the right file?'}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: {mend or 'make it readable'}") from None


def decoded(content: bytes, where: Any) -> str:
    """UTF-8 text, with or without a byte order mark; raises InputError for anything else."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{where}: UTF-16 text: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: no UTF-8 text (byte {error.start}): is it the right file?") from None


def read_text(path: Path, mend: str = "", largest: int = LARGEST) -> str:
    """The UTF-8 text of a regular file; raises InputError for anything else."""
    return decoded(read_bytes(path, mend, largest), path)


# JSON and literals ------------------------------------------------------------------------------------------

def parse_json(text: str, where: Any, mend: str = "") -> Any:
    """Parses JSON. Raises InputError, which begins with the place `where`, for anything else, or too deep."""
    behind = f": {mend}" if mend else ""
    need_shallow(text, where)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of more than 4,300 digits
        raise InputError(f"{where}: not JSON ({error}){behind}") from None


def read_json(path: Path, mend: str = "", largest: int = LARGEST) -> Any:
    """Parses a JSON file; raises InputError for anything else."""
    return parse_json(read_text(path, mend, largest), path, mend)


def parse_literal(text: str, where: Any) -> ast.expr:
    """Parses one Python expression without evaluating it; raises InputError if it is none, or too large."""
    if len(text) > LONGEST_LITERAL:
        raise InputError(f"{where}: {len(text):,} characters, {text[:40]!r} the first: is it the right text?")
    need_shallow(text, where)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: cannot read {text[:80]!r} ({type(error).__name__})") from None


def need_shallow(text: str, where: Any) -> None:
    """Raises InputError if brackets are nested deeper than DEEPEST, where parsers fail in their own ways."""
    if sum(map(text.count, "[{(")) <= DEEPEST:
        return
    depth = 0
    for sign in re.findall(r"[\[\](){}]", QUOTED.sub("", text)):
        depth += 1 if sign in "[{(" else -1
        if depth > DEEPEST:
            raise InputError(f"{where}: brackets are nested deeper than {DEEPEST}: is it the right file?")


# Schemas ----------------------------------------------------------------------------------------------------

def checked(value: Any, kind: type[T], where: Any, mend: str = "") -> Any:
    """The value itself, of plain values and tensors, if it has the schema; raises InputError if not."""
    try:
        msgspec.convert(value, kind, dec_hook=as_it_is, builtin_types=())
    except (msgspec.ValidationError, RecursionError, TypeError) as error:
        raise InputError(f"{where}: {reason(error)}{f': {mend}' if mend else ''}") from None
    return value


def checked_json(content: bytes | str, kind: type[T], where: Any, mend: str = "") -> T:
    """Parses JSON of the schema `kind`, strictly (no NaN); raises InputError for anything else."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{where}: {reason(error)}{f': {mend}' if mend else ''}") from None


def read_checked(path: Path, kind: type[T], mend: str = "", largest: int = 2**26) -> T:
    """Parses a JSON file of the schema `kind`; raises InputError for anything else."""
    return checked_json(read_bytes(path, mend, largest), kind, path, mend)


def as_it_is(kind: type, value: Any) -> Any:
    """Lets a value of a type that msgspec does not know, like a tensor, pass if it is one."""
    if not isinstance(value, kind):
        raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    return value


def reason(error: Exception) -> str:
    """What a parser says, in our words: `query must be int, not str`."""
    said = str(error)
    found = re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `\$\.?(.*)`)?", said)
    if found:
        return f"{found[3] or 'the content'} must be {found[1].replace('|', 'or')}, not {found[2]}"
    missing = re.fullmatch(r"Object missing required field `([^`]*)`(?: - at `\$\.?(.*)`)?", said)
    if missing:
        return f"{missing[2] or 'it'} lacks {missing[1]}"
    return said.replace("`", "'") if isinstance(error, (msgspec.MsgspecError, ValueError, TypeError)) else (
        "nested too deep")


# Pickles ----------------------------------------------------------------------------------------------------

class _PlainPickle(pickle.Unpickler):
    """Loads dictionaries, lists, strings, numbers and the classes that are admitted by name."""

    def __init__(self, file: BinaryIO, admitted: Mapping[str, Any], **options):
        super().__init__(file, **options)
        self.admitted = admitted

    def find_class(self, module: str, name: str) -> Any:
        place = f"{module}.{name}".replace("numpy.core.", "numpy._core.")  # numpy 2's name for it
        if place not in self.admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        admitted = self.admitted[place]
        return super().find_class(*place.rsplit(".", 1)) if admitted is None else admitted


def load_plain_pickle(path: Path, admitted: Mapping[str, Any] = {}, mend: str = "make it anew",
                      known: bool = False, **options) -> Any:
    """Reads a pickle of plain data. One that asks for anything else could run code and is refused.

    admitted: {"module.name": the class to use in its place, or None for that class itself}. known: the file
    is of an installed package, so it is read faster. Raises InputError if it is no regular file or damaged.
    """
    content = read_bytes(path, mend)
    try:
        if not known:
            need_small_memo(content)
        return _PlainPickle(io.BytesIO(content), admitted, **options).load()
    except Exception as error:  # pickle has a type of its own for each fault
        raise InputError(
            f"{path} is damaged or refused ({type(error).__name__}: {error}): {mend}") from None


def need_small_memo(content: bytes) -> None:
    """Raises ValueError if a pickle numbers a value far beyond their count: Python allocates up to there."""
    highest = max((value for operation, value, _ in pickletools.genops(content)
                   if operation.name in ("PUT", "BINPUT", "LONG_BINPUT")), default=0)
    if highest > len(content):
        raise ValueError(f"a value has the number {highest:,}")
