"""Architectures as rows of numbers, for models that read no graph: their paths, their wiring, facts about the whole graph.

    columns = path_columns(table, operations)        # which paths get a column: found once, for all graphs to come
    x = path_features(batch, operations, columns)    # [N, P], for the MLP of BANANAS
    x = cell_features(batch, operations, columns)    # these and all else that is here, for boosted trees

N graphs, V vertices, K operations, P columns, p paths.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.batch import Batch

MOST = 1024  # columns at most; NAS-Bench-101 has 364 possible paths, NAS-Bench-201 155, a DARTS genotype 11,200


class Paths(NamedTuple):
    """All paths of a batch from vertices that nothing feeds to vertices that feed nothing, one an entry.

    graph int64[p]; code int64[p], the sequence of (operation, mark) along it as one number; count int64[p, K], its
    vertices of each operation. Long sequences wrap around in code, as a hash.
    """

    graph: torch.Tensor
    code: torch.Tensor
    count: torch.Tensor


def paths_of(batch: Batch, operations: int) -> Paths:
    """Every path of every graph, all graphs one edge further at a time. A DARTS genotype has at most 36, the others fewer;
    its two cells are not connected, and the mark in the code tells a path of one from the same in the other."""
    one_hot = F.one_hot(batch.ops.long(), operations)  # [N, V, K]
    token = 1 + batch.ops.long() + operations * batch.marks.long()  # [N, V]
    graph, at = (batch.real & (batch.adj.sum(1) == 0)).nonzero(as_tuple=True)  # [p] each: the first vertex
    code, count, ended = token[graph, at], one_hot[graph, at], []
    while len(graph):
        path, after = batch.adj[graph, at].nonzero(as_tuple=True)  # [p'] each: the path that goes on, its next vertex
        graph, at = graph[path], after
        code = code[path] * (2 * operations + 1) + token[graph, at]
        count = count[path] + one_hot[graph, at]
        end = batch.adj[graph, at].sum(1) == 0  # [p']
        ended.append(Paths(graph[end], code[end], count[end]))
    return Paths(*map(torch.cat, zip(*ended)))


def path_columns(batch: Batch, operations: int, most: int = MOST) -> torch.Tensor:
    """int64[P]: the codes of the paths that most graphs of the batch have, the commonest `most` where there are more."""
    paths = paths_of(batch, operations)
    once = torch.stack([paths.graph, paths.code]).unique(dim=1)[1]  # a graph counts once for each of its paths
    code, graphs = once.unique(return_counts=True)
    return code[graphs.argsort(descending=True, stable=True)[:most]].sort().values


def path_features(batch: Batch, operations: int, columns: torch.Tensor | None = None) -> torch.Tensor:
    """float32[N, P]: 1 where a graph has a path of that sequence of operations (the path encoding of BANANAS, White et al.,
    AAAI 2021, cut to the commonest paths as they propose). Without columns they are those of this batch."""
    columns = path_columns(batch, operations) if columns is None else columns
    paths = paths_of(batch, operations)
    place = torch.searchsorted(columns, paths.code).clamp(max=len(columns) - 1)  # [p]
    known = columns[place] == paths.code  # [p]
    features = torch.zeros(len(batch.ops), len(columns), device=batch.ops.device)  # [N, P]
    features[paths.graph[known], place[known]] = 1
    return features


def adjacency_features(batch: Batch, operations: int) -> torch.Tensor:
    """float32[N, V K + V V]: the operation at each place, one-hot, and the edges between places. Alone among the encodings
    here it reads the order of the vertices, which is canonical in the tables of our spaces."""
    places = F.one_hot(batch.ops.long(), operations) * batch.real[..., None]  # [N, V, K]
    return torch.cat([places.flatten(1), batch.adj.flatten(1)], dim=1).float()


def graph_features(batch: Batch, operations: int) -> torch.Tensor:
    """float32[N, 2K + 9], facts about whole graphs: vertices of each operation, the most of each on one path; vertices,
    edges, edges of the longest and of the shortest path, log(1 + number of paths); edges out of the inputs and into the
    outputs, most edges out of and into one vertex."""
    real, adj = batch.real.float(), batch.adj.float()
    on_vertices = (F.one_hot(batch.ops.long(), operations) * real[..., None]).sum(1)  # [N, K]
    out, into = adj.sum(2), adj.sum(1)  # [N, V] each
    paths = paths_of(batch, operations)
    length = paths.count.sum(1, keepdim=True) - 1  # [p, 1]
    on_path, longest, shortest = (largest(paths.graph, value, len(real)) for value in (paths.count, length, -length))
    number = torch.bincount(paths.graph, minlength=len(real))  # [N]
    rest = (real.sum(1), out.sum(1), longest[:, 0], -shortest[:, 0], number.log1p(), (out * (into == 0)).sum(1),
            (into * (out == 0)).sum(1), out.amax(1), into.amax(1))
    return torch.cat([on_vertices, on_path, torch.stack(rest, 1)], dim=1).float()


def largest(graph: torch.Tensor, value: torch.Tensor, graphs: int) -> torch.Tensor:
    """value [p, C] of paths in graphs [p] -> [N, C]: the largest of each graph, 0 for a graph without paths."""
    index = graph[:, None].expand_as(value)  # [p, C]
    return value.new_zeros(graphs, value.shape[1]).scatter_reduce(0, index, value, "amax", include_self=False)


def cell_features(batch: Batch, operations: int, columns: torch.Tensor | None = None) -> torch.Tensor:
    """float32[N, ...]: paths, wiring, and the facts of each cell (the vertices of one mark) by itself."""
    features = [path_features(batch, operations, columns), adjacency_features(batch, operations)]
    for mark in batch.marks.unique():
        real = batch.real & (batch.marks == mark)  # [N, V]
        features.append(graph_features(batch._replace(real=real, adj=batch.adj * real[..., None]), operations))
    return torch.cat(features, dim=1)
