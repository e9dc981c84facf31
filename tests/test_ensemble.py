"""An ensemble is its members side by side, which never mix, in training too; Child-Tuning keeps its share."""
import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import spaces
from models.batch import Batch
from models.encoders import ENCODERS, build_encoder
from models.predictor.child_tuning import ChildTuning
from models.predictor.ensemble import AdamW, Ensemble, Flat, clip_gradients
from models.predictor.fit import Examples, PredictorRecipe, fit_ensemble, new_networks, score_ensemble, steps
from models.predictor.losses import LOSSES
from models.predictor.network import PredictorNetwork
from runtime.seeding import seeded

SPACE = spaces.get("nasbench201")


def members(count: int, name: str = "transformer", dropout: float = 0.0) -> list[PredictorNetwork]:
    config = {"base_model": name, "width": 16, "layers": 2, "heads": 4, "dropout": dropout}
    networks = []
    for seed in range(count):
        with seeded(seed):
            networks.append(PredictorNetwork(build_encoder(config, len(SPACE.ops)), dropout))
    return networks


@pytest.fixture
def batches(rng) -> list[Batch]:
    """Three batches of five graphs."""
    return [Batch.of(SPACE.table(5, rng)) for _ in range(3)]


def stack(batches: list[Batch]) -> Batch:
    """Fields [M, B, ...]."""
    return Batch(*map(torch.stack, zip(*batches)))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


# Members ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("method", ["forward", "embed"])
@pytest.mark.parametrize("count", [1, 3])  # one alone takes another path
def test_an_ensemble_is_its_members_one_by_one(name, method, count, batches):
    networks, batches = members(count, name), batches[:count]
    together = Ensemble(networks).eval()(stack(batches), method=method)  # [M, B, ...]
    for output, network, batch in zip(together, networks, batches, strict=True):
        assert close(output, getattr(network.eval(), method)(batch))


def test_one_batch_for_all_members(batches):
    networks = members(3)
    scores = Ensemble(networks).eval()(batches[0].expand(3))  # [M, B]
    assert close(scores, torch.stack([network.eval()(batches[0]) for network in networks]))


def test_a_member_can_be_taken_out_again():
    networks = members(2)
    state, original = Ensemble(networks).member(1), networks[1].state_dict()
    assert state.keys() == original.keys() and all(torch.equal(state[name], original[name]) for name in state)


def test_a_member_that_was_taken_out_stays_as_it_was():
    ensemble = Ensemble(members(2))
    state = ensemble.member(1)
    before = {name: value.clone() for name, value in state.items()}
    with torch.no_grad():
        for p in ensemble.params.values():
            p += 1
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_training_an_ensemble_leaves_the_networks_it_came_from_alone(batches):
    networks = members(1)
    before = {name: value.clone() for name, value in networks[0].state_dict().items()}
    ensemble = Ensemble(networks)
    with torch.no_grad():
        for p in ensemble.params.values():
            p += 1
    assert all(torch.equal(value, before[name]) for name, value in networks[0].state_dict().items())


def test_gradients_are_those_of_the_members_alone(batches):
    networks = members(3)
    ensemble = Ensemble(networks)
    (ensemble(stack(batches)) ** 2).sum().backward()
    for i, (network, batch) in enumerate(zip(networks, batches)):
        (network(batch) ** 2).sum().backward()
        for name, p in network.named_parameters():
            assert close(ensemble.params[name].grad[i], p.grad), name


