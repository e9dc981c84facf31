"""Views of architectures for the contrastive pretext tasks: the papers' augmentations as batched tensor functions.

A view is a batch of its own with what is hidden in it. Every draw comes from the generator; padding stays padding.

B graphs, V vertices, K operations.
"""
from __future__ import annotations

from typing import NamedTuple

import torch

from models.batch import MAX_DISTANCE, Batch, relations
from models.tasks import draw_mask, without_edges

FLOOR = 0.15  # a diffusion keeps links at least so strong: all edges of a cell, and vertices about two steps apart


class View(NamedTuple):
    """A batch as it is shown; masked bool[B, V] is True where the operation is hidden from the encoder."""

    batch: Batch
    masked: torch.Tensor


def edges_and_features(batch: Batch, edge_drop: float, feature_mask: float, operations: int,
                       generator: torch.Generator) -> View:
    """The view of GRACE (Zhu et al., 2020), which BGRL and Graph Barlow Twins took over: edges dropped, features masked."""
    return View(drop_edges(batch, edge_drop, generator), mask_features(batch, feature_mask, operations, generator))


def one_of_three(batch: Batch, edge_drop: float, feature_mask: float, node_drop: float,
                 generator: torch.Generator) -> View:
    """The view of GraphCL (You et al., NeurIPS 2020): each graph loses edges, operations or vertices, one of the three.

    Of GraphCL's four, edge perturbation also adds edges and the subgraph keeps a random walk. Both make other
    architectures here, so edges are only dropped and the subgraph is left out.
    """
    kind = torch.randint(3, (batch.graphs, 1), generator=generator, device=batch.ops.device)  # [B, 1]
    rate = edge_drop * (kind == 0)[..., None]  # [B, 1, 1]
    masked = draw_mask(batch.real, feature_mask, generator) & (kind == 1)  # [B, V]
    gone = draw_mask(batch.real, node_drop, generator) & (kind == 2)  # [B, V]
    return View(without_vertices(drop_edges(batch, rate, generator), gone), masked)


def drop_edges(batch: Batch, rate: float | torch.Tensor, generator: torch.Generator) -> Batch:
    """Each edge goes with probability `rate` (a number or [B, 1, 1]); the relations are those of what is left."""
    return without_edges(batch, torch.rand(batch.adj.shape, generator=generator, device=batch.adj.device) < rate)


def mask_features(batch: Batch, rate: float, operations: int, generator: torch.Generator) -> torch.Tensor:
    """bool[B, V]: each feature is hidden at all vertices of a graph with probability `rate`. Features are one-hot
    operations, so that hides all vertices of an operation."""
    hidden = torch.rand((batch.graphs, operations), generator=generator, device=batch.ops.device) < rate  # [B, K]
    return hidden.gather(1, batch.ops.long()) & batch.real  # [B, V]


def without_vertices(batch: Batch, gone: torch.Tensor) -> Batch:
    """The batch without the vertices at `gone` bool[B, V] and their edges: they become padding, wherever they stand."""
    rest = without_edges(batch, gone[:, :, None] | gone[:, None, :])
    return rest._replace(ops=batch.ops * ~gone, marks=batch.marks * ~gone, real=batch.real & ~gone)


def diffused(batch: Batch, teleport: float) -> Batch:
    """The diffusion view of MVGRL (Hassani and Khasahmadi, ICML 2020): edges are the links of `pagerank`, float[B, V, V].

    Links are scaled to a unit diagonal, the weight that graph layers give to self loops, and those under FLOOR go
    (the threshold of graph diffusion convolution, Klicpera et al., NeurIPS 2019): attention reads only which links there
    are, and without a threshold all are. Diffusion knows no direction, some encoders do: a link runs along the
    path that the cell has between its ends, and half each way where it has none. So the encoders that add up both
    directions (GAT, GCN) see the symmetric diffusion, in any order of the vertices.
    """
    heat = pagerank(batch.adj, teleport)  # [B, V, V]
    scale = heat.diagonal(dim1=1, dim2=2).rsqrt()  # [B, V]
    link = scale[:, :, None] * heat * scale[:, None, :]  # [B, V, V]
    downstream = (batch.relation > 1) & (batch.relation <= 1 + MAX_DISTANCE)  # [B, V, V]
    adj = link * (link >= FLOOR) * (downstream + 0.5 * (batch.relation == 1))  # [B, V, V]
    return batch._replace(adj=adj, relation=relations(adj))


def pagerank(adj: torch.Tensor, teleport: float) -> torch.Tensor:
    """Personalised PageRank of adj [B, V, V] read without direction: t (I - (1 - t) D^-1/2 A D^-1/2)^-1, float[B, V, V],
    where A has self loops and t is the probability to start anew. Padding is linked to itself alone."""
    loops = torch.eye(adj.shape[-1], device=adj.device)  # [V, V]
    both = adj + adj.transpose(-1, -2) + loops  # [B, V, V]
    root = both.sum(-1).rsqrt()  # [B, V]
    walk = root[:, :, None] * both * root[:, None, :]  # [B, V, V]
    return teleport * torch.linalg.inv(loops - (1 - teleport) * walk)
