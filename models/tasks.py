"""The pretext tasks one by one: what each hides from the encoder, its head, its loss. `models.pretext` puts them together.

Every task is called alike: task(encoder, batch, target, generator) -> {name: scalar loss}, where only `Regressed` reads
the target. Mask convention: True where something is hidden from the encoder; never at padding.

B graphs, V vertices, D width of the encoder, K operations, T regression targets.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch, relations
from models.contrast import identities, info_nce, neighbours
from models.decoder import Decoder
from models.encoder import average

PROJECTION = 64  # width in which views are compared


class Masked(nn.Module):
    """Hide `ratio` of the operations, reconstruct them at the `target` vertices: masked | all (Jing et al., IJCAI 2022)."""

    def __init__(self, encoder: nn.Module, ratio: float, target: str):
        super().__init__()
        self.ratio, self.target = ratio, target
        self.decoder = Decoder(encoder.width, encoder.operations)

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        masked = draw_mask(batch.real, self.ratio, generator)  # [B, V]
        logits = self.decoder(encoder(batch, masked))  # [B, V, K]
        return {"mask": reconstruction_loss(logits, batch.ops, masked if self.target == "masked" else batch.real)}


class Regressed(nn.Module):
    """Tell standardised facts about every vertex, and of the outputs from the readout. `widths` = {task: its share of T}."""

    def __init__(self, encoder: nn.Module, widths: dict[str, int]):
        super().__init__()
        self.widths = widths
        self.vertex_head = mlp(encoder.width, sum(widths.values()))
        self.cell_head = mlp(encoder.readout_width, sum(widths.values()))

    def forward(self, encoder: nn.Module, batch: Batch, target: torch.Tensor, generator: torch.Generator) -> dict:
        """target float[B, V, T]: the facts of all its tasks side by side."""
        h = encoder(batch)  # [B, V, D]
        at_vertex = (self.vertex_head(h) - target).square() * batch.real[..., None]  # [B, V, T]
        of_cell = self.cell_head(encoder.readout(h, batch)) - average(target, outputs(batch))  # [B, T]
        error = at_vertex.sum((0, 1)) / batch.real.sum() + of_cell.square().mean(0)  # [T]
        return dict(zip(self.widths, (e.mean() for e in error.split(list(self.widths.values())))))


class Edges(nn.Module):
    """Hide `ratio` of the vertex pairs i < j, with an edge or without, and tell which had one (the masked edges of
    MaskGAE, Li et al., KDD 2023). The encoder sees the graph without the hidden edges, its relations worked out anew."""

    def __init__(self, encoder: nn.Module, ratio: float):
        super().__init__()
        self.ratio = ratio
        self.sender, self.receiver = (nn.Linear(encoder.width, encoder.width) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        hidden = draw_pairs(batch.real, self.ratio, generator)  # [B, V, V]
        h = encoder(without_edges(batch, hidden))  # [B, V, D]
        logits = self.sender(h) @ self.receiver(h).transpose(1, 2) / h.shape[-1] ** 0.5 + self.bias  # [B, V, V]
        return {"edges": F.binary_cross_entropy_with_logits(logits[hidden], batch.adj[hidden].to(h.dtype))}


class Contrast(nn.Module):
    """Find a cell's second view among those of the batch and of one-edit neighbours, given its first view.

    A view hides `ratio` of the operations. The neighbour of a cell, its hard negative, wears the mask of the second view and
    differs at a vertex that this leaves visible.
    """

    def __init__(self, encoder: nn.Module, ratio: float, temperature: float):
        super().__init__()
        self.ratio, self.temperature = ratio, temperature
        self.project = mlp(encoder.readout_width, PROJECTION)

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        first, second = (draw_mask(batch.real, self.ratio, generator) for _ in range(2))  # [B, V] each
        edited = neighbours(batch, second, encoder.operations, generator)
        shown = Batch(*map(torch.cat, zip(batch, batch, edited)))  # 3 B graphs
        h = encoder(shown, torch.cat([first, second, second]))  # [3 B, V, D]
        views = self.project(encoder.readout(h, shown))  # [3 B, D']
        graph = identities(batch, edited)  # [2 B]
        same = graph[:batch.graphs, None] == graph  # [B, 2 B]
        return {"contrast": info_nce(views[:batch.graphs], views[batch.graphs:], same, self.temperature)}


def mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, out))


def draw_mask(real: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """real bool[B, V] -> masked bool[B, V]: max(1, round(ratio n)) of each graph's n real vertices, without replacement."""
    count = (ratio * real.sum(1)).round().clamp(min=1)  # [B]
    key = torch.rand(real.shape, generator=generator, device=real.device).masked_fill(~real, 2.0)  # [B, V]
    return key.argsort(1).argsort(1) < count[:, None]  # [B, V]


def draw_pairs(real: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """real bool[B, V] -> hidden bool[B, V, V]: so many of each graph's pairs i < j, counted as in `draw_mask`."""
    pairs = (real[:, :, None] & real[:, None, :]).triu(1)  # [B, V, V]
    return draw_mask(pairs.flatten(1), ratio, generator).view_as(pairs)


def without_edges(batch: Batch, hidden: torch.Tensor) -> Batch:
    """The batch without the edges at `hidden` bool[B, V, V]; what the relations said of them goes too."""
    adj = batch.adj * ~hidden  # [B, V, V]
    return batch._replace(adj=adj, relation=relations(adj))


def reconstruction_loss(logits: torch.Tensor, ops: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits [B, V, K] against ops [B, V] over the vertices chosen [B, V]."""
    loss = F.cross_entropy(logits.transpose(1, 2), ops.long(), reduction="none")  # [B, V]
    return (loss * chosen).sum() / chosen.sum().clamp(min=1)


def outputs(batch: Batch) -> torch.Tensor:
    """float[B, V]: 1 at the vertices that feed nothing."""
    return (batch.real & (batch.adj.sum(-1) == 0)).float()
