"""The contrastive tasks: their losses by hand, what they do not depend on, BGRL's target, --model_type."""
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pretrain
import spaces
from models.batch import Batch, relations
from models.checkpoint import load_encoder
from models.encoders import build_encoder
from models.predictor.fit import PredictorRecipe, new_networks
from models.pretext.tasks import MODEL_TYPES, TASKS, Pretext, total
from models.pretext.two_view import BGRL, CONTRASTIVE, ViewSettings, jensen_shannon, redundancy
from models.pretext.views import View
from runtime.errors import InputError
from runtime.seeding import seeded

SPACE = spaces.get("nasbench101")
every_task = pytest.mark.parametrize("name", CONTRASTIVE)
every_encoder = pytest.mark.parametrize("base_model", ["transformer", "gat", "gcn"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pretext(name: str, base_model: str = "transformer", width: int = 16, **views) -> Pretext:
    """In eval mode, every weight random: some start at constants, where a mistake would not show."""
    config = {"base_model": base_model, "width": width, "layers": 2, "heads": 2, "dropout": 0.0}
    with seeded(0):
        learner = Pretext(build_encoder(config, len(SPACE.ops)), (name,), {},
                          views=ViewSettings(**views)).eval()
    draws = generator()
    for weight in learner.parameters():
        weight.data = torch.randn(weight.shape, generator=draws) * 0.3
    return learner


@pytest.fixture
def batch(rng) -> Batch:
    return Batch.of(SPACE.table(24, rng))


def drawn(learner: Pretext, batch: Batch) -> tuple:
    """The arguments that a task's loss gets after the encoder: batch, views, one vertex of each graph."""
    [task] = learner.tasks.values()
    # real in every cell
    draws, vertex = generator(1), torch.randint(2, (batch.num_graphs,), generator=generator(2))
    return batch, task.views(batch, len(SPACE.ops), draws), F.one_hot(vertex, batch.ops.shape[1]) > 0


@torch.no_grad()
def loss(learner: Pretext, batch: Batch, views: tuple[View, View], one: torch.Tensor) -> float:
    [task] = learner.tasks.values()
    return task.loss(learner.encoder, batch, views, one).item()


def everywhere(change, batch: Batch, views: tuple[View, View], one: torch.Tensor) -> tuple:
    """The same with change(batch, vertices bool[B, V]) applied to all that is drawn."""
    changed = [View(*change(view.batch, view.masked)) for view in views]
    return change(batch, one)[0], tuple(changed), change(batch, one)[1]


# What the losses do not depend on ---------------------------------------------------------------------------

@every_task
@every_encoder
def test_the_order_of_the_cells_does_not_matter(name, base_model, batch, rng):
    learner, order = pretext(name, base_model), torch.from_numpy(rng.permutation(24))
    given = drawn(learner, batch)
    moved = everywhere(lambda graphs, chosen: (graphs.rows(order), chosen[order]), *given)
    assert loss(learner, *moved) == pytest.approx(loss(learner, *given), rel=1e-4)


@every_task
@every_encoder
def test_the_order_of_the_vertices_does_not_matter(name, base_model, batch, rng):
    learner, order = pretext(name, base_model), torch.from_numpy(rng.permutation(7))

    def reorder(graphs, chosen):
        adj = graphs.adj[:, order][:, :, order]  # [B, V, V]
        ops, node_mask, marks = (field[:, order] for field in (graphs.ops, graphs.node_mask, graphs.marks))
        return Batch(ops, adj, node_mask, marks, relations(adj)), chosen[:, order]

    given = drawn(learner, batch)
    assert loss(learner, *everywhere(reorder, *given)) == pytest.approx(loss(learner, *given), rel=1e-3)


@every_task
@every_encoder
def test_padding_does_not_matter(name, base_model, batch):
    learner = pretext(name, base_model)

    def pad(graphs, chosen):
        adj = F.pad(graphs.adj, (0, 2, 0, 2))  # [B, V + 2, V + 2]
        ops, node_mask, marks, chosen = (F.pad(field, (0, 2)) for field in (
            graphs.ops, graphs.node_mask, graphs.marks, chosen))  # [B, V + 2] each
        return Batch(ops, adj, node_mask, marks, relations(adj)), chosen

    given = drawn(learner, batch)
    assert loss(learner, *everywhere(pad, *given)) == pytest.approx(loss(learner, *given), rel=1e-4)


@pytest.mark.parametrize("name", ["bgrl", "grace", "barlow_twins"])
def test_the_views_may_change_places(name, batch):
    learner = pretext(name)
    graphs, (first, second), one = drawn(learner, batch)
    there, back = (loss(learner, graphs, views, one) for views in ((first, second), (second, first)))
    assert there == pytest.approx(back, rel=1e-4)


@every_task
def test_the_loss_sees_the_views(name, batch):
    """Whichever view shows other cells, the loss is another."""
    learner = pretext(name)
    graphs, (first, second), one = drawn(learner, batch)
    changed = lambda view: View(view.batch.rows(torch.arange(24).roll(1)), view.masked.roll(1, 0))
    seen = {loss(learner, graphs, views, one) for views in
            ((first, second), (changed(first), second), (first, changed(second)))}
    assert len(seen) == 3


@every_task
def test_chance_comes_from_the_generator_alone(name, batch):
    learner = pretext(name)
    with torch.no_grad():
        first, again, other = (learner(batch, None, generator(seed))[name].item() for seed in (1, 1, 2))
    assert first == again != other


@every_task
def test_both_views_take_one_pass(name, batch):
    learner, sizes = pretext(name), []
    learner.encoder.register_forward_hook(lambda module, inputs, h: sizes.append(len(h)))
    learner(batch, None, generator())
    assert sizes == ([24] if name == "mvgrl" else [48])


@every_task
def test_a_batch_of_one_cell_over_and_over_is_no_error(name, batch):
    learner = pretext(name)
    result = learner(batch.rows(torch.zeros(5, dtype=torch.long)), None, generator())[name]
    result.backward()
    assert result.isfinite() and all(p.grad.isfinite().all() for p in learner.encoder.parameters())


# Losses by hand ---------------------------------------------------------------------------------------------

def uncorrelated() -> torch.Tensor:
    """[8, 3]: features of mean 0 and variance 1 without correlation."""
    signs = torch.tensor([1.0, -1.0])
    return torch.cartesian_prod(signs, signs, signs)


def test_equal_uncorrelated_views_are_the_optimum_of_barlow_twins():
    assert redundancy(uncorrelated(), uncorrelated()).item() == pytest.approx(0, abs=1e-10)
    assert redundancy(uncorrelated(), -uncorrelated()).item() == pytest.approx(3 * 4)


def test_redundant_features_cost_a_share_of_their_number():
    """Three equal features: six correlations of 1 off the diagonal, each counted a third."""
    z = uncorrelated()[:, :1].repeat(1, 3)
    assert redundancy(z, z).item() == pytest.approx(6 / 3)


def test_scale_and_shift_of_a_feature_do_not_matter():
    first, second = torch.randn(2, 50, 4, generator=generator()).unbind()
    moved = second * torch.tensor([0.1, 2.0, 30.0, 1.0]) + torch.tensor([5.0, -1.0, 0.0, 2.0])
    assert redundancy(first, moved).item() == pytest.approx(redundancy(first, second).item(), rel=1e-4)


def test_barlow_twins_is_numpys_correlation():
    first, second = torch.randn(2, 50, 4, generator=generator()).unbind()
    c = np.corrcoef(first.numpy(), second.numpy(), rowvar=False)[:4, 4:]
    expected = ((1 - np.diag(c)) ** 2).sum() + ((c - np.diag(np.diag(c))) ** 2).sum() / 4
    assert redundancy(first, second).item() == pytest.approx(expected, rel=1e-4)


def test_jensen_shannon_by_hand():
    score = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    softplus = lambda x: math.log(1 + math.exp(x))
    expected = (softplus(-2) + softplus(-3)) / 2 + (softplus(-1) + softplus(0.5)) / 2
    assert jensen_shannon(score, torch.eye(2) > 0).item() == pytest.approx(expected)
    assert jensen_shannon(torch.zeros(3, 3), torch.eye(3) > 0).item() == pytest.approx(2 * math.log(2))


def test_jensen_shannon_takes_no_negative_that_is_the_same_cell():
    same = torch.tensor([[True, True], [False, True]])
    score = torch.tensor([[0.0, 50.0], [0.0, 0.0]])
    assert jensen_shannon(score, same).item() == pytest.approx(2 * math.log(2))


def test_grace_is_its_formula(batch):
    """Equation 1 of the paper, with a loop over the drawn vertices."""
    batch = batch.rows(slice(6))
    learner = pretext("grace", temperature=0.5)
    graphs, views, one = drawn(learner, batch)
    [task], terms = learner.tasks.values(), []
    with torch.no_grad():
        u, v = (F.normalize(task.project(learner.encoder(*view)[one]), dim=-1)
                for view in views)  # [B, P] each
    for a, b in ((u, v), (v, u)):
        for i in range(6):
            between = [math.exp(a[i] @ b[k] / 0.5) for k in range(6)]
            within = [math.exp(a[i] @ a[k] / 0.5) for k in range(6) if k != i]
            terms.append(-math.log(between[i] / (sum(between) + sum(within))))
    assert loss(learner, graphs, views, one) == pytest.approx(sum(terms) / 12, rel=1e-4)


@pytest.mark.parametrize("name", ["graphcl", "grace"])
def test_a_copy_of_a_cell_is_no_negative(name, batch):
    """So between a cell and its copy there is nothing to tell."""
    def copied(graphs, chosen):
        return graphs.rows(torch.tensor([0, 0])), chosen[[0, 0]]

    learner = pretext(name)
    assert loss(learner, *everywhere(copied, *drawn(learner, batch))) == pytest.approx(0, abs=1e-6)
    assert loss(learner, *drawn(learner, batch)) > 0.1


def test_mvgrl_pairs_a_vertex_with_its_cell_in_the_other_view(batch):
    learner = pretext("mvgrl")
    graphs, (plain, spread), one = drawn(learner, batch)
    [task] = learner.tasks.values()
    with torch.no_grad():
        h, g = learner.encoder(*plain), task.of_diffusion(*spread)  # [B, V, D] each
        of_cell, of_diffusion = learner.encoder.readout(h, batch), task.of_diffusion.readout(g, batch)
        there = task.project_vertex(h[one]) @ task.project_cell(of_diffusion).T  # [B, B]
        back = task.project_vertex(g[one]) @ task.project_cell(of_cell).T  # [B, B]
    own = torch.eye(24) > 0  # no two of these cells are alike
    expected = sum(jensen_shannon(score, own).item() for score in (there, back))
    assert loss(learner, graphs, (plain, spread), one) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(plain.batch.adj, batch.adj) and not torch.equal(spread.batch.adj, batch.adj.float())


# The target of BGRL -----------------------------------------------------------------------------------------

def bgrl(**views) -> tuple[Pretext, BGRL]:
    config = {"base_model": "gat", "width": 8, "layers": 2, "heads": 2, "dropout": 0.0}
    with seeded(0):
        learner = Pretext(build_encoder(config, len(SPACE.ops)), ("bgrl",), {}, views=ViewSettings(**views))
    return learner, learner.tasks["bgrl"]


def test_the_target_gets_no_gradient_and_is_no_matter_of_the_optimiser(batch):
    learner, task = bgrl()
    optimiser = torch.optim.AdamW(learner.parameters(), lr=0.1, weight_decay=0.5)
    before = [p.clone() for p in task.target.parameters()]
    learner(batch, None, generator())["bgrl"].backward()
    optimiser.step()
    assert all(p.grad is None for p in task.target.parameters())
    assert all(map(torch.equal, before, task.target.parameters()))
    assert not any(map(torch.equal, before, learner.encoder.parameters()))


def test_the_target_follows_the_encoder_by_the_formula(batch):
    learner, task = bgrl(target_momentum=0.9, iterations=4)
    online, target = (list(network.parameters()) for network in (learner.encoder, task.target))
    expected = [p.clone() for p in target]
    for k in range(6):
        m = 1 - 0.1 * (math.cos(math.pi * min(k / 4, 1)) + 1) / 2
        expected = [m * old + (1 - m) * new.detach() for old, new in zip(expected, online)]
        learner(batch, None, generator(k))
        assert all(torch.allclose(found, wanted, atol=1e-6) for found, wanted in zip(target, expected))
        for weight in online:
            weight.data += 1.0
    assert task.step == 6


def test_the_target_starts_as_the_encoder_and_stands_still_in_evaluation(batch):
    learner, task = bgrl()
    assert all(map(torch.equal, learner.encoder.parameters(), task.target.parameters()))
    for weight in learner.encoder.parameters():
        weight.data += 1.0
    learner.eval()(batch, None, generator())
    assert task.step == 0
    assert not any(map(torch.equal, learner.encoder.parameters(), task.target.parameters()))


def test_the_target_and_its_clock_are_part_of_the_state(batch):
    learner, task = bgrl(iterations=5)
    for _ in range(3):
        learner(batch, None, generator())
        for weight in learner.encoder.parameters():
            weight.data += 1.0
    other, copied = bgrl(iterations=5)
    other.load_state_dict(learner.state_dict())
    assert copied.step == 3 and all(map(torch.equal, copied.target.parameters(), task.target.parameters()))


def test_a_prediction_that_is_right_costs_nothing(batch):
    """Without augmentation both networks see the same; scale does not matter to a cosine."""
    learner, task = bgrl(edge_drop=0.0, feature_mask=0.0)
    task.predict = torch.nn.Identity()
    assert learner(batch, None, generator())["bgrl"].item() == pytest.approx(0, abs=1e-5)
    task.predict = torch.nn.Threshold(math.inf, 1.0)
    h = task.target(batch)[batch.node_mask]  # [N, D]
    cosine = h.sum(-1) / h.norm(dim=-1) / h.shape[-1] ** 0.5  # [N]
    expected = 2 - 2 * cosine.mean().item()
    assert learner(batch, None, generator())["bgrl"].item() == pytest.approx(expected, rel=1e-4)


# Learning, and pretrain.py ----------------------------------------------------------------------------------

@every_task
@pytest.mark.parametrize("base_model", ["gat", "gcn"])
def test_the_loss_falls(name, base_model, rng):
    """The graph transformer's does too: tests/test_pretext.py."""
    table, draws, losses = Batch.of(SPACE.table(256, rng)), generator(), []
    with seeded(0):
        config = {"base_model": base_model, "width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
        views = ViewSettings(0.1, 0.1, iterations=60)
        learner = Pretext(build_encoder(config, len(SPACE.ops)), (name,), {}, views=views)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=5e-3)
    for _ in range(60):
        value = total(learner(table.rows(torch.randint(256, (64,), generator=draws)), None, draws))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


TINY = ["--width", "8", "--layers", "1", "--heads", "2", "--iterations", "4", "--batch_size", "16",
        "--archs", "40", "--lr", "0.01", "--no-tensorboard", "--device", "cpu", "--threads", "1"]


def run(folder, *flags: str) -> dict:
    """The checkpoint that a run with these flags leaves."""
    pretrain.main(["--save", str(folder), *TINY, *flags])
    return torch.load(folder / "last.pt", weights_only=True)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])


