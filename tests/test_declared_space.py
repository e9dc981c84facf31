"""Spaces declared in JSON: the shipped ones are right, a user's is served everywhere, faults name lines."""
from __future__ import annotations

import csv
import gzip
import json
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

import finetune
import pretrain
import search
import spaces
from figs import draw_cell
from models.batch import Batch
from models.features.properties import property_targets
from models.features.signature import signatures
from models.predictor import Predictor
from runtime.errors import InputError
from spaces.declared.space import SHIPPED, parse_space, read_space
from spaces.operations import OPERATIONS, Place, cost, kinds
from strategies.problem import open_benchmark

CLASS = spaces.get("nasbench201")
TINY = ["--threads", "1", "--width", "8", "--layers", "1", "--heads", "1"]
MINE = {
    "name": "mine",
    "operations": {
        "conv": {"is": "convolution", "kernel": 3},
        "wide": {"is": "convolution", "kernel": 5, "expansion": 2, "groups": "channels", "stride": 2},
        "skip": {"is": "identity"},
    },
    "positions": ["first", "second", "third", "fourth", "fifth"],
}


def mine(**changes) -> str:
    return json.dumps({**MINE, **changes}, indent=1)


def rows_of(path) -> list[dict]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


# The shipped spaces -----------------------------------------------------------------------------------------

def test_nasbench201_in_json_has_the_graphs_of_the_class():
    space = read_space(SHIPPED["nasbench201"])
    graphs, expected = space.table(), CLASS.table()
    for name in ("ops", "adj", "n", "marks"):
        assert torch.equal(getattr(graphs, name), getattr(expected, name))
    assert (space.ops, space.vocabulary, space.size, space.choices) == (
        CLASS.ops, CLASS.vocabulary, CLASS.size, CLASS.choices)
    archs = space.sample(50, np.random.default_rng(0))
    assert archs == CLASS.sample(50, np.random.default_rng(0))
    assert [space.key(arch) for arch in archs] == [CLASS.key(arch) for arch in archs]
    assert all(set(space.neighbours(arch)) == set(CLASS.neighbours(arch)) for arch in archs)


def test_nasbench201_in_json_has_the_scores_of_the_class(rng):
    space = read_space(SHIPPED["nasbench201"])
    archs, accuracy = CLASS.sample(40, rng), rng.uniform(80, 90, 40)
    scores = [Predictor.fit(each, archs[:20], accuracy[:20]).score(archs) for each in (space, CLASS)]
    assert scores[0].std() > 0
    np.testing.assert_array_equal(*scores)


def test_the_costs_of_nasbench_macro_are_those_of_its_table(shared_data):
    space, rows = read_space(SHIPPED["nasbench_macro"]), rows_of(shared_data / "nasbench_macro.csv.gz")
    costs = space.costs([space.parse(row["arch"]) for row in rows])
    np.testing.assert_array_equal(costs["params"], [float(row["params"]) for row in rows])
    np.testing.assert_array_equal(costs["macs"], [float(row["flops"]) for row in rows])


def test_the_parameters_of_nasbench201_are_those_of_its_table(shared_data):
    """The table gives 150 cells the number of another cell of the same function."""
    space, rows = read_space(SHIPPED["nasbench201"]), rows_of(shared_data / "nasbench201.csv.gz")
    ours = space.costs([space.parse(row["arch"]) for row in rows])["params"]
    table = np.array([float(row["params_million"]) for row in rows]) * 1e6
    assert (np.abs(ours - table) < 1).sum() == len(rows) - 150


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_keeps_the_promises_of_a_space(name, rng):
    space = read_space(SHIPPED[name])
    archs = space.sample(30, rng)
    graphs = space.encode(archs)
    assert (graphs.adj.numpy() == np.triu(graphs.adj.numpy(), 1)).all()  # topological order
    assert graphs.ops.max() < len(space.ops) and graphs.ops.shape[1] == space.max_vertices
    again = space.encode_keys([space.key(arch) for arch in archs])
    assert torch.equal(graphs.ops, again.ops) and torch.equal(graphs.adj, again.adj)
    for arch in archs:
        near = space.neighbours(arch)
        assert len(set(map(space.key, near))) == len(near) == sum(space.choices) - len(space.choices)
        assert space.mutate(arch, rng) in near and arch not in near
        assert space.parse(space.text(arch)) == space.parse(json.dumps(space.document(arch))) == arch
        assert space.parse("".join(map(str, arch))) == arch
    assert space.decode(np.array(archs)) == archs
    batch = Batch.of(graphs)
    for facts in (property_targets(batch, space.vocabulary),
                  signatures(batch.ops, batch.adj, batch.node_mask, space.vocabulary)):
        assert facts.isfinite().all() and facts.std(0).max() > 0


def test_mutants_are_uniform_over_the_neighbours(rng):
    space = read_space(SHIPPED["hybrid"])  # its positions have three or four options
    arch = space.sample(1, rng)[0]
    drawn = [space.mutate(arch, rng) for _ in range(4000)]
    counts = np.array([drawn.count(other) for other in space.neighbours(arch)])
    assert counts.sum() == 4000 and counts.min() > 0.6 * counts.mean() and counts.max() < 1.4 * counts.mean()


