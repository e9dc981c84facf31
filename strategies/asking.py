"""Ask and tell: a search whose architectures are trained elsewhere, by whoever asks for them.

    search = Search("my_space.json", search_algo="bo", N=100, folder="runs/mine")
    for arch in search.ask(8):
        search.tell(arch, accuracy_of(arch))       # in any order, at any time; None = the training failed
    search.best.architecture

Two files in the folder are the whole state: asked.jsonl, one line per call of `ask`, and history.jsonl, one
line per answer. Both are append-only, so a kill at any moment loses nothing, and the same folder goes on: the
strategy sees again what it saw, so a search that is closed and opened between any two calls asks the same.

search.py --ask and --tell are this class.
"""
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import spaces
from models.checkpoint import load_encoder
from models.predictor.prior import prior_digest
from runtime.checkpoint import weights_digest
from runtime.errors import InputError
from runtime.files import append_line, path_of, whole_lines, write_json
from runtime.guarded import checked_json, read_checked
from runtime.locks import exclusive
from runtime.seeding import choose_device
from runtime.settings import by_content, check_same, combined, fingerprint
from spaces import Space
from spaces.base import Record
from spaces.metrics import Metric
from strategies.base import CandidatePool, Query
from strategies.history import History, best_of
from strategies.limits import Facts, Limits
from strategies.settings import SearchSettings, algos_of, new_chooser, with_published_numbers
from strategies.warm_start import read_source

FEWEST = 2  # answers that are no failures, before a predictor can be fitted; without one, 1
TRIES = 20  # proposals per query of a strategy that makes one at a time
PATIENCE = 300.0  # seconds that a call waits for another one on the same folder


class Suggestion(msgspec.Struct):
    """One architecture of a line of asked.jsonl."""

    key: str
    architecture: str
    score: float | None


class AskedLine(msgspec.Struct):
    """A line of asked.jsonl: what one call of `ask` returned."""

    ask: int  # 0, 1, ...: the round of these queries
    answers: int  # lines of history.jsonl that it knew
    drawn: int  # how many of its architectures were drawn at random, the first ones
    architectures: list[Suggestion]


class Answer(NamedTuple):
    """A training's result; the value is None if it failed. where: its place in a file, for messages."""

    arch: Any
    value: float | None
    test: float | None = None
    cost: float | None = None
    where: str = ""


