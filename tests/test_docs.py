"""The pages: every command parses with the real parsers, the Python example runs as it stands."""
from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.settings import Parser, parse
from sweeps.launch import STAGES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md"), *ROOT.glob("docs/*.md"),
                *ROOT.glob("examples/*/README.md")])
SHELL_WORDS = {"source", "export", "cd", "pip", "git"}  # commands that are none of ours


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """(line, words) per command in the page's bash blocks; a backslash joins lines, `&&` parts commands."""
    found, text, inside = [], "", False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            inside = line.strip() == "```bash"
            continue
        if not inside:
            continue
        text += line.rstrip().removesuffix("\\") + " "
        if line.rstrip().endswith("\\"):
            continue
        for part in text.split("&&"):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                words = words[1:]
            if words:
                found.append((number, words[:words.index(">")] if ">" in words else words))
        text = ""
    return found


def test_the_reader_of_commands(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\nN=1 bash a.sh   # why\npython b.py --x 1 \\\n    --y 2 && python -m c.d\n```\n"
                    "```python\nno()\n```\n")
    assert commands(page) == [(2, ["bash", "a.sh"]), (4, ["python", "b.py", "--x", "1", "--y", "2"]),
                              (4, ["python", "-m", "c.d"])]


class Parsed(Exception):
    """The flags are right: stop before anything is done."""


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises unless the command is one of ours and its flags parse."""
    if words[0] in SHELL_WORDS:
        return
    if words[0] == "bash":
        script = ROOT / words[1]
        assert script.is_file() and not subprocess.run(["bash", "-n", script], check=False).returncode
        return
    if words[0] == "torchrun":
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")):]]
    assert words[0] == "python", words
    if words[1] == "-c":
        compile(words[2], "<page>", "exec")
        return
    name, argv = (words[2], words[3:]) if words[1] == "-m" else (words[1].removesuffix(".py"), words[2:])
    module = importlib.import_module(name)
    if hasattr(module, "Config"):
        cut = argv.index("--") if "--" in argv else len(argv)
        config = parse(module.Config, argv[:cut], "")
        if cut < len(argv):  # flags of a sweep's trials
            parse(STAGES[config.stage].script.Config, argv[cut + 1:], "")
        return

    def stop(self, argv=None, namespace=None):
        original(self, argv, namespace)
        raise Parsed

    original = Parser.parse_args
    with monkeypatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(Parser, "parse_args", stop)
        module.main(argv)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_parses(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for number, words in commands(page):
        try:
            check(words, monkeypatch)
        except Exception as error:
            pytest.fail(f"{page.relative_to(ROOT)}:{number}: {shlex.join(words)}: {error!r}")


def test_the_pages_have_commands():
    assert sum(len(commands(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_is_there(page):
    text = page.read_text()
    for target in [*re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text), *re.findall(r'<img src="([^"]+)"', text)]:
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_readme_fits_a_screenful_of_minutes():
    """At most 200 lines, 12 KB, 110 columns."""
    text = (ROOT / "README.md").read_text()
    lines = text.splitlines()
    assert len(lines) <= 200 and len(text.encode()) <= 12_288 and max(map(len, lines)) <= 110


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=["predictor", "search"])
def test_the_python_examples_run_as_they_stand(tmp_path, block):
    """In a folder of its own, with the checkout on the path."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert len(block.strip().splitlines()) <= 12
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True,
                         text=True, check=False)
    assert run.returncode == 0, run.stderr
