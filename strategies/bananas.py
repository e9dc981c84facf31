"""Reference `bananas`: BANANAS (White et al., AAAI 2021), an ensemble of MLPs on the path encoding, mutants of the best,
independent Thompson sampling. The MLPs' sizes, loss and optimiser are those of the paper."""
from __future__ import annotations

import numpy as np
import torch

from models.paths import path_features
from strategies.bo import BayesianOptimisation, thompson

WIDTH, LAYERS, EPOCHS, BATCH, LEARNING_RATE = 20, 10, 150, 32, 0.01


class Bananas(BayesianOptimisation):
    """`bo` with another predictor, and the acquisition function of the paper."""

    @staticmethod
    def predictor(table, operations, label, seeds):
        paths = path_features(table, len(operations)).cpu()  # [B, P]
        error = torch.as_tensor(100 - label, dtype=torch.float32).clamp(min=0.01)  # [n], percent
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        net = trained(layers(paths.shape[1], error.mean(), generators), paths, error, generators)
        with torch.no_grad():
            return 100 - forward(net, paths.expand(len(seeds), *paths.shape)).numpy()  # [M, B]

    def rank(self, posterior, rng):
        return thompson(*posterior, rng)


def layers(inputs: int, error: torch.Tensor, generators: list[torch.Generator]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights [M, in, out] and biases [M, 1, out] of M members, Glorot's; at first they predict about the mean error."""
    net = []
    for fan_in, fan_out in zip([inputs] + LAYERS * [WIDTH], LAYERS * [WIDTH] + [1]):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        weight = torch.stack([torch.rand(fan_in, fan_out, generator=g) for g in generators])  # [M, in, out]
        net.append((bound * (2 * weight - 1), torch.zeros(len(generators), 1, fan_out)))
    net[-1][1].fill_(error)
    return net


def trained(net: list, paths: torch.Tensor, error: torch.Tensor, generators: list[torch.Generator]) -> list:
    """Fits all members together, each in an order of its own, to error [n] of the first n of paths [B, P].

    The loss is the mean relative deviation, |prediction - error| / error: the best architectures weigh most.
    """
    n, parameters = len(error), [tensor.requires_grad_() for layer in net for tensor in layer]
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
    for _ in range(EPOCHS):
        order = torch.stack([torch.randperm(n, generator=g) for g in generators])  # [M, n]
        for rows in order.split(BATCH, dim=1):
            target = error[rows]  # [M, b]
            loss = ((forward(net, paths[rows]) - target).abs() / target).mean(1).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return net


def forward(net: list, x: torch.Tensor) -> torch.Tensor:
    """x [M, b, P] -> predicted error [M, b]."""
    *hidden, (weight, bias) = net
    for w, b in hidden:
        x = torch.baddbmm(b, x, w).relu()  # [M, b, WIDTH]
    return torch.baddbmm(bias, x, weight)[..., 0]
