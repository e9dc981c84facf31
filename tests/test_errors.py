"""How a script ends: a user's mistake in one line and code 2, ours in a traceback."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from runtime.errors import InputError, main_guard


def fail(error: BaseException):
    raise error


@pytest.mark.parametrize("error, code, text", [
    (InputError("no such thing"), 2, "error: no such thing\n"), (KeyboardInterrupt(), 130, "interrupted\n")])
def test_a_mistake_ends_in_one_line(capsys, error, code, text):
    with pytest.raises(SystemExit) as end:
        main_guard(lambda: fail(error))
    assert end.value.code == code and capsys.readouterr() == ("", text)


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        main_guard(lambda: 1 / 0)


def test_a_missing_file_is_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        main_guard((tmp_path / "absent").read_text)
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"error: No such file or directory: {tmp_path / 'absent'}\n")


def test_what_succeeds_just_ends():
    assert main_guard(lambda: None) is None


def test_a_closed_pipe_is_no_fault():
    """As in `... | head`."""
    script = ("from runtime.errors import main_guard\n"
              "main_guard(lambda: [print('x' * 999, flush=True) for _ in range(999)])")
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait() == 141 and process.stderr.read() == b""


# Terminals and machines -------------------------------------------------------------------------------------

def end_of(script: str, stdout=subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess:
    script = "from runtime.errors import InputError, main_guard\n" + script
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE,
                          text=True, env=os.environ | environment, check=False)


def test_an_ascii_terminal_gets_what_it_can_show():
    end = end_of("main_guard(lambda: print('τ ± 1'))", PYTHONIOENCODING="ascii")
    assert (end.returncode, end.stdout, end.stderr) == (0, "? ? 1\n", "")
    end = end_of("def main(): raise InputError('no τ')\nmain_guard(main)", PYTHONIOENCODING="ascii")
    assert (end.returncode, end.stderr) == (2, "error: no \\u03c4\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        end = end_of("main_guard(lambda: print('x'))", full)
    assert end.returncode == 2 and end.stderr.startswith("error: No space left on device: standard output; ")
    assert end.stderr.count("\n") == 1


def test_a_closed_output_is_no_fault():
    command = f"{sys.executable} -c 'import runtime.log; from runtime.errors import main_guard; " \
              "main_guard(lambda: runtime.log.output.print(1))' >&-"
    end = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (end.returncode, end.stderr) == (0, "")


def test_no_memory_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main_guard(lambda: torch.empty(2**60))
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: out of memory") and said.count("\n") == 1


@pytest.mark.parametrize("message", ["x" * 10**6, "a\nb\tc\x00\x1b[31m"], ids=["long", "control"])
def test_a_message_is_one_short_line(message):
    said = str(InputError(message))
    assert len(said) <= 310 and said.isprintable() and said[0] == message[0] and said[-1] == message[-1]
