"""The NAS-Bench-101 space: tiny literal cells, the enumerated table, mutation, the cache, vectorised MD5."""
from __future__ import annotations

import csv
import gzip
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from runtime.errors import InputError
from spaces import get
from spaces.nasbench101 import enumeration
from spaces.nasbench101.cell import Cell
from spaces.nasbench101.enumeration import OPS
from spaces.nasbench101.md5 import md5
from spaces.nasbench101.space import NASBench101, _drawing

CONV3, CONV1, POOL = OPS[1:4]
PAIR = Cell([[0, 1], [0, 0]], ["input", "output"])
CHAIN = Cell([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", POOL, "output"])
DIAMOND = Cell([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", CONV3, CONV1, "output"])


def edges(n: int, *pairs: tuple[int, int]) -> list[list[int]]:
    return [[int((i, j) in pairs) for j in range(n)] for i in range(n)]


@pytest.fixture(scope="session")
def space() -> NASBench101:
    """The real table: built once if this machine's cache lacks it."""
    return get("nasbench101")


@pytest.fixture
def tiny_cache(tmp_path, monkeypatch):
    """An empty cache folder, and a builder of a table of one cell in place of the real one: (path, calls)."""
    calls, table = [], np.zeros(1, enumeration.CELL)
    monkeypatch.setenv("GMAE_NAS_CACHE", str(tmp_path / "new" / "folder"))
    monkeypatch.setattr(enumeration, "SHA256", hashlib.sha256(table.tobytes()).hexdigest())
    monkeypatch.setattr(enumeration, "build", lambda: calls.append(1) or table)
    return tmp_path / "new" / "folder" / enumeration.CACHE_FILE, calls


# ---- cells

def test_permuted_vertices_have_one_key():
    swapped = Cell(DIAMOND.matrix, ["input", CONV1, CONV3, "output"])
    assert swapped != DIAMOND and swapped.key == DIAMOND.key


def test_the_key_depends_on_the_operation_and_on_the_edges():
    pool_for_conv = Cell(DIAMOND.matrix, ["input", CONV3, POOL, "output"])
    with_shortcut = Cell(edges(4, (0, 1), (0, 2), (1, 3), (2, 3), (0, 3)), DIAMOND.ops)
    assert len({DIAMOND.key, pool_for_conv.key, with_shortcut.key}) == 3


def test_pruning_drops_a_vertex_that_feeds_nothing_and_one_that_nothing_feeds():
    dangling = Cell(edges(5, (0, 1), (1, 4), (1, 2), (3, 4)), ["input", POOL, CONV1, CONV3, "output"])
    assert dangling == CHAIN and hash(dangling) == hash(CHAIN)


def test_limits_count_only_what_pruning_leaves():
    matrix = edges(9, (0, 1), (1, 8), *((1, v) for v in range(2, 8)), *((v, 7) for v in range(2, 7)))
    assert Cell(matrix, ["input", POOL, *[CONV3] * 6, "output"]) == CHAIN


@pytest.mark.parametrize("matrix, ops, fault", [
    ([[0, 1], [0, 0], [0, 0]], ["input", "output"], "not square"),
    ([[0, 1], [0]], ["input", "output"], "not square"),
    (None, ["input", "output"], "not square"),
    ([[0, 2], [0, 0]], ["input", "output"], "neither 0 nor 1"),
    ([[0, float("nan")], [0, 0]], ["input", "output"], "neither 0 nor 1"),
    ([["0", "1"], ["0", "0"]], ["input", "output"], "neither 0 nor 1"),
    ([[0, 1], [1, 0]], ["input", "output"], r"matrix\[1\]\[0\] is 1"),
    ([[0, 1], [0, 1]], ["input", "output"], r"matrix\[1\]\[1\] is 1"),
    ([[0, 1], [0, 0]], ["input", CONV3, "output"], "2 names"),
    ([[0, 1], [0, 0]], "io", "2 names"),
    ([[0, 1], [0, 0]], ["output", "input"], "must begin with 'input'"),
    ([[0]], ["input"], "must begin with 'input'"),
    (CHAIN.matrix, ["input", "conv5x5", "output"], r"operation 'conv5x5'"),
    (CHAIN.matrix, ["input", "output", "output"], r"operation 'output'"),
    (edges(3, (0, 1)), ["input", POOL, "output"], "no path"),
    (edges(8, *((v, v + 1) for v in range(7))), ["input", *[POOL] * 6, "output"], "8 vertices and 7 edges"),
    (edges(7, *((0, v) for v in range(1, 6)), *((v, 6) for v in range(1, 6))),
     ["input", *[POOL] * 5, "output"], "7 vertices and 10 edges"),
])
def test_a_faulty_cell_is_refused_in_one_line(matrix, ops, fault):
    with pytest.raises(InputError, match=fault) as caught:
        Cell(matrix, ops)
    assert "\n" not in str(caught.value)


# ---- texts

def test_text_is_one_line_and_parses_back(space):
    assert "\n" not in space.text(DIAMOND) and space.parse(space.text(DIAMOND)) == DIAMOND


def test_parse_takes_nasbench_fields(space):
    record = json.dumps({"module_adjacency": CHAIN.matrix, "module_operations": CHAIN.ops,
                         "trainable_parameters": 1})
    assert space.parse(record) == CHAIN


def test_parse_takes_a_hash_in_either_case(space):
    assert space.parse(DIAMOND.key.upper() + "\n").key == DIAMOND.key


@pytest.mark.parametrize("text", ["", "0" * 31, "g" * 32, "0" * 32, "[1, 2]", "null", '{"ops": []}',
                                  '{"matrix":'])
def test_parse_refuses_what_names_no_cell(space, text):
    with pytest.raises(InputError):
        space.parse(text)


# ---- the table

def test_the_table_has_every_size_in_full(space):
    table = space.table()
    assert np.bincount(table.n.numpy()).tolist() == [0, 0, 1, 6, 84, 2441, 62010, 359082]
    assert len(table) == space.size == 423624


def test_hashes_are_strictly_ascending(space):
    halves = enumeration.leading_half(space.hashes)
    assert (halves[1:] > halves[:-1]).all()


def test_every_published_hash_is_in_the_table_and_the_first_are_the_first(space, shared_data):
    with gzip.open(shared_data / "nasbench101_dev.csv.gz", "rt") as file:
        keys = [row["hash"] for row in csv.DictReader(file)]
    assert space.index(keys)[:20001].tolist() == list(range(20001))


def test_the_scalar_hash_of_a_row_is_the_hash_in_the_table(space, rng):
    rows = rng.integers(space.size, size=200)
    assert [space.cell(row).key for row in rows] == [space.hashes[row].tobytes().hex() for row in rows]


def test_vectorised_hash_equals_the_scalar_one_for_every_small_cell():
    for n in range(2, 6):
        wiring, ops = enumeration.cells(n)
        adj = enumeration.adjacency(wiring, n)
        hashes = enumeration.module_hashes(adj, ops)
        scalar = [Cell(a, [OPS[op] for op in o]).key for a, o in zip(adj, ops)]
        assert [h.tobytes().hex() for h in hashes] == scalar


def test_index_finds_rows_in_the_order_asked(space):
    keys = [space.hashes[row].tobytes().hex() for row in (423623, 0, 7)]
    assert space.index(keys).tolist() == [423623, 0, 7] and space.index([]).tolist() == []


@pytest.mark.parametrize("key", ["f" * 32, "0" * 32, "xyz", "0000 5c142e6f48ac74fdcf73e343987"])
def test_index_names_the_first_unknown_key(space, key):
    with pytest.raises(InputError, match=key):
        space.index([DIAMOND.key, key, "also wrong"])


def test_encode_pads_after_the_real_vertices(space):
    graphs = space.encode([DIAMOND, PAIR])
    assert graphs.ops.tolist() == [[0, 1, 2, 4, 0, 0, 0], [0, 4, 0, 0, 0, 0, 0]]
    assert graphs.n.tolist() == [4, 2] and graphs.marks.sum() == 0
    assert graphs.adj[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert graphs.adj[1].nonzero().tolist() == [[0, 1]]


def test_table_rows_encode_keys_and_encoded_cells_agree(space, rng):
    rows = rng.integers(space.size, size=50)
    cells = [space.cell(row) for row in rows]
    encoded, by_key = space.encode(cells), space.encode_keys([cell.key for cell in cells])
    table = space.table()[rows]
    for field in ("ops", "adj", "n", "marks"):
        assert getattr(encoded, field).equal(getattr(table, field))
        assert getattr(by_key, field).equal(getattr(table, field))


def test_sampling_follows_the_generator_and_covers_the_sizes_as_the_space_does(space):
    first, again, other = (space.table(20000, np.random.default_rng(seed)).n.numpy() for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert abs((first == 7).mean() - 359082 / 423624) < 0.02  # five standard errors are 0.013
    cells, same = (space.sample(5, np.random.default_rng(1)) for _ in range(2))
    assert cells == same and len(set(cells)) == 5


# ---- mutation

def test_a_mutant_is_a_valid_different_cell_and_follows_the_generator(space):
    for seed, parent in enumerate([PAIR, CHAIN, DIAMOND, *space.sample(40, np.random.default_rng(0))]):
        mutant, again = (space.mutate(parent, np.random.default_rng(seed)) for _ in range(2))
        assert mutant == again and mutant.key != parent.key
        space.index([mutant.key])


def test_pruning_a_drawing_gives_the_cell_back(rng):
    for cell in [PAIR, CHAIN, DIAMOND] * 30:
        assert Cell(*_drawing(cell, rng)) == cell


def test_mutants_of_mutants_grow_from_the_smallest_cell_to_seven_vertices(space, rng):
    def grown() -> int:
        cell = PAIR
        for _ in range(300):
            cell = max(cell, space.mutate(cell, rng), key=lambda c: len(c.ops))
        return len(cell.ops)

    assert max(grown() for _ in range(20)) == 7  # two thirds end with six vertices and no edge to spare


def test_what_is_made_unchecked_is_the_same_cell(space, rng):
    made = []
    for matrix, ops in (_drawing(cell, rng) for cell in space.sample(200, rng)):
        matrix[rng.integers(3)][rng.integers(3, 7)] ^= 1
        for make in (Cell, Cell.unchecked):
            try:
                made.append(make(matrix, ops))
            except InputError as error:
                made.append(str(error))
    assert made[::2] == made[1::2] and len({type(cell) for cell in made}) == 2


def test_mutation_reaches_every_cell_of_three_vertices(space, rng):
    reached = {mutant.key for mutant in (space.mutate(PAIR, rng) for _ in range(300)) if len(mutant.ops) == 3}
    with_shortcut = edges(3, (0, 1), (1, 2), (0, 2))
    assert reached == {Cell(with_shortcut, ["input", op, "output"]).key for op in OPS[1:4]}


def test_single_edits_and_their_reversals_connect_all_wirings():
    """Each link removes one edge, and the vertex that it leaves on no path; mutation can do this and the
    reverse."""
    numbers = {}  # (vertices, edge set) of every drawing: its number
    for n in range(2, 8):
        for edge_set in enumeration.edge_sets(n).tolist():
            numbers[n, edge_set] = len(numbers)
    links = []
    for (n, edge_set), number in numbers.items():
        bits = [1 << bit for bit in range(n * (n - 1) // 2) if edge_set >> bit & 1]
        smaller = [(n, edge_set ^ bit) for bit in bits]
        adj = enumeration.adjacency(np.array([edge_set], np.uint32), n)[0]
        # one edge in, one out: it can be a spare
        for v in np.flatnonzero((adj.sum(0) == 1) & (adj.sum(1) == 1)):
            rest = np.delete(np.delete(adj, v, 0), v, 1)[enumeration.edge_pairs(n - 1)]
            smaller.append((n - 1, sum(1 << int(bit) for bit in np.flatnonzero(rest))))
        links += [(number, numbers[other]) for other in smaller if other in numbers]
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(numbers), len(numbers)))
    assert connected_components(graph, directed=False)[0] == 1


# ---- the cache

def test_an_absent_cache_is_built_once_and_then_read(tiny_cache):
    path, calls = tiny_cache
    assert enumeration.load().tobytes() == enumeration.load().tobytes() == path.read_bytes()
    assert len(calls) == 1 and [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", [lambda good: good[:-1], lambda good: b"\1" + good[1:], lambda good: b""])
def test_a_damaged_cache_is_rebuilt_with_a_notice(tiny_cache, capsys, damage):
    path, calls = tiny_cache
    good = enumeration.load().tobytes()
    path.write_bytes(damage(good))
    assert enumeration.load().tobytes() == path.read_bytes() == good and len(calls) == 2
    notice = capsys.readouterr().err
    assert str(path) in notice and "checksum" in notice and notice.count("\n") == 1


def test_a_folder_that_cannot_be_written_costs_only_a_notice(tiny_cache, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GMAE_NAS_CACHE", str(tmp_path / "file"))
    assert len(enumeration.load()) == 1 and "GMAE_NAS_CACHE" in capsys.readouterr().err


def test_a_wrong_build_is_never_kept(tiny_cache, monkeypatch):
    path, _ = tiny_cache
    monkeypatch.setattr(enumeration, "build", lambda: np.ones(1, enumeration.CELL))
    with pytest.raises(ValueError, match="checksum"):
        enumeration.load()
    assert not path.exists()


# ---- MD5

@given(st.integers(0, 260), st.binary(min_size=1, max_size=300))
def test_md5_equals_hashlib(length, noise):
    messages = np.resize(np.frombuffer(noise, np.uint8), (3, length))
    assert [row.tobytes() for row in md5(messages)] == [hashlib.md5(row.tobytes()).digest()
                                                        for row in messages]


def test_md5_of_more_messages_than_one_chunk():
    messages = np.arange(10000, dtype="<u4").view(np.uint8).reshape(-1, 4)
    assert md5(messages)[9999].tobytes() == hashlib.md5((9999).to_bytes(4, "little")).digest()


def test_cells_differ_as_their_keys_do(space, rng):
    archs = space.sample(60, rng)
    archs += [other for arch in archs[:3] for other in space.neighbours(arch)]
    for one in archs[:20]:
        assert [one.differs(other) for other in archs] == [one.key != other.key for other in archs]
    assert not DIAMOND.differs(Cell(DIAMOND.matrix, ["input", CONV1, CONV3, "output"]))
