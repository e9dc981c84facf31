"""How a script ends: a user's mistake in one line and code 2, ours in a traceback."""
from __future__ import annotations

import subprocess
import sys

import pytest
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
