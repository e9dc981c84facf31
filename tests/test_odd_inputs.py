"""Inputs as people write them: read as they are meant, or refused in one line that says how to mend them."""
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spaces
from runtime.errors import InputError
from spaces.darts import NAMED, architecture_of
from spaces.labels.cells import read_cells
from spaces.labels.read import read_labels

NB101, NB201, DARTS = (spaces.get(name) for name in ("nasbench101", "nasbench201", "darts"))
A, B, C, D = (NB201.key(tuple(map(int, digits))) for digits in ("310241", "042133", "123400", "444321"))
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def table(path: Path, text: str, space=NB201, **options):
    path.write_text(text)
    return read_labels(path, space, **options)


def refused(call, *words: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert all(word in text for word in words) and "\n" not in text and len(text) < 310, text


# Label tables -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("header", ["arch,val_accuracy,VAL_ACCURACY", "arch,val_accuracy,val_accuracy",
                                    "arch,Arch,val_accuracy"])
def test_a_column_that_is_there_twice(tmp_path, header):
    refused(lambda: table(tmp_path / "f.csv", f"{header}\n{A},90,10\n{B},80,20\n"), "f.csv:1", "twice")


def test_a_key_that_is_there_twice(tmp_path):
    for other in ("val_accuracy", "Val_Accuracy"):
        line = f'{{"arch": "{A}", "val_accuracy": 90, "{other}": 10}}\n'
        refused(lambda line=line: table(tmp_path / "f.jsonl", line), "f.jsonl:1", "'val_accuracy'", "twice")


def test_each_column_has_a_unit_of_its_own(tmp_path, capsys):
    labels = table(tmp_path / "f.csv", f"arch,val_accuracy,test_accuracy\n{A},.62,61.5\n{B},.58,59\n",
                   dataset="cifar100")
    assert labels.val.tolist() == pytest.approx([62, 58])
    assert labels.test.tolist() == [61.5, 59]
    assert "validation from val_accuracy, fractions, 0.58 to 0.62; test from" in capsys.readouterr().err
    refused(lambda: table(tmp_path / "f.csv", f"arch,val_accuracy,test_accuracy\n{A},.9,40\n{B},.8,41\n"),
            "f.csv", "validation is 85 % and test 40.5 %", "one unit")


@pytest.mark.parametrize("values, line, what", [
    ((.91, .88, 8.9, .9), 4, "accuracy 8.9 is above 1 in a column of fractions"),
    ((91, .88, 89, 90), 3, "accuracy 0.88 is a fraction in a column of percent")],
    ids=["percent", "fraction"])
def test_the_odd_value_is_named_and_not_a_good_one(tmp_path, values, line, what):
    rows = "".join(f"{key},{value}\n" for key, value in zip((A, B, C, D), values))
    refused(lambda: table(tmp_path / "f.csv", f"arch,val_accuracy\n{rows}"), f"f.csv:{line}: {what}")


