"""DARTS cells: notations, canonical keys, the 22-vertex graph, sampling and mutation."""
import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spaces
from runtime.errors import InputError
from spaces import darts
from spaces.darts import NAMED, SIZE, Genotype

SPACE = spaces.get("darts")
NUMBERS = st.integers(0, SIZE - 1)
V2 = ("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
      "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
      "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
      "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
      "('max_pool_3x3', 1)], reduce_concat=range(2, 6))")
V2_KEY = ("sep_conv_3x3~0+sep_conv_3x3~1|sep_conv_3x3~0+sep_conv_3x3~1|skip_connect~0+sep_conv_3x3~1|"
          "skip_connect~0+dil_conv_3x3~2//max_pool_3x3~0+max_pool_3x3~1|max_pool_3x3~1+skip_connect~2|"
          "max_pool_3x3~0+skip_connect~2|max_pool_3x3~1+skip_connect~2")
V2_TUPLES = ("(((0, 3), (1, 3), (0, 3), (1, 3), (1, 3), (0, 2), (0, 2), (2, 5)), "
             "((0, 0), (1, 0), (2, 2), (1, 0), (0, 0), (2, 2), (2, 2), (1, 0)))")


def arch(number: int) -> Genotype:
    return darts.genotypes(np.array([number]))[0]


def edges(graph, first: int, last: int) -> set[tuple[int, int]]:
    """The edges among the vertices first..last-1 of a one-graph table, numbered from first."""
    return set(map(tuple, graph.adj[0, first:last, first:last].nonzero().tolist()))


@pytest.mark.parametrize("text", ["DARTS_V2", V2, V2_KEY, V2_TUPLES, f"  {V2}\n"])
def test_every_notation_of_one_network_is_one_architecture(text):
    assert SPACE.parse(text) == NAMED["DARTS_V2"]
    assert SPACE.key(SPACE.parse(text)) == V2_KEY


@given(NUMBERS)
def test_notations_lead_back_to_the_architecture(number):
    genotype = arch(number)
    assert SPACE.parse(SPACE.text(genotype)) == SPACE.parse(SPACE.key(genotype)) == genotype
    assert darts.numbers_of([genotype]) == darts.numbers_of_keys([SPACE.key(genotype)]) == number


@given(NUMBERS, st.tuples(*[st.booleans()] * 8))
def test_order_of_a_nodes_inputs_changes_neither_key_nor_graph(number, flips):
    genotype = arch(number)
    pairs = [(genotype.normal + genotype.reduce)[2 * i:2 * i + 2][::-1 if flip else 1]
             for i, flip in enumerate(flips)]
    shuffled = genotype._replace(normal=sum(pairs[:4], ()), reduce=sum(pairs[4:], ()))
    assert SPACE.key(shuffled) == SPACE.key(genotype)
    assert (SPACE.encode([shuffled]).ops == SPACE.encode([genotype]).ops).all()


def test_text_is_the_fields_namedtuple_text():
    text = SPACE.text(NAMED["GMAENAS_AE"])
    assert text.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_5x5', 1), ('avg_pool_3x3', 0), ")
    assert text.endswith("('sep_conv_3x3', 2)], reduce_concat=range(2, 6))")


