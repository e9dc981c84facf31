"""The input of the encoders: a batch of padded graphs as dense tensors, with the relations of their vertices.

B graphs, V vertices. A `Batch` is a tuple of tensors, so torch.func.vmap accepts it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

MAX_DISTANCE = 7  # longer distances share one code
PIECE = 4096  # vertices at a time where nothing learns, on a CPU: more leave its cache
RELATIONS = 2 * MAX_DISTANCE + 2  # self, unrelated, 1..7 downstream, 1..7 upstream


class Batch(NamedTuple):
    """Graphs as small integers, so that a whole space fits on the device; an encoder casts its batch.

    ops        uint8[B, V]     operation of each vertex, 0 at padding
    adj        uint8[B, V, V]  1 where a tensor flows from vertex i to vertex j
    node_mask  bool[B, V]      True at vertices, False at padding
    marks      uint8[B, V]     the cell that a vertex belongs to
    relation   uint8[B, V, V]  how vertex j stands to vertex i (`relations`)
    """

    ops: torch.Tensor
    adj: torch.Tensor
    node_mask: torch.Tensor
    marks: torch.Tensor
    relation: torch.Tensor

    @classmethod
    def of(cls, graphs) -> Batch:
        """Builds a batch from a table: uint8 ops [B, V], adj [B, V, V] and marks [B, V]; bool node_mask."""
        relation = torch.cat([relations(chunk, stop=True) for chunk in graphs.adj.split(16384)])  # [B, V, V]
        return cls(graphs.ops, graphs.adj, graphs.node_mask, graphs.marks, relation)

    @classmethod
    def cat(cls, batches: Sequence[Batch]) -> Batch:
        """Joins batches of the same V."""
        return cls(*map(torch.cat, zip(*batches)))

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(field.to(device) for field in self))

    def rows(self, index: torch.Tensor) -> Batch:
        """The graphs at index [...]: every field gains index's shape in place of B."""
        return Batch(*(field[index] for field in self))

    def expand(self, members: int) -> Batch:
        """The same graphs for each of M ensemble members: fields [M, B, ...], without a copy."""
        return Batch(*(field.expand(members, *field.shape) for field in self))

    @property
    def num_graphs(self) -> int:
        """B; len() of a NamedTuple is its number of fields."""
        return self.ops.shape[0]

    @property
    def piece(self) -> int:
        """The number of graphs that a network reads at a time where nothing learns."""
        vertices = PIECE if self.ops.device.type == "cpu" else 64 * PIECE
        return max(1, vertices // self.ops.shape[-1])

    @property
    def is_input(self) -> torch.Tensor:
        """bool[B, V]: True at the vertices that nothing feeds."""
        return self.node_mask & (self.adj.sum(-2) == 0)

    @property
    def is_output(self) -> torch.Tensor:
        """bool[B, V]: True at the vertices that feed nothing."""
        return self.node_mask & (self.adj.sum(-1) == 0)

    def without_edges(self, hidden: torch.Tensor) -> Batch:
        """The graphs without the edges at `hidden` bool[B, V, V]; the relations are computed anew."""
        adj = self.adj * ~hidden  # [B, V, V]
        return self._replace(adj=adj, relation=relations(adj))


def relations(adj: torch.Tensor, stop: bool = False) -> torch.Tensor:
    """adj [B, V, V] of DAGs -> uint8[B, V, V]: how vertex j stands to vertex i.

    0 the same vertex; 1 neither reaches the other (padding too); 1 + d if j is d steps downstream of i;
    1 + MAX_DISTANCE + d if j is d steps upstream. d is the length of the shortest path, cut at MAX_DISTANCE.
    In a DAG at most one of the two directions exists, so one code holds direction, reachability and distance.
    If every edge goes both ways, all is downstream. stop: end early if no path is longer, which is faster but
    reads a value, so not under torch.func.vmap.
    """
    step = adj.float()  # [B, V, V]
    walk, distance = step, torch.zeros_like(step)
    for length in range(1, adj.shape[-1]):
        if stop and not walk.any():
            break
        newly = (walk > 0) & (distance == 0)
        distance = torch.where(newly, float(min(length, MAX_DISTANCE)), distance)
        walk = ((walk @ step) > 0).float()  # [B, V, V]
    down, up = distance, distance.transpose(-1, -2)
    code = torch.where(down > 0, 1 + down, torch.where(up > 0, 1 + MAX_DISTANCE + up, 1.0))
    same = torch.eye(adj.shape[-1], dtype=torch.bool, device=adj.device)  # [V, V]
    return code.masked_fill(same, 0.0).to(torch.uint8)
