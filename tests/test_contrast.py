"""Contrast: what a one-edit neighbour is, what the loss says, and what the encoder is shown."""
import json
import math

import pytest
import torch

import spaces
from models.batch import Batch, relations
from models.encoders import build_encoder
from models.pretext.contrast import Contrast, identities, info_nce, neighbours

SPACES = {name: spaces.get(name) for name in ("nasbench101", "nasbench201", "darts")}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edited(batch: Batch, space, fixed: torch.Tensor | None = None, seed: int = 0) -> Batch:
    fixed = torch.zeros_like(batch.node_mask) if fixed is None else fixed
    return neighbours(batch, fixed, len(space.ops), generator(seed))


# Neighbours -------------------------------------------------------------------------------------------------

@every_space
def test_a_neighbour_is_one_edit_away(space, rng):
    batch = Batch.of(space.table(400, rng))
    other = edited(batch, space)
    changes = (other.ops != batch.ops).sum(1) + (other.adj != batch.adj).sum((1, 2))  # [B]
    assert (changes == 1).all()
    assert torch.equal(other.relation, relations(other.adj)) and torch.equal(other.node_mask, batch.node_mask)


@every_space
def test_a_neighbour_is_a_dag_whose_vertices_lie_between_input_and_output(space, rng):
    batch = Batch.of(space.table(400, rng))
    other = edited(batch, space)
    assert not other.adj.tril().any() and other.adj.max() == 1
    for before, after in ((batch.adj.sum(1), other.adj.sum(1)), (batch.adj.sum(2), other.adj.sum(2))):
        # no edge went that was its vertex's last, and no input was fed
        assert torch.equal(before > 0, after > 0)


def test_a_neighbour_of_a_nasbench101_cell_is_one(rng):
    """Nine edges at most, an input, an output, and the three operations between: the space itself says so."""
    space = SPACES["nasbench101"]
    other = edited(Batch.of(space.table(300, rng)), space)
    for ops, adj, n in zip(other.ops.tolist(), other.adj, other.node_mask.sum(1).tolist()):
        cell = space.parse(json.dumps({"matrix": adj[:n, :n].tolist(),
                                       "ops": [space.ops[op] for op in ops[:n]]}))
        assert len(cell.ops) == n and space.encode([cell]).adj.sum() == adj.sum()


def test_both_kinds_of_edit_occur_if_both_are_possible(rng):
    batch = Batch.of(SPACES["nasbench101"].table(400, rng))
    other = edited(batch, SPACES["nasbench101"])
    operations, more, fewer = ((other.ops != batch.ops).any(1), (other.adj > batch.adj).any(2).any(1),
                               (other.adj < batch.adj).any(2).any(1))
    assert min(kind.sum() for kind in (operations, more, fewer)) > 20


def test_operations_alone_are_edited_if_every_graph_is_wired_alike(rng):
    """Every neighbour of a NAS-Bench-201 cell is as likely: six vertices, four other operations each."""
    space = SPACES["nasbench201"]
    batch = Batch.of(space.encode([(0, 1, 2, 3, 4, 0)] * 2400))
    other = edited(batch, space)
    assert torch.equal(other.adj, batch.adj)
    count = other.ops.unique(dim=0, return_counts=True)[1]
    assert len(count) == 24 and (count - 100).abs().max() < 5 * 100**0.5


def test_operations_of_fixed_vertices_stay(rng):
    space = SPACES["nasbench201"]
    batch = Batch.of(space.table(200, rng))
    fixed = torch.zeros_like(batch.node_mask)
    fixed[:, :5] = True
    other = edited(batch, space, fixed)
    assert torch.equal(other.ops[:, :5], batch.ops[:, :5]) and ((other.ops != batch.ops).sum(1) == 1).all()
    assert torch.equal(edited(batch, space, torch.ones_like(fixed)).ops, batch.ops), "no edit is possible"


def test_neighbours_come_from_the_generator_alone(rng):
    batch = Batch.of(SPACES["nasbench101"].table(50, rng))
    first, again, other = (edited(batch, SPACES["nasbench101"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.ops, again.ops) and torch.equal(first.adj, again.adj)
    assert not (torch.equal(first.ops, other.ops) and torch.equal(first.adj, other.adj))


# The loss ---------------------------------------------------------------------------------------------------

def test_the_loss_of_perfect_views():
    """Each anchor is its candidate; the other candidates, five of them, are orthogonal to it."""
    views = torch.eye(6) * torch.arange(1, 7)[:, None]  # lengths do not count
    nothing = torch.zeros(3, 6, dtype=torch.bool)
    assert info_nce(views[:3], views, nothing, 0.5).item() == pytest.approx(math.log(1 + 5 * math.exp(-2)))


def test_a_candidate_that_is_the_same_cell_is_no_negative():
    views, same = torch.eye(6), torch.eye(3, 6, dtype=torch.bool)
    same[:, 4:] = True
    assert info_nce(views[:3], views, same, 0.5).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)))


def test_identities_are_of_drawings():
    space = SPACES["nasbench201"]
    a, b = (Batch.of(space.encode(archs)) for archs in ([(0, 1, 2, 3, 4, 0), (1,) * 6], [(1,) * 6, (2,) * 6]))
    one, two, three, four = identities(a, b).tolist()
    assert two == three and len({one, two, four}) == 3


# What the encoder is shown ----------------------------------------------------------------------------------

def test_the_views_are_masked_apart_and_the_neighbour_like_the_second(rng):
    space, calls = SPACES["nasbench101"], []
    with torch.random.fork_rng():
        config = {"base_model": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
        encoder = build_encoder(config, len(space.ops))
        task = Contrast(encoder, 0.3, 0.2)
    encoder.register_forward_hook(lambda module, inputs, h: calls.append(inputs))
    batch = Batch.of(space.table(64, rng))
    task(encoder, batch, None, generator())
    [(shown, masked)] = calls
    one, two, three = masked.split(64)
    assert not torch.equal(one, two) and torch.equal(two, three) and (one.sum(1) >= 1).all()
    assert not (masked & ~shown.node_mask).any()
    assert torch.equal(shown.ops[:64], batch.ops) and torch.equal(shown.ops[64:128], batch.ops)
    edit = shown.ops[128:] != batch.ops
    assert edit.any() and not (edit & three).any(), "an edit under the mask could not be seen"
