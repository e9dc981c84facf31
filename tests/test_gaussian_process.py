"""The Gaussian process: equal to the formula, blind to what says nothing, and better with more labels."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, stats

import spaces
from models.batch import Batch
from models.encoders import build_encoder
from models.metrics import kendall_tau, normal_scores
from models.predictor import gaussian_process
from models.predictor.background import REFERENCE, Background, reference_cells
from models.predictor.gaussian_process import (
    SIZES,
    USUAL,
    Beliefs,
    GaussianProcess,
    Scale,
    learnable,
    length_scales,
    most_probable,
)
from models.predictor.prior import Prior
from runtime.seeding import seeded
from toys.cells import CELLS, SPACE, toy
from toys.graphs import redrawn

Features = dict[str, torch.Tensor]


def fit(seen: Features, rows: np.ndarray, label: np.ndarray) -> GaussianProcess:
    """seen [N, P] each; the length scales are those of all N cells."""
    chosen = {name: feature[torch.as_tensor(rows)] for name, feature in seen.items()}
    return GaussianProcess.fit(chosen, length_scales(seen), label)


def small_encoder(space) -> torch.nn.Module:
    with seeded(0):
        return build_encoder({"base_model": "transformer", "width": 16, "layers": 1, "heads": 2},
                             len(space.ops), 0.0)


@pytest.fixture(scope="module")
def known() -> Features:
    """[N, P] each: what is known without an encoder and a prior."""
    return Background(SPACE.vocabulary)(toy()[0])


@pytest.fixture
def before_labels(monkeypatch):
    """Sizes, noise and trust stay as they are before any label."""
    monkeypatch.setattr(gaussian_process, "STEPS", 0)


# The formula ------------------------------------------------------------------------------------------------

@pytest.mark.usefixtures("before_labels")
def test_two_labels_and_one_number_are_worked_out_by_hand():
    """Cells at 0, 1, 2, 4, labels at 0 and 4: their distances are 1, 1, 2, 2, 3, 4, torch's median 2."""
    seen = {"properties": torch.tensor([[0.0], [1.0], [2.0], [4.0]])}
    process = fit(seen, np.array([[0, 3]]), np.array([[90.0, 95.0]]))
    near = 1 + 0.16 * np.exp(-(np.subtract.outer([0, 1, 2, 4], [0, 4]) / 2) ** 2 / 2)  # [4, 2]
    weight = np.linalg.solve(near[[0, 3]] + (0.1 + 1 / 2) * np.eye(2), stats.norm.ppf([0.25, 0.75]))  # [2]
    assert process(seen)[0].numpy() == pytest.approx(near @ weight, abs=1e-5)


@pytest.mark.usefixtures("before_labels")
def test_kernels_of_all_features_are_added_to_the_prior():
    """Whatever their size and scale; tied labels share a rank."""
    rng = np.random.default_rng(0)
    numbers = {"properties": rng.normal(size=(9, 2)), "embedding": 1e3 * rng.normal(size=(9, 5)) + 7,
               "facts": rng.normal(size=(9, 3)), "prior": rng.normal(size=(9, 1))}
    rows, label = [1, 4, 6, 8], [3.0, 9.0, 3.0, 4.0]
    standard = {name: (x - x.mean(0)) / x.std(0, ddof=1) for name, x in numbers.items()}
    near = 1 + 0.01 * standard["facts"] @ standard["facts"].T / 3  # [9, 9]
    for x in (standard["properties"], standard["embedding"]):
        distance = np.linalg.norm(x[:, None] - x, axis=-1)  # [9, 9]
        scale = np.quantile(distance[np.triu_indices(9, 1)], 0.5, method="lower")
        near = near + 0.16 * np.exp(-(distance / scale) ** 2 / 2)
    mean = 0.6 * standard["prior"][:, 0]
    target = stats.norm.ppf((np.array([1.5, 4, 1.5, 3]) - 0.5) / 4) - mean[rows]
    weight = np.linalg.solve(near[np.ix_(rows, rows)] + (0.1 + 1 / 4) * np.eye(4), target)  # [4]
    seen = {name: torch.tensor(x, dtype=torch.float32) for name, x in numbers.items()}
    score = fit(seen, np.array([rows]), np.array([label]))(seen)
    assert score[0].numpy() == pytest.approx(mean + near[:, rows] @ weight, abs=1e-4)


