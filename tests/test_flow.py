"""What flows through a DAG: counts on paths against a walk over every path, sketches of the order."""
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features.flow import flow_targets

K = 4
DAGS = st.integers(2, 6).flatmap(lambda n: st.tuples(
    st.lists(st.integers(0, K - 1), min_size=n, max_size=n),
    st.lists(st.booleans(), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2)))


def dag(drawn) -> tuple[torch.Tensor, torch.Tensor]:
    """ops [1, V], adj [1, V, V]."""
    ops, edges = drawn
    adj = torch.zeros(1, len(ops), len(ops), dtype=torch.uint8)
    adj[0][tuple(torch.triu_indices(len(ops), len(ops), 1))] = torch.tensor(edges, dtype=torch.uint8)
    return torch.tensor([ops], dtype=torch.uint8), adj


def paths(adj: list[list[int]], v: int) -> list[list[int]]:
    """Every path that starts at a vertex which nothing feeds and ends at v."""
    before = [u for u in range(len(adj)) if adj[u][v]]
    return [path + [v] for u in before for path in paths(adj, u)] or [[v]]


def counted(ops, adj) -> torch.Tensor:
    """[V, 2K + 1]: largest and smallest number of each operation on a path to a vertex, log of the number of
    paths."""
    rows = []
    for v in range(len(ops)):
        on_paths = [[ops[u] for u in path] for path in paths(adj, v)]
        counts = torch.tensor([[on_path.count(op) for op in range(K)] for on_path in on_paths])  # [P, K]
        rows.append([*counts.amax(0).tolist(), *counts.amin(0).tolist(), math.log(len(counts))])
    return torch.tensor(rows)


@settings(max_examples=60, deadline=None)
@given(drawn=DAGS)
def test_flow_counts_what_is_on_the_paths(drawn):
    ops, adj = dag(drawn)
    back, ahead = flow_targets(ops, adj, torch.ones_like(ops, dtype=torch.bool), K)[0].chunk(2, dim=1)
    assert torch.allclose(back[:, :2 * K + 1], counted(ops[0].tolist(), adj[0].tolist()))
    assert torch.allclose(ahead[:, :2 * K + 1], counted(ops[0].tolist(), adj[0].T.tolist()))


def test_flow_tells_the_order_of_operations_on_a_path():
    """Same operations, same counts; only the sketch of the paths can tell 0-1-2-3 from 0-2-1-3."""
    ops, adj = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3]], dtype=torch.uint8), torch.diag(torch.ones(3), 1)
    first, second = flow_targets(ops, adj.expand(2, 4, 4), torch.ones_like(ops, dtype=torch.bool), K)[:, 3]
    assert torch.equal(first[:2 * K + 1], second[:2 * K + 1]) and (first - second).abs().max() > 0.1
