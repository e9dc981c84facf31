"""Combines the pretext tasks of pre-training; none of them reads a label.

    mask        hides operations and reconstructs them (the paper's masked autoencoder): masked.py
    flow        predicts, per vertex and for the whole cell, the paths that run through it: regression.py
    signature   the same for the response of the cell, with random weights, to random images
    properties  the same for depth, width, receptive field, parameters and the like
    edges       hides edges and predicts which pairs of vertices have one: masked.py
    contrast    finds the second of two views of a cell, each with operations hidden, among other cells and
                one-edit neighbours: contrast.py
    graphcl, mvgrl, bgrl, grace, barlow_twins
                the contrastive tasks of the literature: two_view.py
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from models.batch import Batch
from models.pretext.contrast import Contrast
from models.pretext.masked import Edges, MaskedOperations
from models.pretext.regression import TARGETS, PropertyRegression
from models.pretext.shared import SharedEncoder
from models.pretext.two_view import CONTRASTIVE, ViewSettings
from runtime.errors import InputError

TASKS = ("mask", *TARGETS, "edges", "contrast", *CONTRASTIVE)
MODEL_TYPES = {"mae": "mask"} | {name: name for name in CONTRASTIVE}  # --model_type: task


COMPARING = ("contrast", "graphcl", "mvgrl", "grace", "barlow_twins")  # they need two graphs in a batch


class TaskWeight(NamedTuple):
    """The weight of a task's loss beside others, and its share of the batch; both are 1 for a single task."""

    weight: float = 1.0
    share: float = 1.0


# Tasks that hide a part of the cell say little about the behaviour of the whole cell.
TASK_WEIGHTS = dict.fromkeys(("mask", "edges", "contrast", *CONTRASTIVE), TaskWeight(0.1, 0.25))


def parse_tasks(text: str) -> tuple[str, ...]:
    """Parses 'mask,flow' to ("mask", "flow"), in the order of TASKS."""
    given = text.split(",")
    unknown = [task for task in given if task not in TASKS]
    if unknown or len(set(given)) < len(given):
        raise InputError(f"--tasks {text}: give a comma list of {', '.join(TASKS)}, each at most once")
    return tuple(task for task in TASKS if task in given)


def need_company(tasks: Sequence[str], batch_size: int) -> None:
    """Raises InputError if a task that compares graphs would see a single one: its loss would be 0."""
    for task in tasks:
        share = TASK_WEIGHTS.get(task, TaskWeight()).share if len(tasks) > 1 else 1.0
        if task in COMPARING and int(batch_size * share) < 2:
            raise InputError(f"--batch_size {batch_size}: task {task} compares graphs and sees one per step: "
                             f"give at least {math.ceil(2 / share)}")


class MaskSettings(NamedTuple):
    """Settings of the tasks that hide something."""

    mask_ratio: float = 0.5  # mask: share of the operations
    target: str = "masked"  # mask: the vertices in its loss, masked | all
    edge_ratio: float = 0.3  # edges: share of the pairs of vertices
    view_ratio: float = 0.25  # contrast: share of the operations in each view
    temperature: float = 0.2  # contrast: of its softmax


class Pretext(nn.Module):
    """The encoder with its tasks and their heads: forward(batch, target, generator) -> {task: scalar loss}.

    target_sizes: number of targets of each task in TARGETS (`target_tables`).
    """

    def __init__(self, encoder: nn.Module, tasks: tuple[str, ...], target_sizes: dict[str, int],
                 masks: MaskSettings = MaskSettings(), views: ViewSettings = ViewSettings()):
        super().__init__()
        self.encoder, self.alone = encoder, len(tasks) == 1
        make = {"mask": lambda: MaskedOperations(encoder, masks.mask_ratio, masks.target),
                "regressed": lambda: PropertyRegression(encoder, target_sizes),
                "edges": lambda: Edges(encoder, masks.edge_ratio),
                "contrast": lambda: Contrast(encoder, masks.view_ratio, masks.temperature),
                **{name: partial(task, encoder, views) for name, task in CONTRASTIVE.items()}}
        names = dict.fromkeys("regressed" if task in TARGETS else task for task in tasks)
        self.tasks = nn.ModuleDict({name: make[name]() for name in names})

    def forward(self, batch: Batch, target: torch.Tensor | None, generator: torch.Generator,
                shared: SharedEncoder | None = None) -> dict[str, torch.Tensor]:
        """target float[B, V, T]: the rows of the batch in the `target_tables` of the tasks in TARGETS.

        shared: the encoder, if several processes share each batch.
        """
        losses, encoder = {}, shared or self.encoder
        for name, task in self.tasks.items():
            share = 1.0 if self.alone else TASK_WEIGHTS.get(name, TaskWeight()).share
            some = batch.rows(slice(max(1, int(batch.num_graphs * share))))
            losses |= task(encoder, some, target, generator)
        return losses


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss that pre-training minimises: the weighted sum over the tasks."""
    return sum(loss * (TASK_WEIGHTS.get(task, TaskWeight()).weight if len(losses) > 1 else 1.0)
               for task, loss in losses.items())
