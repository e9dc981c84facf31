"""The loop of a search: Algorithm 1 of the paper (Jing et al., IJCAI 2022), the same for every strategy.

Of N queries N0 are the start, random or by the prior; then each round queries K out of C candidates.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from runtime.errors import InputError
from runtime.files import whole_lines
from runtime.guarded import checked_json
from runtime.log import Log
from spaces.oracles.table import QueryBudget
from strategies.base import CandidatePool, Query, Strategy
from strategies.history import History, best_of
from strategies.posterior import SearchPredictor
from strategies.surface import Surface, choose_batch, choose_highest, climb

LISTED = 100_000  # architectures of a pool that are all looked at each round
DRAWN = 30  # architectures that the prior ranks per one of the start
HOPELESS = 10  # failed trainings, and no other, after which a search is given up


class RoundLine(msgspec.Struct):
    """The seconds in a line of log.jsonl, by `run_rounds`."""

    step: int
    fit: float = 0.0
    score: float = 0.0
    query: float = 0.0


def read_rounds(path: Path) -> list[RoundLine]:
    """Reads a search's log.jsonl; raises InputError at a line that is damaged."""
    return [checked_json(line, RoundLine, f"{path}:{number}", "remove the line")
            for number, line in enumerate(whole_lines(path), 1)]


class Schedule(NamedTuple):
    """The number of queries and their division into rounds; the seed decides the draws of every round."""

    N: int
    N0: int
    K: int
    C: int
    seed: int

    def rounds(self) -> Iterator[tuple[int, int, int]]:
        """Yields (t, start, end): round t makes history[start:end]; round 0 is the random start.

        Only the last round is cut by N, so a longer search begins like a shorter one.
        """
        yield 0, 0, self.N0
        for t, start in enumerate(range(self.N0, self.N, self.K), 1):
            yield t, start, min(start + self.K, self.N)


