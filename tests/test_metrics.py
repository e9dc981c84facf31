"""Metrics and normal scores against numbers worked out by hand."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.metrics import (
    kendall_tau,
    normal_scores,
    paired_interval,
    precision_at,
    regret_at,
    spearman_rho,
)

A, B = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 40.0, 30.0])  # one pair of six is swapped


def test_kendall_by_hand():
    assert kendall_tau(A, B) == pytest.approx((5 - 1) / 6)
    assert kendall_tau(-A, B) == pytest.approx(-(5 - 1) / 6)


def test_spearman_by_hand():
    assert spearman_rho(A, B) == pytest.approx(1 - 6 * (1 + 1) / (4 * 15))


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_kendall_counts_ties_as_tau_b(pairs):
    score, truth = np.array(pairs, float).T
    sign_s, sign_t = (np.sign(np.subtract.outer(x, x)) for x in (score, truth))  # [N, N] each
    scale = math.sqrt((sign_s**2).sum() * (sign_t**2).sum())
    assert kendall_tau(score, truth) == pytest.approx((sign_s * sign_t).sum() / scale if scale else 0.0)


@pytest.mark.parametrize("metric", [kendall_tau, spearman_rho])
def test_constant_scores_rank_nothing(metric):
    assert metric(np.ones(4), B) == metric(A, np.ones(4)) == 0.0


def test_precision_by_hand():
    # best three: 0, 1, 2 and 3, 2, 0
    score, truth = np.array([9.0, 8, 7, 1, 2]), np.array([90.0, 50, 91, 92, 10])
    assert [precision_at(score, truth, k) for k in (1, 2, 3, 5)] == [0, 0, pytest.approx(2 / 3), 1]


def test_precision_with_fewer_architectures_than_k():
    assert precision_at(A, B, 10) == 1.0


def test_precision_breaks_ties_by_position():
    assert precision_at(np.array([1.0, 1, 1]), np.array([5.0, 5, 5]), 2) == 1.0


def test_regret_by_hand():
    score, truth = np.array([9.0, 8, 7, 1]), np.array([90.0, 93.5, 91, 94])
    assert [regret_at(score, truth, k) for k in (1, 2, 4)] == [4.0, 0.5, 0.0]


def test_an_interval_of_gains():
    """It covers the mean, is narrower for more seeds, and one seed has none."""
    gain = np.random.default_rng(0).normal(0.1, 0.05, 40)
    (low, high), (wide_low, wide_high) = paired_interval(gain), paired_interval(gain[:5])
    assert low < gain.mean() < high and wide_low < gain[:5].mean() < wide_high
    assert 0 < high - low < wide_high - wide_low and paired_interval(gain[:1]) == (None, None)
    assert high - low == pytest.approx(2 * 1.96 * gain.std() / 40**0.5, rel=0.1)


# Normal scores ----------------------------------------------------------------------------------------------

# few values, so that ties are common
LABELS = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(label=LABELS)
def test_a_labels_own_place_is_its_rank_less_a_half(label):
    """Tied labels share their mean rank."""
    label = np.array(label)
    place = (stats.rankdata(label) - 0.5) / len(label)  # [n]
    np.testing.assert_allclose(normal_scores(label, label), stats.norm.ppf(place), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(label=LABELS, value=st.lists(st.floats(-3, 9), min_size=1, max_size=5))
def test_a_place_among_labels_is_counted(label, value):
    """Half of the equal ones lie below; beyond all labels the outermost place is the last."""
    n, expected = len(label), []
    for v in value:
        below = sum(x < v for x in label) + sum(x == v for x in label) / 2
        expected.append(stats.norm.ppf(min(max(below, 0.5), n - 0.5) / n))
    np.testing.assert_allclose(normal_scores(np.array(value), np.array(label)), expected, atol=1e-12)


def test_normal_scores_by_hand():
    label = np.array([93.0, 90.0, 91.0, 90.0])  # ranks 4, 1.5, 3, 1.5
    np.testing.assert_allclose(normal_scores(label, label), stats.norm.ppf([0.875, 0.25, 0.625, 0.25]))
    between = normal_scores(np.array([90.5, 92.0]), label)
    np.testing.assert_allclose(between, stats.norm.ppf([0.5, 0.75]))


def test_values_beyond_all_labels_share_the_outermost_places():
    label = np.array([90.0, 91.0, 92.0])
    found = normal_scores(np.array([-1e9, 89.9, 92.1, 1e9]), label)
    np.testing.assert_allclose(found, stats.norm.ppf([1 / 6, 1 / 6, 5 / 6, 5 / 6]))
    assert np.isfinite(found).all()


def test_equal_labels_have_the_middle_place():
    assert normal_scores(np.full(5, 90.0), np.full(5, 90.0)).tolist() == [0] * 5


def test_a_monotone_change_of_the_unit_does_not_matter(rng):
    label, value = rng.normal(size=20), rng.normal(size=7)
    np.testing.assert_array_equal(normal_scores(np.exp(value), np.exp(label)), normal_scores(value, label))


def test_every_seed_has_its_own_labels(rng):
    label, value = rng.normal(size=(3, 8)), rng.normal(size=(3, 5))
    together = normal_scores(value, label)
    assert together.shape == (3, 5)
    for row, own, v in zip(together, label, value):
        np.testing.assert_array_equal(row, normal_scores(v, own))
