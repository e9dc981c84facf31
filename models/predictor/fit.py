"""Fits predictors: M networks together on few labels, and the whole predictor for S seeds.

    predictor = fit_predictor(recipe, space.vocabulary, checkpoint, Examples(table, rows, label, seeds))
    scores = score_cells(predictor, table)                      # float[S, N]

S seeds, m members of each, M = S m networks, n labels, N graphs in a table, b labels per step, D' width of a
readout.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.batch import Batch
from models.encoders import ENCODERS, build_encoder, encoder_config
from models.features.vocabulary import Vocabulary
from models.predictor.background import Background, reference_cells
from models.predictor.blend import BlendedPredictor
from models.predictor.child_tuning import ChildTuning
from models.predictor.ensemble import AdamW, Ensemble, Flat, clip_gradients
from models.predictor.gaussian_process import MEAN, TRUST, GaussianProcess, Scale, learnable, length_scales
from models.predictor.losses import LOSSES, hinge
from models.predictor.network import PredictorNetwork
from models.predictor.prior import load_prior
from runtime.errors import InputError
from runtime.seeding import mix, seeded
from runtime.settings import setting
from runtime.threads import on_pieces

FEW = 10  # labels up to which the Gaussian process, with the prior as its mean, ranks alone


@dataclass
class PredictorRecipe:
    """How a predictor is built and fitted."""

    base_model: str = setting(
        "", "encoder; empty = the checkpoint's, or transformer from scratch", ("", *ENCODERS))
    width: int = setting(64, "width D of the encoder, from scratch", within=(1, 4096))
    layers: int = setting(4, "layers of the encoder, from scratch", within=(1, 100))
    heads: int = setting(4, "attention heads of the encoder, from scratch", within=(1, 64))
    direction: bool = setting(
        True, "transformer, from scratch: tell forward from backward (off = an ablation)")
    dropout: float = setting(0.2, "dropout of the encoder", within=(0, 0.95))
    predictor_dropout: float = setting(0.0, "dropout of the MLP head", within=(0, 0.95))
    finetune_fixed_encoder: bool = setting(
        False, "train the MLP head only, on the embeddings of the frozen encoder")
    finetune_batch_size: int = setting(
        0, "batch size (0 = 64; the paper: a tenth of the labels)", within=(0, math.inf))
    epochs: int = setting(
        0, "passes over the labels (0 = 80, or 80 (424 / labels)^(1/4) for more than 424 labels)",
        within=(0, math.inf))
    lr_encoder: float = setting(2e-3, "peak learning rate of the encoder", within=(0, math.inf))
    gentle_below: int = setting(
        200, "for n labels below this, a pre-trained encoder learns at sqrt(n / this) of lr_encoder; "
        "0 = never", within=(0, math.inf))
    lr_predictor: float = setting(2e-3, "peak learning rate of the MLP head", within=(0, math.inf))
    weight_decay: float = setting(1e-2, "AdamW weight decay", within=(0, math.inf))
    warmup: float = setting(
        0.1, "share of the steps in which the learning rate rises; then it falls as a cosine", within=(0, 1))
    loss: str = setting("soft_bce", "ranking loss", tuple(LOSSES))
    hinge_margin: float = setting(0.1, "margin of the hinge loss", within=(0, math.inf))
    child_tuning_mode: str = setting(
        "F", "Child-Tuning: F = random entries, D = those of the largest Fisher information", ("F", "D"))
    child_tuning_p: float = setting(
        1.0, "Child-Tuning: share of the encoder's gradient entries that are kept (1 = no Child-Tuning)",
        within=(0.001, 1))
    members: int = setting(
        5, "predictors in the ensemble of one seed, whose scores are averaged", within=(1, 100))
    kernel_share: float = setting(
        0.2, "share of kernel regression, here a Gaussian process on the pre-trained embedding and on "
        f"analytic properties, in the score, or {FEW} / labels if that is more; of the rest it gets what "
        "it explains by places, which networks do not see (0 = the ensemble alone, 1 = the process alone)",
        within=(0, 1))
    prior: str = setting(
        "default", "ranking without labels, learned on other spaces, that the predictor starts from: a "
        "prior.pt of benchmarks.prior, or default = the shipped one (empty = none)")


class Examples(NamedTuple):
    """Training data of M networks or S seeds: number m learns the graphs rows[m] with accuracies label[m].

    table   N graphs, on the device to train on
    rows    int[M, n]
    label   float[M, n], higher is better
    seeds   one per row
    offset  float[M, n], added to the score of a network; None = 0
    """

    table: Batch
    rows: np.ndarray
    label: np.ndarray
    seeds: list[int]
    offset: torch.Tensor | None = None


# Before the first step --------------------------------------------------------------------------------------

def new_networks(recipe: PredictorRecipe, operations: int, checkpoint: dict | None,
                 seeds: Sequence[int]) -> list[PredictorNetwork]:
    """Builds one network per seed.

    Weights come from the seed; a checkpoint, if given, replaces the encoder's. The checkpoint of a whole
    predictor replaces all weights, by those of its members in turn.
    """
    config = encoder_of(recipe, checkpoint)
    networks = []
    stored = checkpoint.get("members") if checkpoint else None
    for i, seed in enumerate(seeds):
        with seeded(seed, 1):
            network = PredictorNetwork(
                build_encoder(config, operations, recipe.dropout), recipe.predictor_dropout)
        if stored:
            network.load_state_dict(stored[i % len(stored)])
        elif checkpoint:
            network.encoder.load_state_dict(checkpoint["weights"])
        network.pretrained = checkpoint is not None
        networks.append(network)
    return networks


def encoder_of(recipe: PredictorRecipe, checkpoint: dict | None) -> dict:
    """The encoder's config: the checkpoint's, else the recipe's. Raises InputError if the two contradict."""
    if checkpoint is None:
        return encoder_config(dataclasses.replace(recipe, base_model=recipe.base_model or "transformer"))
    stored = checkpoint["encoder"]
    if recipe.base_model not in ("", stored["base_model"]):
        raise InputError(
            f"base_model is {recipe.base_model}, the pre-trained encoder is a {stored['base_model']}: "
            "pre-train that one, or leave base_model out")
    return stored


