"""The baselines of our strategies: random, policy, re, ls, bananas, xgb; and the neighbours of a cell."""
import numpy as np
import pytest

import spaces
from models.batch import Batch
from models.predictor import path_mlp
from spaces.nasbench101.cell import Cell
from strategies import STRATEGIES, TWINS
from strategies.base import CandidatePool, Posterior, Query, StrategySettings

NB101, NB201, DARTS = (spaces.get(name) for name in ("nasbench101", "nasbench201", "darts"))
GOAL = (3, 1, 4, 2, 0, 3)


def accuracy(arch):
    """Percent; the fewer edits from GOAL, the better, so that climbing always leads there."""
    return 90 - 5 * edits(arch, GOAL)


def edits(a, b):
    return sum(x != y for x, y in zip(a, b))


def query(arch, validation=None):
    return Query(0, 0, NB201.key(arch), "", accuracy(arch) if validation is None else validation, None, None,
                 None, arch)


def begin(name, archs, covers=lambda key: True, **settings):
    """The strategy after a random start of these architectures."""
    pool = CandidatePool(NB201, covers, None)
    strategy = STRATEGIES[name](pool, StrategySettings(**settings))
    tell(strategy, archs)
    return strategy


def tell(strategy, archs):
    queries = [query(arch) for arch in archs]
    for q in queries:
        strategy.pool.take(q.key)
    strategy.observe(queries)


def play(strategy, rounds, rng):
    """So many queries one by one; the architectures."""
    asked = []
    for _ in range(rounds):
        (arch,) = strategy.propose(1, rng)
        tell(strategy, [arch])
        asked.append(arch)
    return asked


def test_each_of_ours_has_a_twin_that_fits_nothing():
    assert list(TWINS) == ["r", "rl", "ae", "bo"]
    assert all(STRATEGIES[ours].members and not STRATEGIES[twin].members for ours, twin in TWINS.items())


@pytest.mark.parametrize("ours, twin", [("r", "random"), ("rl", "policy")])
def test_a_twin_proposes_what_its_strategy_does(ours, twin):
    archs = NB201.sample(20, np.random.default_rng(1))
    proposed = [begin(name, archs).propose(30, np.random.default_rng(2)) for name in (ours, twin)]
    assert proposed[0] == proposed[1] and len(proposed[0]) == 30


# re ---------------------------------------------------------------------------------------------------------

def test_evolution_asks_for_one_mutant_of_a_tournament_winner(rng):
    strategy = begin("re", [GOAL, (0,) * 6, (1,) * 6], population=3, tournament=3)
    for _ in range(20):
        (arch,) = strategy.propose(100, rng)
        assert edits(arch, GOAL) == 1


def test_evolution_forgets_its_oldest_however_good(rng):
    strategy = begin("re", [GOAL, (0,) * 6, (1,) * 6], population=2, tournament=2)
    assert all(edits(strategy.propose(1, rng)[0], GOAL) > 3 for _ in range(20))


# ls ---------------------------------------------------------------------------------------------------------

def test_local_search_tries_all_neighbours_of_one_place_in_random_order():
    asked = [play(begin("ls", [GOAL]), 24, np.random.default_rng(seed)) for seed in (0, 1)]
    assert set(asked[0]) == set(asked[1]) == set(NB201.neighbours(GOAL)) and asked[0] != asked[1]


def test_local_search_moves_to_the_first_better_neighbour(rng):
    start = (0, 1, 4, 2, 0, 3)  # one edit from the goal
    asked = play(begin("ls", [start]), 60, rng)
    at = asked.index(GOAL)
    assert all(edits(arch, start) == 1 for arch in asked[:at + 1])
    assert all(edits(arch, GOAL) == 1 for arch in asked[at + 1:at + 10])


def test_local_search_restarts_anywhere_from_a_local_optimum(rng):
    asked = play(begin("ls", [GOAL]), 40, rng)
    assert edits(asked[24], GOAL) > 1  # 24 neighbours, then a draw
    assert all(edits(arch, asked[24]) == 1 for arch in asked[25:27])


def test_local_search_moves_over_known_ground_without_a_query(rng):
    """A second climb meets the goal, which the first had found."""
    strategy = begin("ls", [GOAL])
    strategy.here = None  # a restart
    tell(strategy, [(0, *GOAL[1:])])
    asked = play(strategy, 24, rng)
    assert GOAL not in asked and strategy.here.arch == GOAL


