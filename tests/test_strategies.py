"""The strategies ae, bo and rl: what they propose, how they rank, what they learn; the decisions of each
space."""
import numpy as np
import pytest
import torch

import spaces
from spaces.nasbench101.cell import Cell
from strategies import STRATEGIES
from strategies.base import CandidatePool, Posterior, Query, StrategySettings
from strategies.bo import expected_improvement

NB101, NB201, DARTS = (spaces.get(name) for name in ("nasbench101", "nasbench201", "darts"))


def query(arch, validation):
    return Query(0, 0, NB201.key(arch), NB201.text(arch), validation, None, None, None, arch)


def everything(space=NB201):
    return CandidatePool(space, lambda key: True, None)


def listed(archs):
    keys = [NB201.key(arch) for arch in archs]
    return CandidatePool(NB201, set(keys).__contains__, keys)


def edits(a, b):
    """How many of the digits differ."""
    return sum(x != y for x, y in zip(a, b))


# Mutants ----------------------------------------------------------------------------------------------------

def test_mutants_are_one_edit_away_while_such_are_left(rng):
    pool, parent = everything(), (0, 1, 2, 3, 4, 0)
    pool.take(NB201.key(parent))
    assert {edits(parent, arch) for arch in pool.mutants([parent], 10, 6, rng)} == {1}
    distances = [edits(parent, arch) for arch in pool.mutants([parent], 100, 6, rng)]
    assert len(distances) == 100 and distances.count(1) >= 22 and set(distances) == {1, 2}


def test_mutants_are_distinct_and_new(rng):
    pool, parent = everything(), (0, 1, 2, 3, 4, 0)
    for arch in pool.mutants([parent], 24, 1, rng):
        pool.take(NB201.key(arch))
    mutants = pool.mutants([parent], 60, 6, rng)
    assert len(set(map(NB201.key, mutants))) == 60 == len(pool.fresh(mutants))


def test_parents_have_equal_shares(rng):
    mutants = everything().mutants([(0,) * 6, (4,) * 6], 24, 1, rng)
    assert 9 <= sum(edits((0,) * 6, arch) == 1 for arch in mutants) <= 15 and len(mutants) == 24


def test_a_walk_crosses_what_the_table_lacks_and_ends_in_it(rng):
    """Two edits away, and nothing nearer, is in the table."""
    parent, far = (0,) * 6, [(1, 1, 0, 0, 0, 0), (0, 0, 2, 2, 0, 0)]
    assert listed(far).mutants([parent], 2, 1, rng) == []
    found = [arch for _ in range(200) for arch in listed(far).mutants([parent], 2, 2, rng)]
    assert set(found) == set(far)


def test_where_nothing_is_left_mutants_come_to_an_end(rng):
    pool = listed([(0,) * 6])
    pool.take(NB201.key((0,) * 6))
    assert pool.mutants([(0,) * 6], 20, 6, rng) == []


# ae ---------------------------------------------------------------------------------------------------------

def aging(population, tournament, history, M=1):
    strategy = STRATEGIES["ae"](everything(),
                                StrategySettings(population=population, tournament=tournament, M=M))
    strategy.observe(history)
    return strategy


def test_the_oldest_leave_the_population(rng):
    history = [query((i, 0, 0, 0, 0, 0), 90 - i) for i in range(5)]
    assert aging(5, 5, history).parent(rng) == history[0]
    assert aging(3, 3, history).parent(rng) == history[2]


def test_a_parent_is_the_best_of_a_tournament(rng):
    history = [query((i, 0, 0, 0, 0, 0), 90 - i) for i in range(5)]
    strategy = aging(5, 2, history)
    wins = np.bincount([history.index(strategy.parent(rng)) for _ in range(1000)], minlength=5) / 1000
    assert np.abs(wins - np.array([4, 3, 2, 1, 0]) / 10).max() < 0.06  # of 10 pairs, i is the best in 4 - i
    assert aging(20, 5, history[:1]).parent(rng) == history[0]  # fewer than the tournament takes


def test_ae_proposes_mutants_of_m_parents(rng):
    history = [query((0,) * 6, 90), query((4,) * 6, 90), query((2,) * 6, 10)]
    proposed = aging(3, 2, history, M=8).propose(24, rng)
    nearest = {min(history, key=lambda q: edits(q.arch, arch)).arch for arch in proposed}
    assert nearest == {(0,) * 6, (4,) * 6} and len(set(proposed)) == 24


# bo ---------------------------------------------------------------------------------------------------------

def bayes(**settings):
    return STRATEGIES["bo"](everything(), StrategySettings(**settings))


