"""Views: what each augmentation takes away and nothing else; the diffusion against its closed form."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import fractional_matrix_power, inv

import spaces
from models.batch import Batch, relations
from models.pretext.contrast import identities
from models.pretext.views import (
    FLOOR,
    diffused,
    drop_edges,
    edges_and_features,
    mask_features,
    one_of_three,
    pagerank,
    without_vertices,
)

SPACES = {name: spaces.get(name) for name in ("nasbench101", "nasbench201", "darts")}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nasbench101(rng, cells: int = 300) -> Batch:
    """Random cells, and first among them two small ones, which are rare."""
    space = SPACES["nasbench101"]
    small = [{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]},
             {"matrix": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "ops": ["input", "conv1x1-bn-relu", "output"]}]
    return Batch.of(space.encode([*(space.parse(json.dumps(cell)) for cell in small),
                                  *space.sample(cells - 2, rng)]))


def reordered(batch: Batch, order: torch.Tensor) -> Batch:
    """The graphs with vertex order[v] at v, padding included."""
    adj = batch.adj[:, order][:, :, order]  # [B, V, V]
    ops, node_mask, marks = (field[:, order] for field in (batch.ops, batch.node_mask, batch.marks))
    return Batch(ops, adj, node_mask, marks, relations(adj))


# Edges, features, vertices ----------------------------------------------------------------------------------

@every_space
def test_dropping_edges_only_removes_edges(space, rng):
    batch = Batch.of(space.table(300, rng))
    rest = drop_edges(batch, 0.4, generator())
    assert (rest.adj <= batch.adj).all() and rest.adj.dtype == torch.uint8
    assert torch.equal(rest.relation, relations(rest.adj))
    assert all(torch.equal(getattr(rest, field), getattr(batch, field))
               for field in ("ops", "node_mask", "marks"))
    edges = batch.adj.sum().item()
    assert abs(rest.adj.sum().item() / edges - 0.6) < 4 * (0.24 / edges) ** 0.5


def test_a_rate_of_none_drops_nothing_and_of_one_everything(rng):
    batch = nasbench101(rng)
    assert torch.equal(drop_edges(batch, 0.0, generator()).adj, batch.adj)
    assert not drop_edges(batch, 1.0, generator()).adj.any()
    assert not mask_features(batch, 0.0, 5, generator()).any()
    assert torch.equal(mask_features(batch, 1.0, 5, generator()), batch.node_mask)


def test_a_rate_may_differ_from_graph_to_graph(rng):
    batch = nasbench101(rng)
    rate = (torch.arange(300) % 2).view(-1, 1, 1)  # [B, 1, 1]
    rest = drop_edges(batch, rate, generator())
    assert torch.equal(rest.adj[::2], batch.adj[::2]) and not rest.adj[1::2].any()


@every_space
def test_a_feature_is_masked_at_all_vertices_of_a_graph_or_at_none(space, rng):
    batch, operations = Batch.of(space.table(400, rng)), len(space.ops)
    masked = mask_features(batch, 0.3, operations, generator())
    assert not (masked & ~batch.node_mask).any()
    one_hot = F.one_hot(batch.ops.long(), operations) * batch.node_mask[..., None]  # [B, V, K]
    occurs, hidden = one_hot.sum(1), (one_hot * masked[..., None]).sum(1)  # [B, K] each
    assert ((hidden == 0) | (hidden == occurs)).all()
    share = (hidden > 0).sum() / (occurs > 0).sum()
    assert abs(share - 0.3) < 4 * (0.21 / (occurs > 0).sum()) ** 0.5


def test_a_vertex_that_goes_becomes_padding(rng):
    """The path 0-1-2-3 without its vertex 1 is a vertex and a path."""
    adj = torch.diag(torch.ones(3, dtype=torch.uint8), 1)[None]
    path = Batch(torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8), adj, torch.ones(1, 4, dtype=torch.bool),
                 torch.ones(1, 4, dtype=torch.uint8), relations(adj))
    rest = without_vertices(path, torch.tensor([[False, True, False, False]]))
    assert rest.adj[0].nonzero().tolist() == [[2, 3]] and torch.equal(rest.relation, relations(rest.adj))
    assert rest.ops.tolist() == [[1, 0, 3, 4]] and rest.marks.tolist() == [[1, 0, 1, 1]]
    assert rest.node_mask.tolist() == [[True, False, True, True]]
    assert rest.ops.dtype == rest.marks.dtype == torch.uint8


@every_space
def test_a_view_of_graphcl_loses_one_of_three(space, rng):
    batch = Batch.of(space.table(900, rng))
    view, masked = one_of_three(batch, 0.5, 0.3, 0.2, generator())
    gone = batch.node_mask & ~view.node_mask  # [B, V]
    apart = batch.adj * ~(gone[:, :, None] | gone[:, None, :])  # [B, V, V]
    lost = (gone.any(1), masked.any(1), (view.adj != apart).flatten(1).any(1))  # [B] each
    assert not ((lost[0] & lost[1]) | (lost[0] & lost[2]) | (lost[1] & lost[2])).any()
    assert (view.adj <= apart).all()
    n = batch.node_mask.sum(1)  # [B]
    assert torch.equal(gone.sum(1)[lost[0]], (0.2 * n).round().clamp(min=1)[lost[0]].long())
    assert torch.equal(masked.sum(1)[lost[1]], (0.3 * n).round().clamp(min=1)[lost[1]].long())
    assert all(abs(kind.float().mean() - 1 / 3) < 0.07 for kind in lost)
    assert not (masked & ~batch.node_mask).any()


def test_half_of_the_vertices_may_go_but_never_the_last(rng):
    assert one_of_three(nasbench101(rng), 0.0, 0.0, 0.5, generator())[0].node_mask.any(1).all()


@pytest.mark.parametrize("draw", [
    lambda batch, rng: edges_and_features(batch, 0.3, 0.3, 5, rng),
    lambda batch, rng: one_of_three(batch, 0.3, 0.3, 0.3, rng)], ids=["GRACE", "GraphCL"])
def test_views_come_from_the_generator_alone_and_differ(draw, rng):
    batch, draws = nasbench101(rng), generator(1)
    first, second, again = draw(batch, draws), draw(batch, draws), draw(batch, generator(1))
    assert all(map(torch.equal, first.batch, again.batch)) and torch.equal(first.masked, again.masked)
    assert not torch.equal(first.batch.adj, second.batch.adj) and not torch.equal(first.masked, second.masked)
    for view in (first, second):
        assert not view.batch.adj[~view.batch.node_mask].any()
        assert not view.batch.ops[~view.batch.node_mask].any()
        assert not (view.batch.node_mask & ~batch.node_mask).any()
        assert not (view.masked & ~batch.node_mask).any()


# Diffusion --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("teleport", [0.05, 0.2, 0.8])
def test_pagerank_is_the_closed_form_on_the_real_vertices(teleport, rng):
    batch = nasbench101(rng, 40)
    heat = pagerank(batch.adj, teleport)
    for adj, n, found in zip(batch.adj.numpy().astype(float), batch.node_mask.sum(1).tolist(),
                             heat.double().numpy()):
        both = (adj + adj.T)[:n, :n] + np.eye(n)
        root = fractional_matrix_power(np.diag(both.sum(1)), -0.5)
        expected = teleport * inv(np.eye(n) - (1 - teleport) * root @ both @ root)
        assert np.abs(found[:n, :n] - expected).max() < 1e-5
        assert np.allclose(found[n:], np.eye(len(adj))[n:], atol=1e-6), "padding is linked to itself alone"


def test_pagerank_of_two_vertices_by_hand():
    """W = [[1/2, 1/2], [1/2, 1/2]] and t = 1/2: (I - W/2) / (1/2) has the inverse [[3, 1], [1, 3]] / 4."""
    adj = torch.tensor([[[0, 1], [0, 0]]], dtype=torch.uint8)
    assert torch.allclose(pagerank(adj, 0.5)[0], torch.tensor([[3.0, 1.0], [1.0, 3.0]]) / 4)


@every_space
def test_both_directions_together_are_the_symmetric_diffusion(space, rng):
    batch = Batch.of(space.table(200, rng))
    view, heat = diffused(batch, 0.2), pagerank(batch.adj, 0.2)
    both = view.adj + view.adj.transpose(1, 2)  # [B, V, V]
    scale = heat.diagonal(dim1=1, dim2=2).rsqrt()  # [B, V]
    link = (scale[:, :, None] * heat * scale[:, None, :]).masked_fill(torch.eye(heat.shape[1]) > 0, 0)
    assert torch.allclose(both, torch.where(link >= FLOOR, link, 0.0), atol=1e-6) and both.max() <= 1
    assert torch.equal(both > 0, both.transpose(1, 2) > 0)


@every_space
def test_diffusion_keeps_the_edges_adds_links_and_leaves_some_out(space, rng):
    batch = Batch.of(space.table(200, rng))
    view = diffused(batch, 0.2)
    assert (view.adj[batch.adj > 0] >= FLOOR).all(), "an edge is the strongest link"
    added = (view.adj > 0) & (batch.adj == 0)
    apart = ~torch.eye(batch.ops.shape[1], dtype=torch.bool)  # [V, V]
    pairs = batch.node_mask[:, :, None] & batch.node_mask[:, None, :] & apart  # [B, V, V]
    assert added.any() and (pairs & (view.adj + view.adj.transpose(1, 2) == 0)).any()
    assert not (view.adj > 0)[~pairs].any()
    assert all(torch.equal(getattr(view, field), getattr(batch, field))
               for field in ("ops", "node_mask", "marks"))


@every_space
def test_a_link_runs_along_a_path_if_there_is_one(space, rng):
    batch = Batch.of(space.table(100, rng))
    adj = diffused(batch, 0.2).adj
    assert not (adj[batch.relation > 8]).any(), "against a path"
    unrelated = batch.relation == 1
    assert torch.allclose(adj[unrelated], adj.transpose(1, 2)[unrelated], atol=1e-6)


@every_space
def test_diffusion_does_not_depend_on_the_order_of_the_vertices(space, rng):
    batch = Batch.of(space.table(100, rng))
    order = torch.from_numpy(rng.permutation(batch.ops.shape[1]))
    view, other = diffused(batch, 0.2), diffused(reordered(batch, order), 0.2)
    assert torch.allclose(other.adj, view.adj[:, order][:, :, order], atol=1e-5)
    assert torch.equal(other.relation, view.relation[:, order][:, :, order])


@every_space
def test_different_cells_have_different_diffusions(space, rng):
    batch = Batch.of(space.table(300, rng))
    view = diffused(batch, 0.2)
    rows = torch.cat([view.ops, view.marks, view.adj.flatten(1)], dim=1)  # [B, V^2 + 2V]
    assert len(rows.unique(dim=0)) >= identities(batch).unique().numel() > 200


def test_the_teleport_says_how_far_diffusion_spreads(rng):
    batch = nasbench101(rng)
    near, far = ((diffused(batch, teleport).adj > 0).sum() for teleport in (0.5, 0.1))
    assert near < far
