"""Fine-tune a predictor, pre-trained or from scratch, on few labels; report Kendall's tau on all other cells.

    python finetune.py --space nasbench201 --save runs/finetune/nasbench201 --model_state_dict default \\
        --finetune_train_samples 100 --finetune_batch_size 10 --seeds 0-9
    python finetune.py --score cells.txt --predictor runs/finetune/nasbench201/predictor.pt --out scores.csv

--save gets result.json, predictor.pt, config.json and log.jsonl. After a kill, the same command with --resume
fits only the seeds that are missing, and ends in the same files. In Python, the same predictor is
models.predictor.Predictor.
"""
from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from rich.table import Table

import spaces
from models.batch import Batch
from models.checkpoint import about_space
from models.metrics import kendall_tau, precision_at, regret_at, spearman_rho
from models.predictor.blend import BlendedPredictor
from models.predictor.file import load_encoder_or_predictor, load_predictor, save_predictor
from models.predictor.fit import Examples, encoder_of, score_cells
from models.predictor.prior import prior_digest
from models.predictor.self_training import TaughtRecipe, all_steps, fit_and_teach, universal_digest
from runtime.checkpoint import weights_digest
from runtime.errors import InputError, main_guard
from runtime.files import path_of, write_json, write_text
from runtime.guarded import checked, read_checked, read_json
from runtime.locks import exclusive, need_free
from runtime.log import Log, mean_std, output, progress_bar
from runtime.seeding import DeviceSettings, choose_device
from runtime.settings import (
    by_content,
    check_same,
    command_of,
    fingerprint,
    parse,
    parse_seeds,
    part,
    report_to_sweep,
    setting,
)
from spaces import Space
from spaces.labels.cells import read_cells
from spaces.labels.protocols import RANKING_PROTOCOLS, Split, split
from spaces.labels.read import Labels, LabelSettings, read_labels
from spaces.metrics import metric_in, metric_of

GROUP = 5  # seeds fitted at once and kept if a run is interrupted; with 5 members each, more is no faster


@dataclass
class Config(TaughtRecipe, DeviceSettings, LabelSettings):
    space: str = setting("nasbench201", spaces.HELP, role="data")
    save: str = setting(
        "runs/finetune/default", "folder for result.json, predictor.pt, config.json and log.jsonl",
        role="output")
    param: str = setting(
        "default", "settings from local:FILE (see params/), from a running sweep (nni), or default",
        role="output")
    model_state_dict: str = setting(
        "", "pre-trained weights: a last.pt of pretrain.py, a predictor.pt of this script, or default = the "
        "shipped encoder (empty = from scratch)", role="data")
    finetune_train_samples: int = setting(
        100, "labels per seed, in all (0 = rank by the prior alone)", role="data")
    run: int = setting(
        0, "which of NAS-Bench-101's three training runs labels a cell (TFRecord files)", within=(0, 2),
        role="data")
    protocol: str = setting(
        "", "which accuracy trains and which is ranked (empty = by space: nb201, tnasp or nb301)",
        ("", *RANKING_PROTOCOLS), role="data")
    seeds: str = setting(
        "0", "independent runs, like 0,1,2 or 0-9; a seed decides labels drawn, initial weights and order",
        role="data")
    cell_marks: bool = setting(
        True, "DARTS spaces: mark vertices as normal or reduction cell (off = the paper's graph)")
    resume: bool = setting(False, "continue the run in --save, if there is one", role="output")
    score: str = setting(
        "", "score the cells in this text file, one per line, with --predictor, and stop", role="output")
    predictor: str = setting("", "predictor.pt of an earlier run, for --score", role="output")
    out: str = setting(
        "", "with --score: also write the ranked cells to this .csv or .jsonl file", role="output")


