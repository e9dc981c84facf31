"""Pretext tasks of pre-training. A task owns the encoder and its own head; forward(batch, generator) -> scalar loss.

Mask convention: `masked` is bool[B, V], True where the operation of a vertex is hidden from the encoder. Never at padding.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch
from models.decoder import Decoder


class MaskedAutoencoder(nn.Module):
    """Hide the operations of random vertices, reconstruct them (Jing et al., IJCAI 2022, section 3.2)."""

    def __init__(self, encoder: nn.Module, mask_ratio: float = 0.75, target: str = "masked"):
        super().__init__()
        self.encoder, self.decoder = encoder, Decoder(encoder.width, encoder.operations)
        self.mask_ratio, self.target = mask_ratio, target

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        masked = draw_mask(batch.real, self.mask_ratio, generator)  # [B, V]
        logits = self.decoder(self.encoder(batch, masked))  # [B, V, K]
        return reconstruction_loss(logits, batch.ops, masked if self.target == "masked" else batch.real)


def draw_mask(real: torch.Tensor, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """real bool[B, V] -> masked bool[B, V]: max(1, round(ratio n)) of each graph's n real vertices, without replacement."""
    count = (ratio * real.sum(1)).round().clamp(min=1)  # [B]
    key = torch.rand(real.shape, generator=generator, device=real.device).masked_fill(~real, 2.0)  # [B, V]
    return key.argsort(1).argsort(1) < count[:, None]  # [B, V]


def reconstruction_loss(logits: torch.Tensor, ops: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits [B, V, K] against ops [B, V] over the vertices chosen [B, V]."""
    loss = F.cross_entropy(logits.transpose(1, 2), ops.long(), reduction="none")  # [B, V]
    return (loss * chosen).sum() / chosen.sum().clamp(min=1)