class Chooser:
    """Chooses the queries of a round: the strategy proposes, the predictor scores, the best are picked."""

    def __init__(
        self, schedule: Schedule, pool: CandidatePool, strategy: Strategy, predictor: SearchPredictor | None,
        by_prior: bool = False, climbs: int = 0
    ):
        """predictor: None if the strategy's proposals are queried in their order.

        by_prior: whether what the predictor knows before any label, if anything, chooses the first
        architectures. climbs: width of the climb of the surface; 0 = only proposals are looked at.
        """
        self.schedule, self.pool, self.strategy, self.predictor = schedule, pool, strategy, predictor
        self.climbs = climbs
        self.by_prior = by_prior and predictor is not None and predictor.has_prior
        self.on_surface: Callable[[Surface], None] = lambda surface: None  # for whoever watches

    def choose(
        self, t: int, history: list[Query], n: int
    ) -> tuple[list[tuple[Any, float | None]], dict[str, float]]:
        """n different new (architecture, score) for round t, best first, and the seconds spent.

        Asks no oracle.
        """
        if t == 0:
            return [(arch, None) for arch in self.start(n, self.rng(t))], {}
        return self.steer(t, history, n)

    def start(self, n: int, rng: np.random.Generator) -> list[Any]:
        """n architectures before there is a history: uniform draws, or some of those the prior likes.

        The prior, or old labels, rank DRAWN uniform draws per architecture; one is taken of each n-th of the
        best third.
        """
        if not self.by_prior or n == 0:
            return self.pool.draw(n, rng)
        drawn = self.pool.draw(DRAWN * n, rng)
        order = np.argsort(-self.predictor.prior_scores(drawn), kind="stable")
        liked = order[:max(n, len(drawn) // 3)]
        return [drawn[rng.choice(part)] for part in np.array_split(liked, min(n, len(liked)))]

    def steer(
        self, t: int, history: list[Query], n: int
    ) -> tuple[list[tuple[Any, float | None]], dict[str, float]]:
        """The same for any round whose history can be learned from: by the strategy and the predictor."""
        rng, started = self.rng(t), time.perf_counter()
        # the proposals of a strategy that always climbs are starts, of which there is no need
        starts = self.strategy.climbs and self.looks_everywhere
        candidates = self.pool.fresh_by_key([] if starts else self.strategy.propose(self.schedule.C, rng))
        if len(candidates) < n:
            candidates |= self.pool.fresh_by_key(self.pool.draw(n, rng))
        if self.predictor is None:
            picks = [(arch, None) for arch in islice(candidates.values(), n)]
            return picks, {"score": time.perf_counter() - started}
        if self.looks_everywhere:
            self.predictor.knowledge.learn(self.pool.keys)
        surrogate = self.predictor.fit(t, history, candidates)
        surface = Surface(surrogate, self.strategy.rank, rng)
        surface.look(candidates)
        if self.looks_everywhere:
            surface.look(self.pool.unparsed())
        elif self.climbs:
            climb(surface, self.pool, self.climbs)
        self.on_surface(surface)
        choose = choose_batch if self.strategy.batch and surrogate.has_process else choose_highest
        picks = [(surface.archs[key] or self.pool.space.parse(key), score)
                 for key, score in choose(surface, n)]
        return picks, {"fit": surrogate.seconds, "score": time.perf_counter() - started - surrogate.seconds}

    @property
    def looks_everywhere(self) -> bool:
        """Whether each round looks at the whole pool, which finds the maximum without a climb."""
        return bool(self.climbs and self.pool.keys and len(self.pool.keys) <= LISTED
                    and self.predictor is not None and self.predictor.is_quick)

    def rng(self, t: int) -> np.random.Generator:
        return np.random.default_rng([self.schedule.seed, t, 1])

    def replay(self, t: int) -> None:
        """Lets the strategy repeat its proposals in round t, which is in the history already."""
        if t > 0:
            self.strategy.propose(self.schedule.C, self.rng(t))

    def observe(self, queries: list[Query]) -> None:
        """Tells the pool and the strategy about a finished round."""
        for query in queries:
            self.pool.take(query.key)
        self.strategy.observe(queries)


def run_rounds(chooser: Chooser, history: History, budget: QueryBudget, folder: Path, stop_utility: float,
               on_query: Callable[[int, int], None]) -> None:
    """Makes the queries that the history lacks, up to the round that finds a utility of `stop_utility`.

    The choice of a round depends on (seed, t) and the rounds before it alone. After a kill, an unfinished
    round is chosen again, and only its missing queries are made. on_query(queries answered so far, round) is
    called after each query.
    """
    log = Log(folder, keep=chooser.schedule.N)
    logged = {line.step for line in read_rounds(log.path)}
    for t, start, end in chooser.schedule.rounds():
        if len(history) < end:
            whole = chooser.schedule.K if t else end
            picks, seconds = chooser.choose(t, history[:start], int(min(whole, chooser.pool.left)))
            picks = picks[:end - start]
            if len(picks) < end - start:
                raise InputError(f"round {t}: only {len(picks)} more architectures that keep the limits were "
                                 f"found: loosen --limit, or give --N {start + len(picks)}")
            history.expect([arch for arch, _ in picks], start)
            started = time.perf_counter()
            known, new = len(history), picks[len(history) - start:]
            budget.prepare([arch for arch, _ in new], partial(counting, on_query, known, t))
            for arch, score in new:
                history.append(t, arch, budget.query(arch), score)
                on_query(len(history), t)
            seconds["query"] = time.perf_counter() - started
            log.write(end, round=t, best=best_of(history[:end]).validation, **seconds)
        else:
            chooser.replay(t)
            if end not in logged:  # a kill came between the two files
                log.write(end, round=t, best=best_of(history[:end]).validation)
        chooser.observe(history[start:end])
        if end >= min(HOPELESS, chooser.schedule.N) and best_of(history[:end]).failed:
            raise InputError(f"all {end} trainings failed; {budget.hopeless()}")
        if best_of(history[:end]).utility >= stop_utility:
            break
    log.close()


def counting(on_query: Callable[[int, int], None], known: int, t: int, answered: int) -> None:
    """Reports that `answered` queries of round t are ready, besides the `known` ones in the history."""
    on_query(known + answered, t)
