"""One process per folder: the second is told who holds it, the next one finds it clean."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from runtime.errors import InputError
from runtime.locks import exclusive

HOLD = """
import sys
from pathlib import Path
from runtime.locks import exclusive

with exclusive(Path(sys.argv[1]), "--save", name=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder, name: str = "") -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), name], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("name", ["", "cells.jsonl"])
def test_the_second_is_told_who_holds_the_folder(tmp_path, name):
    first = holder(tmp_path / "run", name)
    with (pytest.raises(InputError) as error,
          exclusive(tmp_path / "run", "--save", patience=0.2, name=name)):
        pass
    said = f"held by process {first.pid} on {socket.gethostname()} since 20"
    assert said in str(error.value) and "give another --save" in str(error.value)
    first.communicate()
    with exclusive(tmp_path / "run", "--save", name=name):
        pass
    assert all(path.stat().st_size == 0 for path in (tmp_path / "run").iterdir())


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_the_lock_ends_with_its_process(tmp_path, kind):
    first = holder(tmp_path)
    first.send_signal(kind)
    first.communicate()
    (tmp_path / f".last.pt.{'0' * 32}.tmp").touch()
    (tmp_path / "last.pt").touch()
    with exclusive(tmp_path, "--save", patience=0.2):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".holder").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.pt"}


def test_two_files_of_one_folder_are_held_apart(tmp_path):
    with (exclusive(tmp_path, "--out", name="a"), exclusive(tmp_path, "--out", name="b"),
          pytest.raises(InputError, match="a: held by process"),
          exclusive(tmp_path, "--out", patience=0.2, name="a")):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (pytest.raises(InputError, match="--save .*file/run: Not a directory; name another folder"),
          exclusive(tmp_path / "file" / "run", "--save")):
        pass


WITHOUT_FCNTL = """
import pkgutil, sys
from importlib import import_module
from pathlib import Path
sys.modules["fcntl"] = None  # as on Windows
import strategies
for module in pkgutil.iter_modules(strategies.__path__):
    import_module(f"strategies.{module.name}")
from runtime.errors import InputError
from runtime.files import write_text
from runtime.locks import exclusive
try:
    with exclusive(Path(sys.argv[1]), "--save", patience=0.2):
        write_text(Path(sys.argv[1], "f"), "whole")
        print("held", flush=True)
        sys.stdin.read()
except InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_fcntl_a_lock_still_keeps_a_second_process_out(tmp_path):
    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path / "run")], cwd=ROOT,
                                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    first = start()
    assert first.stdout.readline() == "held\n"
    assert start().communicate()[0].startswith(f"{tmp_path / 'run'}: held by process {first.pid} on ")
    first.communicate()
    assert start().communicate()[0] == "held\n"
    assert (tmp_path / "run" / "f").read_text() == "whole"
