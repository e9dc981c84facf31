"""The table of faults: what is done to a good file, and what may come of it.

A new fault is one line in FAULTS: its name, the forms of files that it suits, how many broken inputs a usual
session makes of it per kind of file (FULL=1 makes up to MANY), and a function (content, form) -> cases. A
case is (name, do): do(path) breaks the file at that path.
"""
from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from faults import trees
from faults.kinds import KINDS, Kind

FULL = os.environ.get("FULL") == "1"
MANY = 60
TREES = tuple(trees.FORMS)
TEXTS = ("json", "jsonl", "csv", "text", "literal", "yaml")
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n<body>Not Found</body></html>\n"
Case = tuple[str, Callable[[Path], None]]


class Fault(NamedTuple):
    name: str
    forms: tuple[str, ...]  # of files that it suits; () = all
    few: int  # broken inputs of a kind of file, in a usual session
    cases: Callable[[bytes, str], list[Case]]
    refused: bool = False  # the file must be refused, unless the command can do without
    harmless: bool = False  # the file must be read, if people write it

    def suits(self, kind: Kind) -> bool:
        return (not self.forms or kind.form in self.forms) and self.name not in kind.spared

    def chosen(self, content: bytes, form: str, seed: str) -> list[Case]:
        """The broken inputs of this session: the same in every session, for a kind of file with this seed."""
        found = self.cases(content, form)
        most = MANY if FULL else self.few
        return random.Random(seed).sample(found, most) if len(found) > most else found


def written(contents: list[tuple[str, Callable[[], bytes]]]) -> list[Case]:
    """Cases that replace the content."""
    return [(name, lambda path, make=make: path.write_bytes(make())) for name, make in contents]


# Places -----------------------------------------------------------------------------------------------------