def main(argv: list[str] | None = None) -> dict | None:
    """Returns the content of result.json; None after --score."""
    config = parse(Config, argv, __doc__)
    device = choose_device(config.device, config.threads)
    if config.score:
        return score_file(config, device)
    if config.out:
        raise InputError(f"--out {config.out}: it is for --score; a fine-tuning writes to --save")
    folder = path_of(config.save)
    need_free(folder / "config.json", config.resume)
    space, seeds = spaces.get(config.space, config.cell_marks), parse_seeds(config.seeds)
    source = config.model_state_dict
    checkpoint = load_encoder_or_predictor(source, space) if source else None
    labels = read_labels(config.labels, space, config.dataset, config.run, metric_of(config))
    protocol = config.protocol or space.protocol
    splits = [split(labels, protocol, config.finetune_train_samples, seed) for seed in seeds]
    decided = by_content(fingerprint(config), **spaces.digests(space=space), labels=labels.digest,
                         model_state_dict=checkpoint and digest_of(checkpoint),
                         prior=prior_digest(config.prior, space.vocabulary),
                         universal=universal_digest(config, config.finetune_train_samples, space))
    with exclusive(folder, "--save"):
        open_folder(folder, config, decided)
        if (folder / "result.json").exists():
            result = read_result(folder / "result.json")
        else:
            run = Run(config, space, labels, checkpoint, device)
            result = run.carry_out(dict(zip(seeds, splits)), folder)
        shutil.rmtree(folder / "parts", ignore_errors=True)
    report_to_sweep(config.param, result["tau_mean"])
    print_result(result, folder)
    return result


def open_folder(folder: Path, config: Config, decided: dict) -> None:
    """Writes config.json; raises InputError if the folder holds another run."""
    need_free(folder / "config.json", config.resume)
    path = folder / "config.json"
    if path.exists():
        stored = read_checked(path, dict[str, Any], "give another --save")
        check_same(stored.get("decided", stored), decided, path,
                   {"labels": config.labels, "model_state_dict": config.model_state_dict})
    else:
        write_json(path, dataclasses.asdict(config) | {
            "decided": decided, "command": command_of("finetune.py", config, "save")})


def digest_of(checkpoint: dict) -> str:
    """The SHA-256 of the weights that a run starts from: an encoder's, or all of a predictor's members."""
    members = checkpoint.get("members") or [checkpoint["weights"]]
    return weights_digest({f"{i}.{name}": value for i, weights in enumerate(members)
                           for name, value in weights.items()})


# The experiment ---------------------------------------------------------------------------------------------