class Search:
    """A search that is asked for architectures and told their values."""

    def __init__(self, space: Space | str, folder: str | Path | None = None, encoder: str = "",
                 metric: Metric = Metric(), command: dict[str, Any] | None = None, **settings: Any):
        """Opens the search in the folder, or begins one.

        space      of `spaces.get`, or its name or file
        folder     keeps the search; None = a temporary one
        encoder    a last.pt of pretrain.py, "default" = the shipped one, "" = from scratch
        metric     what is told; the default is accuracy in percent
        command    how search.py was called: device, costs (`strategies.limits`), entries of config.json
        settings   flags of search.py: search_algo, N, N0, C, seed ... (`SearchSettings`)
        Raises InputError for wrong settings, or a folder that holds another search.
        """
        self.space = spaces.get(space) if isinstance(space, str) else space
        chosen = combined(SearchSettings, (settings, "Search"))
        if len(algos_of(chosen)) > 1:
            raise InputError(f"search_algo {chosen.search_algo}: a search that is asked has one strategy")
        self.settings, self.metric = with_published_numbers(chosen), metric
        self.checkpoint = load_encoder(encoder, self.space) if encoder else None
        command = dict(command or {})
        self.device = command.pop("device", None) or choose_device("auto", 0)
        if isinstance(space, str):  # then search.py can go on
            command.setdefault("settings", settings | {
                "search_space": absolute(space), "encoder_model_state_dict": absolute(encoder),
                "metric": "" if metric.is_accuracy else metric.name,
                "lower_is_better": metric.lower_is_better})
        self._limits = Limits(chosen.limit, Facts(self.space, costs=command.pop("costs", None)))
        self._old = read_source(chosen, self.space, metric)
        self._listed = None
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder, self._sizes = path_of(folder or self._temporary.name), None
        with self.alone():
            self._open_folder(command)
            self.refresh()

    # What users call ----------------------------------------------------------------------------------------

    def ask(self, k: int = 1) -> list[Any]:
        """The next k architectures, none of them ever asked or told before; they are pending from now on."""
        return [self.space.parse(suggestion.architecture) for suggestion in self.suggest(k).architectures]

    def tell(self, arch: Any, value: float | None, test: float | None = None, cost: float | None = None):
        """Records the value of an architecture, asked or not; None = its training failed.

        arch: a value of the space, or a text. The test value is recorded, and chooses nothing. cost: seconds.
        """
        arch = self.space.parse(arch) if isinstance(arch, str) else arch
        self.tell_all([Answer(arch, value, test, cost)])

    @property
    def pending(self) -> dict[str, Suggestion]:
        """{key: what was asked and is not answered}."""
        with self.alone():
            self.refresh()
        return self.waiting

    @property
    def best(self) -> Query:
        """The best answer by validation. Raises InputError if there is none."""
        with self.alone():
            self.refresh()
        if len(self.history) == 0 or best_of(self.history[:]).failed:
            raise InputError(f"{self.folder}: no answer that is no failure yet: tell one")
        return best_of(self.history[:])

    @property
    def waiting(self) -> dict[str, Suggestion]:
        """`pending`, of what was last read."""
        return {key: suggestion for key, (_, suggestion) in self._asked.items() if key not in self._answered}

    # What search.py calls -----------------------------------------------------------------------------------

    def suggest(self, k: int) -> AskedLine:
        """`ask`, with what asked.jsonl says of it."""
        if k < 1:
            raise InputError(f"ask {k}: ask for at least one architecture")
        with self.alone():
            self.refresh()
            self._sizes = None  # if this is interrupted, the strategy is half-way: all is read again
            left = int(min(self.settings.N - len(self._known), self._chooser.pool.left))
            if left < 1:
                raise InputError(f"{self.folder}: all {len(self._known)} queries are asked or answered: "
                                 "a larger N goes on" if self.settings.N <= len(self._known) else
                                 f"{self.folder}: every architecture of the space is asked or answered")
            line = self._choose(min(k, left))
            if not line.architectures:
                raise InputError(f"{self.folder}: no further architecture was found: loosen the limits")
            append_line(self.folder / "asked.jsonl", msgspec.to_builtins(line))
            self._remember(line)
            self._sizes = self._read_sizes()
            return line

    def tell_all(self, answers: Sequence[Answer]) -> int:
        """Records answers, all or, if one is refused, none; returns how many were new.

        An answer that is told again is ignored. Raises InputError for another value of the same architecture,
        and for more than N answers.
        """
        with self.alone():
            self.refresh()
            new = self._checked(answers)
            self._sizes = None
            for key, answer in new.items():
                t, score = len(self._lines), None
                if key in self._asked:
                    t, suggestion = self._asked[key]
                    score = suggestion.score
                self.history.append(t, answer.arch, Record(answer.value, answer.test, answer.cost), score)
                self._answered[key] = self.history.queries[-1]
            self._sizes = self._read_sizes()
            return len(new)

    def _checked(self, answers: Sequence[Answer]) -> dict[str, Answer]:
        """{key: answer} of those that are not recorded yet."""
        new = {}
        for answer in answers:
            key = self.space.key(answer.arch)
            at = f"{answer.where}: {key}" if answer.where else key
            answer = answer._replace(**{
                name: plain(getattr(answer, name), f"{at}: {name}") for name in ("value", "test", "cost")})
            value = answer.value
            if key not in self._asked and not self._limits.keeps(key):
                raise InputError(f"{at}: it breaks {self._limits}, and was never asked: leave it out")
            if self.metric.is_accuracy and not all(0 <= v <= 100 for v in answer[1:3] if v is not None):
                raise InputError(f"{at}: accuracy {value} is no percentage: give 0..100, or name a metric")
            before = self._answered[key].validation if key in self._answered else (
                new[key].value if key in new else value)
            if before != value:
                raise InputError(f"{at}: told as {value}, but recorded as {before}: answers never change")
            if key not in self._answered:
                new[key] = answer
        outside = [key for key in new if key not in self._asked]
        if len(self._known) + len(outside) > self.settings.N:
            raise InputError(f"{self.folder}: {len(self._known)} queries are asked or answered, and "
                             f"{len(outside)} answers come from outside: more than N = {self.settings.N}")
        return new

    @property
    def _known(self) -> set[str]:
        """The keys of all that was asked or answered, which N limits."""
        return self._asked.keys() | self._answered.keys()

    # State --------------------------------------------------------------------------------------------------

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other processes out of the folder for a block; not to be nested."""
        return exclusive(self.folder, "--outdir", PATIENCE)

    def _open_folder(self, entries: dict[str, Any]) -> None:
        """Writes config.json, or raises InputError if the folder holds another search; only N may grow."""
        decided = by_content(
            fingerprint(self.settings), encoder_model_state_dict=(
                self.checkpoint and weights_digest(self.checkpoint["weights"]))
        ) | {"oracle": "ask", "search_space": self.space.name,
             "metric": "" if self.metric.is_accuracy else self.metric.name,
             "lower_is_better": self.metric.lower_is_better,
             "cell_marks": getattr(self.space, "cell_marks", True)}
        decided = by_content(decided, **spaces.digests(search_space=self.space),
                             prior=prior_digest(self.settings.prior, self.space.vocabulary),
                             warm_start=self._old and self._old.digest)
        path, longer = self.folder / "config.json", False
        if path.exists() or (self.folder / "history.jsonl").exists():
            stored = read_checked(path, dict[str, Any], "give another folder")
            longer = isinstance(stored.get("N"), int) and stored["N"] < self.settings.N
            check_same(stored | {"N": self.settings.N} if longer else stored, decided, path)
        if longer or not path.exists():
            write_json(path, (stored if longer else {}) | decided | entries)

    def _read_sizes(self) -> list[int]:
        return [path.stat().st_size if path.exists() else 0
                for path in (self.folder / "asked.jsonl", self.folder / "history.jsonl")]

    def refresh(self) -> None:
        """Reads both files, if another process has written since; the strategy sees all of it again."""
        if self._sizes == self._read_sizes():
            return
        self.history = History(self.folder / "history.jsonl", self.space, self.settings.N, self.metric)
        if self._limits and self._listed is None:
            self._listed = self._limits.listed(self.space)
        pool = CandidatePool(self.space, self._limits.keeps, self._listed, str(self._limits))
        self._chooser = new_chooser(self.settings, pool, self.checkpoint, self.device, self._old)
        self._lines, self._asked, self._seen = [], {}, 0
        path = self.folder / "asked.jsonl"
        lines = [checked_json(content, AskedLine, f"{path}:{number}", "give another folder")
                 for number, content in enumerate(whole_lines(path), 1)]
        for line in lines:
            self._replay(line)
        self._answered = {query.key: query for query in self.history[:]}
        self._sizes = self._read_sizes()

    def _replay(self, line: AskedLine) -> None:
        """Brings strategy and pool to where they were after this line."""
        if line.ask != len(self._lines) or not self._seen <= line.answers <= len(self.history) or (
                not 0 <= line.drawn <= len(line.architectures)):
            raise InputError(f"{self.folder / 'asked.jsonl'}:{len(self._lines) + 1}: it does not go with "
                             "history.jsonl: give another folder")
        self._observe(line.answers)
        self._take(self._chooser.start(line.drawn, self._chooser.rng(line.ask)))
        steered = len(line.architectures) - line.drawn
        if steered and self._chooser.strategy.sequential:
            self._one_by_one(line.ask, steered)
        elif steered:
            self._chooser.strategy.propose(self.settings.C, self._chooser.rng(line.ask))
        self._remember(line)

    def _remember(self, line: AskedLine) -> None:
        self._lines.append(line)
        keys = [suggestion.key for suggestion in line.architectures]
        self._asked |= {key: (line.ask, suggestion) for key, suggestion in zip(keys, line.architectures)}
        for key in keys:
            self._chooser.pool.take(key)
        self._chooser.strategy.asked(keys[line.drawn:])

    def _observe(self, answers: int) -> None:
        """Lets the strategy see the answers up to this number."""
        queries = self.history[self._seen:answers]
        for query in queries:
            self._chooser.pool.take(query.key)
        if queries:
            self._chooser.strategy.observe(queries)
        self._seen = answers

    # Choosing -----------------------------------------------------------------------------------------------

    def _choose(self, k: int) -> AskedLine:
        """The next k architectures: drawn up to N0 in all and until two answers are known, else steered."""
        t, history = len(self._lines), self.history[:]
        self._observe(len(history))
        drawn = max(0, min(k, self.settings.N0 - len(self._known)))
        if sum(not query.failed for query in history) < (FEWEST if self._chooser.predictor else 1):
            drawn = k
        picks = [(arch, None) for arch in self._take(self._chooser.start(drawn, self._chooser.rng(t)))]
        if drawn < k and self._chooser.strategy.sequential:
            picks += self._one_by_one(t, k - drawn)
        elif drawn < k:
            picks += self._chooser.steer(t, history, k - drawn)[0]
        return AskedLine(t, len(history), drawn, [
            Suggestion(self.space.key(arch), self.space.text(arch), score) for arch, score in picks])

    def _one_by_one(self, t: int, n: int) -> list[tuple[Any, None]]:
        """n architectures of a strategy that proposes one at a time, while its earlier ones are pending."""
        rng, picks, pool = self._chooser.rng(t), [], self._chooser.pool
        for _ in range(TRIES * n):
            if len(picks) == n:
                break
            picks += self._take(pool.fresh(self._chooser.strategy.propose(self.settings.C, rng))[:1])
        picks += self._take(pool.draw(n - len(picks), rng))
        return [(arch, None) for arch in picks]

    def _take(self, archs: Sequence[Any]) -> list[Any]:
        for arch in archs:
            self._chooser.pool.take(self.space.key(arch))
        return list(archs)


def plain(value: Any, what: str) -> float | None:
    """A number of any library as a float, or None; raises InputError for anything else, also infinity."""
    if value is None:
        return None
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} is no number: {value!r:.40}") from None
    if not np.isfinite(number):
        raise InputError(f"{what} is no finite number: {number}: tell that it failed")
    return number


def absolute(file: str) -> str:
    """The absolute path of a file, so that another folder finds it; any other text as it is."""
    return str(path_of(file).absolute()) if file and path_of(file).is_file() else file
