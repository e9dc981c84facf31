"""Straightforward implementations, from well-known modules alone, that `benchmarks.speed` compares ours with.

B graphs, V vertices, K operations, D width, H heads, R relations.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from torch import nn

with warnings.catch_warnings():  # torch-geometric still calls torch.jit.script at import
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.data import Batch as SparseBatch
    from torch_geometric.data import Data
    from torch_geometric.nn import GATConv, global_mean_pool

from models.batch import RELATIONS, Batch

# The paper's encoder, sparse --------------------------------------------------------------------------------

class SparseGAT(nn.Module):
    """The paper's GAT on sparse graphs: skips, norms and activations as in `models.encoders.gat.GAT`."""

    def __init__(self, operations: int, width: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.embed = nn.Linear(operations, width, bias=False)
        self.skips = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.convolutions = nn.ModuleList(GATConv(width, width // heads, heads) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.activations = nn.ModuleList(nn.PReLU() for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, operations))

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """x one-hot [sum of V, K] -> h [sum of V, D]."""
        embedded = self.embed(x)
        earlier = torch.zeros_like(embedded)
        for skip, convolve, norm, activate in zip(
                self.skips, self.convolutions, self.norms, self.activations):
            h = self.dropout(activate(norm(convolve(skip(embedded) + earlier, edge_index))))
            earlier = earlier + h
        return h

    def embed_graphs(self, batch: SparseBatch) -> torch.Tensor:
        """-> [B, D]."""
        return global_mean_pool(self(batch.x, batch.edge_index), batch.batch)


def sparse_graphs(table: Batch, operations: int) -> list[Data]:
    """One `Data` per graph, with edges in both directions."""
    graphs = []
    for ops, adj, real in zip(table.ops, table.adj, table.node_mask):
        both = (adj + adj.T)[real][:, real]
        graphs.append(Data(x=F.one_hot(ops[real].long(), operations).float(),
                           edge_index=both.nonzero().T.contiguous()))
    return graphs


def sparse_pretraining(model: SparseGAT, graphs: Sequence[Data], batch_size: int,
                       ratio: float) -> Callable[[], None]:
    """A function that makes one step of the masked autoencoder: batching, both passes, update."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator, device = torch.Generator().manual_seed(0), next(model.parameters()).device

    def step() -> None:
        chosen = torch.randint(len(graphs), (batch_size,), generator=generator).tolist()
        batch = SparseBatch.from_data_list([graphs[i] for i in chosen]).to(device)
        masked = torch.rand(len(batch.x), generator=generator).to(device) < ratio
        logits = model.decoder(model(batch.x.masked_fill(masked[:, None], 0.0), batch.edge_index))
        loss = F.cross_entropy(logits[masked], batch.x[masked].argmax(1))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()

    return step


# Our transformer, plain -------------------------------------------------------------------------------------

class PlainTransformer(nn.Module):
    """The computation of `models.encoders.transformer.GraphTransformer` by modules of torch.nn."""

    def __init__(self, operations: int, width: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.operations = operations
        self.embed_op = nn.Embedding(operations + 1, width)
        self.layers = nn.ModuleList(PlainLayer(operations + 1, width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, operations))
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]."""
        ops = batch.ops.long()
        if masked is not None:
            ops = ops.masked_fill(masked, self.operations)
        h = self.embed_op(ops)
        for layer in self.layers:
            h = layer(h, ops, batch)
        return self.norm(h)

    def scores(self, batch: Batch) -> torch.Tensor:
        """-> [B], from the mean over the vertices and the mean over the outputs."""
        h = self(batch)
        means = [(h * which[..., None]).sum(1) / which.sum(1, keepdim=True)
                 for which in (batch.node_mask.float(), batch.is_output.float())]
        return self.score(torch.cat(means, dim=1))[:, 0]


class PlainLayer(nn.Module):
    def __init__(self, operations: int, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm_attention, self.norm_message = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.relation = nn.Embedding(RELATIONS, heads)
        self.own, self.down, self.up = (nn.Linear(width, width) for _ in range(3))
        self.gate_down, self.gate_up = (nn.Embedding(operations, width) for _ in range(2))
        self.update, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, ops: torch.Tensor, batch: Batch) -> torch.Tensor:
        """x [B, V, D] -> [B, V, D]."""
        bias = self.relation(batch.relation.long()).masked_fill(
            ~batch.node_mask[:, None, :, None], -1e9)  # [B, V, V, H]
        bias = bias.permute(0, 3, 1, 2).flatten(0, 1)  # [B H, V, V]
        normed = self.norm_attention(x)
        mixed, _ = self.attention(normed, normed, normed, attn_mask=bias, need_weights=False)
        x = x + self.dropout(mixed)
        normed, adj = self.norm_message(x), batch.adj.float()
        received = (self.own(normed) + self.gate_down(ops).sigmoid() * (adj.mT @ self.down(normed))
                    + self.gate_up(ops).sigmoid() * (adj @ self.up(normed)))
        return x + self.dropout(self.update(F.gelu(received)))


def plain_pretraining(model: PlainTransformer, table: Batch, batch_size: int,
                      ratio: float) -> Callable[[], None]:
    """A function that makes one step of the masked autoencoder."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator, device = torch.Generator().manual_seed(0), table.ops.device

    def step() -> None:
        rows = torch.randint(table.num_graphs, (batch_size,), generator=generator).to(device)
        batch = table.rows(rows)
        drawn = torch.rand(batch.ops.shape, generator=generator).to(device)
        masked = (drawn < ratio) & batch.node_mask  # [B, V]
        logits = model.decoder(model(batch, masked)[masked])
        loss = F.cross_entropy(logits, batch.ops[masked].long())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()

    return step


# A plain Bayesian optimisation ------------------------------------------------------------------------------

def plain_search(points: np.ndarray, value: np.ndarray, queries: int, start: int, each: int) -> float:
    """Bayesian optimisation with scikit-learn's Gaussian process; returns the best value found.

    points: float[N, P], one-hot, all of a table. value: float[N], what a query returns. A round queries the
    `each` of the highest upper confidence bound among all that are left.
    """
    rng = np.random.default_rng(0)
    asked = rng.permutation(len(points))[:start].tolist()
    for _ in range(start, queries, each):
        label = value[asked]
        process = GaussianProcessRegressor(RBF(2.0) + WhiteKernel(0.1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its optimiser says when it stops at a bound
            process.fit(points[asked], (label - label.mean()) / label.std())
        mean, std = process.predict(points, return_std=True)
        bound = mean + 0.5 * std
        bound[asked] = -np.inf
        asked += np.argsort(-bound)[:each].tolist()
    return float(value[asked].max())
