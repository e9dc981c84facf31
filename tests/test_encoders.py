"""The encoders and the predictor: what of a graph they see, and what they must not see.

Weights are random and double precision, so "equal" means equal to 1e-9 and "differs" is not a rounding error.
"""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spaces
from models.batch import MAX_DISTANCE, Batch, relations
from models.encoders import ENCODERS, build_encoder
from models.predictor.network import PredictorNetwork
from spaces import darts
from toys.graphs import OPERATIONS, batch, dags

CHAIN = np.eye(4, k=1)
SYMMETRIC = ("gat", "gcn")  # their messages run along both directions of an edge alike
DIRECTED = [name for name in ENCODERS if name not in SYMMETRIC]


def config(base_model: str, dropout: float = 0.0) -> dict:
    return {"base_model": base_model, "width": 16, "layers": 2, "heads": 4, "dropout": dropout}


def network(base_model: str, operations: int = OPERATIONS) -> PredictorNetwork:
    """A predictor in which every weight is random: the gates, biases, norms too: they start at constants."""
    generator = torch.Generator().manual_seed(0)
    predictor = PredictorNetwork(build_encoder(config(base_model), operations)).double().eval()
    for weight in predictor.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.4
    return predictor


NETWORKS = {name: network(name) for name in ENCODERS}
every_encoder = pytest.mark.parametrize("name", ENCODERS)


@torch.no_grad()
def outputs(name: str, graph: Batch) -> torch.Tensor:
    """Embedding and score in one row: [B, D' + 1]."""
    predictor = NETWORKS[name]
    embedding, score = predictor.embed(graph), predictor(graph)
    assert embedding.shape == (graph.num_graphs, predictor.encoder.readout_width)
    assert score.shape == (graph.num_graphs,)
    return torch.cat([embedding, score[:, None]], dim=1)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


@every_encoder
@settings(max_examples=60, deadline=None)
@given(graph=dags(), data=st.data())
def test_the_order_of_the_vertices_does_not_matter(name, graph, data):
    ops, adj, marks = graph
    order = np.array(data.draw(st.permutations(range(len(ops)))))
    shuffled = batch(ops[order], adj[np.ix_(order, order)], marks[order])
    assert gap(outputs(name, batch(*graph)), outputs(name, shuffled)) < 1e-9


@every_encoder
@pytest.mark.parametrize("vertices", [7, 9])
@settings(max_examples=30, deadline=None)
@given(graph=dags(most=5), other=dags(most=7), filler=st.integers(0, OPERATIONS - 1))
def test_padding_and_the_rest_of_the_batch_are_not_seen(name, vertices, graph, other, filler):
    padded = [batch(*g, vertices=vertices, filler=filler) for g in (graph, other)]
    together = Batch.cat(padded)  # B = 2
    assert gap(outputs(name, batch(*graph)), outputs(name, padded[0])) < 1e-9
    assert gap(outputs(name, batch(*graph))[0], outputs(name, together)[0]) < 1e-9


@every_encoder
@settings(max_examples=40, deadline=None)
@given(graph=dags(), data=st.data())
def test_every_operation_is_seen(name, graph, data):
    ops, adj, marks = graph
    changed = ops.copy()
    vertex = data.draw(st.integers(0, len(ops) - 1))
    changed[vertex] = (ops[vertex] + data.draw(st.integers(1, OPERATIONS - 1))) % OPERATIONS
    assert gap(outputs(name, batch(*graph)), outputs(name, batch(changed, adj, marks))) > 1e-5


@every_encoder
def test_an_edge_is_seen(name):
    shortcut = CHAIN.copy()
    shortcut[0, 2] = 1
    assert gap(outputs(name, batch([0, 1, 2, 3], CHAIN)), outputs(name, batch([0, 1, 2, 3], shortcut))) > 1e-4


@pytest.mark.parametrize("name", DIRECTED)
@settings(max_examples=50, deadline=None)
@given(graph=dags(distinct=True))
def test_a_graph_is_told_from_its_reversal(name, graph):
    """All operations differ, so the reversed graph is another graph."""
    ops, adj, marks = graph
    assert gap(outputs(name, batch(*graph)), outputs(name, batch(ops, adj.T, marks))) > 1e-5


