"""The small networks that pretext tasks put on top of an encoder."""
from __future__ import annotations

from torch import nn

PROJECTION = 64  # width in which views are compared


def mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, out))