def folder_in_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_in_place(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_in_place(path: Path, to: str) -> None:
    path.unlink()
    path.symlink_to(to)


def locked(path: Path) -> None:
    path.chmod(0)


def absent(content: bytes, form: str) -> list[Case]:
    return [("missing", Path.unlink), ("a link to nothing", partial(link_in_place, to="nowhere"))]


def special(content: bytes, form: str) -> list[Case]:
    """Folders, pipes, devices, a link to itself, a file that this user may not read."""
    return [("folder", folder_in_place), ("pipe", pipe_in_place), ("locked", locked),
            *((to, partial(link_in_place, to=to)) for to in ("/dev/zero", "/dev/full")),
            ("a link to itself", lambda path: link_in_place(path, path.name))]


# Bytes ------------------------------------------------------------------------------------------------------

def truncated(content: bytes, form: str) -> list[Case]:
    parts = MANY if FULL else 10
    return written([(f"the first {i}/{parts}", lambda i=i: content[:len(content) * i // parts])
                    for i in range(parts)])


def flipped(content: bytes, form: str) -> list[Case]:
    """One bit of one byte changed; the first bytes, which say what a file is, more often."""
    draw, found = random.Random(len(content)), []
    for i in range(2 * MANY):
        place, bit = draw.randrange(min(len(content), 40 if i % 4 == 0 else len(content))), draw.randrange(8)
        found.append((f"byte {place}, bit {bit}", lambda place=place, bit=bit: content[:place] + bytes(
            [content[place] ^ 1 << bit]) + content[place + 1:]))
    return written(found)


def foreign(content: bytes, form: str) -> list[Case]:
    """What is no file of this kind."""
    noise = random.Random(0).randbytes(1000)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    return written([(name, lambda value=value: value) for name, value in {
        "web page": HTML, "noise": noise, "zeros": bytes(1000), "gzip of noise": gzip.compress(noise),
        "zip": archive.getvalue(), "pickle": pickle.dumps({"a": 1}), "blanks": b" \n\n \n", "one brace": b"{",
        "png": b"\x89PNG\r\n\x1a\n" + noise}.items()])


def small(content: bytes, form: str) -> list[Case]:
    """A JSON value of another type."""
    values = ("null", "3", '"text"', "[]", "{}", "[[]]", '{"header": 1}', "true", "1e400", "NaN")
    return written([(text, lambda text=text: text.encode()) for text in values])


def doubled(content: bytes, form: str) -> list[Case]:
    """Two joined files, or bytes before or behind it."""
    return written([("twice", lambda: 2 * content), ("NUL bytes behind", lambda: content + bytes(50)),
                    ("NUL bytes before", lambda: bytes(50) + content),
                    ("a page behind", lambda: content + HTML)])


# Texts ------------------------------------------------------------------------------------------------------

def other_encodings(content: bytes, form: str) -> list[Case]:
    text = content.decode()
    names = ("utf-16", "utf-16-be", "utf-32")
    return written([*((name, lambda name=name: text.encode(name)) for name in names),
                    ("latin-1", lambda: content.replace(b"e", b"\xe9"))])


def other_ends(content: bytes, form: str) -> list[Case]:
    """Texts as other editors save them."""
    return written([("byte order mark", lambda: b"\xef\xbb\xbf" + content),
                    ("CRLF", lambda: content.replace(b"\n", b"\r\n")),
                    ("no last line end", lambda: content.rstrip(b"\n"))])


def large_texts(content: bytes, form: str) -> list[Case]:
    """Deep nesting, huge numbers, long lines, many columns."""
    start = content.partition(b"\n")[0] + b"\n"
    parts = {"lists": b"[" * 5000, "objects": b'{"a":' * 5000, "tuples": b"(" * 5000, "calls": b"f(" * 5000,
             "signs": b"-" * 5000, "400 digits": b"9" * 400, "5,000 digits": b"9" * 5000, "1e999": b"1e999",
             "a long line": b"x" * 2_000_000, "columns": b"a," * 200_000, "quotes": b'"' * 20_001,
             "a key": b'{"arch": ' + b"[" * 5000}
    found = []
    for name, part in parts.items():
        for place, before, behind in (
                ("alone", b"", b"\n"), ("behind a line", start, b"\n"), ("before all", b"", content)):
            found.append((f"{name} {place}", lambda made=(before, part, behind): b"".join(made)))
    return written(found)


# Trees of values --------------------------------------------------------------------------------------------

def junk(content: bytes, form: str) -> list[Case]:
    return written(trees.fields(form, content))


def lacking(content: bytes, form: str) -> list[Case]:
    return written(trees.missing(form, content))


def additional(content: bytes, form: str) -> list[Case]:
    return written(trees.more(form, content))


def misshapen(content: bytes, form: str) -> list[Case]:
    return written(trees.weights(content))


def columns(content: bytes, form: str) -> list[Case]:
    """Tables with a column twice, in another case, under another separator."""
    rows = trees.read_csv(content)
    twice = [[*row, row[-1]] for row in rows]
    other_case = [[*rows[0], rows[0][1].upper()], *([*row, "12.5"] for row in rows[1:])]
    return written([("twice", lambda: trees.write_csv(twice)),
                    ("other case", lambda: trees.write_csv(other_case)),
                    ("ragged", lambda: trees.write_csv([*rows[:-1], rows[-1][:1]])),
                    ("semicolons", lambda: content.replace(b",", b";")),
                    ("tabs", lambda: content.replace(b",", b"\t")),
                    ("a header again", lambda: content + content.partition(b"\n")[0] + b"\n"),
                    ("a row again", lambda: content + content.splitlines()[-1] + b"\n")])


def hostile_checkpoints(content: bytes, form: str) -> list[Case]:
    """Archives that unfold to gigabytes, that run code, or that are of an older torch."""
    tree = trees.read_checkpoint(content)

    def bomb() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            file.writestr("a/data.pkl", bytes(2**28))
            file.writestr("a/version", "3\n")
        return buffer.getvalue()

    def folded() -> bytes:
        buffer = io.BytesIO()
        with (zipfile.ZipFile(io.BytesIO(content)) as old,
              zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new):
            for name in old.namelist():
                new.writestr(name, old.read(name))
        return buffer.getvalue()

    def running() -> bytes:
        buffer = io.BytesIO()
        torch.save(tree | {"config": Running()}, buffer)
        return buffer.getvalue()

    def legacy() -> bytes:
        buffer = io.BytesIO()
        torch.save(tree, buffer, _use_new_zipfile_serialization=False)
        return buffer.getvalue()

    return written([("bomb", bomb), ("compressed", folded), ("runs code", running), ("old format", legacy),
                    ("a tensor", lambda: trees.write_checkpoint(torch.zeros(3))),
                    ("an empty object", lambda: trees.write_checkpoint({}))])


class Running:
    """A value whose unpickling would write a file."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def of_others(content: bytes, form: str) -> list[Case]:
    """Checkpoints that are sound, but of another space, size or version."""
    tree = trees.read_checkpoint(content)

    def other(**values) -> Callable[[], bytes]:
        return lambda: trees.write_checkpoint(tree | values)

    encoder = tree.get("encoder") or tree.get("fingerprint") or {}
    sizes = {"width": 2**30, "layers": 10**6, "heads": 3, "base_model": "gat", "init_channels": 10**5}
    wrapped = {name: {f"module._orig_mod.{key}": value for key, value in tree[name].items()}
               for name in ("weights", "pretext") if isinstance(tree.get(name), dict)}
    found = [(f"{name} = {value}", other(**{where: encoder | {name: value}})) for name, value in sizes.items()
             for where in ("encoder", "fingerprint") if where in tree]
    return written([*found, ("another space", other(space="nasbench101")), ("no space", other(space="other")),
                    ("more operations", other(ops=["a"] * 64)), ("many seeds", other(seeds=10_000)),
                    ("no weights", other(weights={})), ("many weights", other(weights=[{}] * 10_000)),
                    ("half a step", other(step=10**9)), ("wrapped", other(**wrapped))])


def large_arrays(content: bytes, form: str) -> list[Case]:
    """Arrays whose headers declare more than the file has, in archives that unfold, or that are objects."""
    def header(shape: str, kind: str = "|u1") -> bytes:
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()

    def archive(data: bytes, zeros: int = 0) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for name in trees.read_npz(content):
                file.writestr(f"{name}.npy", data + bytes(zeros))
        return buffer.getvalue()

    return written([("terabytes", lambda: archive(header("(1000000000000,)"))),
                    ("4 GB", lambda: archive(header("(1000000, 32, 32, 4)"))),
                    ("negative", lambda: archive(header("(-1, 32)"))),
                    ("no header", lambda: archive(b"\x93NUMPY")),
                    ("objects", lambda: archive(header("(80,)", "|O"))),
                    ("deep header", lambda: archive(header("[" * 60))),
                    ("bomb", lambda: archive(header(f"({2**28},)"), 2**28))])


# The table --------------------------------------------------------------------------------------------------

FAULTS = (
    Fault("absent", (), 1, absent, refused=True),
    Fault("special", (), 3, special, refused=True),
    Fault("foreign", (), 2, foreign, refused=True),
    Fault("small", TEXTS, 2, small),
    Fault("truncated", (), 2, truncated),
    Fault("flipped", (), 2, flipped),
    Fault("doubled", (), 1, doubled),
    Fault("encoding", TEXTS, 1, other_encodings, refused=True),
    Fault("line-ends", TEXTS, 1, other_ends, harmless=True),
    Fault("large", TEXTS, 2, large_texts),
    Fault("junk", TREES, 3, junk),
    Fault("missing-key", TREES, 2, lacking),
    Fault("more-columns", ("csv",), 1, additional, harmless=True),
    Fault("more-keys", ("json", "jsonl", "checkpoint", "npz"), 1, additional),
    Fault("columns", ("csv",), 4, columns),
    Fault("weights", ("checkpoint",), 4, misshapen),
    Fault("hostile", ("checkpoint",), 3, hostile_checkpoints, refused=True),
    Fault("of-others", ("checkpoint",), 3, of_others),
    Fault("arrays", ("npz",), 4, large_arrays, refused=True),
)
PAIRS = [(kind, fault) for kind in KINDS for fault in FAULTS if fault.suits(kind)]
