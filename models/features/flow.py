"""Facts about the flow through an architecture, by a walk over its DAG: targets of a pretext task.

They need neither a label nor a space. N graphs, V vertices in topological order (adj upper triangular), K
operations, T targets.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F

SKETCH = 32  # numbers in the sketch of a vertex's paths


def flow_targets(ops: torch.Tensor, adj: torch.Tensor, node_mask: torch.Tensor,
                 operations: int) -> torch.Tensor:
    """uint8 ops [N, V] and adj [N, V, V], bool node_mask [N, V] -> float[N, V, T], zero at padding.

    For every vertex, once back to the inputs and once ahead to the outputs: per operation, its largest and
    smallest number of vertices on a path; the logarithm of the number of paths; and a sketch of the multiset
    of operation sequences on these paths (`rotations`).
    """
    one_hot = F.one_hot(ops.long(), operations).float() * node_mask[..., None]  # [N, V, K]
    back = walk(one_hot, adj.float())  # [N, V, T/2]
    ahead = walk(one_hot.flip(1), turned(adj.float())).flip(1)  # [N, V, T/2]
    return torch.cat([back, ahead], dim=-1) * node_mask[..., None]  # [N, V, T]


def walk(one_hot: torch.Tensor, adj: torch.Tensor) -> torch.Tensor:
    """Facts about the paths that end at each vertex: one_hot [N, V, K], adj [N, V, V] -> [N, V, 2K + 1 + S].

    S = SKETCH.
    """
    count, vertices, operations = one_hot.shape
    turn = rotations(operations).to(one_hot.device)  # [K, S, S]
    paths, sketches = [], []
    for v in range(vertices):
        first = (adj[:, :v, v].sum(1) == 0).float()  # [N]: nothing feeds v
        if v:
            feeds = adj[:, :v, v]  # [N, v]
            ways = (torch.stack(paths, 1) * feeds).sum(1)  # [N]
            sum_in = (torch.stack(sketches, 1) * feeds[..., None]).sum(1)  # [N, S]
        else:
            ways, sum_in = one_hot.new_zeros(count), one_hot.new_zeros(count, SKETCH)
        sum_in = sum_in + first[:, None] / SKETCH**0.5
        paths.append(ways + first)
        sketches.append(torch.einsum("nk,kst,nt->ns", one_hot[:, v], turn, sum_in))
    log_paths = torch.stack(paths, 1).clamp(min=1).log()[..., None]  # [N, V, 1]
    return torch.cat([*extremes(one_hot, adj), log_paths, torch.stack(sketches, 1)], dim=-1)


def extremes(weight: torch.Tensor, adj: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest and the smallest sum of weights on the paths from an input to each vertex, [N, V, W] each.

    weight [N, V, W] >= 0, adj [N, V, V]. An input is a vertex that nothing feeds; both ends count.
    """
    longest, shortest = [weight[:, 0]], [weight[:, 0]]
    for v in range(1, weight.shape[1]):
        feeds = adj[:, :v, v, None] > 0  # [N, v, 1]
        most = torch.where(feeds, torch.stack(longest, 1), 0.0).amax(1)  # [N, W]
        least = torch.where(feeds, torch.stack(shortest, 1), torch.inf).amin(1)  # [N, W]
        longest.append(most + weight[:, v])
        shortest.append(torch.where(feeds.any(1), least, 0.0) + weight[:, v])
    return torch.stack(longest, 1), torch.stack(shortest, 1)


def turned(adj: torch.Tensor) -> torch.Tensor:
    """adj [N, V, V] with the last vertex first and every edge reversed: still in topological order."""
    return adj.flip(1, 2).transpose(1, 2)


def rotations(operations: int) -> torch.Tensor:
    """A fixed random rotation per operation, [K, S, S].

    Applied in turn along a path, they send different sequences of operations to nearly orthogonal vectors. So
    the sum over paths sketches the path encoding of BANANAS (White et al., AAAI 2021) in SKETCH numbers,
    whatever the number of possible paths.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(operations, SKETCH, SKETCH, generator=generator)).Q