@pytest.mark.parametrize("name", MODEL_TYPES)
@pytest.mark.parametrize("flags", [(), ("--param", "local:params/pretrain_nasbench101.json")],
                         ids=["ours", "the paper's"])
def test_every_model_type_pretrains_what_finetune_reads(tmp_path, name, flags):
    content = run(tmp_path, "--space", "nasbench101", *flags, "--model_type", name)
    logged = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert f"loss_{MODEL_TYPES[name]}" in logged and content["config"]["model_type"] == name
    checkpoint = load_encoder(str(tmp_path / "last.pt"), SPACE)
    assert checkpoint["encoder"]["base_model"] == ("gat" if flags else "transformer")
    [predictor] = new_networks(PredictorRecipe(), len(SPACE.ops), checkpoint, [0])
    assert all(torch.equal(value, content["weights"][key])
               for key, value in predictor.encoder.state_dict().items())


def test_a_model_type_overrides_the_tasks_and_mae_is_mask(tmp_path):
    mae = run(tmp_path / "a", "--tasks", "flow,contrast", "--model_type", "mae")
    assert same(mae, run(tmp_path / "b", "--tasks", "mask"))
    assert set(MODEL_TYPES.values()) < set(TASKS)


def test_mvgrl_with_an_encoder_that_does_not_tell_directions(tmp_path):
    """Diffusion weights are no integers."""
    assert run(tmp_path, "--model_type", "mvgrl", "--no-direction")["step"] == 4


def test_an_unknown_model_type(tmp_path):
    with pytest.raises(InputError, match="model_type must be one of .*mae, graphcl.*not 'dgi'"):
        run(tmp_path, "--model_type", "dgi")


@pytest.mark.parametrize("name, setting", [
    ("graphcl", "edge_drop 0.7"), ("graphcl", "feature_mask 0.7"), ("graphcl", "node_drop 0.5"),
    ("graphcl", "temperature 1"), ("mvgrl", "teleport 0.6"), ("bgrl", "target_momentum 0.5"),
    ("grace", "temperature 1"), ("grace", "edge_drop 0.7"), ("barlow_twins", "feature_mask 0.7")])
def test_a_setting_reaches_the_weights(tmp_path, name, setting):
    default = run(tmp_path / "a", "--model_type", name)
    assert not same(run(tmp_path / "b", "--model_type", name, *f"--{setting}".split()), default)
