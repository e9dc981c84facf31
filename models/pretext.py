"""Pretext tasks of pre-training: none of them reads a label.

    mask        hide operations, reconstruct them (the paper's masked autoencoder)
    flow        tell for every vertex, and for the whole cell, which paths run through it (`models.flow`)
    signature   the same for what the cell, with random weights, does to random images (`models.signature`)

Mask convention: `masked` is bool[B, V], True where the operation of a vertex is hidden from the encoder. Never at padding.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch
from models.decoder import Decoder
from models.encoder import average
from models.flow import flow_targets
from models.signature import signatures

TARGETS = {"flow": lambda table, names: flow_targets(table.ops, table.adj, table.real, len(names)),
           "signature": lambda table, names: signatures(table.ops, table.adj, table.real, names)}
TASKS = ("mask", *TARGETS)


class Pretext(nn.Module):
    """The encoder with a head for each task. forward(batch, target, generator) -> {task: scalar loss}.

    The mask task hides `mask_ratio` of the operations and looks at the `target` vertices (masked | all). Beside other
    tasks it takes the first quarter of the batch: masked operations say little about how a whole cell behaves.
    """

    def __init__(self, encoder: nn.Module, tasks: tuple[str, ...], widths: dict[str, int], mask_ratio: float, target: str):
        super().__init__()
        self.encoder, self.tasks, self.widths, self.mask_ratio, self.target = encoder, tasks, widths, mask_ratio, target
        if "mask" in tasks:
            self.decoder = Decoder(encoder.width, encoder.operations)
        if widths:
            self.vertex_head = mlp(encoder.width, sum(widths.values()))
            self.cell_head = mlp(encoder.readout_width, sum(widths.values()))

    def forward(self, batch: Batch, target: torch.Tensor | None, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """target float[B, V, T]: the standardised targets of every task but mask, side by side (`target_table`)."""
        losses = {}
        if "mask" in self.tasks:
            some = batch.rows(slice(max(1, batch.graphs // 4) if self.widths else None))
            masked = draw_mask(some.real, self.mask_ratio, generator)  # [B', V]
            logits = self.decoder(self.encoder(some, masked))  # [B', V, K]
            losses["mask"] = reconstruction_loss(logits, some.ops, masked if self.target == "masked" else some.real)
        if self.widths:
            h = self.encoder(batch)  # [B, V, D]
            at_vertex = (self.vertex_head(h) - target).square() * batch.real[..., None]  # [B, V, T]
            of_cell = self.cell_head(self.encoder.readout(h, batch)) - average(target, outputs(batch))  # [B, T]
            error = at_vertex.sum((0, 1)) / batch.real.sum() + of_cell.square().mean(0)  # [T]
            losses |= dict(zip(self.widths, (e.mean() for e in error.split(list(self.widths.values())))))
        return losses


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is minimised: reconstruction counts a tenth beside other tasks."""
    weight = {"mask": 0.1 if len(losses) > 1 else 1.0}
    return sum(weight.get(task, 1.0) * loss for task, loss in losses.items())


def target_table(table: Batch, tasks: tuple[str, ...], names: tuple[str, ...], chunk: int = 8192) -> tuple:
    """Targets of all tasks but mask, half[N, V, T], standardised over real vertices, and {task: its share of T}.

    Numbers that are the same at every vertex are dropped. (None, {}) where mask is the only task.
    """
    columns, widths = [], {}
    for task in tasks:
        if task == "mask":
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


def outputs(batch: Batch) -> torch.Tensor:
    """float[B, V]: 1 at the vertices that feed nothing."""
    return (batch.real & (batch.adj.sum(-1) == 0)).float()


def mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, out))


def draw_mask(real: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """real bool[B, V] -> masked bool[B, V]: max(1, round(ratio n)) of each graph's n real vertices, without replacement."""
    count = (ratio * real.sum(1)).round().clamp(min=1)  # [B]
    key = torch.rand(real.shape, generator=generator, device=real.device).masked_fill(~real, 2.0)  # [B, V]
    return key.argsort(1).argsort(1) < count[:, None]  # [B, V]


def reconstruction_loss(logits: torch.Tensor, ops: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits [B, V, K] against ops [B, V] over the vertices chosen [B, V]."""
    loss = F.cross_entropy(logits.transpose(1, 2), ops.long(), reduction="none")  # [B, V]
    return (loss * chosen).sum() / chosen.sum().clamp(min=1)
