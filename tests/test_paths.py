"""Path encoding and graph features: small literal graphs, and every graph against a plain recursive
search."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import spaces
from models.batch import Batch
from models.features.paths import (
    MOST,
    adjacency_features,
    cell_features,
    graph_features,
    path_columns,
    path_features,
    paths_of,
)
from toys.graphs import OPERATIONS, batch, dags

DIAMOND = np.zeros((4, 4), np.uint8)  # 0 -> 1 -> 3, 0 -> 2 -> 3, 0 -> 3
DIAMOND[[0, 0, 0, 1, 2], [1, 2, 3, 3, 3]] = 1


def walk(ops, adj, marks, vertex: int) -> list[tuple]:
    """The sequences of (operation, mark) on the paths from a vertex to the outputs."""
    after, own = np.flatnonzero(adj[vertex]), (int(ops[vertex]), int(marks[vertex]))
    return [(own, *rest) for v in after for rest in walk(ops, adj, marks, v)] if len(after) else [(own,)]


def sequences(ops, adj, marks) -> list[tuple]:
    """All paths of a graph, with repetitions; a vertex without any edge is none."""
    starts = np.flatnonzero(~adj.any(0) & adj.any(1))
    return [path for start in starts for path in walk(ops, adj, marks, start)]


# Paths ------------------------------------------------------------------------------------------------------

def test_paths_of_a_diamond():
    paths = paths_of(batch([0, 1, 2, 3], DIAMOND), 4)
    assert sorted(paths.count.tolist()) == [[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 0, 1]]
    assert paths.graph.tolist() == [0, 0, 0] and len(set(paths.code.tolist())) == 3


@settings(max_examples=80, deadline=None)
@given(one=dags(), other=dags())
def test_paths_are_those_of_a_recursive_search(one, other):
    """And equal codes are equal sequences, across graphs too."""
    table = Batch.cat([batch(*graph, vertices=7) for graph in (one, other)])
    paths, expected = paths_of(table, OPERATIONS), [sequences(*graph) for graph in (one, other)]
    code = {}
    for g in (0, 1):
        found = paths.code[paths.graph == g].tolist()
        assert len(found) == len(expected[g])
        features = path_features(table, OPERATIONS)[g].sum()
        assert features == len(set(found)) == len(set(expected[g]))
        code[g] = set(found)
    assert len(code[0] & code[1]) == len(set(expected[0]) & set(expected[1]))


@settings(max_examples=60, deadline=None)
@given(graph=dags())
def test_neither_the_order_of_the_vertices_nor_padding_matters(graph):
    ops, adj, marks = graph
    order = np.random.default_rng(0).permutation(len(ops))
    shuffled = ops[order], adj[np.ix_(order, order)], marks[order]
    table = Batch.cat([batch(*graph, vertices=9, filler=2), batch(*shuffled, vertices=9)])
    for features in (path_features(table, OPERATIONS), graph_features(table, OPERATIONS)):
        assert torch.equal(features[0], features[1])


def test_two_paths_of_one_sequence_are_one_column():
    table = Batch.cat([batch([0, 1, 1, 3], DIAMOND), batch([0, 1, 2, 3], DIAMOND)])
    assert path_features(table, 4).sum(1).tolist() == [2, 3]


def test_the_commonest_paths_get_a_column():
    """Not the path that one graph has most often: a graph counts once."""
    table = Batch.cat([batch([0, 1, 1, 3], DIAMOND), batch([0, 2, 3], np.eye(3, k=1), vertices=4),
                       batch([0, 2, 3], np.eye(3, k=1), vertices=4)])
    assert len(path_columns(table, 4)) == 3
    columns = path_columns(table, 4, most=1)
    assert path_features(table, 4, columns).tolist() == [[0], [1], [1]]


def test_paths_without_a_column_are_left_out():
    columns = path_columns(batch([0, 1, 3], np.eye(3, k=1)), 4)
    assert path_features(batch([0, 1, 2, 3], DIAMOND), 4, columns).tolist() == [[1]]
    assert path_features(batch([0, 2, 3], np.eye(3, k=1)), 4, columns).tolist() == [[0]]


def test_a_path_of_many_vertices_has_a_code():
    """Beyond 64 bits: two that differ in the first of 40 operations are still two."""
    ops = np.zeros(40, int)
    table = Batch.cat([batch(ops, np.eye(40, k=1)), batch([1, *ops[1:]], np.eye(40, k=1))])
    assert path_features(table, 10).tolist() in ([[0, 1], [1, 0]], [[1, 0], [0, 1]])


@pytest.mark.parametrize("space, columns", [("nasbench201", 5 + 25 + 125), ("darts", MOST)])
def test_the_columns_of_a_space(space, columns, rng):
    """NAS-Bench-201: sequences of 1, 2 and 3 operations, 5 + 25 + 125."""
    space = spaces.get(space)
    table = Batch.of(space.table(None if space.size else 2000, rng))
    assert path_features(table, len(space.ops)).shape == (table.num_graphs, columns)


# The other features -----------------------------------------------------------------------------------------

def test_facts_about_a_diamond():
    """A tail hangs on it: 3 -> 4. The operations are 0, 1, 1, 2, 3."""
    adj = np.pad(DIAMOND, (0, 1))
    adj[3, 4] = 1
    facts = graph_features(batch([0, 1, 1, 2, 3], adj, vertices=6), 4)[0].tolist()
    on_vertices, on_path, rest = facts[:4], facts[4:8], facts[8:]
    assert on_vertices == [1, 2, 1, 1] and on_path == [1, 1, 1, 1]
    vertices, edges, longest, shortest, log_paths, out_of_inputs, into_outputs, most_out, most_in = rest
    assert (vertices, edges, longest, shortest) == (5, 6, 3, 2) and log_paths == pytest.approx(np.log(4))
    assert (out_of_inputs, into_outputs, most_out, most_in) == (3, 1, 3, 3)


def test_the_wiring_of_a_diamond():
    features = adjacency_features(batch([0, 1, 2, 3], DIAMOND, vertices=5), 4)[0]
    ops, adj = features[:20].view(5, 4), features[20:].view(5, 5)
    assert torch.equal(ops[:4], torch.eye(4)) and not ops[4].any()
    assert torch.equal(adj[:4, :4], torch.from_numpy(DIAMOND).float()) and adj.sum() == 5


def test_the_facts_of_the_two_darts_cells_stand_side_by_side(rng):
    space = spaces.get("darts")
    archs = space.sample(20, rng)
    swapped = [arch._replace(normal=arch.reduce, reduce=arch.normal) for arch in archs]
    operations, facts = len(space.ops), 2 * len(space.ops) + 9
    both = (cell_features(Batch.of(space.encode(cells)), operations) for cells in (archs, swapped))
    one, other = (features[:, -2 * facts:].split(facts, 1) for features in both)
    assert torch.equal(one[0], other[1]) and torch.equal(one[1], other[0]) and not torch.equal(one[0], one[1])
    unmarked = spaces.get("darts", cell_marks=False)
    whole = cell_features(Batch.of(unmarked.encode(archs)), operations)[:, -facts:]
    assert torch.equal(whole[:, operations * 2], torch.full((20,), 22.0))
    assert torch.equal(whole[:, :operations], one[0][:, :operations] + one[1][:, :operations])


def test_darts_paths_know_their_cell_by_its_mark(rng):
    for marks, same in ((True, False), (False, True)):
        space = spaces.get("darts", cell_marks=marks)
        arch = space.sample(1, rng)[0]
        both = space.encode([arch, arch._replace(normal=arch.reduce, reduce=arch.normal)])
        features = path_features(Batch.of(both), len(space.ops))
        assert torch.equal(features[0], features[1]) == same
