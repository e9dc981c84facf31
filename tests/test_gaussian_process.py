"""The Gaussian process: equal to the formula, blind to what says nothing, and better with more labels."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import spaces
from models.batch import Batch
from models.encoders import build_encoder
from models.metrics import kendall_tau
from models.predictor.gaussian_process import (
    NOISE,
    REFERENCE,
    GaussianProcess,
    kernel_features,
    length_scales,
    reference_cells,
)
from runtime.seeding import seeded
from toys.cells import CELLS, SPACE, toy
from toys.graphs import redrawn


def fit(seen: list[torch.Tensor], rows: np.ndarray, label: np.ndarray) -> GaussianProcess:
    """seen [N, P] each; the length scales are those of all N cells."""
    chosen = [feature[torch.as_tensor(rows)] for feature in seen]
    return GaussianProcess.fit(chosen, length_scales(seen), label)


def small_encoder(space) -> torch.nn.Module:
    with seeded(0):
        return build_encoder({"base_model": "transformer", "width": 16, "layers": 1, "heads": 2},
                             len(space.ops), 0.0)


@pytest.fixture(scope="module")
def properties_of_cells() -> list[torch.Tensor]:
    """[N, P], the one feature if there is no encoder."""
    return kernel_features(None, toy()[0], SPACE.vocabulary)


# The formula ------------------------------------------------------------------------------------------------

def test_two_labels_and_one_number_are_worked_out_by_hand():
    """Cells at 0, 1, 2, 4, labels at 0 and 4: their distances are 1, 1, 2, 2, 3, 4, torch's median 2."""
    feature = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    process = fit([feature], np.array([[0, 3]]), np.array([[90.0, 95.0]]))
    near = np.exp(-(np.subtract.outer([0, 1, 2, 4], [0, 4]) / 2) ** 2 / 2)  # [4, 2]
    weight = np.linalg.solve(near[[0, 3]] + NOISE * np.eye(2), stats.norm.ppf([0.25, 0.75]))  # [2]
    assert process([feature])[0].numpy() == pytest.approx(near @ weight, abs=1e-5)


def test_features_count_alike_whatever_their_size_and_scale():
    """The kernel of two features is the mean of the kernels of each; tied labels share a rank."""
    rng = np.random.default_rng(0)
    numbers = [rng.normal(size=(9, 2)), 1e3 * rng.normal(size=(9, 5)) + 7]
    rows, label = [1, 4, 6, 8], [3.0, 9.0, 3.0, 4.0]
    near = 0  # [9, 9]
    for x in numbers:
        x = x / x.std(0, ddof=1)
        distance = np.linalg.norm(x[:, None] - x, axis=-1)  # [9, 9]
        scale = np.quantile(distance[np.triu_indices(9, 1)], 0.5, method="lower")
        near = near + np.exp(-(distance / scale) ** 2 / 2) / 2
    target = stats.norm.ppf((np.array([1.5, 4, 1.5, 3]) - 0.5) / 4)
    weight = np.linalg.solve(near[np.ix_(rows, rows)] + NOISE * np.eye(4), target)  # [4]
    seen = [torch.tensor(x, dtype=torch.float32) for x in numbers]
    score = fit(seen, np.array([rows]), np.array([label]))(seen)
    assert score[0].numpy() == pytest.approx(near[:, rows] @ weight, abs=1e-4)


def test_the_deviation_is_that_of_a_gaussian_process(properties_of_cells):
    _, rows, label, _ = toy(seeds=2)
    process = fit(properties_of_cells, rows, label)
    mean, std = process.posterior(properties_of_cells)  # [S, N] each
    assert torch.equal(mean, process(properties_of_cells))
    std = std.double().numpy()
    for seed, row in enumerate(rows):
        # [N, P] each
        points = [process.standard(feature, i).double() for i, feature in enumerate(properties_of_cells)]
        near = process.similarity(points, points).numpy()  # [N, N]
        covariance = near[np.ix_(row, row)] + NOISE * np.eye(len(row))  # [n, n]
        told = near[:, row] @ np.linalg.solve(covariance, near[row])  # [N, N]
        np.testing.assert_allclose(std[seed]**2, 1 - np.diag(told), atol=1e-4)
    labelled = np.isin(np.arange(CELLS), rows[0])
    assert std[0][labelled].max() < std[0][~labelled].max() <= 1