def frozen_encoder(content: dict, weights: dict | None) -> nn.Module | None:
    """Builds the pre-trained encoder, in eval mode; None without weights.

    content: of a checkpoint, with the config `encoder` and the `ops`.
    """
    if weights is None:
        return None
    encoder = build_encoder(content["encoder"], len(content["ops"]), 0.0)
    encoder.load_state_dict(weights)
    return encoder.eval()


# Training an ensemble ---------------------------------------------------------------------------------------

def fit_ensemble(recipe: PredictorRecipe, networks: list[PredictorNetwork], examples: Examples,
                 on_step: Callable[[], None] = lambda: None) -> Ensemble:
    """Trains network m on the examples of m, all M together; returns the ensemble in eval mode.

    Each seed decides all draws of its member (order of the labels, dropout, Child-Tuning), so that a member
    becomes the same, up to rounding, in any company. on_step() is called after every step,
    `steps(recipe, n)` times. Raises InputError if the training diverges.
    """
    table, rows, _, seeds, _ = examples
    ensemble = Ensemble(networks).to(table.ops.device)
    rows = torch.as_tensor(rows, device=table.ops.device)  # [M, n]
    if recipe.finetune_fixed_encoder:  # the encoder never changes: embed once, train the heads alone
        inputs = embeddings(ensemble, table, rows)  # [M, n, D']
        trained = Ensemble([network.head for network in networks]).to(table.ops.device)
    else:
        inputs, trained = table.rows(rows), ensemble  # fields [M, n, ...]
    loss_of = batch_loss(recipe, trained, inputs, examples)
    optimiser = grouped_optimiser(
        recipe, trained, learning_rates(recipe, networks[0].pretrained, rows.shape[1]))
    trained.seed([partial(mix, seed, 4) for seed in seeds])
    optimise(recipe, trained, optimiser, loss_of, examples, on_step)
    if recipe.finetune_fixed_encoder:
        for name, value in trained.params.items():
            ensemble.params[f"head.{name}"].data.copy_(value)
    if not all(p.isfinite().all() for p in ensemble.params.values()):
        raise InputError("training diverged (a weight is not finite): lower --lr_encoder and --lr_predictor")
    return ensemble.eval()


