"""Kernel ridge regression: equal to the formula, blind to what says nothing, and better with more labels."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import runtime
import spaces
from models import build_encoder
from models.batch import Batch
from models.kernel import NOISE, REFERENCE, KernelRidge, reference, views, widths
from models.metrics import kendall_tau
from spaces import Graphs
from test_properties import other_drawing
from toy_cells import CELLS, SPACE, toy


def fit(seen: list[torch.Tensor], rows: np.ndarray, label: np.ndarray) -> KernelRidge:
    """seen [N, P] each, all of them the reference."""
    return KernelRidge.fit([view[torch.as_tensor(rows)] for view in seen], widths(seen), label)


def small_encoder(space) -> torch.nn.Module:
    with runtime.seeded(0):
        return build_encoder({"base_model": "transformer", "width": 16, "layers": 1, "heads": 2}, len(space.ops), 0.0)


@pytest.fixture(scope="module")
def properties_of_cells() -> list[torch.Tensor]:
    """[N, P], the one view where there is no encoder."""
    return views(None, toy()[0], SPACE.ops)


# The formula ----------------------------------------------------------------------------------------------------------

def test_two_labels_and_one_number_are_worked_out_by_hand():
    """Cells at 0, 1, 2, 4, labels at 0 and 4: their six distances are 1, 1, 2, 2, 3, 4, of which torch's median is 2."""
    view = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    kernel = fit([view], np.array([[0, 3]]), np.array([[90.0, 95.0]]))
    near = np.exp(-(np.subtract.outer([0, 1, 2, 4], [0, 4]) / 2) ** 2 / 2)  # [4, 2]
    weight = np.linalg.solve(near[[0, 3]] + NOISE * np.eye(2), stats.norm.ppf([0.25, 0.75]))  # [2]
    assert kernel([view])[0].numpy() == pytest.approx(near @ weight, abs=1e-5)


def test_views_count_alike_whatever_their_size_and_scale():
    """The kernel of two views is the mean of the kernels of each; tied labels share a rank."""
    rng = np.random.default_rng(0)
    numbers, rows, label = [rng.normal(size=(9, 2)), 1e3 * rng.normal(size=(9, 5)) + 7], [1, 4, 6, 8], [3.0, 9.0, 3.0, 4.0]
    near = 0  # [9, 9]
    for x in numbers:
        x = x / x.std(0, ddof=1)
        distance = np.linalg.norm(x[:, None] - x, axis=-1)  # [9, 9]
        width = np.quantile(distance[np.triu_indices(9, 1)], 0.5, method="lower")
        near = near + np.exp(-(distance / width) ** 2 / 2) / 2
    target = stats.norm.ppf((np.array([1.5, 4, 1.5, 3]) - 0.5) / 4)
    weight = np.linalg.solve(near[np.ix_(rows, rows)] + NOISE * np.eye(4), target)  # [4]
    seen = [torch.tensor(x, dtype=torch.float32) for x in numbers]
    score = fit(seen, np.array([rows]), np.array([label]))(seen)
    assert score[0].numpy() == pytest.approx(near[:, rows] @ weight, abs=1e-4)


def test_the_spread_is_that_of_a_gaussian_process(properties_of_cells):
    _, rows, label, _ = toy(seeds=2)
    kernel = fit(properties_of_cells, rows, label)
    spread = kernel.spread(properties_of_cells).double().numpy()  # [S, N]
    for seed, row in enumerate(rows):
        points = [kernel.standard(view, i).double() for i, view in enumerate(properties_of_cells)]  # [N, P] each
        near = kernel.similarity(points, points).numpy()  # [N, N]
        told = near[:, row] @ np.linalg.solve(near[np.ix_(row, row)] + NOISE * np.eye(len(row)), near[row])  # [N, N]
        np.testing.assert_allclose(spread[seed]**2, 1 - np.diag(told), atol=1e-4)
    labelled = np.isin(np.arange(CELLS), rows[0])
    assert spread[0][labelled].max() < spread[0][~labelled].max() <= 1


