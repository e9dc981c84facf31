"""The predictor of BANANAS (White et al., AAAI 2021): an ensemble of MLPs on the path encoding.

Sizes, loss and optimiser are those of the paper and its code: ten layers of width 20, Adam with learning rate
0.01, 150 epochs, batch size 32, and the loss |predicted - true| / (true - lower bound) of validation errors.
The bound here is 0, which always holds.

M members, n labels, B cells, b cells per step, P columns of the path encoding.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from models.predictor.fit import gather_rows

WIDTH, LAYERS, EPOCHS, BATCH, LEARNING_RATE = 20, 10, 150, 32, 0.01

Layer = tuple[torch.Tensor, torch.Tensor]  # weight [M, in, out] and bias [M, 1, out]


class PathMLPs(NamedTuple):
    """M fitted MLPs, their layers stacked."""

    layers: list[Layer]

    @torch.no_grad()
    def score(self, x: torch.Tensor) -> np.ndarray:
        """x [M, B, P] -> predicted accuracy float[M, B], percent."""
        return 100 - forward(self.layers, x).cpu().numpy()


def fit_path_mlps(x: torch.Tensor, label: np.ndarray, seeds: Sequence[int]) -> PathMLPs:
    """Fits all members together, each from its own seed.

    x [M, n, P], label float[M, n]: accuracies in percent. The loss is the mean relative deviation of errors,
    so the best architectures weigh most.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    error = torch.as_tensor(100 - label, dtype=torch.float32).clamp(min=0.01)  # [M, n], percent
    layers = [(weight.to(x.device), bias.to(x.device))
              for weight, bias in initial_layers(x.shape[-1], error, generators)]
    error = error.to(x.device)
    parameters = [tensor.requires_grad_() for layer in layers for tensor in layer]
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
    for _ in range(EPOCHS):
        order = torch.stack(
            [torch.randperm(x.shape[1], generator=g) for g in generators]).to(x.device)  # [M, n]
        for index in order.split(BATCH, dim=1):
            target = error.gather(1, index)  # [M, b]
            loss = ((forward(layers, gather_rows(x, index)) - target).abs() / target).mean(1).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return PathMLPs(layers)


def initial_layers(inputs: int, error: torch.Tensor, generators: Sequence[torch.Generator]) -> list[Layer]:
    """Glorot's initial weights; the last bias makes a member predict about its mean error [M, n] at first."""
    layers = []
    for fan_in, fan_out in zip([inputs] + LAYERS * [WIDTH], LAYERS * [WIDTH] + [1]):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        weight = torch.stack([torch.rand(fan_in, fan_out, generator=g) for g in generators])  # [M, in, out]
        layers.append((bound * (2 * weight - 1), torch.zeros(len(generators), 1, fan_out)))
    layers[-1][1].copy_(torch.stack([own.mean() for own in error])[:, None, None])
    return layers


def forward(layers: Sequence[Layer], x: torch.Tensor) -> torch.Tensor:
    """x [M, b, P] -> predicted error [M, b]."""
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = torch.baddbmm(b, x, w).relu()  # [M, b, WIDTH]
    return torch.baddbmm(bias, x, weight)[..., 0]
