"""Encoder + readout + MLP: one score per architecture."""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.layers import Dropout, LayerNorm, Linear, PReLU


class Head(nn.Sequential):
    stacks = True


class Predictor(nn.Module):
    """Linear, LayerNorm, PReLU, dropout, twice, then Linear to a scalar, on the readout of the encoder (Xavier init).

    The scale of a score means nothing after training with a ranking loss; only the order does.
    """

    pretrained = False  # whether the encoder starts from pre-trained weights; set by whoever loads them

    def __init__(self, encoder: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        drop = Dropout if self.stacks else nn.Dropout  # what torch.func.vmap serves cannot draw in place
        self.head = Head(
            Linear(encoder.readout_width, width), LayerNorm(width), PReLU(), drop(dropout),
            Linear(width, width), LayerNorm(width), PReLU(), drop(dropout),
            Linear(width, 1), nn.Flatten(-2),
        )
        for module in self.head:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def stacks(self) -> bool:
        return getattr(self.encoder, "stacks", False)

    def forward(self, batch: Batch) -> torch.Tensor:
        """-> score [B]."""
        return self.head(self.embed(batch))

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, D'], what the head reads."""
        return self.encoder.embed(batch)