def test_the_target_is_the_order_of_the_labels(properties_of_cells):
    _, rows, label, _ = toy()
    kernel, other = (fit(properties_of_cells, rows, y) for y in (label, np.exp(label / 3)))
    assert torch.equal(kernel(properties_of_cells), other(properties_of_cells))


def test_seeds_do_not_mix(properties_of_cells):
    _, rows, label, _ = toy(seeds=3)
    together = fit(properties_of_cells, rows, label)(properties_of_cells)  # [S, N]
    alone = [fit(properties_of_cells, rows[[s]], label[[s]])(properties_of_cells)[0] for s in range(3)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_a_stored_kernel_scores_as_before(properties_of_cells):
    _, rows, label, _ = toy()
    kernel = fit(properties_of_cells, rows, label)
    empty = KernelRidge(kernel.sizes, *label.shape)
    assert not empty(properties_of_cells).any()
    empty.load_state_dict(kernel.state_dict())
    assert torch.equal(empty(properties_of_cells), kernel(properties_of_cells))


# What it reads --------------------------------------------------------------------------------------------------------

def test_more_labels_tell_more(properties_of_cells):
    _, rows, label, truth = toy()
    scores = (fit(properties_of_cells, rows[:, :n], label[:, :n])(properties_of_cells)[0] for n in (6, 20, 60))
    few, some, many = (kendall_tau(score.numpy(), truth) for score in scores)
    assert few < some < many and many > 0.7


@pytest.mark.parametrize("elsewhere", [7.0, 9.0])
def test_a_number_that_never_varies_says_nothing(properties_of_cells, elsewhere):
    """Not even where it differs in the cells to score."""
    _, rows, label, _ = toy()
    seen = properties_of_cells[0]
    constant = torch.full((CELLS, 1), 7.0)
    kernel = fit([torch.cat([seen, constant], 1)], rows, label)
    there = kernel([torch.cat([seen, torch.full_like(constant, elsewhere)], 1)])
    assert torch.allclose(there, fit([seen], rows, label)([seen]), atol=1e-5)


def test_a_view_that_never_varies_changes_no_order(properties_of_cells):
    _, rows, label, _ = toy()
    seen = [*properties_of_cells, torch.zeros(CELLS, 3)]
    with_it, without = fit(seen, rows, label)(seen), fit(properties_of_cells, rows, label)(properties_of_cells)
    assert with_it.isfinite().all() and kendall_tau(with_it[0].numpy(), without[0].numpy()) > 0.8


def test_the_views_are_the_properties_and_the_embedding():
    table, encoder = toy()[0], small_encoder(SPACE)
    alone, (properties, embedding) = views(None, table, SPACE.ops), views(encoder, table, SPACE.ops, chunk=70)
    assert len(alone) == 1 and torch.equal(alone[0], properties)
    assert embedding.shape == (CELLS, encoder.readout_width)
    assert torch.allclose(embedding, encoder.embed(table), atol=1e-5)


def test_isomorphic_graphs_get_equal_scores(rng):
    space = spaces.get("nasbench101")
    graphs, encoder = space.table(80, rng), small_encoder(space)
    orders = [other_drawing(*row) for row in zip(graphs.ops, graphs.adj, graphs.n.tolist())]
    drawn = Graphs(torch.stack([ops[order] for ops, order in zip(graphs.ops, orders)]),
                   torch.stack([adj[order][:, order] for adj, order in zip(graphs.adj, orders)]), graphs.n, graphs.marks)
    assert not torch.equal(drawn.adj, graphs.adj)
    seen, again = (views(encoder, Batch.of(cells), space.ops) for cells in (graphs, drawn))
    kernel = fit(seen, np.arange(40)[None], rng.normal(size=(1, 40)))
    assert torch.allclose(kernel(again), kernel(seen), atol=1e-3) and kernel(seen).std() > 0.1


def test_the_reference_is_spread_over_the_table(monkeypatch):
    table = toy()[0]
    assert all(map(torch.equal, reference(table), table)) and REFERENCE > CELLS
    monkeypatch.setattr("models.kernel.REFERENCE", 4)
    assert all(map(torch.equal, reference(table), table.rows(torch.tensor([0, 99, 199, 299]))))
