"""The graph transformer: our default encoder of architectures.

B graphs, V vertices, K operations, D width, H heads, R relations.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import RELATIONS, Batch, relations
from models.encoders.layers import Attention, Chosen, Dropout, LayerNorm, Linear, average


class GraphTransformer(nn.Module):
    """Pre-norm transformer over the vertices of a DAG, with messages in both directions instead of the MLP.

    Attention sees structure through a learned bias per head and relation between two vertices (direction,
    reachability, distance: `models.batch.relations`). The message path sends one message along the edges and
    another against them, each gated by the operation of the receiver (the idea of GATES, Ning et al., ECCV
    2020). Nothing reads the position of a vertex, so isomorphic graphs get equal embeddings; padded vertices
    are never read. Without `direction`, for ablation, h is that of the undirected graph; the readout still
    knows the outputs. If the parameters are stacked (`models.encoders.layers`), every shape below begins with
    M.
    """

    accepts_stacked_parameters = True

    def __init__(self, operations: int, width: int = 64, layers: int = 4, heads: int = 4,
                 dropout: float = 0.0, direction: bool = True):
        super().__init__()
        # row K is the learned mask token
        self.embed_op = Linear(operations + 1, width, bias=False)
        self.embed_mark = Linear(2, width, bias=False)
        self.layers = nn.ModuleList(Layer(operations + 1, width, heads, dropout) for _ in range(layers))
        self.norm = LayerNorm(width)
        self.operations, self.width, self.readout_width, self.direction = (
            operations, width, 2 * width, direction)
        if not self.embed_op.weight.is_meta:  # there normal_ would import torch's compiler, for seconds
            nn.init.normal_(self.embed_op.weight, std=width**-0.5)
            nn.init.normal_(self.embed_mark.weight, std=width**-0.5)

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]. The learned mask token replaces the operation where masked bool[B, V] is True."""
        ops = batch.ops if masked is None else batch.ops.masked_fill(masked, self.operations)  # [B, V]
        op = Chosen(ops, self.operations + 1)  # [B, V]
        adj, relation = batch.adj, batch.relation  # [B, V, V] each
        if not self.direction:
            adj = torch.maximum(adj, adj.mT)
            relation = relations(adj)
        adj = adj.to(self.embed_op.weight.dtype)
        relation = relation.masked_fill(
            ~batch.node_mask[..., None, :], RELATIONS)  # [B, V, V]: one more where j is padding
        relation = Chosen(relation.flatten(-3), RELATIONS + 1)  # [B V V]
        h = op.along_last(self.embed_op.weight) + Chosen(batch.marks, 2).along_last(
            self.embed_mark.weight)  # [B, V, D]
        for layer in self.layers:
            h = layer(h, op, adj, relation)
        return self.norm(h)

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, 2D], the embedding of whole architectures, for any downstream use; nothing is masked."""
        return self.readout(self(batch), batch)

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, 2D]: the mean over the vertices and the mean over the outputs."""
        means = (average(h, which.to(h.dtype)) for which in (batch.node_mask, batch.is_output))  # [B, D] each
        return torch.cat(list(means), dim=-1)  # [B, 2D]


class Layer(nn.Module):
    """One block: x + attention, then x + gated messages in both directions."""

    def __init__(self, operations: int, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.norm_attention, self.norm_message = LayerNorm(width), LayerNorm(width)
        self.query_key_value = Linear(width, 3 * width)
        self.relation_bias = Linear(RELATIONS, heads, bias=False)
        self.merge = Linear(width, width)
        self.message = Linear(width, 3 * width)
        self.gate = nn.Parameter(torch.zeros(operations, 2 * width))
        self.update = Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x, op, adj, relation):
        """x [B, V, D]; op chosen of K+1, [B, V]; adj [B, V, V]; relation of R+1, [B V V] -> [B, V, D]."""
        x = x + self.dropout(self.attend(self.norm_attention(x), relation))
        return x + self.dropout(self.send(self.norm_message(x), op, adj))

    def attend(self, x, relation):
        split = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))  # [B, V, 3, H, d]
        split = split.movedim((-3, -2), (0, -4)).contiguous()  # [3, H, B, V, d]
        weight = F.pad(self.relation_bias.weight, (0, 1), value=-1e9)  # [H, R+1]: padding is not read
        bias = relation.along_first(weight)  # [H, B V V]
        mixed = Attention.apply(split, bias.view(*split.shape[1:-1], -1))  # [H, B, V, d]
        return self.merge(mixed.movedim(-4, -2).flatten(-2))  # [B, V, D]

    def send(self, x, op, adj):
        own, down, up = self.message(x).chunk(3, dim=-1)  # [B, V, D] each
        gate_down, gate_up = op.along_last(self.gate.sigmoid().mT).chunk(2, dim=-1)  # [B, V, D] each
        received = own.addcmul(gate_down, adj.mT @ down).addcmul(gate_up, adj @ up)  # [B, V, D]
        return self.update(F.gelu(received))
