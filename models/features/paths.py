"""Architectures as rows of numbers, for models that read no graph: paths, wiring, facts about whole graphs.

    columns = path_columns(table, operations)        # the paths that get a column, for all graphs to come
    x = path_features(batch, operations, columns)    # [N, P], for the MLP of BANANAS
    x = cell_features(batch, operations, columns)    # these and all the others here, for boosted trees

N graphs, V vertices, K operations, P columns, p paths.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.batch import Batch

MOST = 1024  # columns; possible paths: 364 in NAS-Bench-101, 155 in NAS-Bench-201, 11,200 in DARTS genotypes


class Paths(NamedTuple):
    """All paths of a batch from an input to an output, one per entry.

    graph  int64[p]     the graph of the path
    code   int64[p]     its sequence of (operation, mark) as one number; long sequences wrap around, as a hash
    count  int64[p, K]  its vertices of each operation
    """

    graph: torch.Tensor
    code: torch.Tensor
    count: torch.Tensor


def paths_of(batch: Batch, operations: int) -> Paths:
    """Every path of every graph, grown in all graphs by one edge at a time.

    A DARTS genotype has at most 36 paths, the others fewer. Its two cells are not connected, and the mark in
    the code tells a path in one cell from the same path in the other.
    """
    one_hot = F.one_hot(batch.ops.long(), operations)  # [N, V, K]
    token = 1 + batch.ops.long() + operations * batch.marks.long()  # [N, V]
    graph, at = batch.is_input.nonzero(as_tuple=True)  # [p] each: the first vertex
    code, count, ended = token[graph, at], one_hot[graph, at], []
    while len(graph):
        path, after = batch.adj[graph, at].nonzero(as_tuple=True)  # [p'] each: path extended, its next vertex
        graph, at = graph[path], after
        code = code[path] * (2 * operations + 1) + token[graph, at]
        count = count[path] + one_hot[graph, at]
        end = batch.is_output[graph, at]  # [p']
        ended.append(Paths(graph[end], code[end], count[end]))
    return Paths(*map(torch.cat, zip(*ended)))


def path_columns(batch: Batch, operations: int, most: int = MOST) -> torch.Tensor:
    """int64[P]: the codes of the paths in the batch, the `most` commonest if there are more."""
    paths = paths_of(batch, operations)
    once = torch.stack([paths.graph, paths.code]).unique(dim=1)[1]  # a path counts once per graph
    code, graphs = once.unique(return_counts=True)
    return code[graphs.argsort(descending=True, stable=True)[:most]].sort().values


def path_features(batch: Batch, operations: int, columns: torch.Tensor | None = None) -> torch.Tensor:
    """The path encoding float32[N, P]: 1 if a graph has a path with the column's sequence of operations.

    As in BANANAS (White et al., AAAI 2021), cut to the commonest paths as its authors propose. Without
    columns they are those of this batch.
    """
    columns = path_columns(batch, operations) if columns is None else columns
    paths = paths_of(batch, operations)
    place = torch.searchsorted(columns, paths.code).clamp(max=len(columns) - 1)  # [p]
    known = columns[place] == paths.code  # [p]
    features = torch.zeros(len(batch.ops), len(columns), device=batch.ops.device)  # [N, P]
    features[paths.graph[known], place[known]] = 1
    return features


def adjacency_features(batch: Batch, operations: int) -> torch.Tensor:
    """float32[N, V K + V V]: the operation at each place, one-hot, and the edges between places.

    The only encoding here that depends on the order of the vertices, which our spaces make canonical.
    """
    places = F.one_hot(batch.ops.long(), operations) * batch.node_mask[..., None]  # [N, V, K]
    return torch.cat([places.flatten(1), batch.adj.flatten(1)], dim=1).float()


def graph_features(batch: Batch, operations: int) -> torch.Tensor:
    """Facts about whole graphs, float32[N, 2K + 9].

    Vertices of each operation, the most of each on one path; vertices, edges, edges of the longest and of the
    shortest path, log(1 + number of paths); edges out of the inputs and into the outputs, most edges out of
    and into one vertex.
    """
    node_mask, adj = batch.node_mask.float(), batch.adj.float()
    on_vertices = (F.one_hot(batch.ops.long(), operations) * node_mask[..., None]).sum(1)  # [N, K]
    out, into = adj.sum(2), adj.sum(1)  # [N, V] each
    paths = paths_of(batch, operations)
    length = paths.count.sum(1, keepdim=True) - 1  # [p, 1]
    on_path, longest, shortest = (
        largest(paths.graph, value, len(node_mask)) for value in (paths.count, length, -length))
    number = torch.bincount(paths.graph, minlength=len(node_mask))  # [N]
    rest = (node_mask.sum(1), out.sum(1), longest[:, 0], -shortest[:, 0], number.log1p(),
            (out * (into == 0)).sum(1), (into * (out == 0)).sum(1), out.amax(1), into.amax(1))
    return torch.cat([on_vertices, on_path, torch.stack(rest, 1)], dim=1).float()


def largest(graph: torch.Tensor, value: torch.Tensor, graphs: int) -> torch.Tensor:
    """value [p, C] of paths in graphs [p] -> [N, C]: the largest per graph, 0 if it has no paths."""
    index = graph[:, None].expand_as(value)  # [p, C]
    return value.new_zeros(graphs, value.shape[1]).scatter_reduce(0, index, value, "amax", include_self=False)


def cell_features(batch: Batch, operations: int, columns: torch.Tensor | None = None) -> torch.Tensor:
    """float32[N, ...]: paths, wiring, and the facts about each cell (the vertices of one mark) alone."""
    features = [path_features(batch, operations, columns), adjacency_features(batch, operations)]
    for mark in batch.marks.unique():
        node_mask = batch.node_mask & (batch.marks == mark)  # [N, V]
        features.append(graph_features(
            batch._replace(node_mask=node_mask, adj=batch.adj * node_mask[..., None]), operations))
    return torch.cat(features, dim=1)