def test_dropout_is_drawn_per_member_and_in_training_only(batches):
    twins = Ensemble(members(1, dropout=0.5) * 2)
    first, second = twins.train()(batches[0].expand(2))
    assert not close(first, second)
    first, second = twins.eval()(batches[0].expand(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_head_drops_entries_whatever_the_encoder(name, batches):
    networks = members(2, name)
    twins = Ensemble([PredictorNetwork(networks[0].encoder, dropout=0.5)] * 2).train()
    first, second = twins(batches[0].expand(2))
    assert not close(first, second)


def test_each_member_is_clipped_alone():
    """Two members with large gradients and one with a small one, which stays as it is."""
    before = [torch.randn(3, size) * torch.tensor([1e3, 1e-3, 30.0])[:, None] for size in (7, 40)]
    after = [grad.clone() for grad in before]
    clip_gradients(after, 5.0)
    norms = torch.cat(before, dim=1).norm(dim=1)  # [M]
    assert norms[0] > 5 and norms[1] < 5 < norms[2], "the case that this test is about"
    for i in range(3):
        alone = [torch.nn.Parameter(grad[i].clone()) for grad in before]
        for p in alone:
            p.grad = p.detach().clone()
        clip_grad_norm_(alone, 5.0)
        assert all(close(grad[i], p.grad) for grad, p in zip(after, alone))
    assert all(torch.equal(one[1], other[1]) for one, other in zip(before, after))


def test_parameters_and_gradients_of_a_flat_are_those_of_the_ensemble(batches):
    ensemble, other = Ensemble(members(3)), Ensemble(members(3))
    flat = Flat(list(ensemble.params.values()))
    for each in (ensemble, other):
        (each(stack(batches)) ** 2).sum().backward()
    assert close(flat.value, torch.cat([p.flatten(1) for p in other.params.values()], dim=1))
    assert close(flat.value.grad, torch.cat([p.grad.flatten(1) for p in other.params.values()], dim=1))
    with torch.no_grad():
        flat.value.zero_()
    assert not any(p.any() for p in ensemble.params.values())


def test_the_optimiser_makes_the_steps_of_torchs():
    start = [torch.randn(2, n) for n in (5, 9)]
    ours = AdamW([(Flat([torch.nn.Parameter(p.clone())]), peak) for p, peak in zip(start, (2e-3, 1e-2))], 0.1)
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    reference = torch.optim.AdamW([{"params": [p]} for p in theirs], weight_decay=0.1, fused=True)
    for factor in (0.1, 1.0, 0.5):
        for group, peak, grad, p in zip(reference.param_groups, (2e-3, 1e-2), ours.grads, theirs):
            group["lr"] = factor * peak
            p.grad = torch.randn(p.shape)
            grad.copy_(p.grad)
        ours.step(factor)
        reference.step()
    for p, q, r in zip(ours.params, theirs, start, strict=True):
        assert torch.equal(p, q) and not torch.equal(p, r)


# Child-Tuning -----------------------------------------------------------------------------------------------

def encoder_gradients(ensemble: Ensemble) -> torch.Tensor:
    """[M, E]: all entries of the encoders' gradients."""
    grads = [p.grad.flatten(1) for name, p in ensemble.params.items() if name.startswith("encoder.")]
    return torch.cat(grads, dim=1)


def ones(ensemble: Ensemble) -> None:
    for p in ensemble.params.values():
        p.grad = torch.ones_like(p)


def masked(child: ChildTuning, ensemble: Ensemble) -> torch.Tensor:
    """[M, E]: what is left of a gradient of ones."""
    ones(ensemble)
    child.mask(ensemble)
    assert all((p.grad == 1).all() for name, p in ensemble.params.items() if name.startswith("head."))
    return encoder_gradients(ensemble)


def linear_losses(ensemble: Ensemble, count: int,
                  generator: torch.Generator) -> tuple[list, list[torch.Tensor]]:
    """Sums of the parameters times random numbers as losses, and their gradients, [M, E] each."""
    losses, gradients = [], []
    for _ in range(count):
        factors = {name: torch.randn(p.shape, generator=generator) for name, p in ensemble.params.items()}
        losses.append(lambda factors=factors: sum((ensemble.params[name] * f).sum()
                                                  for name, f in factors.items()))
        of_encoder = [f.flatten(1) for name, f in factors.items() if name.startswith("encoder.")]
        gradients.append(torch.cat(of_encoder, dim=1))
    return losses, gradients


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_mode_f_keeps_about_p_and_scales_the_rest_up(p):
    ensemble = Ensemble(members(2))
    left = masked(ChildTuning("F", p, generators(2)), ensemble)
    kept, deviation = left != 0, (p * (1 - p) / left.shape[1]) ** 0.5
    assert torch.allclose(left[kept], torch.tensor(1 / p))
    assert (kept.double().mean(1) - p).abs().max() < 4 * deviation


def test_mode_f_draws_anew_for_each_member_and_step():
    ensemble, child = Ensemble(members(2)), ChildTuning("F", 0.5, generators(2))
    first, second = masked(child, ensemble), masked(child, ensemble)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0001, 0.3, 0.8])
def test_mode_d_keeps_the_entries_of_largest_fisher_information(p):
    ensemble, generator = Ensemble(members(2)), torch.Generator().manual_seed(0)
    child = ChildTuning("D", p, [generator])
    losses, gradients = linear_losses(ensemble, 3, generator)
    child.measure(ensemble, losses)
    kept = masked(child, ensemble)  # [M, E]
    fisher = sum(gradient**2 for gradient in gradients)  # [M, E]
    count = max(1, round(p * fisher.shape[1]))
    assert kept.sum(1).tolist() == [count, count]
    for member in range(2):
        largest = fisher[member].topk(count).indices.tolist()
        assert kept[member].nonzero().flatten().tolist() == sorted(largest)


def test_mode_d_keeps_the_same_entries_at_every_step():
    ensemble, generator = Ensemble(members(1)), torch.Generator().manual_seed(0)
    child = ChildTuning("D", 0.3, [generator])
    child.measure(ensemble, linear_losses(ensemble, 1, generator)[0])
    assert torch.equal(masked(child, ensemble), masked(child, ensemble))


