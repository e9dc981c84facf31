"""Reads the answers that --tell brings, and writes what --ask prints: JSON lines."""
from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence

from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import parse_json, read_text
from spaces import Space
from spaces.metrics import Metric
from spaces.oracles.command import names_of, numbers_in
from strategies.asking import Answer, Suggestion

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
    named = content.get("key", content.get("architecture"))
    if not isinstance(named, str):
        raise InputError(f"{where}: neither key nor architecture: {MEND}")
    try:
        arch = space.parse(named)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if content.get("failed"):
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