def test_bo_mutates_the_best_and_draws_a_share(rng):
    strategy = bayes(M=2, random_share=0.25)
    strategy.observe([query((2,) * 6, 10), query((0,) * 6, 90)])
    strategy.observe([query((3,) * 6, 20), query((4,) * 6, 80)])
    proposed = strategy.propose(40, rng)
    distances = [min(edits(arch, (0,) * 6), edits(arch, (4,) * 6)) for arch in proposed]
    assert len(proposed) == 40 and set(distances[:30]) == {1} and np.mean(distances[30:]) > 2


def test_thompson_sampling_draws_from_mean_and_spread():
    posterior = Posterior(np.array([0.0, 1.0, 3.0]), np.array([0.5, 2.0, 1.0]), 0.0)
    strategy = bayes(acquisition="its")
    draws = np.array([strategy.rank(posterior, np.random.default_rng(seed)) for seed in range(2000)])
    np.testing.assert_allclose(draws.mean(0), posterior.mean, atol=0.15)
    np.testing.assert_allclose(draws.std(0), posterior.std, rtol=0.05)
    assert abs(np.corrcoef(draws[:, 1], draws[:, 2])[0, 1]) < 0.1  # candidates are drawn independently


def test_ei_and_ucb_prefer_spread_where_means_are_equal():
    posterior = Posterior(np.array([0.0, 0.0, -3.0]), np.array([0.2, 1.0, 0.2]), 0.5)  # the third is hopeless
    for acquisition in ("ei", "ucb"):
        assert np.argsort(-bayes(acquisition=acquisition).rank(posterior, None)).tolist() == [1, 0, 2]


def test_expected_improvement_is_the_mean_gain_of_a_normal():
    mean, std, best = np.array([0.3, 1.5]), np.array([0.7, 0.0]), 1.0
    draws = np.random.default_rng(0).normal(mean, std, (200_000, 2))
    gain = np.maximum(draws - best, 0).mean(0)
    np.testing.assert_allclose(expected_improvement(mean, std, best, None), gain, atol=2e-3)


# rl ---------------------------------------------------------------------------------------------------------

def reinforce(pool, **settings):
    return STRATEGIES["rl"](pool, StrategySettings(**settings))


def play(strategy, accuracy, rounds, rng):
    """Rounds of ten queries among what it proposes, all unknown again in the next round."""
    strategy.observe([query(arch, accuracy(arch)) for arch in NB201.sample(20, rng)])
    for _ in range(rounds):
        strategy.observe([query(arch, accuracy(arch)) for arch in strategy.propose(10, rng)])


def test_the_policy_learns_what_is_rewarded(rng):
    strategy = reinforce(everything(), policy_lr=0.3, policy_patience=0)
    play(strategy, lambda arch: 50 + 10 * (arch[0] == 2) - 10 * (arch[5] == 1), 30, rng)
    policy = strategy.logits.softmax(1)
    assert policy[0, 2] > 0.8 and policy[5, 1] < 0.05


def test_equal_rewards_teach_nothing(rng):
    strategy = reinforce(everything())
    play(strategy, lambda arch: 70.0, 3, rng)
    assert not strategy.logits.any()


def test_one_step_follows_the_gradient_of_the_log_probability(rng):
    """Up the mean of advantage x (what was decided - what the policy expected)."""
    strategy = reinforce(everything(), policy_lr=0.0)
    strategy.observe([query((0,) * 6, 60.0)])
    with torch.no_grad():
        strategy.logits += torch.from_numpy(rng.normal(size=(6, 5)))
    answers = [query(arch, float(rng.uniform(40, 90))) for arch in strategy.propose(4, rng)]
    strategy.observe(answers)
    policy = strategy.logits.detach().softmax(1).numpy()  # [D, O]
    decided = np.eye(5)[[q.arch for q in answers]]  # [n, D, O]
    advantage = np.array([q.validation - 60 for q in answers])[:, None, None]  # [n, 1, 1]
    gradient = -(advantage * (decided - policy)).mean(0)  # [D, O], of what Adam minimises
    np.testing.assert_allclose(strategy.logits.grad, gradient, rtol=0, atol=1e-12)


def test_options_that_a_decision_lacks_stay_impossible(rng):
    pool = everything(DARTS)
    strategy = reinforce(pool)
    lacking = np.arange(max(DARTS.choices)) >= np.array(DARTS.choices)[:, None]  # [D, O]
    strategy.observe([Query(0, 0, "", "", 60.0, None, None, None, None)])
    for _ in range(3):
        drawn = strategy.propose(5, rng)
        strategy.observe([Query(0, 1, DARTS.key(arch), "", float(rng.uniform(40, 90)), None, None, None, arch)
                          for arch in drawn])
        logits, gradient = strategy.logits.detach().numpy(), strategy.logits.grad.numpy()
        assert lacking.any() and np.array_equal(logits == -np.inf, lacking)
        assert np.isfinite(gradient).all() and not gradient[lacking].any() and gradient[~lacking].any()


