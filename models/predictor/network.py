"""Encoder + readout + MLP: one score per architecture."""
from __future__ import annotations

import torch
from torch import nn

from models.batch import Batch
from models.encoders.layers import Dropout, LayerNorm, Linear, MemberDropout, PReLU


class Head(nn.Sequential):
    accepts_stacked_parameters = True


class PredictorNetwork(nn.Module):
    """An MLP on the readout of an encoder, with Xavier initialisation.

    Linear, LayerNorm, PReLU, dropout, twice, then Linear to a scalar. After training with a ranking loss the
    scale of the scores means nothing; only their order does.
    """

    pretrained = False  # whether the encoder starts from pre-trained weights; set by the code that loads them

    def __init__(self, encoder: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        # torch.func.vmap, which serves all other networks, forbids random draws in place
        drop = Dropout if self.accepts_stacked_parameters else MemberDropout
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
    def accepts_stacked_parameters(self) -> bool:
        return getattr(self.encoder, "accepts_stacked_parameters", False)

    def forward(self, batch: Batch) -> torch.Tensor:
        """-> score [B]."""
        return self.head(self.embed(batch))

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, D'], the input of the head."""
        return self.encoder.embed(batch)
