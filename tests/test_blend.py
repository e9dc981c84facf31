"""The blend is the share of both opinions, in memory and on disk; few labels move a pre-trained encoder gently."""
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import finetune
import pretrain
import runtime
from models.blend import Blend
from models.kernel import views
from toy_cells import CELLS, KEYS, SPACE, toy

FLAGS = "--width 16 --layers 1 --heads 2 --threads 1 --device cpu".split()
TINY = {"width": 16, "layers": 1, "heads": 2, "epochs": 3, "members": 2}
RECIPE = finetune.Recipe(**TINY)
SEEDS = [0, 1]
TABLE, ROWS, LABEL, TRUTH = toy()
EXAMPLES = finetune.Examples(TABLE, ROWS, LABEL, SEEDS)


@pytest.fixture(scope="module")
def last(tmp_path_factory) -> str:
    """A checkpoint of pretrain.py."""
    folder = tmp_path_factory.mktemp("pretrained")
    short = "--tasks mask --iterations 3 --batch_size 16 --archs 50 --no-tensorboard".split()
    pretrain.main([*FLAGS, *short, "--save", str(folder)])
    return str(folder / "last.pt")


@pytest.fixture(scope="module", params=["scratch", "pre-trained"])
def checkpoint(request, last) -> dict | None:
    return runtime.load_encoder(last, SPACE) if request.param == "pre-trained" else None


@pytest.fixture(scope="module")
def blend(checkpoint) -> Blend:
    """Of the ensemble and the kernel, in equal shares."""
    return finetune.fit_blend(RECIPE, 0.5, SPACE.ops, checkpoint, EXAMPLES)


def at(blend: Blend, share: float) -> np.ndarray:
    """[S, N]: the scores at another share."""
    own, blend.share = blend.share, share
    scores = finetune.score_blend(blend, TABLE)
    blend.share = own
    return scores


def both(blend: Blend) -> tuple[np.ndarray, np.ndarray]:
    """[S, N] each: what the ensemble and the kernel say, by themselves."""
    own = finetune.score(blend.ensemble, TABLE).reshape(len(SEEDS), RECIPE.members, -1).mean(1)
    return own, blend.kernel(views(blend.encoder, TABLE, SPACE.ops)).numpy()


# The share ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_score_is_the_share_of_both(blend, share):
    """All 300 cells are the reference, over which each opinion has mean 0 and variance 1."""
    own, other = ((x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True) for x in both(blend))
    assert at(blend, share) == pytest.approx((1 - share) * own + share * other, abs=1e-3)


def test_without_a_share_there_is_no_kernel(checkpoint, blend):
    """The ensemble is the same one, and it alone ranks."""
    alone = finetune.fit_blend(RECIPE, 0.0, SPACE.ops, checkpoint, EXAMPLES)
    assert alone.kernel is None
    assert finetune.score_blend(alone, TABLE) == pytest.approx(both(blend)[0], abs=1e-5)


def test_a_blend_that_is_not_settled_adds_the_opinions_as_they_are(blend):
    fresh = Blend(blend.ensemble, len(SEEDS), blend.kernel, 0.25, blend.encoder, SPACE.ops)
    own, other = both(blend)
    assert finetune.score_blend(fresh, TABLE) == pytest.approx(0.75 * own + 0.25 * other, abs=1e-4)


def test_the_kernel_reads_the_encoder_that_no_label_has_moved(blend, checkpoint):
    assert (blend.encoder is None) == (checkpoint is None)
    if checkpoint:
        assert all(torch.equal(value, checkpoint["weights"][name]) for name, value in blend.encoder.state_dict().items())
        assert len(blend.kernel.sizes) == 2


def test_the_level_is_measured_on_the_table_and_in_chunks(blend, monkeypatch):
    """On the reference cells alone, whichever carry the labels."""
    level = blend.level
    assert torch.allclose(blend.settle(TABLE, chunk=30).level, level, atol=1e-4)
    monkeypatch.setattr("models.kernel.REFERENCE", 10)
    some = TABLE.rows(torch.linspace(0, CELLS - 1, 10).long())
    few = blend.settle(TABLE).level  # [2, 2, S]
    assert not torch.allclose(few, level, atol=1e-4)
    assert torch.allclose(few, blend.settle(some).level, atol=1e-4)
    blend.level = level


def test_labels_of_one_seed_do_not_reach_another(checkpoint):
    """Neither its members, nor its kernel, nor its level."""
    other = LABEL.copy()
    other[1] = LABEL[1, ::-1]
    recipe = dataclasses.replace(RECIPE, dropout=0.0)
    blends = (finetune.fit_blend(recipe, 0.5, SPACE.ops, checkpoint, EXAMPLES._replace(label=label)) for label in (LABEL, other))
    before, after = (finetune.score_blend(blend, TABLE) for blend in blends)  # [S, N] each
    assert before[0] == pytest.approx(after[0], abs=1e-5) and np.abs(before[1] - after[1]).max() > 0.1


def test_scoring_in_chunks_and_of_some_rows(blend):
    scores = finetune.score_blend(blend, TABLE)
    assert scores.shape == (len(SEEDS), CELLS)
    assert finetune.score_blend(blend, TABLE, chunk=28) == pytest.approx(scores, abs=1e-4)
    rows = np.array([5, 3, 3])
    assert finetune.score_blend(blend, TABLE, rows) == pytest.approx(scores[:, rows], abs=1e-4)