def test_the_baseline_is_a_moving_average_from_the_random_start_on():
    strategy = reinforce(everything(), baseline_decay=0.75)
    for values in ([50.0, 70.0], [80.0], [20.0, 40.0]):
        strategy.observe([query((0,) * 6, value) for value in values])
    assert strategy.baseline == 0.75 * (0.75 * 60 + 0.25 * 80) + 0.25 * 30


@pytest.mark.parametrize("algo, patience, restarts", [
    ("rl", 3, True), ("rl", 0, False), ("policy", 3, False)])
def test_a_policy_that_finds_nothing_better_starts_anew(rng, algo, patience, restarts):
    policy = STRATEGIES[algo](everything(), StrategySettings(policy_patience=patience))
    start = policy.logits.detach().clone()
    policy.observe([query(arch, 50.0) for arch in NB201.sample(5, rng)])
    for value in (90.0, 80.0, 80.0, 80.0):  # better once, then three rounds that are not
        learned = not torch.equal(policy.logits, start)
        policy.observe([query(arch, value + i) for i, arch in enumerate(policy.propose(5, rng))])
    assert learned
    assert torch.equal(policy.logits, start) == restarts and (policy.baseline is None) == restarts


def test_what_did_not_come_from_the_policy_does_not_teach_it(rng):
    strategy = reinforce(everything())
    strategy.observe([query((0,) * 6, 50.0)])
    drawn = strategy.propose(5, rng)
    strategy.observe([query(next(arch for arch in NB201.sample(50, rng) if arch not in drawn), 90.0)])
    assert not strategy.logits.any()


def test_a_policy_that_has_made_up_its_mind_proposes_little_and_ends(rng):
    strategy = reinforce(everything())
    with torch.no_grad():
        strategy.logits[:, 3] = 1e6
    assert strategy.propose(10, rng) == [(3,) * 6]


# Decisions --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("space", [NB101, NB201, DARTS], ids=lambda space: space.name)
def test_decisions_decode_to_architectures(space, rng):
    decisions = rng.integers(space.choices, size=(200, len(space.choices)))
    archs = [arch for arch in space.decode(decisions) if arch is not None]
    assert len(archs) > 100 and len(set(map(space.key, archs))) > 90
    assert [space.key(space.parse(space.text(arch))) for arch in archs] == list(map(space.key, archs))
    assert len(space.encode(archs)) == len(archs)


@pytest.mark.parametrize("space", [NB101, NB201, DARTS], ids=lambda space: space.name)
def test_every_option_of_every_decision_matters(space, rng):
    """Changing one decision changes the architecture, for some of the others' decisions."""
    for place, options in enumerate(space.choices):
        # [40, O, D]
        base = np.repeat(rng.integers(space.choices, size=(40, 1, len(space.choices))), options, axis=1)
        base[:, :, place] = np.arange(options)
        archs = space.decode(base.reshape(-1, len(space.choices)))
        keys = [arch and space.key(arch) for arch in archs]
        assert max(len(set(keys[i:i + options])) for i in range(0, len(keys), options)) == options


def test_the_decisions_of_nasbench201_reach_every_cell():
    digits = np.stack(np.unravel_index(np.arange(5 ** 6), NB201.choices), 1)
    assert len(set(map(NB201.key, NB201.decode(digits)))) == 5 ** 6


def test_a_darts_node_takes_a_pair_of_predecessors_and_an_operation_for_each():
    decisions = np.zeros((1, 24), int)
    decisions[0, 9:12] = 9, 3, 6  # node 5 of the normal cell: the last of its 10 pairs
    arch, = DARTS.decode(decisions)
    assert arch.normal[6:] == (("sep_conv_3x3", 3), ("dil_conv_5x5", 4))
    assert arch.reduce == (("max_pool_3x3", 0), ("max_pool_3x3", 1)) * 4


def test_nasbench101_refuses_no_path_and_too_many_edges_and_prunes_the_rest():
    direct, empty, full = np.zeros((3, 26), int)
    direct[15] = direct[0] = 1  # input to output; input to a vertex that leads nowhere
    full[:21] = 1
    pruned = Cell([[0, 1], [0, 0]], (NB101.ops[0], NB101.ops[-1]))
    assert NB101.decode(np.stack([direct, empty, full])) == [pruned, None, None]
