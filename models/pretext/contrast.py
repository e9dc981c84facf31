"""Contrast between architectures: one-edit neighbours, and the loss that tells a cell from them.

B graphs, V vertices, K operations, E possible edits of a graph.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch, relations
from models.pretext.heads import PROJECTION, mlp
from models.pretext.masked import draw_mask


class Contrast(nn.Module):
    """Finds a cell's second view among those of the batch and of one-edit neighbours, given its first view.

    A view hides `ratio` of the operations. The neighbour of a cell, its hard negative, has the mask of the
    second view and differs at a visible vertex or in an edge.
    """

    def __init__(self, encoder: nn.Module, ratio: float, temperature: float):
        super().__init__()
        self.ratio, self.temperature = ratio, temperature
        self.project = mlp(encoder.readout_width, PROJECTION)

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        first, second = (draw_mask(batch.node_mask, self.ratio, generator) for _ in range(2))  # [B, V] each
        edited = neighbours(batch, second, encoder.operations, generator)
        shown = Batch.cat([batch, batch, edited])  # 3 B graphs
        h = encoder(shown, torch.cat([first, second, second]))  # [3 B, V, D]
        views = self.project(encoder.readout(h, shown))  # [3 B, D']
        graph = identities(batch, edited)  # [2 B]
        same = graph[:batch.num_graphs, None] == graph  # [B, 2 B]
        return {"contrast": info_nce(
            views[:batch.num_graphs], views[batch.num_graphs:], same, self.temperature)}


def neighbours(batch: Batch, fixed: torch.Tensor, operations: int, generator: torch.Generator) -> Batch:
    """Draws uniformly, for each graph of the batch, a graph one edit away.

    Vertices `fixed` bool[B, V] keep their operation. An edit gives an inner vertex another operation, or adds
    or removes one edge. The batch itself defines the possible edits: an operation must occur at some inner
    vertex of it, an edge must be in some of its graphs and not in others, and no graph gets more edges than
    the fullest. An edge is removed only if both its ends keep another, and edges run from earlier to later
    vertices, so a neighbour is a DAG whose every vertex lies between an input and an output. It can still be
    outside the space (a DARTS vertex with an input too many), which a negative may be. A graph without a
    possible edit stays as it is.
    """
    adj = batch.adj > 0  # [B, V, V]
    arrives, leaves = adj.sum(1), adj.sum(2)  # [B, V] each
    inner = (arrives > 0) & (leaves > 0)
    now = F.one_hot(batch.ops.long(), operations) > 0  # [B, V, K]
    occurs = now[inner].any(0)  # [K]
    operation = (inner & ~fixed)[..., None] & occurs & ~now  # [B, V, K]
    varies = adj.any(0) & ~adj.all(0) & batch.node_mask[:, :, None] & batch.node_mask[:, None, :]  # [B, V, V]
    spare = (leaves[:, :, None] > 1) & (arrives[:, None, :] > 1)  # [B, V, V]
    edges = adj.sum((1, 2))  # [B]
    edge = varies & torch.where(adj, spare, (edges < edges.max())[:, None, None])  # [B, V, V]
    possible = torch.cat([operation.flatten(1), edge.flatten(1)], dim=1).float()  # [B, E]
    possible = F.pad(possible, (0, 1), value=1e-9)  # the last one: no edit
    drawn = F.one_hot(possible.multinomial(1, generator=generator)[:, 0], possible.shape[1])[:, :-1]  # [B, E]
    new_op, flipped = drawn.split([operation[0].numel(), edge[0].numel()], dim=1)
    new_op = new_op.view_as(operation)  # [B, V, K]
    ops = torch.where(new_op.any(-1), new_op.argmax(-1), batch.ops).to(batch.ops.dtype)  # [B, V]
    edited = batch.adj ^ flipped.view_as(adj).to(batch.adj.dtype)  # [B, V, V]
    return batch._replace(ops=ops, adj=edited, relation=relations(edited))


def info_nce(anchor: torch.Tensor, candidates: torch.Tensor, same: torch.Tensor,
             temperature: float) -> torch.Tensor:
    """anchor [B, D], candidates [C, D], same bool[B, C] -> scalar.

    The cross-entropy of choosing candidate i for anchor i by cosine similarity (InfoNCE: van den Oord et al.,
    2018; with a temperature as in SimCLR: Chen et al., ICML 2020). Candidates that are the `same` as the
    anchor are not negatives.
    """
    logits = F.normalize(anchor, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature  # [B, C]
    right = torch.arange(len(anchor), device=anchor.device)  # [B]
    own = F.one_hot(right, len(candidates)) > 0  # [B, C]
    return F.cross_entropy(logits.masked_fill(same & ~own, -torch.inf), right)


def identities(*batches: Batch) -> torch.Tensor:
    """long[B1 + B2 + ...]: equal exactly for graphs with equal tensors, so isomorphic graphs can differ."""
    parts = [(b.ops, b.marks, b.node_mask.to(b.ops.dtype), b.adj.flatten(1)) for b in batches]
    rows = [torch.cat(part, dim=1) for part in parts]  # [B, V^2 + 3V]
    return torch.cat(rows).unique(dim=0, return_inverse=True)[1]
