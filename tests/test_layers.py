"""The layers' own gradients, against finite differences and torch; stacked layers are torch's, one by one."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.encoders.layers import (
    Attention,
    Chosen,
    Dropout,
    LayerNorm,
    Linear,
    PReLU,
    Standardise,
    average,
    one_hot,
)
from runtime.seeding import seeded

ATTENDED = {  # name: (shape of query, key and value: [..., V, d], shape of the bias)
    "one head": ((3, 4), (3, 3)),
    "one vertex": ((2, 1, 3), (2, 1, 1)),
    "one number": ((2, 4, 1), (2, 4, 4)),
    "heads and graphs": ((2, 3, 4, 2), (2, 3, 4, 4)),
    "members": ((2, 2, 2, 3, 2), (2, 2, 2, 3, 3)),
    "long": ((1, 2, 9, 5), (1, 2, 9, 9)),
    "by the softmax of torch": ((2, 17, 2), (2, 17, 17)),
}
BROADCAST = {  # biases with fewer entries than there are logits
    "over heads": ((2, 3, 4, 2), (1, 3, 4, 4)),
    "over graphs": ((2, 3, 4, 2), (2, 1, 4, 4)),
    "over both": ((2, 3, 4, 2), (4, 4)),
    "over queries": ((2, 3, 4, 2), (2, 3, 1, 4)),
    "over all": ((2, 3, 4, 2), ()),
}
STANDARDISED = [(5,), (1, 4), (3, 2), (2, 3, 7), (2, 2, 3, 4), (4, 16)]
every_attention = pytest.mark.parametrize("shape, of_bias", ATTENDED.values(), ids=ATTENDED)
every_shape = pytest.mark.parametrize("shape", STANDARDISED, ids=str)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers in double precision, with a gradient."""
    draws = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=draws, dtype=torch.float64)).requires_grad_()


def gradients(function, *inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The value of function(*inputs), and the gradients of a random linear function of it."""
    value = function(*inputs)
    return value.detach(), torch.autograd.grad(value, inputs, random(*value.shape, seed=9).detach())


def close(one, other) -> bool:
    return torch.allclose(one, other, rtol=1e-10, atol=1e-12)


# Attention --------------------------------------------------------------------------------------------------

def attend(split: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Attention by torch's own softmax."""
    query, key, value = split
    return (query @ key.mT / split.shape[-1] ** 0.5 + bias).softmax(-1) @ value


@every_attention
def test_gradients_of_attention_are_finite_differences(shape, of_bias):
    assert torch.autograd.gradcheck(Attention.apply, (random(3, *shape), random(*of_bias, seed=1)))


@pytest.mark.parametrize("shape, of_bias", BROADCAST.values(), ids=BROADCAST)
def test_a_bias_may_be_broadcast(shape, of_bias):
    """Its gradient is the sum over what it was broadcast to."""
    inputs = random(3, *shape), random(*of_bias, seed=1)
    assert torch.autograd.gradcheck(Attention.apply, inputs)
    (value, found), (expected, wanted) = gradients(Attention.apply, *inputs), gradients(attend, *inputs)
    assert close(value, expected) and all(map(close, found, wanted))


@every_attention
def test_attention_is_the_softmax_of_torch(shape, of_bias):
    inputs = random(3, *shape), random(*of_bias, seed=1)
    (value, found), (expected, wanted) = gradients(Attention.apply, *inputs), gradients(attend, *inputs)
    assert close(value, expected) and all(map(close, found, wanted))


@every_attention
def test_attention_is_that_of_scaled_dot_products(shape, of_bias):
    def theirs(split, bias):
        return F.scaled_dot_product_attention(*split, attn_mask=bias)

    inputs = random(3, *shape), random(*of_bias, seed=1)
    (value, found), (expected, wanted) = gradients(Attention.apply, *inputs), gradients(theirs, *inputs)
    assert close(value, expected) and all(map(close, found, wanted))


def test_what_the_bias_forbids_is_not_read():
    """Its value reaches nothing, and it gets no gradient: the padding of the transformer."""
    bias = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    bias[..., 3] = -1e9
    split = random(3, 2, 3, 4, 2)
    value, (gradient,) = gradients(lambda split: Attention.apply(split, bias), split)
    other = split.detach().clone()
    other[1:, ..., 3, :] = 7.0
    assert torch.equal(Attention.apply(other, bias), value) and not gradient[1:, ..., 3, :].any()
    assert torch.autograd.gradcheck(lambda split: Attention.apply(split, bias), (split,))


def test_large_logits_do_not_overflow():
    inputs = random(3, 2, 4, 2, scale=100), random(2, 4, 4, seed=1, scale=1000)
    (value, found), (expected, wanted) = gradients(Attention.apply, *inputs), gradients(attend, *inputs)
    assert value.isfinite().all() and close(value, expected)
    assert all(torch.allclose(one, other, rtol=1e-8, atol=1e-8) for one, other in zip(found, wanted))


def test_attention_leaves_its_inputs_as_they_were():
    split, bias = random(3, 2, 4, 2), random(2, 4, 4, seed=1)
    before = split.detach().clone(), bias.detach().clone()
    Attention.apply(split, bias).sum().backward()
    assert torch.equal(split, before[0]) and torch.equal(bias, before[1])


# Standardise ------------------------------------------------------------------------------------------------

@every_shape
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_gradients_of_standardise_are_finite_differences(shape, eps):
    assert torch.autograd.gradcheck(lambda x: Standardise.apply(x, eps), (random(*shape),))


@every_shape
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_standardise_is_the_layer_norm_of_torch(shape, eps):
    x = random(*shape)
    value, (found,) = gradients(lambda x: Standardise.apply(x, eps), x)
    expected, (wanted,) = gradients(lambda x: F.layer_norm(x, shape[-1:], eps=eps), x)
    assert close(value, expected) and torch.allclose(found, wanted, rtol=1e-8, atol=1e-10)


def test_a_constant_row_stays_finite():
    x = torch.full((2, 4), 3.0, dtype=torch.float64, requires_grad=True)
    value, (gradient,) = gradients(lambda x: Standardise.apply(x, 1e-5), x)
    assert not value.any() and gradient.isfinite().all()


def test_standardise_leaves_its_input_as_it_was():
    x = random(3, 5)
    before = x.detach().clone()
    Standardise.apply(x, 1e-5).sum().backward()
    assert torch.equal(x, before)


# Stacked layers ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, sizes", [(Linear, (5, 4)), (LayerNorm, (5,)), (PReLU, ())],
                         ids=["Linear", "LayerNorm", "PReLU"])