def test_a_column_of_another_dataset_is_not_taken_for_this_one(tmp_path):
    text = f"arch,cifar10_val_accuracy,val_accuracy\n{A},90,70\n{B},91,71\n"
    assert table(tmp_path / "f.csv", text).val.tolist() == [90, 91]
    refused(lambda: table(tmp_path / "f.csv", text, dataset="cifar100"), "no row has an accuracy for cifar1")
    svhn = text.replace("cifar10", "svhn")
    refused(lambda: table(tmp_path / "f.csv", svhn), "no row has an accuracy for cifar10")
    rows = [{"arch": A, "val_accuracy": 70}, {"arch": B, "cifar10_val_accuracy": 71}]
    refused(lambda: table(tmp_path / "f.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
            "f.jsonl:2", "name the columns alike")


@pytest.mark.parametrize("name, near", [
    ("valid_accuracy", "val_accuracy"), ("test_acuracy", "test_accuracy"),
    ("cifar10_val_acc", "cifar10_val_accuracy")])
def test_a_near_miss_is_named(tmp_path, name, near):
    refused(lambda: table(tmp_path / "f.csv", f"arch,{name}\n{A},91\n"), repr(name), repr(near))


def test_other_columns_are_listed(tmp_path):
    text = f"arch,latency,flops\n{A},91,3\n"
    refused(lambda: table(tmp_path / "f.csv", text), "latency, flops", "add val_accuracy")


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_separators(tmp_path, separator):
    rows = separator.join(("arch", "val_accuracy")), separator.join((A, "91")), separator.join((B, "92.5"))
    assert table(tmp_path / "f.csv", "\n".join(rows)).val.tolist() == [91, 92.5]


def test_two_joined_files(tmp_path):
    one = '{"header": {"oracle": "o"}}\n' + json.dumps({"arch": A, "val_accuracy": 90}) + "\n"
    refused(lambda: table(tmp_path / "f.jsonl", one + one), "f.jsonl:3", "a second header")


def test_a_matrix_and_operations_name_a_cell(tmp_path):
    cell = {"matrix": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "ops": ["input", "maxpool3x3", "output"]}
    other = {"module_adjacency": [[0, 1, 0], [0, 0, 1], [0, 0, 0]],
             "module_operations": ["input", "conv1x1-bn-relu", "output"]}
    rows = {"arch": cell, "val_accuracy": .9}, other | {"val_accuracy": .8}
    labels = table(tmp_path / "f.jsonl", "".join(json.dumps(row) + "\n" for row in rows), NB101)
    assert labels.keys == [NB101.key(NB101.parse(json.dumps(given))) for given in (cell, other)]


def test_too_many_columns_and_no_regular_file(tmp_path):
    header = "arch,val_accuracy," + ",".join(f"c{i}" for i in range(200_000))
    refused(lambda: table(tmp_path / "f.csv", f"{header}\n"), "200,002 columns")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        refused(lambda path=path: read_labels(path, NB201), str(path), "give a label file")


def test_the_digest_is_that_of_the_content(tmp_path):
    text = f"arch,val_accuracy\n{A},91\n{B},90\n"
    one, two = table(tmp_path / "a.csv", text), table(tmp_path / "b.csv", text.replace(",", ";"))
    assert one.digest == two.digest != table(tmp_path / "a.csv", text.replace("91", "91.1")).digest


# Cells ------------------------------------------------------------------------------------------------------

def test_unused_vertices_may_be_called_none():
    """Operations count after pruning, as in nasbench; the hash is its one."""
    rows = [[0] * 7 for _ in range(7)]
    rows[0][1] = rows[1][2] = rows[2][6] = 1
    ops = ["input", "conv1x1-bn-relu", "maxpool3x3", "none", "none", "none", "output"]
    plain = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4]
    given, pruned = (NB101.parse(json.dumps({"matrix": matrix, "ops": names})) for matrix, names in (
        (rows, ops), (plain, [*ops[:3], "output"])))
    assert NB101.key(given) == NB101.key(pruned) == "6adf09ef60d9568b0c5ce41d788a41bc"
    with pytest.raises(InputError, match="operation 'none'"):
        NB101.parse(json.dumps({"matrix": plain, "ops": ["input", "none", "maxpool3x3", "output"]}))


def test_whose_numbering_digits_are(tmp_path, capsys):
    refused(lambda: NB201.parse("(4, 0, 3, 1, 4, 3)"), "other libraries number", "0 = none")
    refused(lambda: NB201.parse("404040404"), "six digits, 0 = none, 1 = skip_connect")
    (tmp_path / "cells.txt").write_text(f"403143\n{A}\n123400\n")
    cells = read_cells(tmp_path / "cells.txt", NB201)
    assert capsys.readouterr().err == f"{tmp_path / 'cells.txt'}:1: 403143 is {NB201.key(cells[0].arch)}\n"