def test_the_two_cells_are_marked_unless_marks_are_off():
    graphs = read_space(SHIPPED["hybrid"]).table(3, np.random.default_rng(0))
    assert graphs.marks[0].tolist() == [0] * 6 + [1] * 6
    bare = spaces.get(str(SHIPPED["hybrid"]), cell_marks=False).table(3, np.random.default_rng(0))
    assert not bare.marks.any() and torch.equal(bare.ops, graphs.ops)
    with pytest.raises(InputError, match="one cell and no marks"):
        spaces.get("nasbench_macro", cell_marks=False)


# What operations compute ------------------------------------------------------------------------------------

def test_costs_by_hand():
    conv = parse_space(mine(), "mine.json").vocabulary["conv"]
    assert cost(conv, Place(4, 8, 16)) == (9 * 4 * 8 + 16, 9 * 4 * 8 * 256)
    assert cost(conv, Place(4, 8, 16, stride=2)).macs == 9 * 4 * 8 * 64
    separable = OPERATIONS["sep_conv_3x3"]  # twice depthwise and pointwise
    assert cost(separable, Place(4, 4, 8)).params == 2 * (9 * 4 + 16 + 8)
    assert cost({"is": "identity"}, Place(4, 4, 8)) == (0, 0)
    assert cost({"is": "identity"}, Place(4, 8, 8)).params == 4 * 8 + 16
    attention = {"is": "attention", "heads": 2, "residual": True}
    assert cost(attention, Place(8, 8, 4)) == (4 * 64, 16 * 4 * 64 + 2 * 256 * 8)
    linear = {"is": "linear", "expansion": 2.0, "residual": False}
    assert cost(linear, Place(8, 8, 4)) == (2 * 128, 2 * 128 * 16)


@pytest.mark.parametrize("changed", [
    {"kernel": 5}, {"dilation": 2}, {"stride": 2}, {"groups": 2}, {"groups": "channels"}, {"pointwise": True},
    {"expansion": 4}, {"residual": True}, {"repeats": 2}, {"order": "relu-conv-norm"}], ids=str)
def test_every_field_of_a_convolution_is_simulated(changed):
    """A space with the changed operation has other signatures."""
    def responses(operation: dict) -> torch.Tensor:
        space = parse_space(mine(operations=MINE["operations"] | {"conv": operation}), "mine.json")
        batch = Batch.of(space.encode([(0, 0, 0, 0, 0)]))
        return signatures(batch.ops, batch.adj, batch.node_mask, space.vocabulary)

    plain = {"is": "convolution", "kernel": 3}
    assert torch.equal(responses(plain), responses(plain))
    assert not torch.allclose(responses(plain), responses(plain | changed), atol=1e-3)


def test_every_kind_is_described_in_the_docs():
    text = (ROOT / "docs" / "spaces.md").read_text()
    for kind in set(kinds()) - {"input", "output"}:
        assert f"`{kind}`" in text


# Faults -----------------------------------------------------------------------------------------------------

FAULTS = [
    ('"kernel": 3', '"kernel": "3"', 5, "operations.conv.kernel: kernel must be int, not str"),
    ('"kernel": 3', '"kernel": 4', 5, "operations.conv.kernel: kernel must be odd"),
    ('"kernel": 3', '"kernal": 3', 5, "operations.conv.kernal"),
    ('"is": "identity"', '"is": "identical"', 15, "operations.skip"),
    ('"is": "identity"', '"in": "identity"', 14, "operations.skip: lacks is"),
    ('"name": "mine"', '"name": "my space"', 2, "name"),
    ('"name": "mine"', '"nome": "mine"', 2, "nome"),
    ('"second"', '"first"', 19, "positions"),
    ('"second"', '"output"', 20, "positions.output"),
    ('"second"', "2", 18, "positions"),
    ('"conv": {', '"input": {', 4, "operations.input"),
    ('"skip": {', '"conv": {', 4, "conv: the key stands twice"),
    ('"positions": [', '"wiring": "circle", "positions": [', 18, "wiring"),
    ('"positions": [', '"wiring": [["first", "sixth"]], "positions": [', 18, "wiring.sixth: no vertex"),
    ('"positions": [', '"wiring": [["second", "first"]], "positions": [', 18, "second -> first: an edge"),
    ('"positions": [', '"wiring": [["input", "first"]], "positions": [', 18, "first feeds nothing"),
    ('"positions": [', '"wiring": "edges", "positions": [', 18, "position 'first' names no edge"),
    ('"positions": [', '"notation": "{first}", "positions": [', 18, "must name every position once"),
    ('"positions": [', '"protocol": "mine", "positions": [', 18, "protocol: must be one of"),
    ('"positions": [', '"stages": [{"channels": 0, "pixels": 8}], "positions": [', 18, "stages"),
    ('"name": "mine",', '"name": "mine"', 3, "not JSON"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), FAULTS, ids=[said for *_, said in FAULTS])