def standardised(examples: Examples) -> torch.Tensor:
    """float[M, n]: each member's labels with mean 0 and variance 1."""
    label = torch.as_tensor(examples.label, dtype=torch.float32, device=examples.table.ops.device)  # [M, n]
    return (label - label.mean(1, keepdim=True)) / label.std(1, keepdim=True).clamp(min=1e-8)


def batch_loss(recipe: PredictorRecipe, trained: Ensemble, inputs: Batch | torch.Tensor,
               examples: Examples) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the function from a step's index long[M, b] to its scalar loss, the sum over the members."""
    loss = partial(hinge, margin=recipe.hinge_margin) if recipe.loss == "hinge" else LOSSES[recipe.loss]
    label, offset = standardised(examples), examples.offset  # [M, n] each

    def of_batch(index: torch.Tensor) -> torch.Tensor:
        score = trained(gather_rows(inputs, index))  # [M, b]
        score = score if offset is None else score + offset.gather(1, index)
        return loss(score, label.gather(1, index)).sum()

    return of_batch


def learning_rates(recipe: PredictorRecipe, pretrained: bool, n: int) -> dict[str, float]:
    """Peak learning rates of encoder and head; a pre-trained encoder learns more slowly from few labels."""
    gentle = min(1.0, n / recipe.gentle_below) ** 0.5 if pretrained and recipe.gentle_below else 1.0
    return {"encoder": recipe.lr_encoder * gentle, "head": recipe.lr_predictor}


def grouped_optimiser(recipe: PredictorRecipe, trained: Ensemble, peaks: dict[str, float]) -> AdamW:
    """AdamW over two flat tensors, encoders' parameters and heads', each with its peak learning rate."""
    of_encoder = [p for name, p in trained.params.items() if name.startswith("encoder.")]
    of_head = [p for name, p in trained.params.items() if not name.startswith("encoder.")]
    groups = [(Flat(params), peak)
              for params, peak in ((of_encoder, peaks["encoder"]), (of_head, peaks["head"])) if params]
    return AdamW(groups, recipe.weight_decay)


def optimise(recipe: PredictorRecipe, trained: Ensemble, optimiser: AdamW,
             loss_of: Callable[[torch.Tensor], torch.Tensor], examples: Examples,
             on_step: Callable[[], None]) -> None:
    """Runs all epochs: warm-up and cosine, Child-Tuning, gradients clipped per member."""
    seeds, device, n = examples.seeds, examples.table.ops.device, examples.rows.shape[1]
    orders = [torch.Generator().manual_seed(mix(seed, 2)) for seed in seeds]

    def batches() -> Sequence[torch.Tensor]:  # one epoch: index long[M, b] into each member's labels
        shuffled = torch.stack([torch.randperm(n, generator=order) for order in orders]).to(device)  # [M, n]
        return shuffled.tensor_split(batches_per_epoch(recipe, n), dim=1)

    child = ChildTuning(recipe.child_tuning_mode, recipe.child_tuning_p,
                        [torch.Generator(device).manual_seed(mix(seed, 3)) for seed in seeds])
    trained.train()
    child.measure(trained, (partial(loss_of, index) for index in batches()))
    step, total = 0, steps(recipe, n)
    for _ in range(epochs(recipe, n)):
        for index in batches():
            for grad in optimiser.grads:
                grad.zero_()
            loss_of(index).backward()
            child.mask(trained)
            clip_gradients(optimiser.grads, 5.0)
            optimiser.step(warm_cosine(step / total, recipe.warmup))
            step += 1
            on_step()