def test_measuring_leaves_no_gradient_behind():
    ensemble, generator = Ensemble(members(1)), torch.Generator().manual_seed(0)
    before = ensemble.member(0)
    ChildTuning("D", 0.3, [generator]).measure(ensemble, linear_losses(ensemble, 2, generator)[0])
    assert all(p.grad is None or not p.grad.any() for p in ensemble.params.values())
    assert all(torch.equal(value, before[name]) for name, value in ensemble.member(0).items())


@pytest.mark.parametrize("mode", ["F", "D"])
def test_p_of_one_changes_nothing(mode):
    ensemble, generator = Ensemble(members(1)), torch.Generator().manual_seed(0)
    child = ChildTuning(mode, 1.0, [generator])
    child.measure(ensemble, linear_losses(ensemble, 1, generator)[0])
    assert (masked(child, ensemble) == 1).all()


# Training ---------------------------------------------------------------------------------------------------

TABLE = Batch.of(SPACE.table(60, np.random.default_rng(0)))
LABEL = np.random.default_rng(1).normal(90, 3, (2, 32))  # [M, n], of the first 32 graphs for both members


def recipe(**settings) -> PredictorRecipe:
    return PredictorRecipe(**{"width": 16, "layers": 1, "heads": 2, "epochs": 4, "dropout": 0.0, **settings})


def fit(label: np.ndarray, **settings) -> tuple[list[dict], list[dict]]:
    """The weights of two members before and after."""
    networks = new_networks(recipe(**settings), len(SPACE.ops), None, [0, 1])
    rows = np.tile(np.arange(label.shape[1]), (2, 1))  # [M, n]
    ensemble = fit_ensemble(recipe(**settings), networks, Examples(TABLE, rows, label, [0, 1]))
    return [Ensemble(networks).member(i) for i in range(2)], [ensemble.member(i) for i in range(2)]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", [
    {}, {"finetune_fixed_encoder": True}, {"loss": "mse"}, {"child_tuning_p": 0.5},
    {"child_tuning_p": 0.5, "child_tuning_mode": "D"}], ids=str)
def test_labels_of_one_member_do_not_reach_another(settings):
    other = LABEL.copy()
    other[0] = 1000 * LABEL[0, ::-1]
    (_, before), (_, after) = fit(LABEL, **settings), fit(other, **settings)
    assert same(before[1], after[1]) and not same(before[0], after[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_unit_of_the_labels_does_not_matter(loss):
    # a power of two rounds nothing
    (_, percent), (_, other) = fit(LABEL, loss=loss), fit(LABEL / 128, loss=loss)
    assert all(map(same, percent, other))


def test_child_tuning_d_moves_its_share_of_the_encoder_and_the_whole_head():
    """Without weight decay, which is no gradient and moves every entry."""
    for before, after in zip(*fit(LABEL, child_tuning_mode="D", child_tuning_p=0.2, weight_decay=0.0)):
        moved = {name: before[name] != after[name] for name in before}
        encoder = torch.cat([moved[name].flatten() for name in moved if name.startswith("encoder.")])  # [E]
        assert encoder.sum() == round(0.2 * len(encoder))
        assert all(entries.any() for name, entries in moved.items() if name.startswith("head."))


def test_gradients_are_clipped_at_every_step(monkeypatch):
    """No step of AdamW shows the size of a gradient, so what it sees is looked at."""
    seen, step = [], AdamW.step

    def look(self, factor):
        seen.append(torch.cat(self.grads, dim=1).norm(dim=1))  # [M, P] -> [M]
        return step(self, factor)

    monkeypatch.setattr(AdamW, "step", look)
    monkeypatch.setitem(LOSSES, "mse", lambda score, label: 1e4 * (score - label).square().mean(-1))
    fit(LABEL, loss="mse")
    assert len(seen) == steps(recipe(), 32)
    assert torch.allclose(torch.stack(seen), torch.tensor(5.0), rtol=1e-3)


@pytest.mark.parametrize("n, batch_size", [(32, 0), (32, 10), (7, 3), (5, 100), (9, 1)])
def test_every_step_is_reported(n, batch_size):
    calls, settings = [], recipe(finetune_batch_size=batch_size, epochs=3)
    networks = new_networks(settings, len(SPACE.ops), None, [0])
    examples = Examples(TABLE, np.arange(n)[None], LABEL[:1, :n], [0])
    fit_ensemble(settings, networks, examples, lambda: calls.append(1))
    assert len(calls) == steps(settings, n) > 0


def test_scoring_is_done_without_dropout_and_in_pieces(monkeypatch):
    ensemble = Ensemble(members(2, dropout=0.5)).train()
    scores = score_ensemble(ensemble, TABLE)
    assert scores.shape == (2, 60)
    monkeypatch.setattr("models.batch.PIECE", 14 * SPACE.max_vertices)
    assert np.allclose(scores, score_ensemble(ensemble, TABLE), atol=1e-5)
    rows = np.array([5, 3, 3])
    assert np.allclose(score_ensemble(ensemble, TABLE, rows), scores[:, rows], atol=1e-5)
