"""Two published encoders of architectures that see the direction of an edge, as baselines of ours.

B graphs, V vertices, K operations, D width.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch
from models.encoders.layers import MemberDropout, average


class PublishedEncoder(nn.Module):
    """The base of both: one token per vertex, L layers, a readout of width D.

    LayerNorm and dropout follow each layer. As in our own encoder, the mark of a cell is added to its
    vertices, and a masked operation is a learned token.
    """

    layer: type[nn.Module]

    def __init__(self, operations: int, width: int = 64, layers: int = 4, heads: int = 1,
                 dropout: float = 0.0):
        """heads is ignored."""
        super().__init__()
        self.embed_op = nn.Linear(operations + 1, width, bias=False)
        self.embed_mark = nn.Linear(2, width, bias=False)
        self.layers = nn.ModuleList(self.layer(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = MemberDropout(dropout)
        self.operations, self.width, self.readout_width = operations, width, width

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]. The learned mask token replaces the operation where masked bool[B, V] is True."""
        ops = batch.ops.long()  # [B, V]
        if masked is not None:
            ops = ops.masked_fill(masked, self.operations)
        dtype = self.embed_op.weight.dtype
        token = self.embed_op(F.one_hot(ops, self.operations + 1).to(dtype))  # [B, V, D]
        token = token + self.embed_mark(F.one_hot(batch.marks.long(), 2).to(dtype))
        adj = batch.adj.to(dtype)  # [B, V, V]
        h = self.start(token, batch)
        for layer, norm in zip(self.layers, self.norms):
            h = self.dropout(norm(layer(h, token, adj)))
        return h

    def start(self, token: torch.Tensor, batch: Batch) -> torch.Tensor:
        """token [B, V, D] -> input of the first layer [B, V, D]."""
        return token

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, D], the embedding of whole architectures; nothing is masked."""
        return self.readout(self(batch), batch)

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, D]: the mean over the real vertices."""
        return average(h, batch.node_mask.to(h.dtype))


class BothWays(nn.Module):
    """The mean of a graph convolution along the edges and one against them, each with weights of its own.

    Both have self loops.
    """

    def __init__(self, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h, token, adj):
        """h, token [B, V, D], adj [B, V, V] -> [B, V, D]."""
        loops = torch.eye(adj.shape[-1], dtype=adj.dtype, device=adj.device)  # [V, V]
        # Row i has an entry for each vertex that i reads.
        with_up, with_down = adj + loops, adj.transpose(-1, -2) + loops  # [B, V, V] each
        down = with_down / with_down.sum(-1, keepdim=True) @ self.down(h)  # [B, V, D]
        up = with_up / with_up.sum(-1, keepdim=True) @ self.up(h)  # [B, V, D]
        return (down.relu() + up.relu()) / 2


class NPNAS(PublishedEncoder):
    """The bidirectional graph convolution of Neural Predictor for NAS (Wen et al., ECCV 2020).

    The original has no LayerNorm.
    """

    layer = BothWays


class Flow(nn.Module):
    """A flow of information from the inputs to the outputs.

    A vertex passes on the sum of all that reaches it, times the attention of its operation, plus its own
    state.
    """

    def __init__(self, width: int):
        super().__init__()
        self.attention, self.carry = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h, token, adj):
        """h, token [B, V, D], adj [B, V, V] -> [B, V, D]."""
        attention, back = self.attention(token).sigmoid(), adj.transpose(-1, -2)
        flow = h
        for _ in range(adj.shape[-1] - 1):  # the longest path; so the vertices may have any order
            flow = h + attention * (back @ self.carry(flow))  # [B, V, D]
        return flow.relu()


class GATES(PublishedEncoder):
    """The gated flow of GATES (Ning et al., ECCV 2020), for operations on nodes.

    Information starts at the vertices that nothing feeds; the readout is taken where it ends.
    """

    layer = Flow

    def start(self, token, batch):
        return token * batch.is_input[..., None]

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, D]: the mean over the outputs (vertices that feed nothing)."""
        return average(h, batch.is_output.to(h.dtype))
