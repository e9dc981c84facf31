"""Measure the calibration of the predictor: coverage of its intervals and likelihood of the truth.

    python -m benchmarks.calibration --space nasbench201 --n_labels 100 \\
        --out results/calibration_nasbench201.json

The truth is the accuracy of other cells, of the same kind as the labels: test accuracy lies higher or lower
as a whole, so every interval would be off. Accuracies become normal scores by their rank among the n labels,
and the members' mean score is mapped to that scale by a straight line, fitted on held-out labels of a
five-fold cross-validation. Four standard deviations are then compared on all other cells:

    members    standard deviation over the ensemble's members, as in a search with --kernel_share 0
    stretched  the same, times the factor that makes the held-out labels most likely
    constant   one number for all cells: root mean square error on the held-out labels
    kernel     that of the Gaussian process, with its own mean, as in a search by default

A perfect one has coverage .5 and .9 and the smallest negative log-likelihood. Nothing is fitted on the
evaluated cells.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table
from scipy import stats

import spaces
from models.batch import Batch
from models.checkpoint import load_encoder
from models.features.vocabulary import Vocabulary
from models.metrics import normal_scores
from models.predictor.background import Background, reference_cells
from models.predictor.fit import (
    Examples,
    PredictorRecipe,
    background_of,
    fit_ensemble,
    fit_gaussian_process,
    new_networks,
    score_ensemble,
)
from models.predictor.gaussian_process import length_scales
from runtime.errors import main_guard
from runtime.files import path_of, write_json
from runtime.log import output, progress_bar
from runtime.seeding import DeviceSettings, choose_device, mix
from runtime.settings import parse, parse_seeds, part, setting
from spaces.labels.protocols import RANKING_PROTOCOLS, split
from spaces.labels.read import LabelSettings, read_labels
from spaces.metrics import metric_of

FOLDS = 5
PROTOCOL = "gmae"  # trains and evaluates on one kind of accuracy


@dataclass
class Config(PredictorRecipe, DeviceSettings, LabelSettings):
    space: str = setting("nasbench201", spaces.HELP, role="data")
    model_state_dict: str = setting(
        "default", "pre-trained encoder: a last.pt of pretrain.py, or default = the shipped one (empty = "
        "from scratch)", role="data")
    n_labels: int = setting(100, "labels per seed", within=(2 * FOLDS, np.inf), role="data")
    seeds: str = setting("0-4", "independent runs, like 0,1,2 or 0-9", role="data")
    eval_cells: int = setting(
        5000, "cells evaluated, at most (0 = all)", within=(0, np.inf), role="data")
    out: str = setting("results/calibration.json", "file of the JSON record", role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    device, seeds = choose_device(config.device, config.threads), parse_seeds(config.seeds)
    space = spaces.get(config.space)
    labels = read_labels(config.labels, space, config.dataset, metric=metric_of(config))
    checkpoint = load_encoder(config.model_state_dict, space) if config.model_state_dict else None
    table = Batch.of(space.encode_keys(labels.keys)).to(device)
    splits = [split(labels, PROTOCOL, config.n_labels, seed) for seed in seeds]
    rows = np.stack([s.train for s in splits])  # [S, n]
    truth = labels.utility(RANKING_PROTOCOLS[PROTOCOL].train)  # [N]
    examples = Examples(table, rows, truth[rows], seeds)
    evaluated = np.unique(np.concatenate([s.evaluation for s in splits]))  # [E]
    if config.eval_cells:
        evaluated = np.sort(np.random.default_rng(0).permutation(evaluated)[:config.eval_cells])

    ensembles = Ensembles(part(config, PredictorRecipe), space.vocabulary, checkpoint)
    cross = ensembles.held_out_scores(examples)  # [S, m, n]
    final = ensembles.scores(examples, evaluated, FOLDS)  # [S, m, E]
    background = background_of(ensembles.recipe, space.vocabulary, checkpoint).to(device)
    means, deviations = process_posterior(background, examples, evaluated)  # [S, E] each
    runs = []
    for i in range(len(seeds)):
        fresh = ~np.isin(evaluated, rows[i])  # [E]
        place = normal_scores(truth[evaluated[fresh]], truth[rows[i]])  # [E]
        kernel = {"kernel": measures(place - means[i, fresh], deviations[i, fresh])}
        runs.append(calibrate(cross[i], truth[rows[i]], final[i][:, fresh], place) | kernel)
    mean = {
        kind: {what: float(np.mean([run[kind][what] for run in runs])) for what in runs[0][kind]}
        for kind in runs[0]}
    report = {"settings": dataclasses.asdict(config), "labels": labels.name, "target": splits[0].target,
              "runs": runs, "mean": mean}
    write_json(path_of(config.out), report)
    show(report, len(seeds))
    return report


class Ensembles:
    """Fits ensembles of m members for each seed, on all labels or on four fifths of them."""

    def __init__(self, recipe: PredictorRecipe, vocabulary: Vocabulary, checkpoint: dict | None):
        self.recipe, self.vocabulary, self.checkpoint = recipe, vocabulary, checkpoint

    def scores(self, examples: Examples, cells: np.ndarray, fold: int) -> np.ndarray:
        """Fits the examples of S seeds and scores the cells int[E]: float[S, m, E]."""
        m, (table, rows, label, seeds, _) = self.recipe.members, examples
        members = [mix(seed, fold, i) for seed in seeds for i in range(m)]
        networks = new_networks(self.recipe, len(self.vocabulary), self.checkpoint, members)
        ensemble = fit_ensemble(
            self.recipe, networks, Examples(table, rows.repeat(m, 0), label.repeat(m, 0), members))
        return score_ensemble(ensemble, table, cells).reshape(len(seeds), m, -1)

    def held_out_scores(self, examples: Examples) -> np.ndarray:
        """float[S, m, n]: the score of every label by members that did not see it."""
        table, rows, label, seeds, _ = examples
        m, (S, n) = self.recipe.members, rows.shape
        out = np.empty((S, m, n))
        folds = np.array_split(np.arange(n), FOLDS)  # the labels come in random order
        with progress_bar() as bar:
            for fold, left in enumerate(bar.track(folds, description="cross-validation")):
                kept = np.setdiff1d(np.arange(n), left)
                known = Examples(table, rows[:, kept], label[:, kept], seeds)
                every = self.scores(known, rows[:, left].reshape(-1), fold)  # [S, m, S |left|]
                out[:, :, left] = np.stack([scores.reshape(m, S, -1)[:, i] for i, scores in enumerate(every)])
        return out


@torch.no_grad()
def process_posterior(background: Background, examples: Examples,
                      cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float[S, E] each, of a cell's normal score under the Gaussian process."""
    table = examples.table
    process = fit_gaussian_process(background, length_scales(background(reference_cells(table))), examples)
    mean, std = process.posterior(background(table.rows(torch.as_tensor(cells, device=table.ops.device))))
    return mean.cpu().numpy(), (std**2 + process.noise[:, None]).sqrt().cpu().numpy()


