"""The GAT computes what torch-geometric's layers do, forward and backward."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import spaces
from models.batch import Batch
from models.encoders.gat import GAT, Activated, Attention

SPACE = spaces.get("nasbench101")
TABLE = Batch.of(SPACE.table(30, np.random.default_rng(0)))  # cells of up to 7 vertices, so some are padded
MASKED = (torch.rand(TABLE.ops.shape, generator=torch.Generator().manual_seed(0)) < 0.4) & TABLE.node_mask


def encoder() -> GAT:
    torch.manual_seed(0)
    made = GAT(len(SPACE.ops), width=12, layers=3, heads=3).double()
    for weight in made.parameters():  # biases and slopes start at constants
        weight.data += 0.3 * torch.randn_like(weight)
    return made


def by_layers(made: GAT, batch: Batch, masked: torch.Tensor) -> torch.Tensor:
    """h [B, V, D] by the layers of torch and torch-geometric."""
    op = made.embed_op(F.one_hot(batch.ops.long(), made.operations).double())
    op = op.masked_fill(masked[..., None], 0) + made.embed_mark(F.one_hot(batch.marks.long(), 2).double())
    adj, earlier = (batch.adj + batch.adj.mT).double(), 0.0
    for skip, convolve, norm, activate in zip(made.skips, made.convolutions, made.norms, made.activations):
        h = activate(norm(convolve(skip(op) + earlier, adj, batch.node_mask)))
        earlier = earlier + h
    return h


def test_it_is_its_layers_one_after_another():
    made = encoder()
    probe = torch.randn(*TABLE.ops.shape, 12).double() * TABLE.node_mask[..., None]
    found = []
    for h in (made(TABLE, MASKED), by_layers(made, TABLE, MASKED)):
        made.zero_grad()
        (h * probe).sum().backward()
        found.append((h[TABLE.node_mask], {name: p.grad.clone() for name, p in made.named_parameters()}))
    (ours, ours_grad), (theirs, theirs_grad) = found
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours_grad, theirs_grad)
    assert all(grad.abs().max() > 0 for grad in ours_grad.values())


def test_compiled_it_is_the_same():
    made = encoder()
    expected = made(TABLE, MASKED)
    torch._dynamo.reset()
    made.compile(backend="aot_eager")
    assert list(made.state_dict()) == list(encoder().state_dict())
    torch.testing.assert_close(made(TABLE, MASKED), expected)


@pytest.mark.parametrize("members", [(), (2,)])
def test_gradients_are_finite_differences(members):
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*members, *shape, generator=generator, dtype=torch.float64).requires_grad_()

    forbidden = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
    forbidden[0, 0, 1:, :2] = -torch.inf
    assert torch.autograd.gradcheck(
        Attention.apply, (random(2, 3, 3, 4), random(2, 3, 4), random(2, 3, 4), forbidden))
    assert torch.autograd.gradcheck(
        Activated.apply, (random(4, 3, 2), random(4), random(4), random(1), 1e-5))
