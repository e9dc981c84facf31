"""What flows through an architecture: label-free facts that are computed by walking its DAG, the targets of `pretext`.

N graphs, V vertices in topological order (adj upper triangular), K operations, T targets. Nothing here knows a space.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F

SKETCH = 32  # numbers in the sketch of a vertex's paths


def flow_targets(ops: torch.Tensor, adj: torch.Tensor, real: torch.Tensor, operations: int) -> torch.Tensor:
    """uint8 ops [N, V] and adj [N, V, V], bool real [N, V] -> float[N, V, T], zero at padding.

    For every vertex, once looking back to the inputs and once forward to the outputs: per operation, the largest and
    the smallest number of vertices of it on a path; the logarithm of the number of paths; and a sketch of the multiset
    of operation sequences on those paths (`sketch`).
    """
    one_hot = F.one_hot(ops.long(), operations).float() * real[..., None]  # [N, V, K]
    back = walk(one_hot, adj.float())  # [N, V, T/2]
    ahead = walk(one_hot.flip(1), adj.float().flip(1, 2).transpose(1, 2)).flip(1)  # [N, V, T/2]
    return torch.cat([back, ahead], dim=-1) * real[..., None]  # [N, V, T]


def walk(one_hot: torch.Tensor, adj: torch.Tensor) -> torch.Tensor:
    """one_hot [N, V, K], adj [N, V, V] -> [N, V, 2K + 1 + SKETCH]: facts about the paths that end at each vertex."""
    count, vertices, operations = one_hot.shape
    turn = rotations(operations).to(one_hot.device)  # [K, S, S]
    longest, shortest, paths, sketches = [], [], [], []
    for v in range(vertices):
        own = one_hot[:, v]  # [N, K]
        first = (adj[:, :v, v].sum(1) == 0).float() if v else one_hot.new_ones(count)  # [N]: nothing feeds v
        if v:
            feeds = adj[:, :v, v, None]  # [N, v, 1]
            most = (torch.stack(longest, 1) * feeds).amax(1)  # [N, K]
            least = torch.where(feeds > 0, torch.stack(shortest, 1), torch.inf).amin(1)  # [N, K]
            least = torch.where(first[:, None] > 0, 0.0, least)
            ways = (torch.stack(paths, 1) * feeds[..., 0]).sum(1)  # [N]
            sum_in = (torch.stack(sketches, 1) * feeds).sum(1)  # [N, S]
        else:
            most = least = torch.zeros_like(own)
            ways, sum_in = one_hot.new_zeros(count), one_hot.new_zeros(count, SKETCH)
        sum_in = sum_in + first[:, None] / SKETCH**0.5
        longest.append(most + own)
        shortest.append(least + own)
        paths.append(ways + first)
        sketches.append(torch.einsum("nk,kst,nt->ns", own, turn, sum_in))
    log_paths = torch.stack(paths, 1).clamp(min=1).log()[..., None]  # [N, V, 1]
    return torch.cat([torch.stack(longest, 1), torch.stack(shortest, 1), log_paths, torch.stack(sketches, 1)], dim=-1)


def rotations(operations: int) -> torch.Tensor:
    """[K, S, S]: a fixed random rotation per operation. Applied in turn along a path they send different sequences of
    operations to nearly orthogonal vectors, so the sum over paths sketches the path encoding of BANANAS (White et al.,
    AAAI 2021) in SKETCH numbers whatever the number of possible paths."""
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(operations, SKETCH, SKETCH, generator=generator)).Q
