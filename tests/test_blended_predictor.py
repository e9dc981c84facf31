"""A blended predictor gives both scores their share, in memory and on disk; few labels move a pre-trained
encoder little."""
from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

import finetune
import pretrain
import spaces
from models.checkpoint import load_encoder
from models.predictor.background import reference_cells
from models.predictor.blend import MOST, SHIFTED, BlendedPredictor
from models.predictor.file import load_predictor, save_predictor
from models.predictor.fit import (
    Examples,
    PredictorRecipe,
    encoder_of,
    fit_ensemble,
    fit_predictor,
    new_networks,
    score_cells,
    score_ensemble,
)
from models.predictor.gaussian_process import LINEAR, PLACES
from runtime.checkpoint import save_checkpoint
from toys.cells import CELLS, KEYS, SPACE, toy

FLAGS = ["--width", "16", "--layers", "1", "--heads", "2", "--threads", "1", "--device", "cpu"]
TINY = {"width": 16, "layers": 1, "heads": 2, "epochs": 3, "members": 2}
RECIPE = PredictorRecipe(**TINY, kernel_share=0.5)
SEEDS = [0, 1]
TABLE, ROWS, LABEL, TRUTH = toy()
EXAMPLES = Examples(TABLE, ROWS, LABEL, SEEDS)


@pytest.fixture(scope="module")
def last(tmp_path_factory) -> str:
    """A checkpoint of pretrain.py."""
    folder = tmp_path_factory.mktemp("pretrained")
    short = ["--tasks", "mask", "--iterations", "3", "--batch_size", "16", "--archs", "50"]
    pretrain.main([*FLAGS, *short, "--no-tensorboard", "--save", str(folder)])
    return str(folder / "last.pt")


@pytest.fixture(scope="module", params=["scratch", "pre-trained"])
def checkpoint(request, last) -> dict | None:
    return load_encoder(last, SPACE) if request.param == "pre-trained" else None


@pytest.fixture(scope="module")
def blend(checkpoint) -> BlendedPredictor:
    """Of the ensemble and the process, in equal shares."""
    return fit_predictor(RECIPE, SPACE.vocabulary, checkpoint, EXAMPLES)


def test_the_process_counts_more_for_few_labels_of_another_kind():
    """As much as otherwise for a seed whose cells do not differ."""
    recipe = PredictorRecipe(**TINY, kernel_share=0.25)
    blend = fit_predictor(recipe, SPACE.vocabulary, None, EXAMPLES)
    blend.process.size[:, blend.process.kernels.index(PLACES)] = 0.0
    own, other = (part.clone() for part in blend.both_scores(TABLE))  # [S, N] each
    n = ROWS.shape[1]
    blend.process.shifts = [0.0, 0.5 * n / SHIFTED]
    some = reference_cells(TABLE)
    usual = blend.fit_scale(TABLE)(TABLE)  # [S, N]
    for seed, share in enumerate([blend.share, 0.5]):
        parts = [(x - y.mean()) / y.std() for x, y in zip((own, other), blend.both_scores(some)[:, seed])]
        expected = (1 - share) * parts[0][seed] + share * parts[1][seed]
        assert torch.allclose(usual[seed], expected, atol=1e-4)
    blend.process.shifts = [1.0, 1.0]
    assert blend.shares(blend.both_scores(some)).tolist() == pytest.approx([min(MOST, SHIFTED / n)] * 2)


def at(blend: BlendedPredictor, share: float) -> np.ndarray:
    """[S, N]: the scores at another share."""
    own, blend.share = blend.share, share
    scores = score_cells(blend, TABLE)
    blend.share = own
    return scores


def both(blend: BlendedPredictor) -> tuple[np.ndarray, np.ndarray]:
    """[S, N] each: the scores of the ensemble and of the process, by themselves."""
    own = score_ensemble(blend.ensemble, TABLE).reshape(len(SEEDS), RECIPE.members, -1).mean(1)
    constant, slope = blend.offset.numpy()[..., None]  # [S, 1] each
    own = own + constant + slope * blend.background.offset(TABLE).numpy()
    return own, blend.process(blend.background(TABLE)).numpy()


# The share --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_score_is_the_share_of_both(blend, share):
    """All 300 cells are the reference, over which each score has mean 0 and variance 1."""
    own, other = ((x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True) for x in both(blend))
    meant = blend.shares(blend.both_scores(TABLE)).numpy()[:, None]  # [S, 1], where `share` is the recipe's
    for_own, for_other = (1 - meant) / (1 - RECIPE.kernel_share), meant / RECIPE.kernel_share
    assert at(blend, share) == pytest.approx(
        (1 - share) * for_own * own + share * for_other * other, abs=1e-3)


