"""The result of one search: best.json, and what is printed of it."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from runtime.log import output
from spaces.base import Oracle
from spaces.metrics import metric_in, metric_of
from strategies.history import History, best_of
from strategies.problem import QUERY_PROTOCOLS, optimum
from strategies.rounds import read_rounds
from strategies.summary import notes


def describe(config: Any, history: History, oracle: Oracle, folder: Path) -> dict:
    """The content of best.json, except the number of neighbours that a table covers.

    config: of search.py.
    """
    best, chosen_by = best_of(history[:]), QUERY_PROTOCOLS[config.protocol]
    rounds = read_rounds(folder / "log.jsonl")
    seconds = {name: round(sum(getattr(line, name) for line in rounds), 3)
               for name in ("fit", "score", "query")}
    return {
        "architecture": best.architecture, "key": best.key,
        "validation": best.validation if chosen_by == "validation" else None, "test": best.test,
        "query": best.query, "N": config.N, "stopped": len(history) if len(history) < config.N else None,
        "failed": getattr(oracle, "failed", None), "space": history.space.name, "algo": config.search_algo,
        "dataset": config.dataset if config.oracle in ("labels", "train") else "own task",
        **metric_of(config).entries(), "protocol": config.protocol,
        "chosen_by": chosen_by, "oracle": oracle.name,
        "optimum": optimum(oracle, chosen_by), "neighbours": None,
        "pretrained": config.encoder_model_state_dict or None,
        **({"limit": config.limit} if config.limit else {}),
        "seed": config.seed, "seconds": seconds | {"all": round(sum(seconds.values()), 3)},
    }


def print_result(result: dict, folder: Path, pictures: bool) -> None:
    seconds = result["seconds"]
    start = f"pre-trained: {result['pretrained']}" if result["pretrained"] else "from scratch"
    table = Table("validation", "test", "query", "seconds", "fitting", "scoring", "querying", title=(
        f"{result['space']}, {metric_in(result).title(result['dataset'])}, protocol {result['protocol']}, "
        f"strategy {result['algo']}, seed {result['seed']}, {start}"))
    accuracies = [
        "unknown" if value is None else f"{value:.3f}" for value in (result["validation"], result["test"])]
    shares = [f"{seconds[name] / max(seconds['all'], 1e-9):.1%}" for name in ("fit", "score", "query")]
    table.add_row(*accuracies, f"{result['query']} of {result['N']}", f"{seconds['all']:.1f}", *shares)
    output.print(table)
    said = "".join(f"{note}\n" for note in notes([result]))
    said += f"limits: {result['limit']}\n" if "limit" in result else ""
    output.print(
        f"best by {result['chosen_by']}: {result['architecture']}\noracle: {result['oracle']}\n{said}"
        f"written: {folder}/best.json, history.jsonl, curve.csv" + pictures * ", curve.png, best_cell.png"
        + ", pareto.csv" * (folder / "pareto.csv").exists())
