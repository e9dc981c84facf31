"""benchmarks/calibration.py: coverage and likelihood of the predictor's standard deviation."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import spaces
from benchmarks import calibration
from models.batch import Batch
from models.features.properties import cell_properties
from models.predictor.fit import Examples
from models.predictor.gaussian_process import NOISE, GaussianProcess, Scale, length_scales


def test_a_true_spread_covers_what_it_says(rng):
    std = rng.uniform(0.5, 2, 200_000)
    measured = calibration.measures(rng.normal(size=200_000) * std, std)
    assert measured["coverage50"] == pytest.approx(0.5, abs=0.01)
    assert measured["coverage90"] == pytest.approx(0.9, abs=0.01)
    assert measured["nll"] < calibration.measures(rng.normal(size=200_000) * std, 3 * std)["nll"]


def test_normal_scores_are_places_among_the_labels():
    label = np.array([90.0, 92.0, 94.0])
    place = calibration.normal_scores(np.array([89.0, 92.0, 95.0]), label)
    assert place == pytest.approx(stats.norm.ppf([1 / 6, 1 / 2, 5 / 6]))


def test_the_stretch_repairs_members_that_agree_too_much(rng):
    """Members whose spread is a tenth of their error: the stretched intervals cover, the raw ones do not."""
    def cells(n):
        truth = rng.normal(size=n)
        shared = truth + 0.5 * rng.normal(size=n)
        return truth, shared + 0.05 * rng.normal(size=(5, n))

    label, cross = cells(400)
    truth, final = cells(4000)
    result = calibration.calibrate(cross, label, final, calibration.normal_scores(truth, label))
    assert result["members"]["coverage90"] < 0.4
    assert result["stretched"]["coverage90"] > 0.8 and result["stretched"]["nll"] < result["members"]["nll"]


def test_it_runs_from_the_command_line(tmp_path):
    out = tmp_path / "record.json"
    report = calibration.main(["--n_labels", "20", "--seeds", "0,1", "--epochs", "2", "--members", "2",
                               "--eval_cells", "100", "--out", str(out), "--threads", "1"])
    assert len(report["runs"]) == 2 and out.exists()
    assert all(0 <= run[kind]["coverage50"] <= run[kind]["coverage90"] <= 1 for run in report["runs"]
               for kind in run)
    assert report["mean"].keys() == {"members", "stretched", "constant", "kernel"}
    assert report["target"] == "val"


def test_the_process_expects_a_label_and_its_noise(rng, monkeypatch):
    """On labels drawn from the process itself the intervals of the posterior cover what they say."""
    space = spaces.get("nasbench201")
    cells = Batch.of(space.encode(space.sample(400, rng)))
    view = {"properties": cell_properties(cells, space.vocabulary)}
    (mean, scale), = length_scales(view).values()
    narrow = Scale(mean, scale / 3)  # of a wide kernel one draw varies less than the process
    points = {"properties": ((view["properties"] - mean) / narrow.scale).double()}
    process = GaussianProcess({"properties": points["properties"].shape[1]}, 40, 100)
    process.size.fill_(1.0)
    gram = process.covariance(0, points, points) + NOISE * torch.eye(400)
    drawn = torch.linalg.cholesky(gram) @ torch.as_tensor(rng.normal(size=(400, 40)))  # [N, S]
    label = drawn.T.numpy()[:, :100]
    process = GaussianProcess.fit(
        {"properties": view["properties"][:100].expand(40, -1, -1)}, {"properties": narrow}, label)
    monkeypatch.setattr(calibration, "fit_gaussian_process", lambda *_: process)
    background = lambda batch: {"properties": cell_properties(batch, space.vocabulary)}
    examples = Examples(cells, np.tile(np.arange(100), (40, 1)), label, list(range(40)))
    middle, std = calibration.process_posterior(background, examples, np.arange(100, 400))
    place = np.stack([calibration.normal_scores(drawn[100:, i].numpy(), label[i]) for i in range(40)])
    measured = calibration.measures((place - middle).ravel(), std.ravel())
    assert measured["coverage50"] == pytest.approx(0.5, abs=0.03)
    assert measured["coverage90"] == pytest.approx(0.9, abs=0.02)
