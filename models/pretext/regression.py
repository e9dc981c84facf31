"""Pretext tasks that predict facts about an architecture: its paths, its responses to images, its cost.

N graphs of a table (B in a batch), V vertices, T regression targets, R real vertices of all tables.
"""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.encoders.layers import average
from models.features.flow import flow_targets
from models.features.operations import CLASSES, classes
from models.features.properties import portable_targets, property_targets
from models.features.signature import signatures
from models.features.vocabulary import Vocabulary
from models.pretext.heads import mlp

TARGETS = {"flow": lambda table, words: flow_targets(table.ops, table.adj, table.node_mask, len(words)),
           "signature": lambda table, words: signatures(table.ops, table.adj, table.node_mask, words),
           "properties": property_targets}
PORTABLE = TARGETS | {  # the same for a vocabulary of many spaces: nothing is told per operation
    "flow": lambda table, words: flow_targets(
        classes(words).to(table.ops)[table.ops.long()], table.adj, table.node_mask, CLASSES),
    "properties": portable_targets}


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


def target_tables(tables: list[Batch], tasks: tuple[str, ...], vocabulary: Vocabulary,
                  chunk: int = 8192) -> tuple[list[torch.Tensor | None], dict[str, int]]:
    """The targets of all tasks in TARGETS, half[N, V, T] per table, and {task: its number of targets}.

    They are standardised over the real vertices of all tables; constant ones are dropped. None per table, and
    {}, if no task has targets. More than one table: the targets are the PORTABLE ones.
    """
    functions = TARGETS if len(tables) == 1 else PORTABLE
    columns, target_sizes = [[] for _ in tables], {}
    for task in tasks:
        if task not in functions:
            continue
        values = []
        for table in tables:
            rows = torch.arange(table.num_graphs, device=table.ops.device).split(chunk)
            values.append(torch.cat([functions[task](table.rows(r), vocabulary) for r in rows]))  # [N, V, T]
        at_real = torch.cat([value[table.node_mask] for value, table in zip(values, tables)])  # [R, T]
        std, mean = torch.std_mean(at_real, dim=0)  # [T]
        varies = std > 1e-3
        for column, value, table in zip(columns, values, tables):
            value = (value[..., varies] - mean[varies]) / std[varies] * table.node_mask[..., None]
            column.append(value.half())  # a whole space of these stays on the device
        target_sizes[task] = int(varies.sum())
    return [torch.cat(column, dim=-1) if column else None for column in columns], target_sizes
