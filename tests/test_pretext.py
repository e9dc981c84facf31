"""Pretext tasks: what is hidden, that nothing of it leaks, what each loss looks at, that it can be learnt."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import spaces
from models.batch import Batch, relations
from models.encoders import ENCODERS, build_encoder
from models.features.flow import flow_targets
from models.features.properties import property_targets
from models.features.signature import signatures
from models.pretext.masked import draw_mask, draw_pairs, reconstruction_loss
from models.pretext.regression import target_tables
from models.pretext.tasks import TASKS, MaskSettings, Pretext, total
from runtime.seeding import seeded
from spaces.base import Graphs

SPACE = spaces.get("nasbench201")
ARCHS = [(0, 1, 2, 3, 4, 0), (3, 3, 3, 3, 3, 3), (4, 2, 0, 1, 1, 3)]
every_encoder = pytest.mark.parametrize("name", ENCODERS)


def pretext(name: str, mask_ratio: float, target: str, tasks=("mask",),
            target_sizes: dict | None = None) -> Pretext:
    """The same weights at every call."""
    with seeded(0):
        config = {"base_model": name, "width": 16, "layers": 2, "heads": 4, "dropout": 0.0}
        return Pretext(build_encoder(config, len(SPACE.ops)), tasks, target_sizes or {},
                       MaskSettings(mask_ratio, target))


def encoder(name: str):
    """In eval mode, every weight random: gates and biases start at constants, where a leak would not show."""
    network, rng = pretext(name, 0.5, "masked").encoder.eval(), generator()
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=rng) * 0.4
    return network


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def node_mask_of(sizes, vertices: int) -> torch.Tensor:
    """bool[B, V] of graphs with these numbers of vertices."""
    return torch.arange(vertices) < torch.tensor(sizes)[:, None]  # [B, V]


@pytest.fixture
def graphs(rng) -> Graphs:
    return SPACE.table(12, rng)  # V = 8, no padding


def padded(graphs: Graphs, extra: int) -> Graphs:
    """The same graphs with `extra` vertices of padding more."""
    ops, marks = (F.pad(field, (0, extra)) for field in (graphs.ops, graphs.marks))  # [B, V] each
    return Graphs(ops, F.pad(graphs.adj, (0, extra, 0, extra)), graphs.n, marks)  # adj [B, V, V]


# Masks ------------------------------------------------------------------------------------------------------

@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 22), min_size=1, max_size=6), percent=st.integers(1, 100),
       seed=st.integers(0, 99))
def test_exactly_so_many_real_vertices_are_masked(sizes, percent, seed):
    node_mask = node_mask_of(sizes, 22)
    masked = draw_mask(node_mask, percent / 100, generator(seed))
    assert masked.dtype == torch.bool and not (masked & ~node_mask).any()
    assert masked.sum(1).tolist() == [max(1, round(percent / 100 * n)) for n in sizes]


@pytest.mark.parametrize("ratio, count", [(0.05, 1), (0.25, 2), (0.5, 4), (0.75, 5), (1.0, 7)])
def test_counts_of_the_published_ratios(ratio, count):
    """7 vertices; 1.75 and 5.25 go to the nearest, 3.5 to the even number."""
    assert draw_mask(node_mask_of([7], 9), ratio, generator()).sum() == count


def test_every_real_vertex_is_as_likely():
    masked = draw_mask(node_mask_of([5] * 4000, 7), 0.4, generator()).double().mean(0)  # [V]
    deviation = (0.4 * 0.6 / 4000) ** 0.5
    assert (masked[:5] - 0.4).abs().max() < 4 * deviation


def test_masks_come_from_the_generator_alone():
    node_mask = node_mask_of([8] * 50, 8)
    first, again, other = (draw_mask(node_mask, 0.5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# Leaks ------------------------------------------------------------------------------------------------------

@every_encoder
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), percent=st.integers(5, 100))
def test_a_masked_operation_does_not_leak(name, seed, percent):
    rng = generator(seed)
    batch = Batch.of(SPACE.encode(ARCHS))
    masked = draw_mask(batch.node_mask, percent / 100, rng)  # [B, V]
    others = torch.randint(0, len(SPACE.ops), batch.ops.shape, generator=rng, dtype=torch.uint8)
    changed = batch._replace(ops=torch.where(masked, others, batch.ops))
    network = encoder(name)
    with torch.no_grad():
        assert torch.equal(network(batch, masked), network(changed, masked))


@every_encoder
def test_a_mask_hides_something_and_nothing_else(name):
    batch, network = Batch.of(SPACE.encode(ARCHS)), encoder(name)
    with torch.no_grad():
        clean, nothing = network(batch), network(batch, torch.zeros_like(batch.node_mask))
        masked = torch.zeros_like(batch.node_mask)
        masked[1, 2] = True
        h = network(batch, masked)  # [B, V, D]
    assert torch.equal(clean, nothing)
    assert torch.equal(h[[0, 2]], clean[[0, 2]]) and (h[1, 2] - clean[1, 2]).abs().max() > 1e-3


@every_encoder
def test_a_hidden_operation_looks_like_no_operation(name):
    """The mask token (or the zero vector of the paper's encoders) is no operation's embedding."""
    digits = [(op, 1, 2, 3, 4, 0) for op in range(5)]
    batch, network = Batch.of(SPACE.encode(digits)), encoder(name)
    masked = torch.zeros_like(batch.node_mask)
    masked[:, 1] = True
    with torch.no_grad():
        assert (network(batch, masked) - network(batch)).flatten(1).abs().amax(1).min() > 1e-3


def test_hidden_pairs_are_exactly_so_many_of_the_real_ones():
    hidden = draw_pairs(node_mask_of([2, 5, 7], 9), 0.3, generator())
    assert hidden.sum((1, 2)).tolist() == [1, 3, 6] and torch.equal(hidden, hidden.triu(1))
    assert not hidden[1, :, 5:].any() and hidden[2, :7, :7].sum() == 6


@every_encoder
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), percent=st.integers(5, 95))
def test_a_hidden_edge_does_not_leak(name, seed, percent):
    """Whatever stands at the hidden pairs, the encoder gives the same."""
    batch = Batch.of(SPACE.encode(ARCHS))
    hidden = draw_pairs(batch.node_mask, percent / 100, generator(seed))  # [B, V, V]
    other = batch.adj.clone()
    other[hidden] ^= 1
    network = encoder(name)
    with torch.no_grad():
        h, changed = (network(batch._replace(adj=adj).without_edges(hidden)) for adj in (batch.adj, other))
    assert torch.equal(h, changed)


@every_encoder
def test_an_edge_that_is_not_hidden_is_seen(name):
    batch = Batch.of(SPACE.encode(ARCHS))
    hidden = draw_pairs(batch.node_mask, 0.3, generator(0))  # [B, V, V]
    pairs = batch.node_mask[:, None] * batch.node_mask[..., None]  # [B, V, V]
    other = torch.where(hidden, batch.adj, 1 - batch.adj).triu(1).to(torch.uint8) * pairs
    network = encoder(name)
    with torch.no_grad():
        h, changed = (network(batch._replace(adj=adj).without_edges(hidden)) for adj in (batch.adj, other))
    assert (h - changed).abs().amax() > 1e-3


def test_relations_say_nothing_of_a_hidden_edge():
    """The path 0-1-2-3 without its middle edge is two paths."""
    adj = torch.diag(torch.ones(3, dtype=torch.uint8), 1)[None]
    path = Batch(torch.zeros(1, 4, dtype=torch.uint8), adj, torch.ones(1, 4, dtype=torch.bool), None,
                 relations(adj))
    hidden = torch.zeros_like(adj, dtype=torch.bool)
    hidden[0, 1, 2] = True
    related = (path.without_edges(hidden).relation > 1).nonzero()[:, 1:]
    assert related.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


# The loss ---------------------------------------------------------------------------------------------------

def test_reconstruction_loss_is_a_written_out_mean(graphs):
    logits = torch.randn(12, 8, 7, generator=generator())
    chosen = draw_mask(graphs.node_mask, 0.4, generator())
    terms = [-logits[b, v].log_softmax(0)[graphs.ops[b, v].item()] for b, v in chosen.nonzero().tolist()]
    expected = torch.stack(terms).mean().item()
    assert reconstruction_loss(logits, graphs.ops, chosen).item() == pytest.approx(expected, rel=1e-5)


def test_only_chosen_logits_get_a_gradient(graphs):
    logits = torch.randn(12, 8, 7, generator=generator(), requires_grad=True)
    masked = draw_mask(graphs.node_mask, 0.4, generator())
    reconstruction_loss(logits, graphs.ops, masked).backward()
    assert (logits.grad[~masked] == 0).all() and (logits.grad[masked] != 0).all()


@pytest.mark.parametrize("target, vertices", [("masked", 3), ("all", 8)])
def test_the_target_says_which_logits_learn(graphs, target, vertices):
    """8 real vertices of 10, of which max(1, round(0.4 * 8)) = 3 are masked."""
    task, seen = pretext("transformer", 0.4, target), []

    def keep(module, inputs, logits):
        logits.retain_grad()
        seen.append(logits)

    task.tasks["mask"].decoder.register_forward_hook(keep)
    task(Batch.of(padded(graphs, 2)), None, generator())["mask"].backward()
    learning = (seen[0].grad != 0).any(-1)  # [B, V]
    assert learning.sum(1).tolist() == [vertices] * 12 and not learning[:, 8:].any()


@every_encoder
def test_padding_does_not_change_the_loss(name, graphs):
    """With everything masked no draw is left, so losses can be compared; and the two targets are one."""
    losses = [pretext(name, 1.0, target)(Batch.of(table), None, generator(seed))["mask"].item()
              for target in ("masked", "all") for seed, table in enumerate((graphs, padded(graphs, 3)))]
    assert losses == pytest.approx(losses[:1] * 4, rel=1e-5)


# Targets of all tasks ---------------------------------------------------------------------------------------

COMPUTE = {"flow": lambda batch: flow_targets(batch.ops, batch.adj, batch.node_mask, len(SPACE.ops)),
           "signature": lambda batch: signatures(batch.ops, batch.adj, batch.node_mask, SPACE.vocabulary),
           "properties": lambda batch: property_targets(batch, SPACE.vocabulary)}
every_target = pytest.mark.parametrize("compute", COMPUTE.values(), ids=COMPUTE)


@every_target
def test_targets_do_not_depend_on_padding_or_the_rest_of_the_batch(compute, graphs):
    alone, together = compute(Batch.of(graphs)), compute(Batch.of(padded(graphs, 2)))
    assert torch.allclose(together[:, :8], alone, atol=1e-4) and not together[:, 8:].any()
    assert torch.allclose(compute(Batch.of(graphs[3:4])), alone[3:4], atol=1e-4)


@every_target
def test_targets_follow_the_vertices_of_another_order(compute):
    """The vertices 1 and 2 of a NAS-Bench-201 graph (edges 0->1 and 0->2) may change places."""
    order = [0, 2, 1, 3, 4, 5, 6, 7]
    graphs = SPACE.encode(ARCHS)
    other = Graphs(graphs.ops[:, order], graphs.adj[:, order][:, :, order], graphs.n, graphs.marks)
    assert torch.allclose(compute(Batch.of(other)), compute(Batch.of(graphs))[:, order], atol=1e-3)


def test_signatures_tell_cells_apart_and_know_dead_ones():
    batch = Batch.of(SPACE.encode([*ARCHS, (0,) * 6]))
    output = signatures(batch.ops, batch.adj, batch.node_mask, SPACE.vocabulary)[:, -1]  # [B, S]
    assert not output[3].any(), "a cell of `none` alone answers to no image"
    assert min((output[i] - output[j]).abs().max() for i in range(3) for j in range(i)) > 0.1


def test_the_target_table_is_standardised_over_real_vertices(rng):
    batch = Batch.of(padded(SPACE.table(200, rng), 2))
    (target,), target_sizes = target_tables([batch], TASKS, SPACE.vocabulary)
    assert list(target_sizes) == ["flow", "signature", "properties"]
    assert sum(target_sizes.values()) == target.shape[2]
    std, mean = torch.std_mean(target[batch.node_mask], dim=0)
    assert mean.abs().max() < 1e-3 and (std - 1).abs().max() < 1e-3 and not target[~batch.node_mask].any()
    assert target_tables([batch], ("mask",), SPACE.vocabulary) == ([None], {})


@every_encoder
def test_every_task_trains_the_encoder_alone_and_together(name, graphs):
    batch = Batch.of(graphs)
    for tasks in (*((task,) for task in TASKS), TASKS):
        (target,), target_sizes = target_tables([batch], tasks, SPACE.vocabulary)
        task = pretext(name, 0.5, "masked", tasks, target_sizes)
        losses = task(batch, target, generator())
        total(losses).backward()
        assert tuple(losses) == tasks and all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all()
                   for p in task.parameters() if p.requires_grad)
        assert sum(p.grad.norm() for p in task.encoder.parameters()) > 0


def test_beside_others_a_task_that_hides_takes_a_quarter_of_the_batch_and_counts_a_tenth(graphs):
    sizes, batch = [], Batch.of(graphs)  # 12 graphs
    (target,), target_sizes = target_tables([batch], TASKS, SPACE.vocabulary)
    for tasks, sizes_of_tasks in ((("edges",), {}), (TASKS, target_sizes)):
        task = pretext("transformer", 0.5, "masked", tasks, sizes_of_tasks)
        task.encoder.register_forward_hook(lambda module, inputs, h: sizes.append(h.shape[0]))
        task(batch, target, generator())
    # edges alone; mask, targets, edges, three views of each cell, and the two of others
    assert sizes == [12, 3, 12, 3, 3 * 3, 6, 3, 6, 6, 6]
    one = torch.ones(())
    assert total(dict.fromkeys(TASKS, one)).item() == pytest.approx(3.8) and total({"contrast": one}) == 1


@pytest.mark.parametrize("space", ["nasbench101", "nasbench201"])
@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_every_task_falls(space, task, rng):
    space = spaces.get(space)
    table = Batch.of(space.table(256, rng))
    (target,), target_sizes = target_tables([table], (task,), space.vocabulary)
    draws, losses = generator(), []
    with seeded(0):
        config = {"base_model": "transformer", "width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
        learner = Pretext(build_encoder(config, len(space.ops)), (task,), target_sizes)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=5e-3)
    for _ in range(60):
        index = torch.randint(256, (64,), generator=draws)
        loss = total(learner(table.rows(index), None if target is None else target[index].float(), draws))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < 0.9 * first