@pytest.mark.parametrize("text, complaint", [
    ("", "cannot read"),
    ("DARTS_V3", "cannot read"),
    ("Genotype(", "cannot read"),
    ("(" * 5000, "nested deeper"),
    ("__import__('os').getcwd()", "a DARTS genotype is Genotype"),
    (V2.replace("reduce=", "reduction="), "a DARTS genotype is Genotype"),
    (V2.replace("[('sep_conv_3x3', 0)", "[open('x')"), "cannot read"),
    (V2.replace("range(2, 6)", "range(3, 6)"), "reduce_concat is range"),
    (V2.replace("dil_conv_3x3", "none"), "normal cell, node 5: .*'none'"),
    (V2.replace("('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ", "", 1), "8 edges.* has 6"),
    (V2.replace("('sep_conv_3x3', 0)", "('sep_conv_3x3', 1)", 1),
     "normal cell, node 2: .*distinct nodes of 0..1"),
    (V2.replace("('max_pool_3x3', 0)", "('max_pool_3x3', 2)", 1),
     "reduction cell, node 2: .*distinct nodes of 0..1"),
    (V2.replace("('max_pool_3x3', 0)", "('max_pool_3x3', -1)", 1), "reduction cell, node 2"),
    (V2.replace("('max_pool_3x3', 0)", "('max_pool_3x3', 0.5)", 1), "reduction cell, node 2"),
    (V2_TUPLES.replace("(2, 5)", "(2, 7)"), "cannot read"),
    (V2_TUPLES.replace("(2, 5)", "(2, -1)"), "cannot read"),
    (V2_TUPLES.replace("(2, 5)", "(5, 5)"), "normal cell, node 5: .*two distinct nodes of 0..4"),
    (V2_KEY.replace("//", "|"), "cannot read"),
    (V2_KEY.replace("|", "//", 1), "is no DARTS key"),
    (V2_KEY.replace("skip_connect~0+dil_conv_3x3~2", "dil_conv_3x3~2+skip_connect~0"), "is no DARTS key"),
    (V2_KEY + "|", "is no DARTS key"),
])
def test_what_is_no_genotype_is_refused_in_one_line(text, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        SPACE.parse(text)
    assert "\n" not in str(error.value)


def test_encode_keys_names_the_bad_key():
    with pytest.raises(InputError, match="'nothing'"):
        SPACE.encode_keys([V2_KEY, "nothing"])


def test_graph_of_darts_v2():
    """Each cell: 0 input1, 1 input2, 2-3 into node 2, 4-5 into node 3, 6-7 into node 4, 8-9 into node 5, 10
    output."""
    graph = SPACE.encode([NAMED["DARTS_V2"]])
    names = [SPACE.ops[op] for op in graph.ops[0]]
    assert names[:11] == ["input1", "input2", *["sep_conv_3x3"] * 4, "skip_connect", "sep_conv_3x3",
                          "skip_connect", "dil_conv_3x3", "output"]
    outputs = {(vertex, 10) for vertex in range(2, 10)}
    assert edges(graph, 0, 11) == outputs | {(0, 2), (1, 3), (0, 4), (1, 5), (0, 6), (1, 7), (0, 8), (2, 9),
                                             (3, 9)}
    assert edges(graph, 11, 22) == outputs | {(0, 2), (1, 3), (1, 4), (2, 5), (3, 5), (0, 6), (2, 7), (3, 7),
                                              (1, 8), (2, 9), (3, 9)}
    assert not graph.adj[0, :11, 11:].any() and not graph.adj[0, 11:, :11].any()
    assert graph.n.tolist() == [22] and graph.marks[0].tolist() == [0] * 11 + [1] * 11


def test_without_marks_swapped_cells_differ_only_by_their_order():
    plain = spaces.get("nasbench301", cell_marks=False)
    genotype = NAMED["GMAENAS_BO"]
    mirrored = genotype._replace(normal=genotype.reduce, reduce=genotype.normal)
    graph, swapped = plain.encode([genotype]), plain.encode([mirrored])
    order = [*range(11, 22), *range(11)]
    assert (swapped.ops[0] == graph.ops[0, order]).all()
    assert (swapped.adj[0] == graph.adj[0][order][:, order]).all()
    assert not graph.marks.any()


@given(NUMBERS)
def test_graphs_are_upper_triangular_and_an_edge_has_the_flows_of_the_node_it_starts_at(number):
    graph = SPACE.encode([arch(number)])
    assert (graph.adj[0].triu(1) == graph.adj[0]).all()
    inputs = graph.adj[0].sum(0).reshape(2, 11)[:, 2:10]
    from_inputs = graph.adj[0].reshape(2, 11, 2, 11)[:, :2].sum((0, 1))[:, 2:10]
    assert ((inputs == 1) == (from_inputs == 1)).all() and ((inputs == 2) == (from_inputs == 0)).all()


def test_table_is_the_encoding_of_the_sample_and_of_its_keys():
    archs = SPACE.sample(200, np.random.default_rng(3))
    table = SPACE.table(200, np.random.default_rng(3))
    for graphs in (SPACE.encode(archs), SPACE.encode_keys([SPACE.key(a) for a in archs])):
        assert (graphs.ops == table.ops).all() and (graphs.adj == table.adj).all()


def test_the_whole_space_cannot_be_listed():
    with pytest.raises(InputError, match="cannot be listed"):
        SPACE.table()


def test_nothing_encodes_to_an_empty_table():
    assert SPACE.encode([]).adj.shape == SPACE.encode_keys([]).adj.shape == (0, 22, 22)


def test_sampling_is_uniform_over_operations_and_predecessor_pairs(rng):
    genes = darts.genes(rng.integers(SIZE, size=20_000))  # [N, 2, 8, 2]
    shares = np.stack([(genes[..., 1] == op).mean(0) for op in range(7)])
    assert np.allclose(shares, 1 / 7, atol=0.015)
    for i, node in enumerate(darts.NODES):
        p, q = genes[:, :, 2 * i, 0].ravel(), genes[:, :, 2 * i + 1, 0].ravel()
        assert (p < q).all() and (q < node).all()
        pairs, counts = np.unique(p * 8 + q, return_counts=True)
        assert len(pairs) == node * (node - 1) // 2
        assert np.allclose(counts / len(p), 1 / len(pairs), atol=0.02)


@given(NUMBERS, st.integers(0, 2**32 - 1))
def test_a_mutant_is_one_edit_away(number, seed):
    parent = arch(number)
    mutant = SPACE.mutate(parent, np.random.default_rng(seed))
    nodes = [[set((cells.normal + cells.reduce)[i:i + 2]) for i in range(0, 16, 2)]
             for cells in (parent, mutant)]
    (old, new), = [(old, new) for old, new in zip(*nodes) if old != new]
    (lost,), (gained,) = old - new, new - old
    assert (lost[0] == gained[0]) != (lost[1] == gained[1])
    assert darts.numbers_of([mutant]) != number


def test_mutation_reaches_exactly_the_120_neighbours(rng):
    assert len({SPACE.mutate(NAMED["DARTS_V1"], rng) for _ in range(2500)}) == 120


def test_nasbench301_is_the_same_space_under_its_own_name():
    other = spaces.get("nasbench301")
    assert other.name == "nasbench301" and other.ops == SPACE.ops and other.parse(V2) == SPACE.parse(V2)


def test_every_published_label_is_a_genotype(shared_data):
    with open(shared_data / "nasbench301_labels.csv") as file:
        keys = {SPACE.key(SPACE.parse(row["arch"])) for row in csv.DictReader(file)}
    assert len(keys) == 618
