"""NAS-Bench-201: order, arch strings, graphs."""
import csv
import gzip

import numpy as np
import pytest

import spaces
from runtime.errors import InputError

SPACE = spaces.get("nasbench201")
ARCH = (0, 1, 3, 4, 2, 2)
TEXT = "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_1x1~2|"


def test_arch_string_both_ways():
    assert SPACE.text(ARCH) == SPACE.key(ARCH) == TEXT
    assert SPACE.parse(f" {TEXT}\n") == SPACE.parse("013422") == ARCH


@pytest.mark.parametrize("text", ["", "01342", "013425", "0134222", "０１３４２２", TEXT[:-1], "|" + TEXT,
                                  TEXT.replace("none", "nonce"), TEXT.replace("~2", "~1")])
def test_what_is_no_cell_is_refused(text):
    with pytest.raises(InputError, match="is no NAS-Bench-201 cell"):
        SPACE.parse(text)


def test_rows_are_the_digits_in_lexicographic_order():
    table = SPACE.table()
    assert len(table) == SPACE.size == 15_625
    digits = table.ops[:, 1:7].numpy() - 1
    assert digits[0].tolist() == [0] * 6 and digits[1].tolist() == [0, 0, 0, 0, 0, 1]
    assert digits[-1].tolist() == [4] * 6
    assert (np.diff(digits @ 5 ** np.arange(6)[::-1].astype(np.int64)) == 1).all()


def test_index_finds_the_row_and_names_the_unknown():
    assert SPACE.index([TEXT, SPACE.key((0,) * 6)]).tolist() == [int("013422", 5), 0]
    with pytest.raises(InputError, match="'nothing'"):
        SPACE.index([TEXT, "nothing"])


def test_graph_of_a_cell():
    """Vertices: input, 0->1, 0->2, 1->2, 0->3, 1->3, 2->3, output."""
    graph = SPACE.encode([ARCH])
    names = [SPACE.ops[op] for op in graph.ops[0]]
    assert names == ["input", "none", "skip_connect", "nor_conv_3x3", "avg_pool_3x3", "nor_conv_1x1",
                     "nor_conv_1x1", "output"]
    edges = {(0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)}
    assert set(map(tuple, graph.adj[0].nonzero().tolist())) == edges
    assert graph.n.tolist() == [8] and not graph.marks.any()


def test_three_ways_to_a_graph_agree(rng):
    archs = SPACE.sample(50, rng)
    keys = [SPACE.key(arch) for arch in archs]
    for graphs in (SPACE.encode_keys(keys), SPACE.table()[SPACE.index(keys)]):
        assert (graphs.ops == SPACE.encode(archs).ops).all() and (graphs.adj == SPACE.encode(archs).adj).all()


def test_sampled_table_is_the_encoding_of_the_sample():
    sampled = SPACE.encode(SPACE.sample(20, np.random.default_rng(7)))
    assert (SPACE.table(20, np.random.default_rng(7)).ops == sampled.ops).all()


def test_nothing_encodes_to_an_empty_table():
    assert SPACE.encode([]).adj.shape == SPACE.encode_keys([]).adj.shape == (0, 8, 8)


def test_mutation_reaches_exactly_the_24_neighbours(rng):
    mutants = {SPACE.mutate(ARCH, rng) for _ in range(500)}
    assert len(mutants) == 24
    assert all(sum(a != b for a, b in zip(ARCH, mutant)) == 1 for mutant in mutants)
    assert all(type(digit) is int and 0 <= digit < 5 for mutant in mutants for digit in mutant)


def test_published_table_covers_the_space(shared_data):
    with gzip.open(shared_data / "nasbench201.csv.gz", "rt") as file:
        rows = SPACE.index([row["arch"] for row in csv.DictReader(file)])
    assert sorted(rows) == list(range(SPACE.size))
