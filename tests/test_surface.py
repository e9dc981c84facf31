"""The surface of an acquisition: climbs to its maxima, and batches that differ."""
import numpy as np
import pytest

from strategies.base import CandidatePool, Posterior
from strategies.surface import Surface, choose_batch, choose_highest, climb
from toys.search import NB201


class Counting:
    """A surrogate that likes 3x3 convolutions, certain of all, and counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, archs):
        self.asked += archs
        mean = np.array([arch.count(3) for arch in archs.values()], float)
        return Posterior(mean, np.zeros(len(archs)), 0.0)


class Fixed:
    """A surrogate of architectures a, b, c ... with this mean and covariance."""

    def __init__(self, mean, covariance):
        self.mean, self.matrix = dict(zip("abcdef", mean)), np.array(covariance, float)

    def __call__(self, archs):
        rows = ["abcdef".index(key) for key in archs]
        mean = np.array([self.mean[key] for key in archs], float)
        return Posterior(mean, self.matrix[rows, rows]**0.5, 0.0)

    def covariance(self, archs):
        rows = ["abcdef".index(key) for key in archs]
        return self.matrix[np.ix_(rows, rows)]


def mean_of(posterior, rng):
    return posterior.mean


def bound_of(posterior, rng):
    return posterior.mean + 2 * posterior.std


def everything():
    return CandidatePool(NB201, lambda key: True, None)


def surface_of(surrogate, rank, archs, rng):
    surface = Surface(surrogate, rank, rng)
    surface.look(archs)
    return surface


def keyed(*archs):
    return {NB201.key(arch): arch for arch in archs}


def test_a_climb_ends_at_the_maximum_and_asks_of_none_twice(rng):
    surrogate = Counting()
    surface = surface_of(surrogate, mean_of, keyed((0, 1, 2, 0, 1, 2), (4, 4, 4, 4, 4, 4)), rng)
    climb(surface, everything(), width=2)
    [(key, score)] = choose_highest(surface, 1)
    assert (key, score) == (NB201.key((3,) * 6), 6.0)
    assert len(set(surrogate.asked)) == len(surrogate.asked) < 1000


def test_a_climb_leaves_out_what_was_queried(rng):
    pool = everything()
    pool.take(NB201.key((3,) * 6))
    surface = surface_of(Counting(), mean_of, keyed((0,) * 6), rng)
    climb(surface, pool, width=3)
    best = choose_highest(surface, 3)
    assert NB201.key((3,) * 6) not in surface.archs and [score for _, score in best] == [5.0] * 3


def test_a_climb_ends_after_its_steps(rng):
    surface = surface_of(Counting(), mean_of, keyed((0,) * 6), rng)
    climb(surface, everything(), width=1, steps=2)
    assert choose_highest(surface, 1)[0][1] == 2.0


def test_the_highest_come_first_and_ties_in_their_order(rng):
    surface = surface_of(Fixed([1, 3, 2, 3], np.eye(4)), mean_of, dict.fromkeys("abcd"), rng)
    assert choose_highest(surface, 3) == [("b", 3.0), ("d", 3.0), ("c", 2.0)]


def test_a_batch_avoids_what_one_answer_will_tell(rng):
    """b is all but the same as a, and c, which is worse, is another thing."""
    covariance = [[1, 0.99, 0], [0.99, 1, 0], [0, 0, 1]]
    surface = surface_of(Fixed([1.0, 0.99, 0.2], covariance), bound_of, dict.fromkeys("abc"), rng)
    assert [key for key, _ in choose_highest(surface, 2)] == ["a", "b"]
    batch = choose_batch(surface, 2)
    assert [key for key, _ in batch] == ["a", "c"]
    assert batch[1][1] == pytest.approx(0.2 + 2)


def test_the_deviation_shrinks_as_if_the_first_were_known(rng):
    """The score of the second is that of a Gaussian process that was told of the first."""
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    surface = surface_of(Fixed([1.0, 0.9], covariance), bound_of, dict.fromkeys("ab"), rng)
    (_, first), (_, second) = choose_batch(surface, 5)
    assert first == pytest.approx(3.0) and second == pytest.approx(0.9 + 2 * (1 - 0.6**2)**0.5)
