"""Views of architectures for the contrastive pretext tasks: the papers' augmentations, as batched functions.

A view is a batch and the mask of its hidden operations. Every draw comes from the generator; padding stays
padding.

B graphs, V vertices, K operations.
"""
from __future__ import annotations

from typing import NamedTuple

import torch

from models.batch import MAX_DISTANCE, Batch, relations
from models.pretext.masked import draw_mask

FLOOR = 0.15  # weakest link that a diffusion keeps: all edges of a cell, and vertices about two steps apart


class View(NamedTuple):
    """A batch, and masked bool[B, V]: True where the operation is hidden from the encoder."""

    batch: Batch
    masked: torch.Tensor


def edges_and_features(batch: Batch, edge_drop: float, feature_mask: float, operations: int,
                       generator: torch.Generator) -> View:
    """Drops edges and masks features, as GRACE (Zhu et al., 2020), BGRL and Graph Barlow Twins do."""
    return View(
        drop_edges(batch, edge_drop, generator), mask_features(batch, feature_mask, operations, generator))


def one_of_three(batch: Batch, edge_drop: float, feature_mask: float, node_drop: float,
                 generator: torch.Generator) -> View:
    """Drops edges, masks operations or drops vertices, one of the three per graph.

    This is the view of GraphCL (You et al., NeurIPS 2020). Of its four augmentations, edge perturbation also
    adds edges, and the subgraph keeps a random walk. Both make other architectures here, so edges are only
    dropped and the subgraph is left out.
    """
    kind = torch.randint(3, (batch.num_graphs, 1), generator=generator, device=batch.ops.device)  # [B, 1]
    rate = edge_drop * (kind == 0)[..., None]  # [B, 1, 1]
    masked = draw_mask(batch.node_mask, feature_mask, generator) & (kind == 1)  # [B, V]
    gone = draw_mask(batch.node_mask, node_drop, generator) & (kind == 2)  # [B, V]
    return View(without_vertices(drop_edges(batch, rate, generator), gone), masked)


def drop_edges(batch: Batch, rate: float | torch.Tensor, generator: torch.Generator) -> Batch:
    """Drops each edge with probability `rate`, a number or [B, 1, 1]; relations are those of the rest."""
    return batch.without_edges(
        torch.rand(batch.adj.shape, generator=generator, device=batch.adj.device) < rate)


def mask_features(batch: Batch, rate: float, operations: int, generator: torch.Generator) -> torch.Tensor:
    """The mask bool[B, V] that hides each feature of a graph, at all its vertices, with probability `rate`.

    Features are one-hot operations, so this hides all vertices of an operation.
    """
    draw = torch.rand((batch.num_graphs, operations), generator=generator, device=batch.ops.device)  # [B, K]
    hidden = draw < rate  # [B, K]
    return hidden.gather(1, batch.ops.long()) & batch.node_mask  # [B, V]


def without_vertices(batch: Batch, gone: torch.Tensor) -> Batch:
    """The batch without the vertices at `gone` bool[B, V] and their edges: they become padding in place."""
    rest = batch.without_edges(gone[:, :, None] | gone[:, None, :])
    return rest._replace(ops=batch.ops * ~gone, marks=batch.marks * ~gone, node_mask=batch.node_mask & ~gone)


def diffused(batch: Batch, teleport: float) -> Batch:
    """The diffusion view of MVGRL (Hassani and Khasahmadi, ICML 2020): links of `pagerank`, float[B, V, V].

    Links are scaled to a unit diagonal, the weight that graph layers give to self loops, and those below
    FLOOR are dropped (the threshold of graph diffusion convolution, Klicpera et al., NeurIPS 2019): attention
    reads only the existence of links, and without a threshold all exist. Diffusion has no direction, but some
    encoders read it: a link runs along the path of the cell between its ends, or half each way if there is
    none. So the encoders that add up both directions (GAT, GCN) see the symmetric diffusion, in any order of
    the vertices.
    """
    heat = pagerank(batch.adj, teleport)  # [B, V, V]
    scale = heat.diagonal(dim1=1, dim2=2).rsqrt()  # [B, V]
    link = scale[:, :, None] * heat * scale[:, None, :]  # [B, V, V]
    downstream = (batch.relation > 1) & (batch.relation <= 1 + MAX_DISTANCE)  # [B, V, V]
    adj = link * (link >= FLOOR) * (downstream + 0.5 * (batch.relation == 1))  # [B, V, V]
    return batch._replace(adj=adj, relation=relations(adj))


def pagerank(adj: torch.Tensor, teleport: float) -> torch.Tensor:
    """Personalised PageRank float[B, V, V] of adj [B, V, V] without direction.

    t (I - (1 - t) D^-1/2 A D^-1/2)^-1, where A has self loops and t is the probability to start anew. Padding
    is linked to itself alone.
    """
    loops = torch.eye(adj.shape[-1], device=adj.device)  # [V, V]
    both = adj + adj.transpose(-1, -2) + loops  # [B, V, V]
    root = both.sum(-1).rsqrt()  # [B, V]
    walk = root[:, :, None] * both * root[:, None, :]  # [B, V, V]
    return teleport * torch.linalg.inv(loops - (1 - teleport) * walk)