def test_the_deviation_is_that_of_a_gaussian_process(known):
    _, rows, label, _ = toy(seeds=2)
    process = fit(known, rows, label)
    mean, std = process.posterior(known)  # [S, N] each
    assert torch.equal(mean, process(known))
    std = std.double().numpy()
    points = {name: x.double() for name, x in process.standardised(known).items()}  # [N, P] each
    for seed, row in enumerate(rows):
        near = process.covariance(seed, points, points).numpy()  # [N, N]
        covariance = near[np.ix_(row, row)] + float(process.noise[seed]) * np.eye(len(row))  # [n, n]
        told = near[:, row] @ np.linalg.solve(covariance, near[row])  # [N, N]
        np.testing.assert_allclose(std[seed]**2, np.diag(near) - np.diag(told), atol=1e-3)
    labelled = np.isin(np.arange(CELLS), rows[0])
    assert std[0][labelled].max() < std[0][~labelled].max()


def test_what_the_others_say_of_a_label_is_a_process_without_it(known):
    rows = np.arange(12)[None]
    label = np.sin(np.arange(12.0))[None]
    process = fit(known, rows, label)
    target = torch.as_tensor(normal_scores(label, label))[0]
    said = process.left_out(0)
    own = process.of_seed(0)
    gram = process.covariance(0, own, own).double() + float(process.noise[0]) * torch.eye(12).double()
    mean = process.rankings(own).double() @ process.trust[0].double()
    for i in range(12):
        others = [j for j in range(12) if j != i]
        weight = torch.linalg.solve(gram[others][:, others], (target - mean)[others])
        assert said[i].item() == pytest.approx(float(mean[i] + gram[i, others] @ weight), abs=1e-4)


def test_the_target_is_the_order_of_the_labels(known):
    _, rows, label, _ = toy()
    process, other = (fit(known, rows, y) for y in (label, np.exp(label / 3)))
    assert torch.equal(process(known), other(known))


def test_seeds_do_not_mix(known):
    _, rows, label, _ = toy(seeds=3)
    together = fit(known, rows, label)(known)  # [S, N]
    alone = [fit(known, rows[[s]], label[[s]])(known)[0] for s in range(3)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_a_stored_process_scores_as_before(known):
    _, rows, label, _ = toy()
    process = fit(known, rows, label)
    empty = GaussianProcess(process.sizes, *label.shape)
    assert not empty(known).any()
    empty.load_state_dict(process.state_dict())
    assert torch.equal(empty(known), process(known))


# What the labels decide -------------------------------------------------------------------------------------

def test_sizes_noise_and_trust_are_the_most_probable():
    """No small step from them is more probable, by the density of scipy."""
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(40, 2)), rng.normal(size=40)
    gram = np.exp(-((x[:, None] - x)**2).sum(-1) / 2)
    target = np.linalg.cholesky(gram + 0.05 * np.eye(40)) @ rng.normal(size=40) + mean
    sizes = np.log([SIZES[name] for name in ("places", "facts")])
    grams = np.stack([gram, x @ x.T])

    def surprise(now):
        covariance = np.tensordot(np.exp(now[:2]), grams, 1) + 1 + np.exp(now[2]) * np.eye(40)
        before = [*sizes, np.log(0.1 + 1 / 40), 0.6]
        return -stats.multivariate_normal(now[3] * mean, covariance).logpdf(target) - stats.norm(
            before, [1.0, 1.0, 1.0, 0.2]).logpdf(now).sum()

    found, noise, trust = most_probable(
        *map(torch.as_tensor, (grams, mean[:, None], target, sizes)), [(0.6, 0.2)])
    found = np.array([*found.log().tolist(), np.log(noise), *trust.tolist()])
    assert found == pytest.approx(optimize.minimize(surprise, found).x, abs=0.2)


def test_labels_decide_how_far_the_prior_is_trusted(known):
    _, rows, label, truth = toy()
    prior = torch.as_tensor(truth).float()[:, None]  # [N, 1]
    right, wrong = (fit(known | {"prior": sign * prior}, rows[:1], label[:1]) for sign in (1, -1))
    assert right.trust[0, 0] > 0.6 > wrong.trust[0, 0] + 0.3


def test_a_prior_is_trusted_more_where_the_labelled_cells_are_others(known):
    """By labels of cells that it likes; as always if these are drawn at random, or in a search."""
    scores = np.random.default_rng(3).normal(size=(400, 1))
    order, scale = np.argsort(scores[:, 0]), Scale(torch.zeros(1), torch.ones(1))

    def trusts(rows, beliefs=USUAL):
        prior = torch.as_tensor(scores[rows])[None].float()  # [1, n, 1]
        label = scores[rows].T + np.random.default_rng(4).normal(size=len(rows))  # [1, n]
        process = GaussianProcess.fit({"prior": prior, "facts": torch.zeros_like(prior)},
                                      {"prior": scale, "facts": scale}, label, beliefs)
        return process.trusts_for(process.shift_of(prior[0])), process.trust[0, 0]

    (usual, _), (liked, far) = trusts(np.arange(200)), trusts(order[-200:])
    assert usual == [(0.6, 0.2)] and liked == [(1.0, 0.1)] and far > 0.8
    assert trusts(order[-200:], Beliefs(shifted=None))[0] == [(0.6, 0.2)]
    some = np.r_[order[-130:], order[:70]]
    assert 0.6 < trusts(some)[0][0][0] < 1