class Run:
    """The fine-tuning of several seeds, a group at a time."""

    def __init__(
        self, config: Config, space: Space, labels: Labels, checkpoint: dict | None, device: torch.device
    ):
        self.config, self.space, self.labels, self.checkpoint = config, space, labels, checkpoint
        self.protocol, self.device = config.protocol or space.protocol, device
        self.table = Batch.of(space.encode_keys(labels.keys)).to(device)
        self.about = about_space(space) | {"encoder": encoder_of(config, checkpoint)}

    def carry_out(self, splits: dict[int, Split], folder: Path) -> dict:
        """Fits and ranks every group of seeds, writes all files, and returns the content of result.json."""
        started, seeds = time.time(), list(splits)
        groups = [seeds[i:i + GROUP] for i in range(0, len(seeds), GROUP)]
        predictors, rankings, fitting = [], [], 0.0
        with progress_bar() as bar:
            n = self.config.finetune_train_samples
            task = bar.add_task(f"fit {len(seeds)} x {n} labels",
                                total=len(groups) * all_steps(self.config, n))
            for group in groups:
                began = time.time()
                predictors.append(self.fitted([splits[seed] for seed in group], group, folder,
                                              lambda: bar.advance(task)))
                fitting += time.time() - began
                rankings += rank(predictors[-1], self.table, self.labels, [splits[seed] for seed in group])
        result = self.described(splits, rankings) | {
            "seconds": {"fit": round(fitting, 1), "all": round(time.time() - started, 1)}}
        save_predictor(folder / "predictor.pt", predictors, self.checkpoint, **self.about)
        log = Log(folder, keep=0)
        for seed, tau in zip(seeds, result["tau"]):
            log.write(self.config.finetune_train_samples, seed=seed, tau=tau)
        log.close()
        write_json(folder / "result.json", result)  # last, as it says that all is there
        return result

    def fitted(self, splits: list[Split], seeds: list[int], folder: Path,
               on_step: Callable[[], None]) -> BlendedPredictor:
        """The predictors of a group of seeds: read from the folder if a killed run left them, else fitted."""
        path = folder / "parts" / f"{'-'.join(map(str, seeds))}.pt"
        if not path.exists():
            examples = examples_of(self.labels, self.protocol, splits, self.table, seeds)
            predictor = fit_and_teach(
                part(self.config, TaughtRecipe), self.space, self.checkpoint, examples, on_step)
            save_predictor(path, [predictor], self.checkpoint, **self.about)
        # also what was just fitted: in another memory layout floats round differently
        _, _, predictor = load_predictor(path, lambda content: self.space)
        return predictor.to(self.device)

    def described(self, splits: dict[int, Split], rankings: list[tuple[np.ndarray, np.ndarray]]) -> dict:
        """The content of result.json, without the seconds."""
        config = self.config
        return {
            "protocol": self.protocol,
            "space": self.space.name,
            "oracle": self.labels.name,
            "target": next(iter(splits.values())).target,
            **self.labels.metric.entries(),
            "base_model": self.about["encoder"]["base_model"],
            "pretrained": config.model_state_dict or None,
            "n_train": config.finetune_train_samples,
            "n_eval": counts([len(score) for score, _ in rankings]),
            "members": config.members,
            "kernel_share": config.kernel_share,
            "prior": config.prior or None,
            "unlabelled": config.unlabelled,
            "seeds": list(splits),
            **measures(rankings),
        }


def examples_of(
    labels: Labels, protocol: str, splits: list[Split], table: Batch, seeds: list[int]
) -> Examples:
    """The training labels of each seed, higher is better."""
    rows = np.stack([s.train for s in splits])  # [S, n]
    label = labels.utility(RANKING_PROTOCOLS[protocol].train)[rows]  # [S, n]
    return Examples(table, rows, label, seeds)


