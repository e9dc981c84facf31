"""Kernel regression, here a Gaussian process, on what is known of a cell before any label.

    target = trust * prior + f(features) + noise

The prior is a ranking learned on other spaces, f a Gaussian process: a sum of one kernel per feature. How far
the prior is trusted, the size of each kernel and the noise are the most probable ones for the labels at hand
(type-II maximum a posteriori; Rasmussen and Williams, 2006, chapter 5). So with few labels the prior decides,
and what the labels say replaces it as they become many.

S seeds, n labels, N cells of a table, B cells to score, P numbers of a feature, C kernels.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.metrics import normal_scores
from models.predictor.background import Features

LINEAR = ("facts",)  # features with a linear kernel; the others have a Gaussian one
MEAN = "prior"  # the feature that is the mean and has no kernel
OFFSET = 1.0  # variance of the constant
TRUST, TRUST_STD = 0.6, 0.2  # of the prior before any label: mean and standard deviation
NOISE, NOISE_FACTOR = 0.1, 1.0  # variance of a label's noise before any label; standard deviation of its log
# A normal score among n labels is a rank among n: as uncertain as 1 / n, in addition.
SIZES = {"properties": 0.16, "embedding": 0.16, "places": 0.05, "facts": 0.01}  # of the kernels, likewise
SIZE_FACTOR = 1.0  # standard deviation of the logarithm of a size
STEPS, RATE = 30, 0.3  # of Adam, to the most probable sizes
MOST = 600  # labels that decide the sizes; more only cost time


class Scale(NamedTuple):
    """Mean [P] of a feature, and the scale [P] by which it is divided."""

    mean: torch.Tensor
    scale: torch.Tensor


def length_scales(reference: Features) -> dict[str, Scale]:
    """Features [R, P] of any cells -> the scale of each.

    It is the standard deviation times, for a Gaussian kernel, the median distance of two standardised cells,
    for a linear one, the root of P.
    """
    found = {}
    for name, feature in reference.items():
        feature = feature.cpu()  # MPS has no pdist
        std, mean = torch.std_mean(feature, dim=0)  # [P]
        std = torch.where(std > 1e-4, std, torch.inf)  # ignores constant columns
        if name == MEAN:
            length = torch.tensor(1.0)
        elif name in LINEAR:
            length = std.isfinite().sum().clamp(min=1).sqrt()
        else:
            length = torch.pdist(feature / std).median().clamp(min=1e-4)
        found[name] = Scale(mean, std * length)
    return found


class GaussianProcess(nn.Module):
    """S regressions that differ in their labelled cells only.

    The target is the normal score of a label, so that outliers do not dominate.
    """

    def __init__(self, sizes: Mapping[str, int], seeds: int, n: int):
        """Registers buffers, for `fit` or load_state_dict. sizes: {feature: its P}."""
        super().__init__()
        self.sizes = dict(sizes)
        self.kernels = [name for name in sizes if name != MEAN]
        for name, size in sizes.items():
            self.register_buffer(f"mean_{name}", torch.zeros(size))
            self.register_buffer(f"scale_{name}", torch.ones(size))
            self.register_buffer(f"points_{name}", torch.zeros(seeds, n, size))
        start = sizes_before(self.kernels)
        self.register_buffer("size", start.exp().float().repeat(seeds, 1))  # [S, C]
        self.register_buffer("noise", torch.full((seeds,), NOISE))
        self.register_buffer("trust", torch.full((seeds,), TRUST if MEAN in sizes else 0.0))
        self.register_buffer("weight", torch.zeros(seeds, n))

    @classmethod
    def fit(cls, seen: Features, scales: Mapping[str, Scale], label: np.ndarray) -> GaussianProcess:
        """Fits features `seen` [S, n, P] each to label float[S, n]. scales: of `length_scales`."""
        process = cls({name: feature.shape[-1] for name, feature in seen.items()}, *label.shape)
        process.to(next(iter(seen.values())).device)
        for name, (mean, scale) in scales.items():
            getattr(process, f"mean_{name}").copy_(mean)
            getattr(process, f"scale_{name}").copy_(scale)
            getattr(process, f"points_{name}").copy_(process.standard(seen[name], name))
        if label.shape[1]:
            # one seed after another, to hold few n x n matrices in memory
            for seed, target in enumerate(torch.as_tensor(normal_scores(label, label))):
                process.fit_seed(seed, target)
        return process

    def fit_seed(self, seed: int, target: torch.Tensor) -> None:
        """Finds the most probable sizes, noise and trust of a seed, then its weights. target: float64[n]."""
        own = self.of_seed(seed)  # [n, P] each
        mean = own[MEAN][:, 0].cpu().double() if MEAN in own else torch.zeros_like(target)  # [n]
        some = slice(MOST)
        grams = torch.stack([kernel(name, own[name][some], own[name][some])
                             for name in self.kernels]).cpu().double()  # [C, n, n]
        sizes, noise, trust = most_probable(grams, mean[some], target[some], self.kernels, MEAN in own)
        self.size[seed], self.noise[seed], self.trust[seed] = sizes, noise, trust
        rest = (target - float(self.trust[seed]) * mean)[:, None]  # [n, 1]
        self.weight[seed] = torch.cholesky_solve(rest, self.cholesky(seed))[:, 0]

    def forward(self, seen: Features) -> torch.Tensor:
        """seen [B, P] each -> the posterior mean [S, B], about standard normal."""
        new, means = self.standardised(seen), []
        for seed in range(len(self.weight)):
            near = self.covariance(seed, new, self.of_seed(seed))  # [B, n]
            mean = near @ self.weight[seed]  # [B]
            means.append(mean + self.trust[seed] * new[MEAN][:, 0] if MEAN in new else mean)
        return torch.stack(means)

    def posterior(self, seen: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """seen [B, P] each -> mean and standard deviation [S, B] of the function, without label noise."""
        return self(seen), self.posterior_std(seen)

    def posterior_std(self, seen: Features) -> torch.Tensor:
        """seen [B, P] each -> the posterior standard deviation [S, B]."""
        new, std = self.standardised(seen), []
        for seed in range(len(self.weight)):
            near = self.covariance(seed, self.of_seed(seed), new).cpu().double()  # [n, B]
            told = torch.linalg.solve_triangular(
                self.cholesky(seed), near, upper=False).square_().sum(0)  # [B]
            alone = OFFSET + sum(
                size * (new[name].square().sum(-1) if name in LINEAR else 1.0)
                for name, size in zip(self.kernels, self.size[seed]))  # [B] or a scalar
            std.append((torch.as_tensor(alone).cpu().double() - told).clamp_(min=0).sqrt_())
        return torch.stack(std).to(self.weight)

    def cholesky(self, seed: int) -> torch.Tensor:
        """The Cholesky factor [n, n], in double precision, of the covariance of a seed's labels."""
        own = self.of_seed(seed)
        gram = self.covariance(seed, own, own).cpu().double()  # MPS has no float64
        gram.diagonal().add_(float(self.noise[seed]))
        return torch.linalg.cholesky(gram)

    def covariance(self, seed: int, some: Features, others: Features) -> torch.Tensor:
        """Standardised points [B, P] and [n, P] each -> [B, n]: the weighted sum of all kernels."""
        total = OFFSET
        for name, size in zip(self.kernels, self.size[seed]):
            total = total + kernel(name, some[name], others[name]).mul_(size)
        return total

    def of_seed(self, seed: int) -> Features:
        """The standardised features of a seed's labelled cells, [n, P] each."""
        return {name: getattr(self, f"points_{name}")[seed] for name in self.sizes}

    def standardised(self, seen: Features) -> Features:
        return {name: self.standard(seen[name], name) for name in self.sizes}

    def standard(self, feature: torch.Tensor, name: str) -> torch.Tensor:
        return (feature - getattr(self, f"mean_{name}")) / getattr(self, f"scale_{name}")


