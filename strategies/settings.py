"""The settings of a search, whoever answers its queries, and the parts that they decide."""
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from models.predictor.fit import PredictorRecipe
from runtime.errors import InputError
from runtime.settings import part, setting
from strategies import STRATEGIES
from strategies.base import CandidatePool, StrategySettings
from strategies.posterior import PosteriorSettings, SearchPredictor
from strategies.rounds import Chooser, Schedule
from strategies.warm_start import OldLabels


@dataclass
class SearchSettings(PredictorRecipe, StrategySettings):
    """Queries and rounds."""

    search_algo: str = setting(
        "r", "strategy, or several with commas: r = uniform draws, rl = a policy (REINFORCE), ae = aging "
        "evolution, bo = Bayesian optimisation. Baselines: the same without a predictor = random, policy, re "
        "(regularised evolution), ls (local search); with another predictor = bananas (MLPs on paths), xgb "
        "(boosted trees)")
    members: int = setting(
        0, "networks in the ensemble (0 = by strategy: 5 for bo and bananas, 1 for the others); r, rl, ae, "
        "bo: only if --kernel_share is below 1", within=(0, 100))
    kernel_share: float = setting(
        1.0, "r, rl, ae, bo: weight in the score of the Gaussian process (kernel regression) on the "
        "pre-trained embedding and on analytic properties; 1 = it alone, without networks, which takes "
        "seconds per search, not minutes; 0 = networks alone, as in the paper", within=(0, 1))
    prior_start: bool = setting(
        True, "r, rl, ae, bo: the first N0 queries are spread over the third of random architectures that "
        "the --prior ranks best (off: they are uniform draws)")
    N: int = setting(150, "queries in all, a hard limit")
    N0: int = setting(
        10, "architectures queried first (the paper: 20; re: its --population, ls: 1)")
    K: int = setting(5, "architectures queried per round (the paper: 10; re, ls: 1)")
    C: int = setting(250, "candidates scored per round (the paper: 100)")
    climbs: int = setting(
        -1, "r, rl, ae, bo: climb by single edits from the best candidates, this many at a time, to the "
        "maxima of what the predictor believes; a pool that can be listed is looked at as a whole (-1 = 10 "
        "for bo without networks, else 0)", within=(-1, 1000))
    warm_start: str = setting(
        "", "r, rl, ae, bo: labels to start from, of another data set, search or space, trusted as far as "
        "the new ones agree: a history.jsonl, or a label table FILE or FILE:DATASET; of another space "
        "SPACE@FILE", role="data")
    warm_labels: int = setting(
        0, "how many labels of --warm_start are read, drawn at random (0 = at most 600)",
        within=(0, 10**4), role="data")
    limit: str = setting(
        "", "query only what keeps NAME<=NUMBER (or <, >=, >), like params<=4e6; several flags, or commas; "
        "NAME: a column of --labels or --more_labels, or computed: params, macs of DARTS networks (of "
        "--budget, else 20 cells of 36 channels) and of declared spaces with sizes", role="data",
        several=True)
    seed: int = setting(0, "seed of the whole search", within=(0, math.inf), role="data")


def algos_of(settings: SearchSettings) -> list[str]:
    """The strategies of the settings; raises InputError for unknown ones, or numbers that make no search."""
    algos = settings.search_algo.split(",")
    if not set(algos) <= set(STRATEGIES) or len(set(algos)) < len(algos):
        raise InputError(f"search_algo must be one of {', '.join(STRATEGIES)}, or some of them with commas, "
                         f"not {settings.search_algo!r}")
    if not 2 <= settings.N0 <= settings.N:
        raise InputError(f"--N0 {settings.N0}: the random start takes 2..N = 2..{settings.N} queries")
    if not 1 <= settings.K <= settings.C:
        raise InputError(f"--K {settings.K}: a round queries 1..C = 1..{settings.C} of its candidates")
    if settings.tournament > settings.population:
        raise InputError(
            f"--tournament {settings.tournament}: it is drawn from the --population {settings.population}")
    return algos


def with_published_numbers(settings: SearchSettings) -> SearchSettings:
    """Returns the settings with the numbers that their strategy fixes.

    These are the size of the ensemble, the random start, and one query per round.
    """
    strategy = STRATEGIES[settings.search_algo]
    return dataclasses.replace(
        settings, members=strategy.members and (settings.members or strategy.members),
        N0=min(strategy.start(settings.N0, part(settings, StrategySettings)), settings.N),
        K=1 if strategy.sequential else settings.K)


def new_chooser(settings: SearchSettings, pool: CandidatePool, checkpoint: dict | None,
                device: torch.device, old: OldLabels | None = None) -> Chooser:
    """The chooser of a search, whose settings have their published numbers. old: of its --warm_start."""
    strategy = STRATEGIES[settings.search_algo](pool, part(settings, StrategySettings))
    schedule = Schedule(settings.N, settings.N0, settings.K, settings.C, settings.seed)
    if not settings.members:
        return Chooser(schedule, pool, strategy, None)
    predictor = SearchPredictor(
        PosteriorSettings(part(settings, PredictorRecipe), settings.seed, strategy.predictor, old),
        pool.space, checkpoint, device)
    usual = strategy.climbs if predictor.is_quick else 0
    return Chooser(schedule, pool, strategy, predictor, settings.prior_start,
                   usual if settings.climbs < 0 else settings.climbs)