@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (2, 3, 6, 5)], ids=str)
def test_a_stacked_layer_is_each_layer_of_torch(kind, sizes, shape):
    """Outputs, and the gradients of inputs and parameters; M = 3."""
    alone, together = [getattr(nn, kind.__name__)(*sizes).double() for _ in range(3)], kind(*sizes)
    for name, p in list(together.named_parameters()):
        setattr(together, name, nn.Parameter(random(3, *p.shape, seed=1).detach()))
        for m, layer in enumerate(alone):
            getattr(layer, name).data = getattr(together, name)[m].detach()
    x = random(3, *shape)
    value = together(x)
    weight = random(*value.shape, seed=9).detach()  # of the outputs in what the gradients are of
    found = torch.autograd.grad((value * weight).sum(), (x, *together.parameters()))
    for m, layer in enumerate(alone):
        expected = layer(x[m])
        wanted = torch.autograd.grad((expected * weight[m]).sum(), (x, *layer.parameters()))
        wanted = (wanted[0][m], *wanted[1:])
        assert torch.allclose(value[m], expected)
        assert all(torch.allclose(one[m], other) for one, other in zip(found, wanted, strict=True))


# The other quick forms --------------------------------------------------------------------------------------

@pytest.mark.parametrize("p", [0.2, 0.5, 0.95])
def test_dropout_keeps_a_whole_number_of_256ths(p):
    """So the mean stays what it was; kept entries are scaled up, and so are their gradients."""
    dropped, x = round(256 * p), torch.ones(200, 501, requires_grad=True)
    with seeded(0):
        out = Dropout(p)(x)
    out.sum().backward()
    kept, deviation = out != 0, (p * (1 - p) / x.numel()) ** 0.5
    assert torch.allclose(out[kept], torch.tensor(256 / (256 - dropped))) and torch.equal(x.grad, out)
    assert abs(kept.double().mean() - (1 - dropped / 256)) < 4 * deviation


@pytest.mark.parametrize("p, training", [(0.0, True), (0.5, False)])
def test_dropout_that_drops_nothing(p, training):
    x = torch.ones(7, 3)
    assert torch.equal(Dropout(p).train(training)(x), x)


@pytest.mark.parametrize("dim", [-1, -2, 0])
def test_one_hot_is_that_of_torch(dim):
    codes = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = F.one_hot(codes.long(), 5).double().movedim(-1, dim)
    assert torch.equal(one_hot(codes, 5, torch.float64, dim), expected)


@pytest.mark.parametrize("members", [(), (1,), (3,)])
def test_columns_are_chosen_alike_with_and_without_gradients(members):
    codes = torch.randint(5, (*members, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    weight = random(*members, 2, 5)
    last = Chosen(codes, 5).along_last(weight)  # [M, 4, 6, 2]
    first = Chosen(codes.flatten(-2), 5).along_first(weight)  # [M, 2, 24]
    expected = F.one_hot(codes.long(), 5).double() @ weight.mT[..., None, :, :]
    assert torch.equal(last, expected)
    assert torch.equal(first, expected.flatten(-3, -2).mT)
    with torch.no_grad():
        assert torch.equal(Chosen(codes, 5).along_last(weight), last)
        assert torch.equal(Chosen(codes.flatten(-2), 5).along_first(weight), first)


def test_an_average_is_weighted_and_of_nothing_is_zero():
    h, weight = random(3, 4, 2).detach(), torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).double()
    expected = torch.stack([h[0, :2].mean(0), torch.zeros(2).double(), h[2].mean(0)])
    assert torch.allclose(average(h, weight), expected)
