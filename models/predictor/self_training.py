"""Self-training: a predictor's scores of unlabelled cells teach its successor, which then learns the labels.

    predictor = fit_and_teach(recipe, space, checkpoint, Examples(table, rows, label, seeds))

The networks of a first predictor, the teacher, and its Gaussian process agree on more than any of them knows,
and labels are noisy: a network that learns their common score of thousands of cells is better than they are
(Xie et al., "Self-training with Noisy Student", CVPR 2020; on architectures: Luo et al., "Semi-supervised
neural architecture search", NeurIPS 2020).

S seeds, m members of each, M = S m networks, n labels, P unlabelled cells.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.batch import Batch
from models.checkpoint import UNIVERSAL, load_encoder
from models.predictor.blend import BlendedPredictor
from models.predictor.fit import (
    Examples,
    PredictorRecipe,
    encoder_of,
    epochs,
    fit_ensemble,
    fit_predictor,
    new_networks,
    predictor_steps,
    score_cells,
    steps,
)
from models.predictor.network import PredictorNetwork
from runtime.checkpoint import weights_digest
from runtime.seeding import mix
from runtime.settings import setting

ENOUGH, MOST = 200, 20_000  # labels from which a teacher is worth listening to; unlabelled cells
FEWEST = 50  # unlabelled cells; a student learns nothing of fewer
PUPIL = 1000  # the members of a student are numbered from here, so that their draws are their own
TAUGHT, RELEARNT = 0.075, 0.25  # of the epochs of a recipe: on the teacher's scores, then on the labels
GENTLE = 0.5  # of the learning rates, when the student learns the labels


@dataclass
class TaughtRecipe(PredictorRecipe):
    """Self-training."""

    unlabelled: float = setting(
        0, f"from {ENOUGH} labels on: unlabelled cells per label, at most {MOST:,} in all, whose scores by a "
        "first predictor teach a second one (0 = no second one)", within=(0, 1000))


def fit_and_teach(
    recipe: TaughtRecipe, space, checkpoint: dict | None, examples: Examples,
    on_step: Callable[[], None] = lambda: None
) -> BlendedPredictor:
    """`fit_predictor`, and self-training for `recipe.unlabelled` cells of the space per label."""
    teacher = fit_predictor(recipe, space.vocabulary, checkpoint, examples, on_step)
    count = unlabelled(recipe, examples.rows.shape[1])
    if not count or teacher.ensemble is None:
        return teacher
    pool = Batch.of(space.table(count, np.random.default_rng(0))).to(examples.table.ops.device)
    return teach(recipe, space, checkpoint, examples, teacher.eval(), pool, on_step)


def teach(recipe: PredictorRecipe, space, checkpoint: dict | None, examples: Examples,
          teacher: BlendedPredictor, pool: Batch, on_step: Callable[[], None]) -> BlendedPredictor:
    """The student of a teacher: networks from the checkpoint, and the teacher's Gaussian process."""
    table, rows, label, seeds, _ = examples
    m = recipe.members
    said = score_cells(teacher, pool)  # [S, P]
    members = [mix(seed, PUPIL + i) for seed in seeds for i in range(m)]
    everything = np.tile(np.arange(pool.num_graphs), (len(members), 1))  # [M, P]
    first, second = stages(recipe, rows.shape[1])
    taught = fit_ensemble(first, pupils(first, space, checkpoint, members),
                          Examples(pool, everything, said.repeat(m, 0), members), on_step)
    start = {"encoder": encoder_of(recipe, checkpoint), "weights": None,
             "members": [taught.member(i) for i in range(taught.size)]}
    ensemble = fit_ensemble(second, new_networks(second, len(space.ops), start, members),
                            Examples(table, rows.repeat(m, 0), label.repeat(m, 0), members), on_step)
    student = BlendedPredictor(
        ensemble, len(seeds), teacher.background, teacher.process, teacher.share).to(table.ops.device)
    return student.fit_scale(table)


def pupils(recipe: PredictorRecipe, space, checkpoint: dict | None,
           members: list[int]) -> list[PredictorNetwork]:
    """M networks from the checkpoint, but two of five from the universal encoder, if it has the same shape.

    Members that start alike err alike.
    """
    networks = new_networks(recipe, len(space.ops), checkpoint, members)
    if checkpoint is None or "members" in checkpoint or not getattr(space, "cell_marks", True):
        return networks
    other = load_encoder(str(UNIVERSAL), space)
    one, another = ({"direction": True} | of["encoder"] | {"dropout": 0} for of in (checkpoint, other))
    if one == another:
        for i, network in enumerate(networks):
            if i % recipe.members >= recipe.members - 2 * recipe.members // 5:
                network.encoder.load_state_dict(other["weights"])
    return networks


def stages(recipe: PredictorRecipe, n: int) -> tuple[PredictorRecipe, PredictorRecipe]:
    """How a student learns the teacher's scores, then n labels."""
    whole = epochs(recipe, n)
    return (
        dataclasses.replace(recipe, epochs=max(1, round(TAUGHT * whole)), gentle_below=0),
        dataclasses.replace(recipe, epochs=max(1, round(RELEARNT * whole)),
                            lr_encoder=GENTLE * recipe.lr_encoder, lr_predictor=GENTLE * recipe.lr_predictor))


def unlabelled(recipe: TaughtRecipe, n: int) -> int:
    """P, 0 = there is no second predictor."""
    count = min(MOST, round(recipe.unlabelled * n))
    return count if n >= ENOUGH and count >= FEWEST else 0


def universal_digest(recipe: TaughtRecipe, n: int, space) -> str:
    """The SHA-256 of the universal encoder, by which a resumed run knows it; empty if no student reads it."""
    return weights_digest(load_encoder(str(UNIVERSAL), space)["weights"]) if unlabelled(recipe, n) else ""


def all_steps(recipe: TaughtRecipe, n: int) -> int:
    """The number of optimiser steps of `fit_and_teach` on n labels."""
    own, count = predictor_steps(recipe, n), unlabelled(recipe, n)
    if not own or not count:
        return own
    first, second = stages(recipe, n)
    return own + steps(first, count) + steps(second, n)
