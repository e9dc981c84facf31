"""Losses against written-out double loops."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.predictor.losses import LOSSES, SOFTNESS, hinge

# whole numbers, so that ties are common
SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-20, 20))
LABELS = st.one_of(st.integers(88, 92).map(float), st.floats(80, 95))
BATCHES = st.lists(st.tuples(SCORES, LABELS), min_size=1, max_size=9).map(lambda pairs: tuple(zip(*pairs)))


# Losses: s scores, y labels ---------------------------------------------------------------------------------

def softplus(x: float) -> float:
    """log(1 + exp(x)), which is -log sigmoid(-x)."""
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def mean(terms) -> float:
    terms = list(terms)
    return sum(terms) / len(terms) if terms else 0.0


def ranked_pairs(y):
    return [(i, j) for i in range(len(y)) for j in range(len(y)) if y[i] > y[j]]


def cross_entropy(s, target) -> float:
    """Of sigmoid(s_i - s_j) against target(i, j), over all i != j."""
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
    return mean(target(i, j) * softplus(s[j] - s[i]) + (1 - target(i, j)) * softplus(s[i] - s[j])
                for i, j in pairs)


def soft_target(y):
    centre = mean(y)
    deviation = math.sqrt(mean((value - centre) ** 2 for value in y))
    return lambda i, j: math.exp(-softplus((y[j] - y[i]) / (SOFTNESS * max(deviation, 1e-8))))


WRITTEN_OUT = {
    "bpr": lambda s, y: mean(softplus(s[j] - s[i]) for i, j in ranked_pairs(y)),
    "hinge": lambda s, y: mean(max(0, 0.1 - (s[i] - s[j])) for i, j in ranked_pairs(y)),
    "bce": lambda s, y: cross_entropy(s, lambda i, j: 1.0 if y[i] > y[j] else 0.0 if y[i] < y[j] else 0.5),
    "soft_bce": lambda s, y: cross_entropy(s, soft_target(y)),
    "mse": lambda s, y: mean((a - b) ** 2 for a, b in zip(s, y)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def tensors(*columns) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in columns]


@every_loss
@settings(max_examples=100, deadline=None)
@given(batch=BATCHES)
def test_a_loss_is_its_double_loop(name, batch):
    expected = WRITTEN_OUT[name](*batch)
    assert LOSSES[name](*tensors(*batch)).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(batch=BATCHES, margin=st.floats(0, 2))
def test_hinge_takes_any_margin(batch, margin):
    s, y = batch
    expected = mean(max(0, margin - (s[i] - s[j])) for i, j in ranked_pairs(y))
    assert hinge(*tensors(s, y), margin=margin).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@every_loss
@pytest.mark.parametrize("scores, labels", [
    ([0.5], [90.0]), ([0.0, 1.0], [90.0, 91.0]), ([0.0, 0.0], [90.0, 90.0]),
    ([1.0, 1.0, 1.0], [90.0, 90.0, 90.0]),
    ([1.0, 1.0], [90.0, 91.0]), ([-1e4, 1e4, 0.0], [91.0, 90.0, 90.0]),
], ids=["one", "one pair", "a tie", "all ties", "equal scores", "far apart"])
def test_gradients_are_finite(name, scores, labels):
    score = torch.tensor(scores, requires_grad=True)
    loss = LOSSES[name](score, torch.tensor(labels))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(score.grad).all()


@pytest.mark.parametrize("name", ["bpr", "hinge"])
def test_ties_alone_teach_nothing(name):
    score = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    loss = LOSSES[name](score, torch.full((3,), 90.0))
    loss.backward()
    assert loss == 0 and (score.grad == 0).all()


@every_loss
def test_a_step_down_the_gradient_moves_scores_towards_the_order_of_the_labels(name):
    score = torch.zeros(4, requires_grad=True)
    LOSSES[name](score, torch.tensor([-1.0, 0.2, 0.1, 1.5])).backward()
    assert (-score.grad).argsort().tolist() == [0, 2, 1, 3]


@every_loss
def test_a_stack_of_batches_is_batch_after_batch(name, rng):
    """What an ensemble does: one loss per member."""
    score, label = torch.from_numpy(rng.normal(size=(2, 3, 6)))  # [3, 6] each
    stacked = torch.func.vmap(LOSSES[name])(score, label)  # [3]
    assert stacked.tolist() == pytest.approx([LOSSES[name](s, y).item() for s, y in zip(score, label)])
