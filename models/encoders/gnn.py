"""Message passing with the paper's skips, and its ablation (GCN), on torch-geometric's dense layer.

Messages run along the edges in both directions and along self loops, so no such encoder can tell forward from
backward. The paper's own, the GAT, is in models/encoders/gat.py.
"""
from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import nn

with warnings.catch_warnings():  # torch-geometric still calls torch.jit.script at import
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.nn import DenseGATConv, DenseGCNConv

from models.batch import Batch
from models.encoders.layers import Dropout, average

__all__ = ["GCN", "DenseGATConv", "MessagePassing"]  # DenseGATConv: for models.encoders.gat


class MessagePassing(nn.Module):
    """L layers of message passing with dense skips (Jing et al., IJCAI 2022, section 3).

    LayerNorm, PReLU and dropout follow each layer. The input of a layer is the sum of a linear skip of the
    embedding and the outputs of ALL earlier layers; the readout is the mean over the vertices. A masked
    operation is a zero vector, as in the paper; the mark of its cell stays.
    """

    def __init__(self, operations: int, width: int = 32, layers: int = 16, heads: int = 8,
                 dropout: float = 0.0):
        super().__init__()
        self.embed_op = nn.Linear(operations, width, bias=False)
        self.embed_mark = nn.Linear(2, width, bias=False)
        self.skips = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.convolutions = nn.ModuleList(self.convolution(width, heads) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.activations = nn.ModuleList(nn.PReLU() for _ in range(layers))
        self.dropout = Dropout(dropout)
        self.operations, self.width, self.readout_width = operations, width, width
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def convolution(self, width: int, heads: int) -> nn.Module:
        raise NotImplementedError

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]. The embedding of an operation is zero where masked bool[B, V] is True."""
        op = self.embed_op(
            F.one_hot(batch.ops.long(), self.operations).to(self.skips[0].weight.dtype))  # [B, V, D]
        if masked is not None:
            op = op.masked_fill(masked[..., None], 0.0)
        op = op + self.embed_mark(F.one_hot(batch.marks.long(), 2).to(op.dtype))
        adj = (batch.adj + batch.adj.transpose(-1, -2)).to(op.dtype)  # [B, V, V]
        earlier = torch.zeros_like(op)
        for skip, convolve, norm, activate in zip(
                self.skips, self.convolutions, self.norms, self.activations):
            h = convolve(skip(op) + earlier, adj, batch.node_mask)
            h = self.dropout(activate(norm(h)))
            earlier = earlier + h
        return h

    def embed(self, batch: Batch) -> torch.Tensor:
        """-> g [B, D], the embedding of whole architectures; nothing is masked."""
        return self.readout(self(batch), batch)

    def readout(self, h: torch.Tensor, batch: Batch) -> torch.Tensor:
        """h [B, V, D] -> g [B, D]: the mean over the real vertices."""
        return average(h, batch.node_mask.to(h.dtype))


class GCN(MessagePassing):
    """Graph convolution (Kipf and Welling, ICLR 2017); heads is ignored."""

    def convolution(self, width: int, heads: int) -> nn.Module:
        return DenseGCNConv(width, width)