def test_a_byte_order_mark_and_utf_16(tmp_path):
    path = tmp_path / "cells.txt"
    path.write_bytes(A.encode("utf-8-sig"))
    assert read_cells(path, NB201)[0].arch == NB201.parse(A)
    path.write_bytes(A.encode("utf-16"))
    refused(lambda: read_cells(path, NB201), "cells.txt", "UTF-16")


V2 = DARTS.text(NAMED["DARTS_V2"])


@pytest.mark.parametrize("text", [
    f"genotype = {V2}", f"DARTS_V2 = {V2}", f"genotypes.{V2}", V2.replace("range(2, 6)", "list(range(2, 6))"),
    V2.replace("range(2, 6)", "[5, 4, 3, 2]"), V2.replace("normal=", "").replace("normal_concat=", "", 1),
    V2.replace(", 1)", ", np.int64(1))").replace(", 2)", ", numpy.int32(2))"),
    V2.replace("normal=", "").replace("normal_concat=", "").replace("reduce=", "").replace(
        "reduce_concat=", ""),
], ids=["log", "name", "module", "list", "reversed", "one positional", "numpy", "positional"])
def test_genotypes_as_they_are_written(text):
    assert DARTS.parse(text) == NAMED["DARTS_V2"]


def test_a_best_json_without_a_cell_and_files_that_are_not_there(tmp_path):
    for content, words in (('{"architecture": null, "key": "x"}', "it has no architecture"),
                           ('{"architecture": ' + "[" * 5000, "nested deeper"), ("", "cannot read"),
                           ("Genotype(" + "(" * 5000, "nested deeper")):
        (tmp_path / "best.json").write_text(content)
        refused(lambda: architecture_of(str(tmp_path / "best.json")), "best.json", words)
    (tmp_path / "best.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"architecture": V2}).encode())
    assert architecture_of(str(tmp_path / "best.json")) == NAMED["DARTS_V2"]
    for text in ("runs/absent/best.json", "absent.txt", "/absent"):
        refused(lambda text=text: architecture_of(text), text, "no such file")
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: architecture_of(str(tmp_path / "pipe")), "a pipe or a device")
    refused(lambda: architecture_of("random:" + "1" * 5000), "random:SEED")
    for text in ("a\0b", "é" * 200):
        refused(lambda text=text: architecture_of(text), "cannot read")


# Anything ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["arch", "hash", "key", "val_accuracy", "test_accuracy", "cifar100_val_accuracy", "cost"])
FIELDS = st.sampled_from([A, B, "", "0.5", "91", "nan", "-1", "1e999", "9" * 5000, "[" * 200, '"', "\x00"])
TABLES = st.lists(st.lists(NAMES | FIELDS, max_size=4).map(",".join), max_size=5).map("\n".join)
VALUES = (st.none() | st.booleans() | st.integers() | st.floats() | FIELDS
          | st.lists(st.integers(), max_size=2))
OBJECTS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4).map(json.dumps), max_size=4).map("\n".join)


@QUIET
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | TABLES.map(str.encode) | OBJECTS.map(
    lambda text: text.encode("utf-8", "replace")))
def test_any_file_is_a_table_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        labels = read_labels(path, NB201)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 310
    else:
        known = np.concatenate([labels.val, labels.test])
        assert ((known >= 0) & (known <= 100) | np.isnan(known)).all()


CELLS = st.sampled_from([
    "Genotype(", "normal=[", "('sep_conv_3x3', 0)", "]", ")", "range(2, 6)", "(", "|", "//", "none~0",
    '{"matrix": ', '"ops": ', "[[0,1],[0,0]]", "}", ",", "0", "-", "np.int64(2)"])


@QUIET
@given(st.text(max_size=60) | st.lists(CELLS, max_size=12).map("".join))
def test_any_text_is_a_cell_or_refused(text):
    for space in (NB101, NB201, DARTS):
        try:
            space.key(space.parse(text))
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 310


