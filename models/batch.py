"""What the encoders read: a batch of padded graphs as dense tensors, with the relations between vertices worked out once.

B graphs, V vertices. A `Batch` is a tuple of tensors, so torch.func.vmap sees through it.
"""
from __future__ import annotations

from typing import NamedTuple

import torch

MAX_DISTANCE = 7  # longer distances share one code
RELATIONS = 2 * MAX_DISTANCE + 2  # self, unrelated, 1..7 downstream, 1..7 upstream


class Batch(NamedTuple):
    """ops uint8[B, V], adj uint8[B, V, V] (i -> j), real bool[B, V], marks uint8[B, V], relation uint8[B, V, V] (`relations`).

    Small integers, so that the whole space stays on the device; an encoder casts the rows of its batch.
    """

    ops: torch.Tensor
    adj: torch.Tensor
    real: torch.Tensor
    marks: torch.Tensor
    relation: torch.Tensor

    @classmethod
    def of(cls, graphs) -> Batch:
        """From a table with uint8 fields ops [B, V], adj [B, V, V], marks [B, V] and a bool `real` [B, V]."""
        relation = torch.cat([relations(chunk) for chunk in graphs.adj.split(16384)])  # [B, V, V]
        return cls(graphs.ops, graphs.adj, graphs.real, graphs.marks, relation)

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(field.to(device) for field in self))

    def rows(self, index: torch.Tensor) -> Batch:
        """The graphs at index [...]: every field gains index's shape in place of B."""
        return Batch(*(field[index] for field in self))

    def expand(self, members: int) -> Batch:
        """The same graphs for each of M ensemble members: fields [M, B, ...], without a copy."""
        return Batch(*(field.expand(members, *field.shape) for field in self))

    @property
    def graphs(self) -> int:
        """B. (len() of a NamedTuple is its number of fields.)"""
        return self.ops.shape[0]


def relations(adj: torch.Tensor) -> torch.Tensor:
    """adj [B, V, V] of DAGs -> uint8[B, V, V]: how vertex j stands to vertex i.

    0 the same vertex; 1 neither reaches the other (padding too); 1 + d where j is d steps downstream of i;
    1 + MAX_DISTANCE + d where j is d steps upstream. d is the shortest path, cut at MAX_DISTANCE. In a DAG at most one
    of the two directions exists, so one code carries direction, reachability and distance. With every edge both ways all
    is downstream.
    """
    step = adj.float()  # [B, V, V]
    walk, distance = step, torch.zeros_like(step)
    for length in range(1, adj.shape[-1]):
        newly = (walk > 0) & (distance == 0)
        distance = torch.where(newly, float(min(length, MAX_DISTANCE)), distance)
        walk = ((walk @ step) > 0).float()  # [B, V, V]
    down, up = distance, distance.transpose(-1, -2)
    code = torch.where(down > 0, 1 + down, torch.where(up > 0, 1 + MAX_DISTANCE + up, 1.0))
    same = torch.eye(adj.shape[-1], dtype=torch.bool, device=adj.device)  # [V, V]
    return code.masked_fill(same, 0.0).to(torch.uint8)
