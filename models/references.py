"""Two published encoders of architectures that read the direction of an edge, for comparison with ours.

B graphs, V vertices, K operations, D width.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch
from models.encoder import average


class Reference(nn.Module):
    """What the two share: a token for each vertex, L layers with LayerNorm and dropout after each, a readout of width D.

    As in our own encoder the mark of a cell is added to its vertices, and a masked operation is a learned token.
    """

    layer: type[nn.Module]

    def __init__(self, operations: int, width: int = 64, layers: int = 4, heads: int = 1, dropout: float = 0.0):
        """heads is ignored."""
        super().__init__()
        self.embed_op = nn.Linear(operations + 1, width, bias=False)
        self.embed_mark = nn.Linear(2, width, bias=False)
        self.layers = nn.ModuleList(self.layer(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.operations, self.width, self.readout_width = operations, width, width

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]. Where masked bool[B, V] is True the operation is replaced by the learned mask token."""
        ops = batch.ops.long()  # [B, V]
        if masked is not None:
            ops = ops.masked_fill(masked, self.operations)
        dtype = self.embed_op.weight.dtype
        token = self.embed_op(F.one_hot(ops, self.operations + 1).to(dtype))  # [B, V, D]
        token = token + self.embed_mark(F.one_hot(batch.marks.long(), 2).to(dtype))
        adj = batch.adj.to(dtype)  # [B, V, V]
        h = self.start(token, adj)
        for layer, norm in zip(self.layers, self.norms):
            h = self.dropout(norm(layer(h, token, adj)))
        return h

    def start(self, token: torch.Tensor, adj: torch.Tensor) -> torch.Tensor:
        """token [B, V, D], adj [B, V, V] -> what the first layer reads, [B, V, D]."""
        return token

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, D], the embedding of whole architectures; nothing is masked."""
        return self.readout(self(batch), batch)

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, D]: the mean over the real vertices."""
        return average(h, batch.real.to(h.dtype))


class BothWays(nn.Module):
    """The mean of a graph convolution along the edges and one against them, each with its own weights and self loops."""

    def __init__(self, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h, token, adj):
        """h, token [B, V, D], adj [B, V, V] -> [B, V, D]."""
        loops = torch.eye(adj.shape[-1], dtype=adj.dtype, device=adj.device)  # [V, V]
        with_up, with_down = adj + loops, adj.transpose(-1, -2) + loops  # [B, V, V]: a row holds what its vertex reads
        down = with_down / with_down.sum(-1, keepdim=True) @ self.down(h)  # [B, V, D]
        up = with_up / with_up.sum(-1, keepdim=True) @ self.up(h)  # [B, V, D]
        return (down.relu() + up.relu()) / 2


class NPNAS(Reference):
    """The bidirectional graph convolution of Neural Predictor for NAS (Wen et al., ECCV 2020), which has no LayerNorm."""

    layer = BothWays


class Flow(nn.Module):
    """Information flows from the inputs to the outputs: what a vertex passes on is the sum of what reaches it, times the
    attention of its operation, plus what it held before."""

    def __init__(self, width: int):
        super().__init__()
        self.attention, self.carry = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h, token, adj):
        """h, token [B, V, D], adj [B, V, V] -> [B, V, D]."""
        attention, back = self.attention(token).sigmoid(), adj.transpose(-1, -2)
        flow = h
        for _ in range(adj.shape[-1] - 1):  # a path has at most V - 1 edges, so any order of the vertices is complete
            flow = h + attention * (back @ self.carry(flow))  # [B, V, D]
        return flow.relu()


class GATES(Reference):
    """The gated flow of GATES (Ning et al., ECCV 2020), for operations on nodes. Information starts at the vertices that
    nothing feeds, and the readout is where it ends."""

    layer = Flow

    def start(self, token, adj):
        return token * (adj.sum(-2) == 0)[..., None]

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, D]: the mean over the outputs (vertices that feed nothing)."""
        return average(h, (batch.real & (batch.adj.sum(-1) == 0)).to(h.dtype))