def kernel(name: str, some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The kernel of a feature: standardised points [B, P] and [n, P] -> [B, n]."""
    if name in LINEAR:
        return some @ others.mT
    return torch.cdist(some, others).square_().div_(-2).exp_()


def sizes_before(kernels: Sequence[str]) -> torch.Tensor:
    """float64[C]: the logarithms of the kernels' sizes before any label."""
    return torch.tensor([SIZES[name] for name in kernels]).double().log()


@torch.enable_grad()
def most_probable(grams: torch.Tensor, mean: torch.Tensor, target: torch.Tensor, kernels: Sequence[str],
                  has_prior: bool) -> tuple[torch.Tensor, float, float]:
    """The most probable sizes [C], noise and trust for a target [n]; grams [C, n, n], prior's mean [n].

    Logarithms of sizes and noise, and the trust, have normal distributions before the labels.
    """
    trust, trust_std = (TRUST, TRUST_STD) if has_prior else (0.0, 1.0)
    rest = torch.tensor([np.log(NOISE + 1 / len(target)), trust]).double()
    before = torch.cat([sizes_before(kernels), rest])  # [C + 2]
    std = torch.tensor([SIZE_FACTOR] * len(kernels) + [NOISE_FACTOR, trust_std]).double()
    now = before.clone().requires_grad_()
    adam = torch.optim.Adam([now], lr=RATE)
    eye = torch.eye(len(target)).double()
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        sizes, noise = now[:-2].exp(), now[-2].exp()
        gram = torch.tensordot(sizes, grams, 1) + OFFSET + noise * eye  # [n, n]
        lower = torch.linalg.cholesky(gram)
        off = (target - now[-1] * mean)[:, None]  # [n, 1]
        z = torch.linalg.solve_triangular(lower, off, upper=False)  # [n, 1]
        loss = z.square().sum() / 2 + lower.diagonal().log().sum() + ((now - before) / std).square().sum() / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
    now = now.detach()
    return now[:-2].exp(), float(now[-2].exp()), float(now[-1])
