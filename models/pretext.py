"""Pretext tasks of pre-training: none of them reads a label.

    mask        hide operations, reconstruct them (the paper's masked autoencoder)
    flow        tell for every vertex, and for the whole cell, which paths run through it (`models.flow`)
    signature   the same for what the cell, with random weights, does to random images (`models.signature`)
    properties  the same for depth, width, receptive field, parameters and the like (`models.properties`)
    edges       hide edges, tell which pairs of vertices had one
    contrast    find the second of two views of a cell, each with operations hidden, among other cells and one-edit
                neighbours (`models.contrast`)
    graphcl, mvgrl, bgrl, grace, barlow_twins
                the contrastive tasks of the literature (`models.contrastive`)

What the others hide, and their losses, is in `models.tasks`.
"""
from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from models.batch import Batch
from models.contrastive import CONTRASTIVE, Viewing
from models.flow import flow_targets
from models.properties import property_targets
from models.signature import signatures
from models.tasks import Contrast, Edges, Masked, Regressed

TARGETS = {"flow": lambda table, names: flow_targets(table.ops, table.adj, table.real, len(names)),
           "signature": lambda table, names: signatures(table.ops, table.adj, table.real, names),
           "properties": property_targets}
TASKS = ("mask", *TARGETS, "edges", "contrast", *CONTRASTIVE)
MODEL_TYPES = {"mae": "mask"} | {name: name for name in CONTRASTIVE}  # --model_type: task


class Beside(NamedTuple):
    """How much a task counts beside others, and the share of the batch that it takes; alone it has both in full."""

    weight: float = 1.0
    share: float = 1.0


# Whatever hides a part of the cell says little about how the whole cell behaves.
BESIDE = dict.fromkeys(("mask", "edges", "contrast", *CONTRASTIVE), Beside(0.1, 0.25))


class Hiding(NamedTuple):
    """Settings of the tasks that hide something."""

    mask_ratio: float = 0.5  # mask: share of the operations
    target: str = "masked"  # mask: the vertices that its loss looks at, masked | all
    edge_ratio: float = 0.3  # edges: share of the pairs of vertices
    view_ratio: float = 0.25  # contrast: share of the operations in each view
    temperature: float = 0.2  # contrast: of its softmax


class Pretext(nn.Module):
    """The encoder with the tasks, each with its head. forward(batch, target, generator) -> {task: scalar loss}.

    `widths` says how many targets each task of TARGETS has (`target_table`).
    """

    def __init__(self, encoder: nn.Module, tasks: tuple[str, ...], widths: dict[str, int], hiding: Hiding = Hiding(),
                 viewing: Viewing = Viewing()):
        super().__init__()
        self.encoder, self.alone = encoder, len(tasks) == 1
        make = {"mask": lambda: Masked(encoder, hiding.mask_ratio, hiding.target),
                "regressed": lambda: Regressed(encoder, widths),
                "edges": lambda: Edges(encoder, hiding.edge_ratio),
                "contrast": lambda: Contrast(encoder, hiding.view_ratio, hiding.temperature),
                **{name: partial(task, encoder, viewing) for name, task in CONTRASTIVE.items()}}
        names = dict.fromkeys("regressed" if task in TARGETS else task for task in tasks)
        self.tasks = nn.ModuleDict({name: make[name]() for name in names})

    def forward(self, batch: Batch, target: torch.Tensor | None, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """target float[B, V, T]: the standardised targets of the tasks in TARGETS, side by side (`target_table`)."""
        losses = {}
        for name, task in self.tasks.items():
            share = 1.0 if self.alone else BESIDE.get(name, Beside()).share
            some = batch.rows(slice(max(1, int(batch.graphs * share))))
            losses |= task(self.encoder, some, target, generator)
        return losses


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is minimised."""
    return sum(loss * (BESIDE.get(task, Beside()).weight if len(losses) > 1 else 1.0) for task, loss in losses.items())


def target_table(table: Batch, tasks: tuple[str, ...], names: tuple[str, ...], chunk: int = 8192) -> tuple:
    """Targets of all tasks in TARGETS, half[N, V, T], standardised over real vertices, and {task: its share of T}.

    Numbers that are the same at every vertex are dropped. (None, {}) where no task has targets.
    """
    columns, widths = [], {}
    for task in tasks:
        if task not in TARGETS:
            continue
        rows = torch.arange(table.graphs, device=table.ops.device).split(chunk)
        value = torch.cat([TARGETS[task](table.rows(r), names) for r in rows])  # [N, V, T]
        at_real = value[table.real]  # [n, T]
        std, mean = torch.std_mean(at_real, dim=0)  # [T]
        varies = std > 1e-3
        value = (value[..., varies] - mean[varies]) / std[varies] * table.real[..., None]
        columns.append(value.half())  # a whole space of these stays on the device
        widths[task] = int(varies.sum())
    return (torch.cat(columns, dim=-1), widths) if columns else (None, {})
