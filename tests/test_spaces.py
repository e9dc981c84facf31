"""Every space: what stands where, as a search's kernel reads it."""
import numpy as np
import pytest

import spaces
from spaces.base import one_hot


def test_one_hot_has_a_column_per_choice():
    assert one_hot(np.array([[0, 2], [1, 0]]), (2, 3)).tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "nasbench301", "darts", "nasbench_macro"])
def test_different_architectures_stand_differently(name, rng):
    """One row per architecture, in order; equal rows only for equal keys, but where paths say less."""
    space = spaces.get(name)
    archs = space.sample(200, rng)
    rows = space.placement(space.encode(archs))
    assert rows.dtype == np.float32 and len(rows) == 200
    keys = space.keys(archs)
    assert keys == list(map(space.key, archs))
    distinct = len(np.unique(rows, axis=0))
    assert distinct == len(set(keys)) if name != "nasbench101" else distinct > 0.9 * len(set(keys))
    alone = space.placement(space.encode(archs[7:8]))
    assert np.array_equal(alone[0], rows[7])


def test_an_edge_of_nasbench201_moves_one_position_and_two_counts():
    space = spaces.get("nasbench201")
    before, after = space.placement(space.encode([(0, 1, 2, 3, 4, 0), (0, 1, 2, 3, 4, 1)]))
    assert np.flatnonzero(before != after).tolist() == [25, 26, 30, 31]
    assert before[30:].tolist() == [2, 1, 1, 1, 1] and after[30:].tolist() == [1, 2, 1, 1, 1]


def test_an_input_of_darts_has_its_node_predecessor_and_operation():
    space = spaces.get("darts")
    arch = space.parse("DARTS_V2")  # normal node 2: sep_conv_3x3 from both inputs
    row = space.placement(space.encode([arch]))[0].reshape(2, 147)
    of_nodes, counts = row[0, :140].reshape(4, 5, 7), row[0, 140:]
    assert np.argwhere(of_nodes[0]).tolist() == [[0, 3], [1, 3]]
    assert counts.tolist() == [0, 0, 2, 5, 0, 1, 0] and of_nodes.sum() == 8


def test_a_cell_of_nasbench101_is_the_paths_through_it():
    """input -> conv3x3 -> output, and input -> output: paths number 0 and 2 (1 + the second operation)."""
    space = spaces.get("nasbench101")
    arch = space.parse('{"matrix": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "ops": '
                       '["input", "conv3x3-bn-relu", "output"]}')
    [row] = space.placement(space.encode([arch]))
    [operation] = [i for i, op in enumerate(space.ops[1:-1]) if op == "conv3x3-bn-relu"]
    assert np.flatnonzero(row).tolist() == [0, 1 + operation] and row.sum() == 2
