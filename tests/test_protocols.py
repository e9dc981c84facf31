"""Evaluation protocols: who trains, who is ranked, and that nobody is both."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spaces
from runtime.errors import InputError
from spaces import SPACES
from spaces.labels.protocols import RANKING_PROTOCOLS, split
from spaces.labels.read import Labels

every_protocol = pytest.mark.parametrize("protocol", RANKING_PROTOCOLS)


def table(val, test) -> Labels:
    val, test = (np.array(column, float) for column in (val, test))
    return Labels("toy.csv", [str(row) for row in range(len(val))], val, test, np.full(len(val), np.nan))


def full(n: int) -> Labels:
    return table(np.arange(n), np.arange(n))


TARGETS = {"val-test": "test", "tnasp": "test", "gmae": "val", "nb201": "test", "nb301": "val"}


@every_protocol
def test_what_trains_and_what_is_ranked(protocol):
    assert RANKING_PROTOCOLS[protocol].train == "val"
    assert split(full(9), protocol, 3, 0).target == TARGETS[protocol]


def test_every_space_has_its_protocol():
    assert {space: spaces.get(space).protocol for space in SPACES} == {
        "nasbench101": "tnasp", "nasbench201": "nb201", "nasbench301": "nb301", "darts": "nb301"}


ACCURACY = st.sampled_from([np.nan, 90.0])
ROWS = st.lists(st.tuples(ACCURACY, ACCURACY), min_size=8, max_size=30)


@every_protocol
@settings(max_examples=60, deadline=None)
@given(rows=ROWS, n=st.integers(2, 20), seed=st.integers(0, 2**40))
def test_training_and_evaluation_are_disjoint_and_leave_nothing_out(protocol, rows, n, seed):
    labels = table(*zip(*rows))
    try:
        train, evaluation, target = split(labels, protocol, n, seed)
    except InputError:
        return  # too few labels of one kind, tested below
    truth = set(np.flatnonzero(~np.isnan(getattr(labels, target))))
    assert len(set(train)) == n
    assert not np.isnan(getattr(labels, RANKING_PROTOCOLS[protocol].train)[train]).any()
    assert sorted(evaluation) == sorted(truth - set(train))


@every_protocol
def test_with_every_label_known_the_two_add_up_to_all(protocol):
    train, evaluation, _ = split(full(40), protocol, 15, 3)
    assert sorted([*train, *evaluation]) == list(range(40))


def test_the_draw_is_the_seeds_and_larger_draws_contain_smaller_ones():
    labels = full(100)
    draws = ((10, 4), (10, 4), (50, 4), (10, 5))
    small, again, large, other = (split(labels, "tnasp", n, seed).train.tolist() for n, seed in draws)
    assert small == again == large[:10] and set(small) != set(other)


def test_the_draw_does_not_depend_on_the_accuracies():
    """Only on which are known: nothing about a label that was not asked for can choose the training cells."""
    rng = np.random.default_rng(0)
    draws = {tuple(split(table(rng.random(50), rng.random(50)), "nb201", 10, 0).train) for _ in range(5)}
    assert len(draws) == 1


def test_the_draw_is_uniform():
    """1,000 seeds, 6 of 12: each cell trains 500 times, give or take four standard deviations."""
    counts = np.bincount(np.concatenate([split(full(12), "gmae", 6, seed).train for seed in range(1000)]),
                         minlength=12)
    assert np.abs(counts - 500).max() < 4 * (1000 * 0.25) ** 0.5


def test_tnasp_also_ranks_cells_without_a_validation_accuracy():
    """As in nasbench101_dev.csv.gz, where two thirds have a test accuracy only; they cannot train."""
    labels = table([*range(80, 90)] + [np.nan] * 20, range(60, 90))
    train, evaluation, _ = split(labels, "tnasp", 10, 0)
    assert sorted(train) == list(range(10)) and sorted(evaluation) == list(range(10, 30))


def test_nb201_ranks_validation_only_if_no_test_accuracy_is_known():
    missing = np.full(20, np.nan)
    assert split(table(np.arange(20), missing), "nb201", 5, 0).target == "val"
    missing[:9] = np.arange(90, 99)
    labels = table(np.arange(20), missing)
    train, evaluation, target = split(labels, "nb201", 5, 0)
    assert target == "test" and set(evaluation) == set(range(9)) - set(train)


def refused(labels: Labels, protocol: str, n: int, *words: str) -> None:
    with pytest.raises(InputError) as error:
        split(labels, protocol, n, 0)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)


@pytest.mark.parametrize("n", [-1, 1, 21])
def test_labels_that_are_not_there(n):
    refused(full(20), "gmae", n, str(n), "toy.csv", "20 val values", "2..20")


@pytest.mark.parametrize("n", [19, 20])
def test_too_few_left_to_rank(n):
    refused(full(20), "gmae", n, f"leave {20 - n} architectures", "--finetune_train_samples")


def test_labels_that_are_all_equal_rank_nothing():
    refused(table([50] * 20, range(20)), "tnasp", 5, "all 5 training labels of seed 0 are equal", "toy.csv")
    refused(table(np.arange(20), [50] * 20), "tnasp", 5, "all test values to rank are equal", "toy.csv")


def test_a_protocol_whose_target_is_unknown():
    refused(table(np.arange(9), [np.nan] * 9), "tnasp", 3, "test accuracy", "toy.csv", "--protocol")
