"""What search.py --ask, --tell and --pending read and print: JSON lines, and the settings in the folder."""
from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import parse_json, read_checked, read_text
from runtime.settings import DECIDES
from spaces import Space
from spaces.metrics import Metric
from spaces.oracles.command import names_of, numbers_in
from strategies.asking import Answer, Suggestion, absolute

MEND = 'write {"key": KEY, "accuracy": 93.1}, or {"key": KEY, "failed": "why"}, one per line'


def read_answers(source: str, space: Space, metric: Metric) -> list[Answer]:
    """Reads a file of JSON lines, or stdin if the source is "-"; raises InputError with the line of a fault.

    A line names its architecture under `key` or `architecture`, and has the metric, or `failed`.
    """
    text = sys.stdin.read() if source == "-" else read_text(path_of(source), MEND)
    lines = [(f"{source}:{number}", line.strip()) for number, line in enumerate(io.StringIO(text), 1)]
    answers = [read_answer(line, where, space, metric) for where, line in lines if line]
    if not answers:
        raise InputError(f"{source} has no answer: {MEND}")
    return answers


def read_answer(line: str, where: str, space: Space, metric: Metric) -> Answer:
    content = parse_json(line, where, MEND)
    if not isinstance(content, dict):
        raise InputError(f"{where}: no JSON object: {MEND}")
    texts = [content[name] for name in ("key", "architecture") if name in content]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: neither key nor architecture: {MEND}")
    try:
        arch, *same = map(space.parse, texts)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if any(space.key(other) != space.key(arch) for other in same):
        raise InputError(f"{where}: key and architecture are of two architectures: leave one out")
    if content.get("failed"):
        if content.keys() & set(names_of(metric)):
            raise InputError(f"{where}: failed, and yet a value: leave one out")
        return Answer(arch, None, where=where)
    numbers = numbers_in(content, names_of(metric))
    if "failed" in numbers:
        raise InputError(f"{where}: {numbers['failed']}: {MEND}")
    return Answer(arch, numbers["validation"], numbers.get("test"), numbers.get("cost"), where)


def print_suggestions(space: Space, suggestions: Sequence[Suggestion]) -> None:
    """Prints one JSON line per architecture; of a declared space with the operation of each position."""
    for suggestion in suggestions:
        entry = {"key": suggestion.key, "architecture": suggestion.architecture, "score": suggestion.score}
        if hasattr(space, "document"):
            entry |= space.document(space.parse(suggestion.architecture))
        print(json.dumps(entry))
    sys.stdout.flush()


# Settings in the folder -------------------------------------------------------------------------------------

def asked_before(config_class: type, flags: dict) -> tuple[dict, str]:
    """The settings of the search in --outdir, if it was begun by --ask, for calls that go on with it."""
    path = path_of(flags.get("outdir", config_class.outdir)) / "config.json"
    if not flags.keys() & {"ask", "tell", "pending"}:
        return {}, ""
    if not path.exists() and "ask" not in flags:
        raise InputError(f"{path}: no search to go on with: is it the right --outdir? --ask begins one")
    if not path.exists():
        return {}, ""
    stored = read_checked(path, dict[str, Any], "give another --outdir").get("settings", {})
    return {name: value for name, value in stored.items() if name in deciding(config_class)}, str(path)


def kept(config: Any) -> dict:
    """The settings that later calls read again, from any folder; files by their absolute paths."""
    values = {name: getattr(config, name) for name in deciding(type(config))}
    for name in ("search_space", "encoder_model_state_dict"):
        values[name] = absolute(values[name])
    return {name: value for name, value in sorted(values.items()) if value != getattr(type(config), name)}


def deciding(config_class: type) -> set[str]:
    """The names of the settings that decide the course of a search."""
    return {field.name for field in dataclasses.fields(config_class) if field.metadata["role"] in DECIDES}