def steps(recipe: PredictorRecipe, n: int) -> int:
    """The number of optimiser steps of an ensemble on n labels."""
    return epochs(recipe, n) * batches_per_epoch(recipe, n)


def epochs(recipe: PredictorRecipe, n: int) -> int:
    return recipe.epochs or round(80 * min(1, (424 / max(1, n)) ** 0.25))


def batches_per_epoch(recipe: PredictorRecipe, n: int) -> int:
    # Batches have nearly equal sizes: a ranking loss needs pairs in the last one, too.
    return max(1, round(n / (recipe.finetune_batch_size or 64)))


def warm_cosine(progress: float, warmup: float) -> float:
    """Factor of the learning rate at a share of the steps: linear rise over `warmup`, then a cosine to 0."""
    if progress < warmup:
        return (progress + 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def gather_rows(inputs: Batch | torch.Tensor, index: torch.Tensor) -> Batch | torch.Tensor:
    """The rows at index [M, b] of inputs, a tensor or a Batch of tensors [M, n, ...] -> [M, b, ...]."""
    member = torch.arange(index.shape[0], device=index.device)[:, None]  # [M, 1]
    return (Batch(*(field[member, index] for field in inputs)) if isinstance(inputs, Batch)
            else inputs[member, index])


# The whole predictor ----------------------------------------------------------------------------------------

def fit_predictor(
    recipe: PredictorRecipe, vocabulary: Vocabulary, checkpoint: dict | None, examples: Examples,
    on_step: Callable[[], None] = lambda: None
) -> BlendedPredictor:
    """Fits the predictor of S seeds: `members` networks each and, for `kernel_share`, a Gaussian process.

    vocabulary: of the space. checkpoint: of `models.checkpoint.load_encoder`; None = from scratch. Without
    labels, n = 0, the process with its prior is all there is.
    """
    table, rows, label, seeds, _ = examples
    share = share_of(recipe, rows.shape[1])
    if not (rows.shape[1] or recipe.prior):
        raise InputError("without labels the prior is all there is: leave --prior at default")
    background = background_of(recipe, vocabulary, checkpoint).to(table.ops.device)
    scales = length_scales(background(reference_cells(table)))
    process = fit_gaussian_process(background, scales, examples) if share else None
    predictor = BlendedPredictor(None, len(seeds), background, process, share).to(table.ops.device)
    if share == 1:
        return predictor
    m, offset = recipe.members, None
    if background.prior is not None:
        predictor.offset = prior_offset(scales[MEAN], process, len(seeds)).to(table.ops.device)
        cells = table.rows(torch.as_tensor(rows, device=table.ops.device))  # [S, n]
        prior = torch.stack([background.offset(Batch(*fields)) for fields in zip(*cells)])  # [S, n]
        offset = (predictor.offset[0, :, None] + predictor.offset[1, :, None] * prior).repeat_interleave(m, 0)
    members = [mix(seed, i) for seed in seeds for i in range(m)]
    networks = new_networks(recipe, len(vocabulary), checkpoint, members)
    predictor.ensemble = fit_ensemble(
        recipe, networks, Examples(table, rows.repeat(m, 0), label.repeat(m, 0), members, offset), on_step)
    return predictor.fit_scale(table)


def predictor_steps(recipe: PredictorRecipe, n: int) -> int:
    """The number of optimiser steps of `fit_predictor` on n labels; 0 if it fits no networks."""
    return 0 if share_of(recipe, n) == 1 else steps(recipe, n)


def share_of(recipe: PredictorRecipe, n: int) -> float:
    """The share of the Gaussian process in the score: the recipe's, more with few labels, all with none."""
    if not recipe.kernel_share and n:
        return 0.0
    return max(recipe.kernel_share, min(1.0, FEW / max(1, n)))


def background_of(recipe: PredictorRecipe, vocabulary: Vocabulary, checkpoint: dict | None) -> Background:
    """What is known without labels: the recipe's prior, and the embedding of the checkpoint's encoder."""
    prior = load_prior(vocabulary, recipe.prior) if recipe.prior else None
    encoder = checkpoint and frozen_encoder(checkpoint, checkpoint["weights"])
    return Background(vocabulary, encoder, prior)


def fit_gaussian_process(
    background: Background, scales: dict[str, Scale], examples: Examples
) -> GaussianProcess:
    """Fits a Gaussian process for S seeds. scales: of the features of reference cells."""
    table, rows, label, *_ = examples
    if rows.shape[1] == 0:
        seen = {name: scale.mean.new_zeros(*rows.shape, len(scale.mean)) for name, scale in scales.items()}
    else:
        cells = table.rows(torch.as_tensor(rows.reshape(-1), device=table.ops.device))  # S n graphs
        seen = {name: feature.unflatten(0, rows.shape) for name, feature in background(cells).items()}
    seen, beliefs = learnable({name: x.to(table.ops.device) for name, x in seen.items()}, rows.shape[1])
    return GaussianProcess.fit(seen, scales, label, beliefs)


def prior_offset(scale: Scale, process: GaussianProcess | None, seeds: int) -> torch.Tensor:
    """float[2, S]: constant and slope of the offset of a seed's networks over the prior's score.

    A standard deviation of the prior adds what the process trusts it, which is below what `soft_bce` wants
    for a standard deviation of the labels, 1 / SOFTNESS: networks unlearn a strong offset badly.
    """
    trust = (torch.full((seeds,), TRUST) if process is None
             else process.trust[:, process.means.index(MEAN)].cpu())  # [S]
    slope = trust / scale.scale  # [S]
    return torch.stack([-slope * scale.mean, slope])


# Scoring: eval mode and no gradients, always through `score_in_chunks` --------------------------------------

def embeddings(ensemble: Ensemble, table: Batch, rows: torch.Tensor) -> torch.Tensor:
    """rows [M, n] -> embeddings [M, n, D'], in eval mode."""
    ensemble.eval()
    pieces = rows.split(max(1, 1024 // ensemble.size), dim=1)
    return torch.cat(on_pieces(lambda piece: ensemble(table.rows(piece), method="embed"), pieces,
                               ensemble.accepts_stacked_parameters), dim=1)


def score_ensemble(ensemble: Ensemble, table: Batch, rows: np.ndarray | None = None) -> np.ndarray:
    """The scores float[M, N] of the graphs `rows` (int[N]; None = all) by every member, in eval mode."""
    ensemble.eval()
    return score_in_chunks(lambda batch: ensemble(batch.expand(ensemble.size)), table, rows,
                           table.piece // ensemble.size, ensemble.accepts_stacked_parameters)


def score_cells(predictor: BlendedPredictor, table: Batch, rows: np.ndarray | None = None) -> np.ndarray:
    """The scores float[S, N] of the graphs `rows` (int[N]; None = all)."""
    predictor.eval()
    together = predictor.ensemble is None or predictor.ensemble.accepts_stacked_parameters
    return score_in_chunks(predictor, table, rows, table.piece, together)


def score_in_chunks(scorer: Callable[[Batch], torch.Tensor], table: Batch, rows: np.ndarray | None,
                    size: int, together: bool) -> np.ndarray:
    """The scores float[..., N] by `scorer` of the graphs `rows` of the table, at most `size` at a time.

    together: whether several threads may call the scorer.
    """
    rows = torch.arange(table.num_graphs) if rows is None else torch.as_tensor(rows)
    pieces = rows.to(table.ops.device).split(max(1, size))
    scores = on_pieces(lambda piece: scorer(table.rows(piece)).cpu(), pieces, together)
    return torch.cat(scores, dim=-1).numpy()
