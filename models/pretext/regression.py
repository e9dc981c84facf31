"""Pretext tasks that predict facts about an architecture: its paths, its responses to images, its cost.

N graphs of a table (B in a batch), V vertices, T regression targets.
"""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.encoders.layers import average
from models.features.flow import flow_targets
from models.features.properties import property_targets
from models.features.signature import signatures
from models.features.vocabulary import Vocabulary
from models.pretext.heads import mlp

TARGETS = {"flow": lambda table, words: flow_targets(table.ops, table.adj, table.node_mask, len(words)),
           "signature": lambda table, words: signatures(table.ops, table.adj, table.node_mask, words),
           "properties": property_targets}


class PropertyRegression(nn.Module):
    """Predicts standardised facts about every vertex, and those about the outputs from the readout.

    target_sizes: {task: its number of targets}, T in all.
    """

    def __init__(self, encoder: nn.Module, target_sizes: dict[str, int]):
        super().__init__()
        self.target_sizes = target_sizes
        self.vertex_head = mlp(encoder.width, sum(target_sizes.values()))
        self.cell_head = mlp(encoder.readout_width, sum(target_sizes.values()))

    def forward(self, encoder: nn.Module, batch: Batch, target: torch.Tensor,
                generator: torch.Generator) -> dict:
        """target float[B, V, T]: the facts of all its tasks side by side."""
        h = encoder(batch)  # [B, V, D]
        at_vertex = (self.vertex_head(h) - target).square() * batch.node_mask[..., None]  # [B, V, T]
        truth = average(target, batch.is_output.float())  # [B, T]
        of_cell = self.cell_head(encoder.readout(h, batch)) - truth  # [B, T]
        error = at_vertex.sum((0, 1)) / batch.node_mask.sum() + of_cell.square().mean(0)  # [T]
        return dict(zip(self.target_sizes, (e.mean() for e in error.split(list(self.target_sizes.values())))))


def target_table(table: Batch, tasks: tuple[str, ...], vocabulary: Vocabulary, chunk: int = 8192) -> tuple:
    """The targets of all tasks in TARGETS, half[N, V, T], and {task: its number of targets}.

    They are standardised over real vertices; constant ones are dropped. (None, {}) if no task has targets.
    """
    columns, target_sizes = [], {}
    for task in tasks:
        if task not in TARGETS:
            continue
        rows = torch.arange(table.num_graphs, device=table.ops.device).split(chunk)
        value = torch.cat([TARGETS[task](table.rows(r), vocabulary) for r in rows])  # [N, V, T]
        at_real = value[table.node_mask]  # [n, T]
        std, mean = torch.std_mean(at_real, dim=0)  # [T]
        varies = std > 1e-3
        value = (value[..., varies] - mean[varies]) / std[varies] * table.node_mask[..., None]
        columns.append(value.half())  # a whole space of these stays on the device
        target_sizes[task] = int(varies.sum())
    return (torch.cat(columns, dim=-1), target_sizes) if columns else (None, {})