def test_the_target_is_the_order_of_the_labels(properties_of_cells):
    _, rows, label, _ = toy()
    process, other = (fit(properties_of_cells, rows, y) for y in (label, np.exp(label / 3)))
    assert torch.equal(process(properties_of_cells), other(properties_of_cells))


def test_seeds_do_not_mix(properties_of_cells):
    _, rows, label, _ = toy(seeds=3)
    together = fit(properties_of_cells, rows, label)(properties_of_cells)  # [S, N]
    alone = [fit(properties_of_cells, rows[[s]], label[[s]])(properties_of_cells)[0] for s in range(3)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_a_stored_process_scores_as_before(properties_of_cells):
    _, rows, label, _ = toy()
    process = fit(properties_of_cells, rows, label)
    empty = GaussianProcess(process.sizes, *label.shape)
    assert not empty(properties_of_cells).any()
    empty.load_state_dict(process.state_dict())
    assert torch.equal(empty(properties_of_cells), process(properties_of_cells))


# What it reads ----------------------------------------------------------------------------------------------

def test_more_labels_tell_more(properties_of_cells):
    _, rows, label, truth = toy()
    scores = (fit(properties_of_cells, rows[:, :n], label[:, :n])(properties_of_cells)[0]
              for n in (6, 20, 60))
    few, some, many = (kendall_tau(score.numpy(), truth) for score in scores)
    assert few < some < many and many > 0.7


@pytest.mark.parametrize("elsewhere", [7.0, 9.0])
def test_a_number_that_never_varies_says_nothing(properties_of_cells, elsewhere):
    """Not even if it differs in the cells to score."""
    _, rows, label, _ = toy()
    seen = properties_of_cells[0]
    constant = torch.full((CELLS, 1), 7.0)
    process = fit([torch.cat([seen, constant], 1)], rows, label)
    there = process([torch.cat([seen, torch.full_like(constant, elsewhere)], 1)])
    assert torch.allclose(there, fit([seen], rows, label)([seen]), atol=1e-5)


def test_a_feature_that_never_varies_changes_no_order(properties_of_cells):
    _, rows, label, _ = toy()
    seen = [*properties_of_cells, torch.zeros(CELLS, 3)]
    with_it = fit(seen, rows, label)(seen)
    without = fit(properties_of_cells, rows, label)(properties_of_cells)
    assert with_it.isfinite().all() and kendall_tau(with_it[0].numpy(), without[0].numpy()) > 0.8


def test_the_features_are_the_properties_and_the_embedding():
    table, encoder = toy()[0], small_encoder(SPACE)
    alone = kernel_features(None, table, SPACE.vocabulary)
    properties, embedding = kernel_features(encoder, table, SPACE.vocabulary, chunk=70)
    assert len(alone) == 1 and torch.equal(alone[0], properties)
    assert embedding.shape == (CELLS, encoder.readout_width)
    assert torch.allclose(embedding, encoder.embed(table), atol=1e-5)


def test_isomorphic_graphs_get_equal_scores(rng):
    space = spaces.get("nasbench101")
    graphs, encoder = space.table(80, rng), small_encoder(space)
    drawn, _ = redrawn(graphs)
    assert not torch.equal(drawn.adj, graphs.adj)
    seen, again = (kernel_features(encoder, Batch.of(cells), space.vocabulary) for cells in (graphs, drawn))
    process = fit(seen, np.arange(40)[None], rng.normal(size=(1, 40)))
    assert torch.allclose(process(again), process(seen), atol=1e-3) and process(seen).std() > 0.1


def test_the_reference_cells_are_spread_over_the_table(monkeypatch):
    table = toy()[0]
    assert all(map(torch.equal, reference_cells(table), table)) and REFERENCE > CELLS
    monkeypatch.setattr("models.predictor.gaussian_process.REFERENCE", 4)
    assert all(map(torch.equal, reference_cells(table), table.rows(torch.tensor([0, 99, 199, 299]))))
