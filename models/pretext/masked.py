"""Pretext tasks that hide and reconstruct operations (the paper's masked autoencoder) or edges.

Every pretext task has the same call: task(encoder, batch, target, generator) -> {name: scalar loss}; none
here reads the target. Mask convention: True if hidden from the encoder; never at padding.

B graphs, V vertices, D width of the encoder, K operations.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch


class MaskedOperations(nn.Module):
    """Hides `ratio` of the operations and reconstructs those of the target vertices, masked | all.

    The paper's pretext task (Jing et al., IJCAI 2022).
    """

    def __init__(self, encoder: nn.Module, ratio: float, target: str):
        super().__init__()
        self.ratio, self.target = ratio, target
        self.decoder = Decoder(encoder.width, encoder.operations)

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        masked = draw_mask(batch.node_mask, self.ratio, generator)  # [B, V]
        logits = self.decoder(encoder(batch, masked))  # [B, V, K]
        return {"mask": reconstruction_loss(
            logits, batch.ops, masked if self.target == "masked" else batch.node_mask)}


class Edges(nn.Module):
    """Hides `ratio` of the vertex pairs i < j, with an edge or without, and predicts which have one.

    These are the masked edges of MaskGAE (Li et al., KDD 2023). The encoder sees the graph without the hidden
    edges, its relations computed anew.
    """

    def __init__(self, encoder: nn.Module, ratio: float):
        super().__init__()
        self.ratio = ratio
        self.sender, self.receiver = (nn.Linear(encoder.width, encoder.width) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        hidden = draw_pairs(batch.node_mask, self.ratio, generator)  # [B, V, V]
        h = encoder(batch.without_edges(hidden))  # [B, V, D]
        logits = (
            self.sender(h) @ self.receiver(h).transpose(1, 2) / h.shape[-1] ** 0.5 + self.bias)  # [B, V, V]
        return {"edges": F.binary_cross_entropy_with_logits(logits[hidden], batch.adj[hidden].to(h.dtype))}


def draw_mask(node_mask: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """node_mask bool[B, V] -> masked bool[B, V]: max(1, round(ratio n)) of each graph's n real vertices.

    Draws without replacement.
    """
    count = (ratio * node_mask.sum(1)).round().clamp(min=1)  # [B]
    key = torch.rand(node_mask.shape, generator=generator,
                     device=node_mask.device).masked_fill(~node_mask, 2.0)  # [B, V]
    return key.argsort(1).argsort(1) < count[:, None]  # [B, V]


def draw_pairs(node_mask: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """node_mask bool[B, V] -> hidden bool[B, V, V]: of the pairs i < j as many as `draw_mask` would draw."""
    pairs = (node_mask[:, :, None] & node_mask[:, None, :]).triu(1)  # [B, V, V]
    return draw_mask(pairs.flatten(1), ratio, generator).view_as(pairs)


def reconstruction_loss(logits: torch.Tensor, ops: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits [B, V, K] against ops [B, V] over the vertices chosen [B, V]."""
    loss = F.cross_entropy(logits.transpose(1, 2), ops.long(), reduction="none")  # [B, V]
    return (loss * chosen).sum() / chosen.sum().clamp(min=1)


class Decoder(nn.Module):
    """Linear, tanh, Linear per vertex, as in the original code; the paper's text says one linear layer."""

    def __init__(self, width: int, operations: int):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.logits = nn.Linear(width, operations)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """h [B, V, D] -> logits [B, V, K]."""
        return self.logits(torch.tanh(self.hidden(h)))