def test_outside_a_partial_table_the_neighbourhood_reaches_further(rng):
    """None of 24 neighbours is in the table, what is two edits away is."""
    far = {NB201.key(arch) for arch in NB201.sample(2000, rng) if edits(arch, GOAL) == 2}
    pool = CandidatePool(NB201, far.__contains__, sorted(far))
    found = pool.neighbourhood(GOAL, 6, rng)
    assert 12 < len(found) <= 24 and len(set(found)) == len(found)
    assert {edits(arch, GOAL) for arch in found} == {2}


# Predictors of their own ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, members", [("bananas", 3), ("xgb", 2)])
def test_a_predictor_of_its_own_learns_to_rank(name, members, rng):
    """Labelled by how many 3x3 convolutions a cell has; paths and counts show it."""
    archs = NB201.sample(160, rng)
    label = np.array([60.0 + 5 * arch.count(3) for arch in archs])
    table = Batch.of(NB201.encode(archs))
    scores = STRATEGIES[name].predictor(table, NB201.vocabulary, label[:100], list(range(members)))
    assert scores.shape == (members, 160)
    for row in scores:
        assert np.corrcoef(row[100:], label[100:])[0, 1] > 0.7
    assert not np.array_equal(scores[0], scores[1])
    again = STRATEGIES[name].predictor(table, NB201.vocabulary, label[:100], list(range(members)))
    np.testing.assert_array_equal(scores, again)


def test_bananas_draws_whatever_the_acquisition_of_bo(rng):
    strategy = STRATEGIES["bananas"](CandidatePool(NB201, lambda key: True, None),
                                     StrategySettings(acquisition="ucb"))
    posterior = Posterior(np.zeros(2000), np.full(2000, 3.0), 0.0)
    assert 2.8 < strategy.rank(posterior, rng).std() < 3.2


def test_a_member_does_not_depend_on_the_others(rng, monkeypatch):
    monkeypatch.setattr(path_mlp, "EPOCHS", 5)
    table = Batch.of(NB201.encode(NB201.sample(50, rng)))
    label = rng.uniform(80, 90, 40)
    alone, together = (STRATEGIES["bananas"].predictor(table, NB201.vocabulary, label, seeds)
                       for seeds in ([7], [3, 7]))
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4)


def test_the_loss_of_bananas_weighs_the_best_most(monkeypatch):
    """One cell with two labels: |p - e| / e is least at the smaller error, the better label."""
    monkeypatch.setattr(path_mlp, "EPOCHS", 400)
    table = Batch.of(NB201.encode([GOAL] * 2))
    scores = STRATEGIES["bananas"].predictor(table, NB201.vocabulary, np.array([90.0, 60.0]), [0, 1])
    assert np.abs(scores - 90).max() < 3


# Neighbours -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("space", [NB101, NB201, DARTS], ids=lambda space: space.name)
def test_every_mutant_is_a_neighbour(space, rng):
    for arch in space.sample(5, rng):
        keys = [space.key(other) for other in space.neighbours(arch)]
        assert len(set(keys)) == len(keys) and space.key(arch) not in keys
        assert {space.key(space.mutate(arch, rng)) for _ in range(100)} <= set(keys)


@pytest.mark.parametrize("matrix, inner", [
    ([[0, 1], [0, 0]], []), ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [1]),
    ([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], [1, 2])])
def test_mutation_of_a_small_cell_reaches_the_near_neighbours_and_no_others(matrix, inner):
    """Those with one new vertex at most are likely enough to be met."""
    rng = np.random.default_rng(0)
    cell = Cell(matrix, [NB101.ops[0], *(NB101.ops[op] for op in inner), NB101.ops[-1]])
    neighbours = {other.key: len(other.ops) for other in NB101.neighbours(cell)}
    met = {NB101.mutate(cell, rng).key for _ in range(4000)}
    near = {key for key, vertices in neighbours.items() if vertices <= len(cell.ops) + 1}
    assert near <= met <= set(neighbours)


def test_a_cell_of_seven_vertices_has_its_single_edits_as_neighbours(rng):
    """21 flips and 10 other operations; less those that end the path, make ten edges or an equal cell."""
    cells = [cell for cell in NB101.sample(20, rng) if len(cell.ops) == 7]
    assert all(10 <= len(NB101.neighbours(cell)) <= 31 for cell in cells)
