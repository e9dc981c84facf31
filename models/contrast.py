"""Contrast between architectures: one-edit neighbours made by tensor code, and the loss that tells a cell from them.

B graphs, V vertices, K operations, E possible edits of a graph.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F

from models.batch import Batch, relations


def neighbours(batch: Batch, fixed: torch.Tensor, operations: int, generator: torch.Generator) -> Batch:
    """A graph one edit away from each graph of the batch, drawn uniformly; vertices `fixed` bool[B, V] keep their operation.

    An edit gives an inner vertex another operation, or adds or removes one edge. The batch itself says what may be edited:
    an operation must occur at some inner vertex of it, an edge must be in some of its graphs and not in others, and no
    graph gets more edges than the fullest. An edge goes only where both its ends keep another, and edges run from earlier
    to later vertices, so a neighbour is a DAG whose every vertex lies between an input and an output. It can still be
    outside the space (a DARTS vertex with an input too many), which a negative may be. A graph that allows no edit stays.
    """
    adj = batch.adj > 0  # [B, V, V]
    arrives, leaves = adj.sum(1), adj.sum(2)  # [B, V] each
    inner = (arrives > 0) & (leaves > 0)
    now = F.one_hot(batch.ops.long(), operations) > 0  # [B, V, K]
    occurs = now[inner].any(0)  # [K]
    operation = (inner & ~fixed)[..., None] & occurs & ~now  # [B, V, K]
    varies = adj.any(0) & ~adj.all(0) & batch.real[:, :, None] & batch.real[:, None, :]  # [B, V, V]
    spare = (leaves[:, :, None] > 1) & (arrives[:, None, :] > 1)  # [B, V, V]
    edges = adj.sum((1, 2))  # [B]
    edge = varies & torch.where(adj, spare, (edges < edges.max())[:, None, None])  # [B, V, V]
    possible = torch.cat([operation.flatten(1), edge.flatten(1)], dim=1).float()  # [B, E]
    possible = F.pad(possible, (0, 1), value=1e-9)  # the last is no edit
    drawn = F.one_hot(possible.multinomial(1, generator=generator)[:, 0], possible.shape[1])[:, :-1]  # [B, E]
    new_op, flipped = drawn.split([operation[0].numel(), edge[0].numel()], dim=1)
    new_op = new_op.view_as(operation)  # [B, V, K]
    ops = torch.where(new_op.any(-1), new_op.argmax(-1), batch.ops).to(batch.ops.dtype)  # [B, V]
    edited = batch.adj ^ flipped.view_as(adj).to(batch.adj.dtype)  # [B, V, V]
    return batch._replace(ops=ops, adj=edited, relation=relations(edited))


def info_nce(anchor: torch.Tensor, candidates: torch.Tensor, same: torch.Tensor, temperature: float) -> torch.Tensor:
    """anchor [B, D], candidates [C, D], same bool[B, C] -> scalar.

    Cross-entropy of picking candidate i for anchor i by cosine similarity (InfoNCE: van den Oord et al., 2018; with a
    temperature as in SimCLR: Chen et al., ICML 2020). Candidates that are the `same` as the anchor are no negatives.
    """
    logits = F.normalize(anchor, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature  # [B, C]
    right = torch.arange(len(anchor), device=anchor.device)  # [B]
    own = F.one_hot(right, len(candidates)) > 0  # [B, C]
    return F.cross_entropy(logits.masked_fill(same & ~own, -torch.inf), right)


def identities(*batches: Batch) -> torch.Tensor:
    """long[B1 + B2 + ...]: equal exactly for graphs that are drawn alike, so isomorphic ones can differ."""
    rows = [torch.cat([b.ops, b.marks, b.real.to(b.ops.dtype), b.adj.flatten(1)], dim=1) for b in batches]  # [B, V^2 + 3V]
    return torch.cat(rows).unique(dim=0, return_inverse=True)[1]