def test_six_labels_do_not_break_the_ties_of_the_prior():
    """They may weigh its facts anew; seven, or none to start from, read all that is known."""
    _, rows, label, _ = toy()
    seen = Background(SPACE.vocabulary, prior=Prior(torch.ones(6), []))(toy()[0])
    same = seen["facts"][:, None].eq(seen["facts"]).all(-1)  # [N, N]
    scales = length_scales(seen)
    for n in (2, 6, 7):
        some, beliefs = learnable({name: x[torch.as_tensor(rows[:1, :n])] for name, x in seen.items()}, n)
        score = GaussianProcess.fit(some, scales, label[:1, :n], beliefs)(seen)[0]
        apart = (score[:, None] - score).abs()[same].max()
        assert apart < 1e-4 if n < 7 else apart > 1e-2
        assert not torch.allclose(score, score.mean())
    assert learnable({"facts": seen["facts"]}, 2)[1] is USUAL
    assert learnable(seen, 0) == (seen, USUAL)


def test_without_labels_the_prior_ranks(known):
    prior = Prior(torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5, 0.0]), [])
    seen = Background(SPACE.vocabulary, prior=prior)(toy()[0])
    process = fit(seen, np.empty((2, 0), int), np.empty((2, 0)))
    assert kendall_tau(process(seen)[1].numpy(), seen["prior"][:, 0].numpy()) == pytest.approx(1)
    assert torch.allclose(seen["prior"][:, 0], known["facts"] @ prior.weights)


# What it reads ----------------------------------------------------------------------------------------------

def test_more_labels_tell_more(known):
    _, rows, label, truth = toy()
    scores = (fit(known, rows[:, :n], label[:, :n])(known)[0]
              for n in (6, 20, 60))
    few, some, many = (kendall_tau(score.numpy(), truth) for score in scores)
    assert few < some < many and many > 0.7


@pytest.mark.parametrize("elsewhere", [7.0, 9.0])
def test_a_number_that_never_varies_says_nothing(known, elsewhere):
    """Not even if it differs in the cells to score."""
    _, rows, label, _ = toy()
    seen = known["properties"]
    constant = torch.full((CELLS, 1), 7.0)
    process = fit({"properties": torch.cat([seen, constant], 1)}, rows, label)
    there = process({"properties": torch.cat([seen, torch.full_like(constant, elsewhere)], 1)})
    without = fit({"properties": seen}, rows, label)({"properties": seen})
    assert torch.allclose(there, without, atol=1e-4)


def test_what_is_known_without_labels(monkeypatch):
    table, encoder = toy()[0], small_encoder(SPACE)
    alone = Background(SPACE.vocabulary)(table)
    monkeypatch.setattr("models.batch.PIECE", 70 * SPACE.max_vertices)
    more = Background(SPACE.vocabulary, encoder, Prior(torch.ones(6), []))(table)
    assert [*alone] == ["properties", "places", "facts"]
    assert more.keys() - alone.keys() == {"prior", "embedding"}
    assert all(torch.equal(more[name], feature) for name, feature in alone.items())
    assert more["embedding"].shape == (CELLS, encoder.readout_width)
    assert torch.allclose(more["embedding"], encoder.embed(table), atol=1e-5)


def test_isomorphic_graphs_get_equal_scores(rng):
    space = spaces.get("nasbench101")
    graphs, encoder = space.table(80, rng), small_encoder(space)
    drawn, _ = redrawn(graphs)
    assert not torch.equal(drawn.adj, graphs.adj)
    background = Background(space.vocabulary, encoder)
    seen, again = (background(Batch.of(cells)) for cells in (graphs, drawn))
    for features in (seen, again):
        del features["places"]  # the one that reads the order of the vertices
    process = fit(seen, np.arange(40)[None], rng.normal(size=(1, 40)))
    assert torch.allclose(process(again), process(seen), atol=1e-3) and process(seen).std() > 0.1


def test_the_reference_cells_are_spread_over_the_table(monkeypatch):
    table = toy()[0]
    assert all(map(torch.equal, reference_cells(table), table)) and REFERENCE > CELLS
    monkeypatch.setattr("models.predictor.background.REFERENCE", 4)
    assert all(map(torch.equal, reference_cells(table), table.rows(torch.tensor([0, 99, 199, 299]))))
