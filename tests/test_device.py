"""No computation of a network reads a value or leaves its device: all of it runs on torch's meta device."""
from __future__ import annotations

import numpy as np
import pytest
import torch

import spaces
from models.batch import Batch
from models.encoders import ENCODERS, build_encoder
from models.predictor.ensemble import Ensemble
from models.predictor.losses import LOSSES
from models.predictor.network import PredictorNetwork
from models.pretext.masked import reconstruction_loss

SPACE = spaces.get("nasbench201")
SIZES = {"width": 16, "layers": 2, "heads": 4, "direction": True}


def on_meta(base_model: str) -> tuple[PredictorNetwork, Batch]:
    table = Batch.of(SPACE.table(6, np.random.default_rng(0)))
    network = PredictorNetwork(build_encoder({"base_model": base_model, **SIZES}, len(SPACE.ops), 0.2))
    return network.to("meta"), table.to("meta")


@pytest.mark.parametrize("base_model", ENCODERS)
def test_both_passes_of_a_predictor_stay_on_the_device(base_model):
    network, table = on_meta(base_model)
    ensemble = Ensemble([network] * 3).train()
    ensemble.seed([lambda i: i] * 3)
    scores = ensemble(table.expand(3))  # [M, B]
    assert scores.shape == (3, 6) and scores.is_meta
    for loss in LOSSES.values():
        total = loss(scores, torch.zeros_like(scores)).sum()
        total.backward(retain_graph=True)
    assert all(p.grad.is_meta for p in ensemble.parameters() if p.grad is not None)


@pytest.mark.parametrize("base_model", ENCODERS)
def test_reconstruction_stays_on_the_device(base_model):
    network, table = on_meta(base_model)
    masked = torch.zeros_like(table.node_mask)
    h = network.encoder(table, masked)  # [B, V, D]
    decoder = torch.nn.Linear(h.shape[-1], len(SPACE.ops), device="meta")
    loss = reconstruction_loss(decoder(h), table.ops, masked)
    loss.backward()
    assert loss.is_meta and h.shape[:2] == table.ops.shape
