"""Oracles and the budget; the YAHPO surrogate against labels of NAS-Bench-301."""
import csv
import shutil

import numpy as np
import pytest
from scipy.stats import spearmanr

import spaces
from runtime.errors import InputError
from spaces import darts
from spaces.base import Record
from spaces.labels.read import Labels
from spaces.oracles import open_oracle
from spaces.oracles.table import BudgetExhausted, QueryBudget, TableOracle

NB201 = spaces.get("nasbench201")
NB301 = spaces.get("nasbench301")
KNOWN, UNKNOWN = (3, 3, 3, 1, 3, 3), (0, 0, 0, 0, 0, 0)


@pytest.fixture
def table() -> TableOracle:
    column = np.array([91.5]), np.array([np.nan]), np.array([1200.0])
    return TableOracle(Labels("a table", [NB201.key(KNOWN)], *column), NB201)


@pytest.fixture(scope="module")
def yahpo(shared_data):
    return open_oracle(str(shared_data / "nasbench301_yahpo.onnx"), NB301)


def test_table_answers_with_none_for_what_it_lacks(table):
    assert table.query(KNOWN) == Record(val=91.5, test=None, cost=1200.0)
    assert table.name == "a table"


def test_table_says_which_cells_it_covers(table):
    assert table.covers(NB201.key(KNOWN)) and not table.covers(NB201.key(UNKNOWN))
    with pytest.raises(InputError, match="a table has no label for .none~0"):
        table.query(UNKNOWN)


class Counting:
    name = "counting"

    def __init__(self):
        self.asked = []

    def covers(self, key):
        return key == "yes"

    def query(self, arch):
        self.asked.append(arch)
        if arch == "bad":
            raise InputError("bad")
        return Record(1.0, None, None)


def test_budget_refuses_the_query_after_the_last_without_asking():
    oracle = Counting()
    budget = QueryBudget(oracle, 2)
    assert (budget.name, budget.spent, budget.left) == ("counting", 0, 2)
    assert budget.query("a") == Record(1.0, None, None)
    budget.query("a")
    assert (budget.spent, budget.left) == (2, 0)
    with pytest.raises(BudgetExhausted, match="all 2 queries"):
        budget.query("b")
    assert oracle.asked == ["a", "a"] and budget.spent == 2


def test_a_failed_query_counts_and_coverage_does_not():
    budget = QueryBudget(Counting(), 2)
    assert budget.covers("yes") and not budget.covers("no") and budget.spent == 0
    with pytest.raises(InputError):
        budget.query("bad")
    assert budget.left == 1


def test_any_other_file_is_read_as_labels(tmp_path):
    rows = f"{NB201.key(KNOWN)},90.5\n{NB201.key(UNKNOWN)},10.0\n"
    (tmp_path / "mine.csv").write_text(f"arch,val_accuracy\n{rows}")
    oracle = open_oracle(str(tmp_path / "mine.csv"), NB201, dataset="cifar10")
    assert oracle.query(KNOWN).val == 90.5


def test_missing_and_misplaced_surrogates_are_named(tmp_path):
    missing = tmp_path / "none.onnx"
    with pytest.raises(InputError, match="no surrogate at .*none.onnx"):
        open_oracle(str(missing), NB301)
    with pytest.raises(InputError, match="cannot serve as oracle of nasbench201"):
        open_oracle(str(missing), NB201)


def test_surrogate_without_or_with_a_wrong_encoding_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match="model_encoding.json or encoding.json"):
        open_oracle(str(tmp_path / "model.onnx"), NB301)
    (tmp_path / "encoding.json").write_text('{"some": {"other": 1}}')
    with pytest.raises(InputError, match="encoding.json is no YAHPO encoding of NAS-Bench-301"):
        open_oracle(str(tmp_path / "model.onnx"), NB301)


def test_damaged_surrogate_is_refused(tmp_path, shared_data):
    shutil.copyfile(shared_data / "nasbench301_yahpo_encoding.json", tmp_path / "encoding.json")
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match="model.onnx is damaged or no surrogate"):
        open_oracle(str(tmp_path / "model.onnx"), NB301)


def test_yahpo_ranks_the_published_cells_as_nasbench301_does(yahpo, shared_data):
    with open(shared_data / "nasbench301_labels.csv") as file:
        rows = list(csv.DictReader(file))
    val, *_ = yahpo.query_many(darts.numbers_of([NB301.parse(row["arch"]) for row in rows]))
    assert spearmanr(val, [float(row["val_accuracy"]) for row in rows]).statistic > 0.8


def test_yahpo_codes_of_a_cell(yahpo):
    """DARTS_V2's normal cell: node 4's edges start at 5, so skip_connect from 0 is edge 5; its inputs are
    "0_1"."""
    codes = yahpo.encode(darts.numbers_of([darts.NAMED["DARTS_V2"]]))[0]
    dil3, top, sep3, skip = 2, 4, 5, 7  # the JSON numbers operations by name, 0 = inactive
    assert codes[:14].tolist() == [sep3, sep3, sep3, sep3, 0, skip, sep3, 0, 0, skip, 0, dil3, 0, 0]
    assert codes[14:28].tolist() == [top, top, 0, top, skip, top, 0, skip, 0, 0, top, skip, 0, 0]
    assert codes[28:].tolist() == [1, 1, 2, 3, 2, 5]  # 0_1, 0_1, 0_2; 1_2, 0_2, 1_2


def test_yahpo_answers_one_as_it_answers_many(yahpo):
    archs = NB301.sample(3, np.random.default_rng(0))
    val, cost, _ = yahpo.query_many(darts.numbers_of(archs))
    assert [yahpo.query(arch) for arch in archs] == [Record(float(v), None, float(c))
                                                     for v, c in zip(val, cost)]
    assert yahpo.covers(NB301.key(archs[0])) and yahpo.name == "YAHPO surrogate of NAS-Bench-301"
