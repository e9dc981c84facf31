"""The masked decoder of pre-training: from vertices back to operations."""
from __future__ import annotations

import torch
from torch import nn


class Decoder(nn.Module):
    """Linear, tanh, Linear over each vertex (the original's; the paper's text says one linear layer)."""

    def __init__(self, width: int, operations: int):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.logits = nn.Linear(width, operations)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """h [B, V, D] -> logits [B, V, K]."""
        return self.logits(torch.tanh(self.hidden(h)))