def rank(predictor: BlendedPredictor, table: Batch, labels: Labels,
         splits: list[Split]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(score, truth) float[E] per seed, over all cells with the target that the seed did not train on.

    Higher is better in both.
    """
    evaluated = np.unique(np.concatenate([s.evaluation for s in splits]))  # [E]
    scores = np.full((len(splits), len(labels)), np.nan)  # [S, N]
    scores[:, evaluated] = score_cells(predictor, table, evaluated)
    truth = labels.utility(splits[0].target)  # [N]
    return [(scores[i, s.evaluation], truth[s.evaluation]) for i, s in enumerate(splits)]


def measures(rankings: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Kendall's tau per seed with mean and standard deviation; the other measures as means over the seeds."""
    tau = [kendall_tau(*pair) for pair in rankings]
    if not all(np.isfinite(score).all() for score, _ in rankings):
        raise InputError("a score is not finite, so there is no ranking: lower --lr_encoder and "
                         "--lr_predictor, or start from other weights")
    mean, std = mean_std(tau)

    def over_seeds(measure: Callable, *k: int) -> float:
        return float(np.mean([measure(*pair, *k) for pair in rankings]))

    return {"tau": tau, "tau_mean": mean, "tau_std": std, "spearman_mean": over_seeds(spearman_rho),
            "precision_at": {str(k): over_seeds(precision_at, k) for k in (10, 50, 100)},
            "regret_at": {str(k): over_seeds(regret_at, k) for k in (1, 10)}}


def counts(numbers: list[int]) -> int | list[int]:
    """The number of ranked cells; a list if seeds differ, as some of the training cells lack the target."""
    different = sorted(set(numbers))
    return different[0] if len(different) == 1 else different


# Scores of a user's cells -----------------------------------------------------------------------------------

def score_file(config: Config, device: torch.device) -> None:
    """Ranks the cells in a text file, best first; prints a table and writes --out, if given."""
    if not config.predictor:
        raise InputError("--score needs --predictor: the predictor.pt of an earlier run of finetune.py")
    if config.out and Path(config.out).suffix not in (".csv", ".jsonl"):
        raise InputError(f"--out {config.out}: the name must end in .csv or .jsonl")
    _, space, predictor = load_predictor(config.predictor, spaces.stored)
    lines = read_cells(path_of(config.score), space)
    scores = score_cells(
        predictor.to(device), Batch.of(space.encode([cell.arch for cell in lines])).to(device)).mean(0)
    ranked = [{"rank": rank, "score": float(scores[i]), "line": lines[i].number,
               "cell": space.text(lines[i].arch), "given": lines[i].text}
              for rank, i in enumerate(np.argsort(-scores, kind="stable"), 1)]
    table = Table("rank", "score", "line", "cell")
    for row in ranked:
        table.add_row(str(row["rank"]), f"{row['score']:.4f}", str(row["line"]), row["given"])
    output.print(table)
    if config.out:
        write_ranked(path_of(config.out), ranked)
        output.print(f"written: {config.out}")


def write_ranked(path: Path, ranked: list[dict]) -> None:
    """Writes the rows as CSV or JSON lines; `cell` is the parsed architecture, `given` the user's text."""
    if path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row) + "\n" for row in ranked))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ranked[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(ranked)
    write_text(path, text.getvalue())


# Results ---------------------------------------------------------------------------------------------------

PrecisionAt = TypedDict("PrecisionAt", {"10": float, "50": float, "100": float})
RegretAt = TypedDict("RegretAt", {"1": float, "10": float})
Seconds = TypedDict("Seconds", {"fit": float, "all": float})


class ResultCore(TypedDict):
    """What every result.json has of what `print_result` and --resume read."""

    protocol: str
    space: str
    oracle: str
    target: str
    base_model: str
    pretrained: str | None
    n_train: int
    n_eval: int | list[int]
    seeds: list[int]
    tau: list[float]
    tau_mean: float
    tau_std: float | None
    spearman_mean: float
    precision_at: PrecisionAt
    regret_at: RegretAt
    seconds: Seconds


class ResultFile(ResultCore, total=False):
    metric: str  # absent in files of earlier versions, which measured accuracy
    lower_is_better: bool


def read_result(path: Path) -> dict:
    mend = "remove it, and --resume makes it anew"
    return checked(read_json(path, mend), ResultFile, path, mend)


def print_result(result: dict, folder: Path) -> None:
    start = f"pre-trained: {result['pretrained']}" if result["pretrained"] else "from scratch"
    title = (f"{result['space']}, protocol {result['protocol']} (ranks {result['target']} "
             f"{metric_in(result).name}), "
             f"{result['base_model']}, {start}")
    cells = {
        "labels": result["n_train"], "tau": f"{result['tau_mean']:.4f}",
        "std": "-" if result["tau_std"] is None else f"{result['tau_std']:.4f}",
        "rho": f"{result['spearman_mean']:.4f}", "p@10": f"{result['precision_at']['10']:.2f}",
        "p@100": f"{result['precision_at']['100']:.2f}", "regret@10": f"{result['regret_at']['10']:.3f}",
        "ranked": result["n_eval"], "seeds": len(result["seeds"]), "sec": result["seconds"]["all"]}
    table = Table(*cells, title=title)
    table.add_row(*map(str, cells.values()))
    output.print(table)
    output.print(f"labels: {result['oracle']}\nwritten: {folder / 'result.json'}, {folder / 'predictor.pt'}")


if __name__ == "__main__":
    main_guard(main)
