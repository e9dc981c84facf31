"""Analytic properties: as counted by hand, the same for isomorphic graphs, and right about real networks."""
import csv
import gzip

import numpy as np
import pytest
import torch

import spaces
from models.batch import Batch
from models.features.properties import SMALLEST, cell_facts, cell_properties, costs, properties, vertex_facts
from spaces.base import Graphs
from toys.graphs import redrawn

CELL = spaces.get("nasbench101")  # its vertices 0..4: input, 3x3, 1x1, pooling, output
EDGES = ((0, 1), (1, 3), (3, 4), (0, 2), (2, 4), (0, 4))
DIGITS = spaces.get("nasbench201")


def graph(ops: list[int], edges) -> Batch:
    adj = np.zeros((1, len(ops), len(ops)))
    adj[0][tuple(zip(*edges))] = 1
    return Batch.of(Graphs.from_numpy(np.array([ops]), adj))


def facts_of_cell(batch: Batch, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return cell_facts(batch, names, vertex_facts(batch, names))


def log(*values: float) -> list[float]:
    return pytest.approx([float(np.log(max(value, SMALLEST))) for value in values], abs=1e-5)


@pytest.fixture(scope="module")
def by_hand() -> Batch:
    """Two inner vertices feed the output, so all three are half as wide as it."""
    return graph([0, 1, 2, 3, 4], EDGES)


# By hand ----------------------------------------------------------------------------------------------------

def test_costs_of_vertices(by_hand):
    facts = {name: fact[0].tolist() for name, fact in vertex_facts(by_hand, CELL.vocabulary).items()}
    assert facts["log width"] == log(1, 0.5, 0.5, 0.5, 1)
    # A projection of the input is as costly as what it feeds is wide; the output has one of its own.
    assert facts["log parameters"] == log(0, 9 / 4 + 0.5, 1 / 4 + 0.5, 0, 1)
    assert facts["log work"] == log(0, 2.75, 0.75, 9 / 2 / 64, 1)


def test_shape_around_vertices(by_hand):
    facts = {name: fact[0].tolist() for name, fact in vertex_facts(by_hand, CELL.vocabulary).items()}
    assert facts["fan-in"] == [0, 1, 1, 1, 3] and facts["fan-out"] == [3, 1, 1, 1, 0]
    assert facts["ancestors"] == [0, 1, 1, 2, 4] and facts["descendants"] == [4, 2, 1, 1, 0]
    assert facts["most vertices before"] == [1, 2, 2, 3, 4]
    assert facts["least vertices before"] == [1, 2, 2, 3, 2]
    assert facts["most vertices after"] == [4, 3, 2, 2, 1]
    assert facts["least vertices after"] == [2, 3, 2, 2, 1]
    assert facts["most reach before"] == [0, 2, 0, 4, 4] and facts["least reach after"] == [0, 4, 0, 2, 0]
    assert facts["most convolutions before"] == [0, 1, 1, 1, 1]
    assert facts["least convolutions after"] == [0, 1, 1, 0, 0]
    assert facts["most spatial convolutions after"] == [1, 1, 0, 0, 0]


def test_facts_of_a_cell(by_hand):
    facts = {name: fact.item() for name, fact in facts_of_cell(by_hand, CELL.vocabulary).items()}
    costly = ("log parameters", "log spatial parameters", "log pointwise parameters", "log projections",
              "log work", "log width")
    assert [facts[name] for name in costly] == log(4.5, 2.25, 0.25, 2, 4.5 + 9 / 2 / 64, 0.5)
    expected = {"vertices": 5, "edges": 6, "most vertices": 4, "least vertices": 2, "most convolutions": 1,
                "least convolutions": 0, "most reach": 4, "least reach": 0, "fan-in of the output": 3,
                "fan-out of the input": 3, "input feeds output": 1}
    assert {name: facts[name] for name in expected} == expected
    assert [facts[f"number of {name}"] for name in CELL.ops] == [1, 1, 1, 1, 1]


def test_a_cell_without_an_inner_vertex_is_one_projection():
    facts = facts_of_cell(graph([0, 4], [(0, 1)]), CELL.vocabulary)
    facts = {name: fact.item() for name, fact in facts.items()}
    assert facts["log parameters"] == facts["log projections"] == facts["log width"] == 0
    assert facts["input feeds output"] == 1


def test_what_only_none_leads_to_is_dead_but_has_parameters():
    """0 -3x3-> 1 -none-> 3, 0 -1x1-> 3: of the convolutions only the second is on a path."""
    batch = Batch.of(DIGITS.encode([(3, 0, 0, 2, 0, 0), (0, 0, 0, 0, 0, 0)]))
    facts = {name: fact.tolist() for name, fact in facts_of_cell(batch, DIGITS.vocabulary).items()}
    assert facts["log parameters"] == log(10, 0) and facts["log parameters alive"] == log(1, 0)
    assert facts["vertices"] == [3, 0] and facts["edges"] == [2, 0] and facts["most convolutions"] == [1, 0]
    assert facts["most reach"] == [0, 0] and facts["number of nor_conv_3x3"] == [0, 0]
    assert vertex_facts(batch, DIGITS.vocabulary)["live"][0].tolist() == [1, 0, 0, 0, 1, 0, 0, 1]


def test_a_darts_cell_has_facts_of_both_its_cells():
    space = spaces.get("darts")
    deep = ("sep_conv_5x5~0+skip_connect~1|sep_conv_5x5~1+sep_conv_5x5~2|"
            "skip_connect~0+skip_connect~1|skip_connect~0+skip_connect~1")
    flat = "|".join(["skip_connect~0+skip_connect~1"] * 4)
    both, swapped = cell_properties(Batch.of(space.encode_keys([f"{deep}//{flat}", f"{flat}//{deep}"])),
                                    space.vocabulary)
    names = list(facts_of_cell(Batch.of(space.encode_keys([f"{deep}//{flat}"])), space.vocabulary))
    normal, reduction = (dict(zip(names, half.tolist())) for half in both.chunk(2))
    assert normal["most reach"] == 16 and normal["most convolutions"] == 4
    assert normal["least convolutions"] == 0
    assert normal["log parameters"] == pytest.approx(np.log(3 * (2 + 50 / 64)), abs=1e-5)
    assert reduction["most reach"] == 0 and [reduction["log parameters"]] == log(0)
    assert torch.equal(swapped, torch.cat(both.chunk(2)[::-1]))


# Against other sources --------------------------------------------------------------------------------------

def nasbench_widths(adj: np.ndarray) -> list[float]:
    """The rule of nasbench, vertex by vertex, as shares of the output's width and without remainders."""
    last = len(adj) - 1
    width = [1.0, *[0.0] * (last - 1), 1.0]
    for v in range(last - 1, 0, -1):
        fed = [width[w] for w in range(v + 1, last) if adj[v, w]]
        width[v] = 1 / adj[1:, last].sum() if adj[v, last] else max(fed)
    return width


def test_widths_follow_the_rule_of_nasbench(rng):
    batch = Batch.of(CELL.table(300, rng))
    width = vertex_facts(batch, CELL.vocabulary)["log width"].exp()  # [N, V]
    for row, adj, n in zip(width, batch.adj.numpy(), batch.node_mask.sum(1).tolist()):
        assert row[:n].tolist() == pytest.approx(nasbench_widths(adj[:n, :n]))


def test_parameters_of_nasbench201_are_those_of_the_networks(shared_data):
    """A line in what the table of its networks says; one cell in a hundred is off there."""
    with gzip.open(shared_data / "nasbench201.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    own, _, _ = costs(Batch.of(DIGITS.encode_keys([row["arch"] for row in rows])), DIGITS.vocabulary)
    ours, theirs = own.sum(1).numpy(), np.array([float(row["params_million"]) for row in rows])
    unit, rest = 5 * (16**2 + 32**2 + 64**2) / 1e6, 0.0733
    assert (np.abs(rest + unit * ours - theirs) < 0.01).mean() > 0.98


# Invariances ------------------------------------------------------------------------------------------------

def test_isomorphic_graphs_have_the_same_properties(rng):
    graphs = CELL.table(100, rng)
    other, orders = redrawn(graphs)
    batch, drawn = Batch.of(graphs), Batch.of(other)
    assert not torch.equal(batch.adj, drawn.adj)
    of_both = [cell_properties(each, CELL.vocabulary) for each in (drawn, batch)]
    assert torch.allclose(*of_both, atol=1e-5)
    moved = torch.stack([row[order] for row, order in zip(properties(batch, CELL.vocabulary), orders)])
    assert torch.allclose(properties(drawn, CELL.vocabulary), moved, atol=1e-5)


def test_chunks_change_nothing(rng):
    batch = Batch.of(CELL.table(50, rng))
    chunked = cell_properties(batch, CELL.vocabulary, chunk=7)
    assert torch.equal(chunked, cell_properties(batch, CELL.vocabulary))
