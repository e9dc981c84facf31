"""Kernel ridge regression on views of cells, and its blend with the ensemble."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import finetune
import spaces
from models.batch import Batch
from models.kernel import NOISE, KernelRidge, views
from models.metrics import kendall_tau

SPACE = spaces.get("nasbench201")
RECIPE = finetune.Recipe(width=16, layers=1, heads=2, epochs=3, members=2)


def toy(n: int = 60, seeds: int = 2) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray]:
    """Table of 300 cells, rows [S, n], label [S, n], and the function behind the labels [300]: convolutions are good."""
    rng = np.random.default_rng(0)
    archs = list(dict.fromkeys(SPACE.sample(400, rng)))[:300]
    truth = np.array([4.0 * a.count(3) + 2 * a.count(2) - a.count(4) for a in archs])  # [300]
    rows = np.stack([rng.permutation(300)[:n] for _ in range(seeds)])
    return Batch.of(SPACE.encode(archs)), rows, truth[rows] + rng.normal(size=rows.shape), truth


def fit(seen: list[torch.Tensor], rows: np.ndarray, label: np.ndarray) -> KernelRidge:
    """seen [N, P] each, all of them the reference."""
    return KernelRidge.fit([view[torch.as_tensor(rows)] for view in seen], seen, label)


def test_two_labels_and_one_number_are_worked_out_by_hand():
    """Cells at 0, 1, 2, 3 of one view, labels at 0 and 3: the textbook formula with the median distance, 1.5."""
    view = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    kernel = fit([view], np.array([[0, 3]]), np.array([[90.0, 95.0]]))
    width = torch.pdist(view).median().item()
    k = lambda a, b: np.exp(-((a - b) / width) ** 2 / 2)  # noqa: E731
    target = stats.norm.ppf([0.25, 0.75])
    weight = np.linalg.solve([[1 + NOISE, k(0, 3)], [k(3, 0), 1 + NOISE]], target)
    expected = [k(x, 0) * weight[0] + k(x, 3) * weight[1] for x in range(4)]
    assert kernel([view])[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_it_learns_what_properties_tell():
    table, rows, label, truth = toy()
    seen = views(None, table, SPACE.ops)
    few, many = (fit(seen, rows[:, :n], label[:, :n])(seen) for n in (8, 60))
    assert kendall_tau(many[0].numpy(), truth) > 0.7
    assert kendall_tau(many[0].numpy(), truth) > kendall_tau(few[0].numpy(), truth)


def test_seeds_do_not_mix():
    table, rows, label, _ = toy()
    seen = views(None, table, SPACE.ops)
    both, second = fit(seen, rows, label), fit(seen, rows[1:], label[1:])
    assert torch.allclose(both(seen)[1], second(seen)[0], atol=1e-5)


def test_a_number_that_never_varies_says_nothing():
    table, rows, label, _ = toy()
    seen = views(None, table, SPACE.ops)
    more = [torch.cat([seen[0], torch.full((table.graphs, 1), 7.0)], 1)]
    assert torch.allclose(fit(seen, rows, label)(seen), fit(more, rows, label)(more), atol=1e-5)


def test_only_the_order_of_labels_counts():
    table, rows, label, _ = toy()
    seen = views(None, table, SPACE.ops)
    assert torch.equal(fit(seen, rows, label)(seen), fit(seen, rows, np.exp(label / 3))(seen))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_blend_is_the_share_of_both(share):
    table, rows, label, _ = toy()
    blend = finetune.fit_blend(RECIPE, share, SPACE.ops, None, table, rows, label, [0, 1])
    own = finetune.score(blend.ensemble, table).reshape(2, 2, -1).mean(1)  # [S, N]
    if not share:
        assert finetune.score_blend(blend, table) == pytest.approx(own, abs=1e-5)
        return
    other = blend.kernel(views(None, table, SPACE.ops)).numpy()
    standard = [(x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True) for x in (own, other)]  # 300 cells: all are reference
    assert finetune.score_blend(blend, table) == pytest.approx((1 - share) * standard[0] + share * standard[1], abs=1e-4)


def test_chunks_change_nothing():
    table, rows, label, _ = toy()
    blend = finetune.fit_blend(RECIPE, 0.3, SPACE.ops, None, table, rows, label, [0, 1])
    assert finetune.score_blend(blend, table, chunk=28) == pytest.approx(finetune.score_blend(blend, table), abs=1e-5)


def movement(gentle: int, checkpoint: dict | None, rows: np.ndarray, label: np.ndarray, table: Batch) -> float:
    """How far the encoder moves in training."""
    recipe = finetune.Recipe(width=16, layers=1, heads=2, epochs=3, members=1, dropout=0.0, gentle_below=gentle)
    predictors = finetune.new_predictors(recipe, len(SPACE.ops), checkpoint, [0])
    before = {name: value.clone() for name, value in predictors[0].encoder.state_dict().items()}
    after = finetune.fit(recipe, predictors, table, rows[:1], label[:1], [0]).member(0)
    return sum((after[f"encoder.{name}"] - value).abs().sum().item() for name, value in before.items())


def test_few_labels_move_a_pretrained_encoder_less_and_no_other():
    table, rows, label, _ = toy()
    fresh = finetune.new_predictors(RECIPE, len(SPACE.ops), None, [3])[0].encoder
    checkpoint = {"encoder": finetune.encoder_of(RECIPE, None), "weights": fresh.state_dict()}
    assert movement(6000, checkpoint, rows, label, table) < 0.5 * movement(0, checkpoint, rows, label, table)
    assert movement(60, checkpoint, rows, label, table) == movement(0, checkpoint, rows, label, table)
    assert movement(6000, None, rows, label, table) == movement(0, None, rows, label, table)