def shares(blend: BlendedPredictor, agree: float, foresight: float, placed: float) -> list[float]:
    """The shares if networks and process agree so far, and the process foresees its labels so well."""
    process = copy.deepcopy(blend.process)
    process.foresight = lambda: [foresight] * len(SEEDS)
    gaussian = [name for name in process.kernels if name not in LINEAR]
    for name in process.kernels:
        others = (1 - placed) / (len(gaussian) - 1) if name in gaussian else 5.0
        process.size[:, process.kernels.index(name)] = placed if name == PLACES else others
    changed = BlendedPredictor(blend.ensemble, len(SEEDS), blend.background, process, blend.share)
    one, other = np.random.default_rng(0).permuted(np.tile(np.arange(4000.0), (2, 1)), axis=1)
    both = torch.tensor(np.stack([one, agree * one + (1 - agree**2) ** 0.5 * other]))  # [2, R]
    return changed.shares(both[:, None].expand(2, len(SEEDS), -1)).tolist()


@pytest.mark.parametrize("agree, foresight, placed, share", [
    (0.8, 0.9, 0.0, 0.5), (0.8, 0.9, 0.5, 0.75), (0.8, 0.9, 0.99, MOST), (0.8, 0.7, 0.5, 0.625),
    (0.8, 0.5, 0.5, 0.5), (1.0, 0.9, 0.5, 0.5), (0.8, -0.1, 0.5, 0.5)])
def test_what_networks_do_not_see_is_the_process_s(blend, agree, foresight, placed, share):
    assert shares(blend, agree, foresight, placed) == pytest.approx([share] * len(SEEDS), abs=0.02)


def test_a_label_that_depends_on_places_alone_shows_in_the_share():
    conv = SPACE.ops.index("nor_conv_3x3")
    at_one_place = (TABLE.ops[:, 1] == conv).numpy()  # [N]
    everywhere = (TABLE.ops == conv).sum(1).numpy()
    placed = []
    for truth in (at_one_place, everywhere):
        label = truth[ROWS] + 0.01 * np.random.default_rng(0).normal(size=ROWS.shape)
        examples = Examples(TABLE, ROWS, label, SEEDS)
        recipe = dataclasses.replace(RECIPE, kernel_share=1.0)
        placed.append(fit_predictor(recipe, SPACE.vocabulary, None, examples).process.placed)
    assert (placed[0] > 2 * placed[1]).all(), placed


def test_without_a_share_there_is_no_process(checkpoint):
    """The ensemble is the same one, and it alone ranks."""
    recipes = [dataclasses.replace(RECIPE, kernel_share=share, prior="") for share in (0.0, 0.5)]
    alone, beside = (fit_predictor(recipe, SPACE.vocabulary, checkpoint, EXAMPLES) for recipe in recipes)
    assert alone.process is None
    own = score_ensemble(beside.ensemble, TABLE).reshape(len(SEEDS), RECIPE.members, -1).mean(1)
    assert score_cells(alone, TABLE) == pytest.approx(own, abs=1e-5)


def test_without_a_fitted_scale_the_scores_are_added_as_they_are(blend):
    fresh = BlendedPredictor(blend.ensemble, len(SEEDS), blend.background, blend.process, 0.25)
    fresh.offset = blend.offset
    own, other = both(blend)
    assert score_cells(fresh, TABLE) == pytest.approx(0.75 * own + 0.25 * other, abs=1e-4)


def test_the_process_reads_the_encoder_that_no_label_has_moved(blend, checkpoint):
    assert (blend.background.encoder is None) == (checkpoint is None)
    if checkpoint:
        assert all(torch.equal(value, checkpoint["weights"][name])
                   for name, value in blend.background.encoder.state_dict().items())
        assert "embedding" in blend.process.sizes


def test_the_scale_is_measured_on_the_table_and_in_chunks(blend, monkeypatch):
    """On the reference cells alone, whichever carry the labels."""
    scale = blend.scale
    monkeypatch.setattr("models.batch.PIECE", 5 * SPACE.max_vertices)
    assert torch.allclose(blend.fit_scale(TABLE).scale, scale, atol=1e-4)
    monkeypatch.setattr("models.predictor.background.REFERENCE", 10)
    some = TABLE.rows(torch.linspace(0, CELLS - 1, 10).long())
    few = blend.fit_scale(TABLE).scale  # [2, 2, S]
    assert not torch.allclose(few, scale, atol=1e-4)
    assert torch.allclose(few, blend.fit_scale(some).scale, atol=1e-4)
    blend.scale = scale


def test_labels_of_one_seed_do_not_reach_another(checkpoint):
    """Neither its members, nor its process, nor its scale."""
    other = LABEL.copy()
    other[1] = LABEL[1, ::-1]
    recipe = dataclasses.replace(RECIPE, dropout=0.0)
    blends = (fit_predictor(recipe, SPACE.vocabulary, checkpoint, EXAMPLES._replace(label=label))
              for label in (LABEL, other))
    before, after = (score_cells(blend, TABLE) for blend in blends)  # [S, N] each
    assert before[0] == pytest.approx(after[0], abs=1e-5) and np.abs(before[1] - after[1]).max() > 0.1


def test_scoring_in_chunks_and_of_some_rows(blend, monkeypatch):
    scores = score_cells(blend, TABLE)
    assert scores.shape == (len(SEEDS), CELLS)
    monkeypatch.setattr("models.batch.PIECE", 5 * SPACE.max_vertices)  # less than a graph for each network
    assert score_cells(blend, TABLE) == pytest.approx(scores, abs=1e-4)
    rows = np.array([5, 3, 3])
    assert score_cells(blend, TABLE, rows) == pytest.approx(scores[:, rows], abs=1e-4)


