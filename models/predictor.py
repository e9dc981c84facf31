"""Encoder + readout + MLP: one score per architecture."""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch


class Predictor(nn.Module):
    """Linear, LayerNorm, PReLU, dropout, twice, then Linear to a scalar, on the readout of the encoder (Xavier init).

    The scale of a score means nothing after training with a ranking loss; only the order does.
    """

    pretrained = False  # whether the encoder starts from pre-trained weights; set by whoever loads them

    def __init__(self, encoder: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.head = nn.Sequential(
            nn.Linear(encoder.readout_width, width), nn.LayerNorm(width), nn.PReLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.LayerNorm(width), nn.PReLU(), nn.Dropout(dropout),
            nn.Linear(width, 1), nn.Flatten(0),
        )
        for module in self.head:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> torch.Tensor:
        """-> score [B]."""
        return self.head(self.embed(batch))

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, D'], what the head reads."""
        return self.encoder.embed(batch)
