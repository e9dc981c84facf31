"""The graph transformer: our default encoder of architectures.

B graphs, V vertices, K operations, D width, H heads, R relations.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import RELATIONS, Batch


class GraphTransformer(nn.Module):
    """Pre-norm transformer over the vertices of a DAG, with a bidirectional message path in place of the plain MLP.

    Attention sees structure through a learned bias per head for each relation between two vertices (direction,
    reachability, distance: `models.batch.relations`); the message path sends one message along the edges and another
    against them, each gated by the operation of the receiver (the idea of GATES, Ning et al., ECCV 2020).
    Nothing reads the position of a vertex, so isomorphic graphs get equal embeddings; padded vertices are never read.
    """

    def __init__(self, operations: int, width: int = 64, layers: int = 4, heads: int = 4, dropout: float = 0.0):
        super().__init__()
        # Row K is the learned mask token. A matmul with one-hot rows trains faster than a lookup (no scatter backward).
        self.embed_op = nn.Linear(operations + 1, width, bias=False)
        self.embed_mark = nn.Linear(2, width, bias=False)
        self.layers = nn.ModuleList(Layer(operations + 1, width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.operations, self.width, self.readout_width = operations, width, 2 * width
        nn.init.normal_(self.embed_op.weight, std=width**-0.5)
        nn.init.normal_(self.embed_mark.weight, std=width**-0.5)

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]. Where masked bool[B, V] is True the operation is replaced by the learned mask token."""
        ops = batch.ops.long()  # [B, V]
        if masked is not None:
            ops = ops.masked_fill(masked, self.operations)
        dtype = self.embed_op.weight.dtype
        op = F.one_hot(ops, self.operations + 1).to(dtype)  # [B, V, K+1]
        adj = batch.adj.to(dtype)
        relation = F.one_hot(batch.relation.long(), RELATIONS).to(dtype)  # [B, V, V, R]
        h = self.embed_op(op) + self.embed_mark(F.one_hot(batch.marks.long(), 2).to(dtype))  # [B, V, D]
        for layer in self.layers:
            h = layer(h, op, adj, relation, batch.real)
        return self.norm(h)

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, 2D], the embedding of whole architectures for any downstream use; nothing is masked."""
        return self.readout(self(batch), batch)

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, 2D]: the mean over the vertices beside the mean over the outputs (vertices that feed nothing)."""
        real = batch.real.to(h.dtype)  # [B, V]
        outputs = real * (batch.adj.sum(-1) == 0)  # [B, V]
        return torch.cat([average(h, real), average(h, outputs)], dim=-1)  # [B, 2D]


class Layer(nn.Module):
    """One block: x + attention, then x + gated messages both ways."""

    def __init__(self, operations: int, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.norm_attention, self.norm_message = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.relation_bias = nn.Linear(RELATIONS, heads, bias=False)
        self.merge = nn.Linear(width, width)
        self.message = nn.Linear(width, 3 * width)
        self.gate = nn.Parameter(torch.zeros(operations, 2 * width))
        self.update = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, op, adj, relation, real):
        """x [B, V, D]; op one-hot [B, V, K+1]; adj [B, V, V]; relation one-hot [B, V, V, R]; real [B, V] -> [B, V, D]."""
        x = x + self.dropout(self.attend(self.norm_attention(x), relation, real))
        return x + self.dropout(self.send(self.norm_message(x), op, adj))

    def attend(self, x, relation, real):
        B, V, D = x.shape
        split = self.query_key_value(x).view(B, V, 3, self.heads, D // self.heads)  # [B, V, 3, H, d]
        query, key, value = split.permute(2, 0, 3, 1, 4)  # [B, H, V, d] each
        bias = self.relation_bias(relation).permute(0, 3, 1, 2)  # [B, H, V, V]
        logits = query @ key.transpose(-1, -2) / (D // self.heads) ** 0.5 + bias  # [B, H, V, V]
        logits = logits.masked_fill(~real[:, None, None], -1e9)
        mixed = (logits.softmax(-1) @ value).transpose(1, 2).reshape(B, V, D)  # [B, V, D]
        return self.merge(mixed)

    def send(self, x, op, adj):
        own, down, up = self.message(x).chunk(3, dim=-1)  # [B, V, D] each
        gate_down, gate_up = (op @ self.gate.sigmoid()).chunk(2, dim=-1)  # [B, V, D] each
        received = gate_down * (adj.transpose(-1, -2) @ down) + gate_up * (adj @ up)  # [B, V, D]
        return self.update(F.gelu(own + received))


def average(h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """h [B, V, D], weight [B, V] -> [B, D]: the weighted mean over vertices."""
    return (h * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True).clamp(min=1)