def test_a_fault_names_line_and_key(tmp_path, old, new, line, said):
    path = tmp_path / "mine.json"
    path.write_text(mine().replace(old, new, 1))
    with pytest.raises(InputError) as error:
        spaces.get(str(path))
    assert str(error.value).startswith(f"{path}:") and said in str(error.value)
    assert abs(int(str(error.value).removeprefix(f"{path}:").split(":")[0]) - line) <= 1


def test_files_that_are_no_declaration_are_refused(tmp_path):
    for content in (b"", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 10**5, b'{"name": 1e999}', b'"a"'):
        path = tmp_path / "mine.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match="mine.json"):
            spaces.get(str(path))
    for name in ("absent.json", "nasbench", "", "../nasbench201"):
        with pytest.raises(InputError):
            spaces.get(name)


@settings(max_examples=60, deadline=None)
@given(st.recursive(
           st.none() | st.booleans() | st.integers(-5, 70) | st.text(max_size=5),
           lambda inner: st.lists(inner, max_size=3)
           | st.dictionaries(st.text(max_size=5), inner, max_size=3),
           max_leaves=6),
       st.sampled_from(["name", "operations", "positions", "wiring", "inputs", "stages", "cells", "besides",
                        "notation", "protocol", "labels", "about"]))
def test_any_value_under_any_key_is_read_or_refused(value, key):
    try:
        space = parse_space(json.dumps({**MINE, key: value}), "mine.json")
    except InputError:
        return
    assert space.parse(space.text(space.sample(1, np.random.default_rng(0))[0]))


def test_other_texts_are_no_architectures():
    space = parse_space(mine(), "mine.json")
    for text in ("", "conv", "conv,conv,conv,conv,none", "00003", "000000", "[0]", "{", '{"first": "conv"}',
                 '{"operations": []}', "conv,conv,conv,conv,conv,conv", "conv, conv, conv, conv, conv;"):
        with pytest.raises(InputError):
            space.parse(text)


# A user's space, everywhere ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def chain(tmp_path_factory, random_labels):
    """A declared space that was pre-trained and fine-tuned: (folder, file, labels)."""
    folder = tmp_path_factory.mktemp("mine")
    path = folder / "mine.json"
    path.write_text(mine(stages=[{"channels": 8, "pixels": 8}]))
    labels = random_labels(folder / "labels.jsonl", str(path), 60)
    pretrain.main(["--space", str(path), "--iterations", "4", "--batch_size", "8", "--save",
                   str(folder / "pretrain"), *TINY])
    finetune.main(["--space", str(path), "--labels", labels, "--finetune_train_samples", "20", "--seeds", "0",
                   "--model_state_dict", str(folder / "pretrain" / "last.pt"), "--save",
                   str(folder / "finetune"), "--members", "1", "--epochs", "2", "--threads", "1"])
    return folder, path, labels


def test_a_search_takes_it_and_resumes_only_the_same(chain, tmp_path):
    folder, path, labels = chain
    flags = ["--search_algo", "ae", "--N", "14", "--labels", labels, "--encoder_model_state_dict",
             str(folder / "pretrain" / "last.pt"), "--outdir", str(tmp_path / "out"), "--threads", "1"]
    best = search.main(["--search_space", str(path), *flags])
    assert best["space"] == "mine" and (tmp_path / "out" / "best_cell.png").exists()
    other = tmp_path / "elsewhere.json"
    other.write_text(json.dumps(json.loads(path.read_text())))  # the same in another layout
    assert search.main(["--search_space", str(other), *flags, "--resume"]) == best
    other.write_text(path.read_text().replace('"kernel": 5', '"kernel": 7'))
    open_benchmark.cache_clear()
    with pytest.raises(InputError, match="another content of search_space"):
        search.main(["--search_space", str(other), *flags, "--resume"])


def test_a_predictor_keeps_the_space_it_was_made_for(chain, tmp_path, capsys):
    folder, path, _ = chain
    space = spaces.get(str(path))
    archs = space.sample(5, np.random.default_rng(3))
    cells = tmp_path / "cells.txt"
    cells.write_text("".join(space.text(arch) + "\n" for arch in archs))
    moved = path.with_suffix(".away")
    os.replace(path, moved)
    try:
        predictor = Predictor.load(folder / "finetune" / "predictor.pt")
        assert predictor.space.name == "mine" and len(predictor.score(archs)) == 5
        finetune.main(["--predictor", str(folder / "finetune" / "predictor.pt"), "--score", str(cells)])
        assert "conv" in capsys.readouterr().out
    finally:
        os.replace(moved, path)


def test_a_picture_of_its_cell(chain, tmp_path):
    _, path, _ = chain
    picture = tmp_path / "cell.png"
    draw_cell.main(["--space", str(path), "--arch", "conv,wide,skip,conv,skip", "--out", str(picture)])
    assert picture.stat().st_size > 1000