# On disk --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_stored_predictor_scores_as_the_one_in_memory(tmp_path, checkpoint, share, capsys):
    """Loaded, and by --score, which takes the mean over the seeds."""
    config = finetune.Config(**TINY, kernel_share=share)
    blend = finetune.fit_blend(config, share, SPACE.ops, checkpoint, EXAMPLES)
    path, text = tmp_path / "predictor.pt", tmp_path / "cells.txt"
    finetune.save_predictor(path, blend, checkpoint, space=SPACE.name, cell_marks=True, ops=list(SPACE.ops),
                            encoder=finetune.encoder_of(config, checkpoint))
    scores = finetune.score_blend(blend, TABLE)  # [S, N]
    loaded = finetune.load_predictor(str(path))[1]
    assert np.array_equal(finetune.score_blend(loaded, TABLE), scores)
    cells = np.argsort(scores.mean(0))[::20]  # [15], the worst first, with gaps that rounding does not close
    text.write_text("\n".join(KEYS[cell] for cell in cells))
    finetune.main([*FLAGS, "--score", str(text), "--predictor", str(path)])
    printed = capsys.readouterr().out
    assert sorted((KEYS[cell] for cell in cells), key=printed.index) == [KEYS[cell] for cell in cells[::-1]]


def test_a_predictor_without_kernel_and_seeds_is_one_ensemble(tmp_path, blend):
    """As finetune.py wrote it before there was a kernel."""
    path = tmp_path / "predictor.pt"
    encoder = finetune.encoder_of(RECIPE, None)
    runtime.save_checkpoint(path, space="nasbench201", ops=list(SPACE.ops), encoder=encoder,
                            weights=[blend.ensemble.member(i) for i in range(4)])
    expected = finetune.score(blend.ensemble, TABLE).mean(0)  # [N]
    assert finetune.score_blend(finetune.load_predictor(str(path))[1], TABLE)[0] == pytest.approx(expected, abs=1e-5)


def test_the_share_is_a_setting_of_finetune(tmp_path):
    """It changes the ranking and no weight, and the result names it beside the members."""
    accuracy = 80 + TRUTH + np.random.default_rng(1).normal(size=CELLS)  # [N]
    rows = (f"{key},{value:.4f},{value:.4f}" for key, value in zip(KEYS, accuracy))
    (tmp_path / "labels.csv").write_text("\n".join(["arch,val_accuracy,test_accuracy", *rows]) + "\n")
    flags = [*FLAGS, "--labels", str(tmp_path / "labels.csv"),
             *"--epochs 2 --members 2 --seeds 0,1 --finetune_train_samples 30".split()]
    results, weights = [], []
    for share in ("0", "0.2", "0.9"):
        finetune.main([*flags, "--save", str(tmp_path / share), "--kernel_share", share])
        results.append(json.loads((tmp_path / share / "result.json").read_text()))
        weights.append(torch.load(tmp_path / share / "predictor.pt", weights_only=True)["weights"])
    assert [(result["members"], result["kernel_share"]) for result in results] == [(2, 0.0), (2, 0.2), (2, 0.9)]
    assert len({tuple(result["tau"]) for result in results}) == 3
    for others in weights[1:]:
        assert all(torch.equal(a[name], b[name]) for a, b in zip(weights[0], others, strict=True) for name in a)
    assert results[2]["tau_mean"] > results[0]["tau_mean"], "two epochs teach the ensemble little, the kernel needs none"


# Gentle fine-tuning ---------------------------------------------------------------------------------------------------

def movement(checkpoint: dict | None, gentle_below: int, **settings) -> float:
    """How far 60 labels move the encoder."""
    recipe = dataclasses.replace(RECIPE, dropout=0.0, gentle_below=gentle_below, **settings)
    predictors = finetune.new_predictors(recipe, len(SPACE.ops), checkpoint, [0])
    before = predictors[0].encoder.state_dict()
    after = finetune.fit(recipe, predictors, finetune.Examples(TABLE, ROWS[:1], LABEL[:1], [0])).member(0)
    return sum((after[f"encoder.{name}"] - value).abs().sum().item() for name, value in before.items())


def test_few_labels_move_a_pretrained_encoder_less(last):
    pretrained = runtime.load_encoder(last, SPACE)
    always, never = movement(pretrained, 6000), movement(pretrained, 0)
    assert 0 < always < 0.5 * never
    assert always == movement(pretrained, 0, lr_encoder=RECIPE.lr_encoder * 0.1)  # sqrt(60 / 6000)
    assert never == movement(pretrained, 60) == movement(pretrained, 30)


def test_an_encoder_from_scratch_is_never_spared():
    assert movement(None, 6000) == movement(None, 0) > 0


def test_no_learning_rate_freezes_a_pretrained_encoder_at_any_gentleness(last):
    pretrained = runtime.load_encoder(last, SPACE)
    assert movement(pretrained, 0, lr_encoder=0.0) == movement(pretrained, 6000, lr_encoder=0.0) == 0
