"""Breaks a good file, runs the command that reads it, and judges what came of it."""
from __future__ import annotations

import json
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

from faults.faults import Case, Fault
from faults.kinds import Kind
from faults.stages import STAGES
from runtime.files import cache_dir
from spaces.nasbench101 import enumeration

SECONDS = 10  # of processor time that a case may take
MEMORY = 1500 * 2**20  # bytes that it may take
PATIENCE = 120  # wall-clock seconds
LONGEST = 320  # characters of an error
NOBODY = 65534  # a user who owns nothing
SERVER = Path(__file__).with_name("server.py")


class End(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Bench:
    """A folder with the stages made so far, a place for cases, and the server that runs their commands."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="gmae-nas-faults-"))  # in a place that any user can enter
        self.folder.chmod(0o755)
        self.case = self.folder / "case"
        for name in ("stages", "cache", "home", "logs"):
            (self.folder / name).mkdir()
        enumeration.load()  # makes the table, if it is not there
        shutil.copy(cache_dir() / enumeration.CACHE_FILE, self.folder / "cache")
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT),
            "GMAE_NAS_CACHE": str(self.folder / "cache"), "HOME": str(self.folder / "home"), "COLUMNS": "400"}
        self.server = subprocess.Popen(
            [sys.executable, SERVER], cwd=self.folder / "home", env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer()

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait(60)
        shutil.rmtree(self.folder)

    def answer(self) -> dict:
        assert select.select([self.server.stdout], [], [], PATIENCE)[0], "the server does not answer"
        return json.loads(self.server.stdout.readline())

    def run(self, command: str, user: int | None = None) -> End:
        """Runs a command, and waits for its end."""
        logs = [self.folder / "logs" / name for name in ("stdout", "stderr")]
        request = {"argv": command.split(), "stdout": str(logs[0]), "stderr": str(logs[1]),
                   "seconds": SECONDS, "memory": MEMORY, "user": user}
        self.server.stdin.write(json.dumps(request).encode() + b"\n")
        self.server.stdin.flush()
        code = self.answer()["code"]
        return End(code, *(path.read_text(errors="replace") for path in logs))

    def run_fresh(self, command: str, user: int | None = None) -> End:
        """Runs a command in an interpreter of its own."""
        module, *flags = command.split()
        script = ["-m", module] if "." in module else [ROOT / f"{module}.py"]
        end = subprocess.run(
            [sys.executable, *script, *flags], cwd=self.folder / "home", env=self.environment, user=user,
            capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
        return End(end.returncode, end.stdout, end.stderr)

    def stage(self, name: str) -> Path:
        """The folder of a stage; its commands run where its copies will lie."""
        folder = self.folder / "stages" / name
        if not folder.exists():
            shutil.rmtree(self.case, ignore_errors=True)
            self.case.mkdir()
            STAGES[name](self.case, self.succeed)
            self.case.rename(folder)
        return folder

    def succeed(self, command: str) -> None:
        end = self.run(command)
        assert end.code == 0, f"{command}: code {end.code}\n{end.stderr}"

    # Cases --------------------------------------------------------------------------------------------------

    def faults(self, kind: Kind, fault: Fault) -> Iterator[str]:
        """Yields what is wrong after each broken input of a fault, "" if nothing is."""
        content = self.good(kind).read_bytes()
        for case in fault.chosen(content, kind.form, f"{kind.name} {fault.name}"):
            yield self.judged(kind, fault, case)

    def good(self, kind: Kind) -> Path:
        """The file that is to be broken, in its stage."""
        return min(self.stage(kind.stage).glob(kind.file))

    def judged(self, kind: Kind, fault: Fault, case: Case, run: Callable[..., End] | None = None) -> str:
        """What is wrong after this broken input, "" if nothing. run: in place of `self.run`."""
        name, do = case
        good = self.good(kind)
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(self.stage(kind.stage), self.case)
        path = self.case / good.relative_to(self.stage(kind.stage))
        do(path)
        user = self.hand_over() if name == "locked" and os.geteuid() == 0 else None
        before = contents(self.case)
        command = kind.command.format(folder=self.case, file=path)
        end = (run or self.run)(command, user)
        wrong = verdict(end, kind, fault, path.name) or self.left_behind(before, path, end)
        if end.code == 0 and not wrong:
            wrong = kind.check(self.case)
        return f"{kind.name}, {fault.name}, {name}: {wrong}" if wrong else ""

    def hand_over(self) -> int:
        """Gives all files of the case to a user who is not root, whom no file mode would stop."""
        for path in (self.case, *self.case.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        return NOBODY

    def left_behind(self, before: dict[Path, bytes], broken: Path, end: End) -> str:
        """What is wrong with the files after a command: any left behind, or good ones changed by an error."""
        executed, after = self.folder / "home/executed", contents(self.case)
        if executed.exists():
            executed.unlink()
            return "code of the file was run"
        for path in after:
            if path.name.startswith(".") and path.name.endswith((".tmp", "holder")):
                return f"left behind: {path}"
        for path, content in before.items() if end.code else ():
            now = after.get(path, b"")[:len(content) if path.suffix == ".jsonl" else None]  # these may grow
            if path != broken and now != content:
                return f"changed, in spite of the error: {path}"
        return ""


def contents(folder: Path) -> dict[Path, bytes]:
    """The bytes of all regular files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*")
            if stat.S_ISREG(path.lstat().st_mode) and os.access(path, os.R_OK)}


def verdict(end: End, kind: Kind, fault: Fault, name: str) -> str:
    """What is wrong with the end of a command that read a broken file of this name."""
    lines = end.stderr.rstrip("\n").split("\n")
    errors = [line for line in lines if line.startswith("error: ")]
    if "Traceback" in end.stderr:
        return f"traceback, code {end.code}: {' / '.join(end.stderr.strip().splitlines()[-3:])[-400:]}"
    if end.code not in kind.codes:
        return f"code {end.code}: {lines[-1][-300:]}"
    if end.code != 2:
        if fault.refused and not kind.optional:
            return "believed, code 0"
        return ""
    if len(errors) != 1 or lines[-1] != errors[0]:
        return f"stderr is not one line of error: {end.stderr[-400:]}"
    if len(errors[0]) > LONGEST:
        return f"an error of {len(errors[0]):,} characters: {errors[0][:200]}"
    if "out of memory" in errors[0]:
        return f"takes more than {MEMORY >> 20} MB"
    if fault.harmless and kind.people:
        return f"refused, though harmless: {errors[0]}"
    if name not in errors[0]:
        return f"the error does not name {name}: {errors[0]}"
    return ""