def calibrate(cross: np.ndarray, label: np.ndarray, final: np.ndarray, place: np.ndarray) -> dict:
    """{kind: {"coverage50", "coverage90", "nll"}} of the normal scores, for each standard deviation.

    cross float[m, n]: held-out scores of the labels float[n]; final float[m, E]: scores of the cells whose
    normal scores are place float[E].
    """
    known = normal_scores(label, label)  # [n]
    slope, offset = np.polyfit(cross.mean(0), known, 1)
    slope = max(slope, 1e-6)
    error = known - (slope * cross.mean(0) + offset)  # [n]
    deviation = np.maximum(slope * cross.std(0, ddof=1), 1e-3)  # [n]
    factor = np.sqrt(np.mean((error / deviation) ** 2))  # the most likely one, for normal errors
    off = place - (slope * final.mean(0) + offset)  # [E]
    width = np.maximum(slope * final.std(0, ddof=1), 1e-3)  # [E]
    kinds = {
        "members": width,
        "stretched": factor * width,
        "constant": np.full_like(width, np.sqrt(np.mean(error**2))),
    }
    return {kind: measures(off, std) for kind, std in kinds.items()}


def measures(off: np.ndarray, std: np.ndarray) -> dict[str, float]:
    """Coverage and negative log-likelihood of off float[E] = truth - prediction under std float[E]."""
    z = np.abs(off / std)
    return {
        "coverage50": float(np.mean(z < stats.norm.ppf(0.75))),
        "coverage90": float(np.mean(z < stats.norm.ppf(0.95))),
        "nll": float(-np.mean(stats.norm.logpdf(off, scale=std))),
    }


def show(report: dict, runs: int) -> None:
    settings = report["settings"]
    table = Table("standard deviation", "coverage of 50 %", "coverage of 90 %", "negative log-likelihood",
                  title=f"{settings['space']}, {settings['n_labels']} labels, {settings['members']} members, "
                        f"{runs} seeds")
    for kind, values in report["mean"].items():
        table.add_row(kind, *(f"{values[what]:.3f}" for what in ("coverage50", "coverage90", "nll")))
    output.print(table)
    output.print(f"labels: {report['labels']}\nwritten: {settings['out']}")


if __name__ == "__main__":
    main_guard(main)