@pytest.mark.parametrize("name", SYMMETRIC)
@settings(max_examples=50, deadline=None)
@given(graph=dags())
def test_the_encoders_of_the_paper_do_not_see_direction(name, graph):
    """A fact about the published encoder, kept for fidelity."""
    ops, adj, marks = graph
    assert gap(outputs(name, batch(*graph)), outputs(name, batch(ops, adj.T, marks))) < 1e-9


@every_encoder
@pytest.mark.parametrize("cell_marks", [True, False])
def test_swapping_the_darts_cells_shows_only_with_marks(name, cell_marks, rng):
    space = spaces.get("darts", cell_marks=cell_marks)
    predictor = network(name, len(space.ops))
    archs = [*space.sample(8, rng), *darts.NAMED.values()]
    swapped = [a._replace(normal=a.reduce, reduce=a.normal) for a in archs]
    with torch.no_grad():
        scores, others = (predictor(Batch.of(space.encode(cells))) for cells in (archs, swapped))  # [B] each
        gaps = (scores - others).abs()
    assert gaps.min() > 1e-5 if cell_marks else gaps.max() < 1e-9


@every_encoder
def test_every_weight_gets_a_gradient_from_the_start(name):
    predictor = PredictorNetwork(build_encoder(config(name), OPERATIONS))
    predictor(batch([0, 1, 2, 3], CHAIN, [0, 0, 1, 1])).sum().backward()
    silent = [weight for weight, p in predictor.named_parameters()
              if p.grad is None or not 0 < p.grad.norm() < np.inf]
    assert not silent


@every_encoder
def test_dropout_acts_in_training_only(name):
    """And the dropout given to build_encoder beats the config's."""
    graph, encoder = batch([0, 1, 2, 3], CHAIN), build_encoder(config(name), OPERATIONS, dropout=0.5)
    assert gap(encoder.train().embed(graph), encoder.embed(graph)) > 1e-4
    assert gap(encoder.eval().embed(graph), encoder.embed(graph)) == 0
    encoder = build_encoder(config(name, dropout=0.5), OPERATIONS, dropout=0.0).train()
    assert gap(encoder.embed(graph), encoder.embed(graph)) == 0


# Relations --------------------------------------------------------------------------------------------------

def test_relations_of_a_diamond_with_a_tail():
    """0 -> 1, 0 -> 2, 1 -> 3, 2 -> 3, 3 -> 4; vertex 5 is padding."""
    adj = torch.zeros(1, 6, 6, dtype=torch.uint8)
    for i, j in ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4)):
        adj[0, i, j] = 1
    down, up = 1, 1 + MAX_DISTANCE  # plus the distance
    assert relations(adj)[0].tolist() == [
        [0, down + 1, down + 1, down + 2, down + 3, 1],
        [up + 1, 0, 1, down + 1, down + 2, 1],
        [up + 1, 1, 0, down + 1, down + 2, 1],
        [up + 2, up + 1, up + 1, 0, down + 1, 1],
        [up + 3, up + 2, up + 2, up + 1, 0, 1],
        [1, 1, 1, 1, 1, 0],
    ]


def test_long_distances_share_one_code():
    row = relations(torch.from_numpy(np.eye(10, k=1, dtype=np.uint8))[None])[0, 0].tolist()
    assert row == [0, 2, 3, 4, 5, 6, 7, 8, 8, 8]


@settings(max_examples=60, deadline=None)
@given(graph=dags(most=9))
def test_relations_take_the_shortest_path(graph):
    _, adj, _ = graph
    n, distance = len(adj), np.where(adj > 0, 1.0, np.inf)
    for k in range(n):  # Floyd and Warshall
        distance = np.minimum(distance, distance[:, k, None] + distance[None, k])
    code = relations(torch.from_numpy(adj)[None])[0].numpy()
    for i in range(n):
        for j in range(n):
            down, up = distance[i, j], distance[j, i]
            reached = 1 + down if down < np.inf else 1 + MAX_DISTANCE + up if up < np.inf else 1
            assert code[i, j] == (0 if i == j else reached)


def test_rows_of_a_batch_keep_the_shape_of_the_index(rng):
    table = Batch.of(spaces.get("nasbench201").table(10, rng))
    picked = table.rows(torch.tensor([[3, 1], [0, 3]]))
    assert picked.adj.shape == (2, 2, 8, 8) and torch.equal(picked.ops[0, 1], table.ops[1])
    assert torch.equal(table.expand(3).relation[2], table.relation)