# On disk ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_stored_predictor_scores_as_the_one_in_memory(tmp_path, checkpoint, share, capsys):
    """Loaded, and by --score, which takes the mean over the seeds."""
    config = finetune.Config(**TINY, kernel_share=share)
    blend = fit_predictor(config, SPACE.vocabulary, checkpoint, EXAMPLES)
    path, text = tmp_path / "predictor.pt", tmp_path / "cells.txt"
    save_predictor(path, [blend], checkpoint, space=SPACE.name, cell_marks=True, ops=list(SPACE.ops),
                   encoder=encoder_of(config, checkpoint))
    scores = score_cells(blend, TABLE)  # [S, N]
    loaded = load_predictor(str(path), spaces.stored)[2]
    assert np.array_equal(score_cells(loaded, TABLE), scores)
    cells = np.argsort(scores.mean(0))[::20]  # [15], the worst first, with gaps that rounding does not close
    text.write_text("\n".join(KEYS[cell] for cell in cells))
    finetune.main([*FLAGS, "--score", str(text), "--predictor", str(path)])
    printed = capsys.readouterr().out
    assert sorted((KEYS[cell] for cell in cells), key=printed.index) == [KEYS[cell] for cell in cells[::-1]]


def test_a_predictor_without_process_and_seeds_is_one_ensemble(tmp_path, blend):
    """As finetune.py wrote it before there was a Gaussian process."""
    path = tmp_path / "predictor.pt"
    encoder = encoder_of(RECIPE, None)
    save_checkpoint(path, space="nasbench201", ops=list(SPACE.ops), encoder=encoder,
                    weights=[blend.ensemble.member(i) for i in range(4)])
    expected = score_ensemble(blend.ensemble, TABLE).mean(0)  # [N]
    _, _, loaded = load_predictor(str(path), spaces.stored)
    assert score_cells(loaded, TABLE)[0] == pytest.approx(expected, abs=1e-5)


def test_the_share_is_a_setting_of_finetune(tmp_path):
    """It changes the ranking and no weight, and the result names it beside the members."""
    accuracy = 80 + TRUTH + np.random.default_rng(1).normal(size=CELLS)  # [N]
    rows = (f"{key},{value:.4f},{value:.4f}" for key, value in zip(KEYS, accuracy))
    (tmp_path / "labels.csv").write_text("\n".join(["arch,val_accuracy,test_accuracy", *rows]) + "\n")
    flags = [*FLAGS, "--labels", str(tmp_path / "labels.csv"),
             "--epochs", "2", "--members", "2", "--seeds", "0,1", "--finetune_train_samples", "30",
             "--prior", ""]
    results, weights = [], []
    for share in ("0", "0.2", "0.9"):
        finetune.main([*flags, "--save", str(tmp_path / share), "--kernel_share", share])
        results.append(json.loads((tmp_path / share / "result.json").read_text()))
        weights.append(torch.load(tmp_path / share / "predictor.pt", weights_only=True)["weights"])
    assert [result["members"] for result in results] == [2, 2, 2]
    assert [result["kernel_share"] for result in results] == [0.0, 0.2, 0.9]
    assert len({tuple(result["tau"]) for result in results}) == 3
    for others in weights[1:]:
        assert all(torch.equal(a[name], b[name]) for a, b in zip(weights[0], others, strict=True)
                   for name in a)
    # two epochs teach the ensemble little, the process needs none
    assert results[2]["tau_mean"] > results[0]["tau_mean"]


# Gentle fine-tuning -----------------------------------------------------------------------------------------

def movement(checkpoint: dict | None, gentle_below: int, **settings) -> float:
    """How far 60 labels move the encoder."""
    recipe = dataclasses.replace(RECIPE, dropout=0.0, gentle_below=gentle_below, **settings)
    networks = new_networks(recipe, len(SPACE.ops), checkpoint, [0])
    before = networks[0].encoder.state_dict()
    after = fit_ensemble(recipe, networks, Examples(TABLE, ROWS[:1], LABEL[:1], [0])).member(0)
    return sum((after[f"encoder.{name}"] - value).abs().sum().item() for name, value in before.items())


def test_few_labels_move_a_pretrained_encoder_less(last):
    pretrained = load_encoder(last, SPACE)
    always, never = movement(pretrained, 6000), movement(pretrained, 0)
    assert 0 < always < 0.5 * never
    assert always == movement(pretrained, 0, lr_encoder=RECIPE.lr_encoder * 0.1)  # sqrt(60 / 6000)
    assert never == movement(pretrained, 60) == movement(pretrained, 30)


def test_an_encoder_from_scratch_is_never_spared():
    assert movement(None, 6000) == movement(None, 0) > 0


def test_no_learning_rate_freezes_a_pretrained_encoder_at_any_gentleness(last):
    pretrained = load_encoder(last, SPACE)
    assert movement(pretrained, 0, lr_encoder=0.0) == movement(pretrained, 6000, lr_encoder=0.0) == 0
