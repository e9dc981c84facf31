"""Kernel regression, here a Gaussian process, on what is known of a cell before any label.

    target = trust * prior + f(features) + noise

The prior is a ranking learned on other spaces (in a search there may be one learned on old labels, too), f a
Gaussian process: a sum of one kernel per feature. How far each ranking is trusted, the size of each kernel
and the noise are the most probable ones for the labels at hand (type-II maximum a posteriori; Rasmussen and
Williams, 2006, chapter 5). So with few labels the prior decides, and what the labels say replaces it as they
become many.

S seeds, n labels, N cells of a table, B cells to score, P numbers of a feature, C kernels, m rankings.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.metrics import normal_scores, spearman_rho
from models.predictor.background import Features

LINEAR = ("facts", "additive")  # features with a linear kernel; the others have a Gaussian one
PLACES = "places"  # which operation stands where
MEAN = "prior"  # the ranking learned on other spaces
# The ranking by old labels: a posterior mean, on the scale of normal scores, and small if these are noise.
SOURCE = "source"
OFFSET = 1.0  # variance of the constant
TRUST = 0.6  # of the prior before any label
# of the rankings that are the mean and have no kernel: mean and standard deviation before any label
TRUSTS = {MEAN: (TRUST, 0.2), SOURCE: (0.8, 0.3)}
# of the prior if the labelled cells differ from the space's: their own ranking tells less of the others
SHIFTED = (1.0, 0.1)
CHANCE = 3.0  # standard errors by which the prior's mean may differ by chance
FAR = 0.2  # standard deviations beyond that at which SHIFTED holds in full
NOISE, NOISE_FACTOR = 0.1, 1.0  # variance of a label's noise before any label; standard deviation of its log
# A normal score among n labels is a rank among n: as uncertain as 1 / n, in addition.
SIZES = {"properties": 0.16, "embedding": 0.16, "places": 0.05, "facts": 0.01}  # of the kernels, likewise
# Few labels tell how to weigh what the prior weighs, at most: a kernel on more breaks its ties by chance.
ENOUGH, FACT_SIZE = 7, 0.005  # labels that tell more; size of the kernel on facts with fewer, per label
SIZE_FACTOR = 1.0  # standard deviation of the logarithm of a size
STEPS, RATE = 30, 0.3  # of Adam, to the most probable sizes; torch's would import torch's compiler
BETAS, EPS = (0.9, 0.999), 1e-8
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
        if name == SOURCE:
            std = torch.ones_like(std)
        if name in TRUSTS:
            length = torch.tensor(1.0)
        elif name in LINEAR:
            length = std.isfinite().sum().clamp(min=1).sqrt()
        else:
            length = torch.pdist(feature / std).median().clamp(min=1e-4)
        found[name] = Scale(mean, std * length)
    return found


class Beliefs(NamedTuple):
    """What is probable before any label: the size of each kernel, mean and deviation of each trust.

    shifted: of the prior's trust, if the labelled cells differ; None = as otherwise.
    """

    sizes: Mapping[str, float] = SIZES
    trusts: Mapping[str, tuple[float, float]] = TRUSTS
    shifted: tuple[float, float] | None = SHIFTED


USUAL = Beliefs()


def learnable(seen: Features, n: int) -> tuple[Features, Beliefs]:
    """The features of which n labels tell more than the prior, and what is probable before them."""
    if MEAN not in seen or not 0 < n < ENOUGH:
        return seen, USUAL
    return {name: seen[name] for name in ("facts", MEAN)}, Beliefs(sizes={"facts": FACT_SIZE * n})


class GaussianProcess(nn.Module):
    """S regressions that differ in their labelled cells only.

    The target is the normal score of a label, so that outliers do not dominate.
    """

    def __init__(self, sizes: Mapping[str, int], seeds: int, n: int, beliefs: Beliefs = USUAL):
        """Registers buffers, for `fit` or load_state_dict. sizes: {feature: its P}."""
        super().__init__()
        self.sizes = dict(sizes)
        self.means = [name for name in sizes if name in TRUSTS]
        self.kernels = [name for name in sizes if name not in TRUSTS]
        for name, size in sizes.items():
            self.register_buffer(f"mean_{name}", torch.zeros(size))
            self.register_buffer(f"scale_{name}", torch.ones(size))
            self.register_buffer(f"points_{name}", torch.zeros(seeds, n, size))
        sizes_before = np.array([beliefs.sizes[name] for name in self.kernels], np.float32)  # [C]
        # by numpy: on the meta device torch's logarithm would import torch's compiler, for seconds
        self.before = torch.tensor(np.log(sizes_before, dtype=float).tolist(), dtype=torch.double)  # [C]
        self.trusts, self.shifted = [beliefs.trusts[name] for name in self.means], beliefs.shifted
        self.shifts = [0.0] * seeds  # of `shift_of`, since `fit`
        self.targets = []  # of each seed, since `fit`: the labels as normal scores, float64[n]
        self.register_buffer("size", torch.tensor(sizes_before.tolist()).repeat(seeds, 1))  # [S, C]
        self.register_buffer("noise", torch.full((seeds,), NOISE))
        self.register_buffer("trust", torch.tensor([mean for mean, _ in self.trusts]).repeat(seeds, 1))
        self.register_buffer("weight", torch.zeros(seeds, n))

    @classmethod
    def fit(cls, seen: Features, scales: Mapping[str, Scale], label: np.ndarray,
            beliefs: Beliefs = USUAL) -> GaussianProcess:
        """Fits features `seen` [S, n, P] each to label float[S, n]. scales: of `length_scales`."""
        process = cls({name: feature.shape[-1] for name, feature in seen.items()}, *label.shape, beliefs)
        process.to(next(iter(seen.values())).device)
        process.rescale(scales)
        for name in seen:
            getattr(process, f"points_{name}").copy_(process.standard(seen[name], name))
        if label.shape[1]:
            # one seed after another, to hold few n x n matrices in memory
            process.targets = list(torch.as_tensor(normal_scores(label, label)))
            for seed, target in enumerate(process.targets):
                process.fit_seed(seed, target)
        return process

    def rescale(self, scales: Mapping[str, Scale]) -> None:
        """Standardises by other scales what is scored from now on."""
        for name in self.sizes:
            mean, scale = scales[name]
            getattr(self, f"mean_{name}").copy_(mean)
            getattr(self, f"scale_{name}").copy_(scale)

    def fit_seed(self, seed: int, target: torch.Tensor) -> None:
        """Finds the most probable sizes, noise and trust of a seed, then its weights. target: float64[n]."""
        own = self.of_seed(seed)  # [n, P] each
        means = self.rankings(own).cpu().double()  # [n, m]
        some = slice(MOST)
        grams = torch.stack([kernel(name, own[name][some], own[name][some])
                             for name in self.kernels]).cpu().double()  # [C, n, n]
        self.shifts[seed] = self.shift_of(means)
        sizes, noise, trust = most_probable(grams, means[some], target[some], self.before,
                                             self.trusts_for(self.shifts[seed]))
        self.size[seed], self.noise[seed], self.trust[seed] = sizes, noise, trust
        rest = (target - means @ self.trust[seed].cpu().double())[:, None]  # [n, 1]
        self.weight[seed] = torch.cholesky_solve(rest, self.cholesky(seed))[:, 0]

    @property
    def placed(self) -> torch.Tensor:
        """float[S]: the share of the Gaussian kernels' size that belongs to the one on places."""
        gaussian = {name: size for name, size in zip(self.kernels, self.size.mT) if name not in LINEAR}
        return gaussian.get(PLACES, self.noise.new_zeros(len(self.size))) / sum(gaussian.values())

    def shift_of(self, means: torch.Tensor) -> float:
        """How far the prior tells labelled cells, with rankings [n, m], from the space's: 0 to 1.

        0 is as it may be by chance, and always without a prior.
        """
        if MEAN not in self.means or not self.shifted:
            return 0.0
        off = abs(float(means[:, self.means.index(MEAN)].mean())) - CHANCE / len(means) ** 0.5
        return min(1.0, max(0.0, off / FAR))

    def trusts_for(self, shift: float) -> list[tuple[float, float]]:
        trusts = list(self.trusts)
        if shift:
            place = self.means.index(MEAN)
            trusts[place] = tuple(
                (1 - shift) * usual + shift * other for usual, other in zip(trusts[place], self.shifted))
        return trusts

    def forward(self, seen: Features) -> torch.Tensor:
        """seen [B, P] each -> the posterior mean [S, B], about standard normal."""
        new = self.standardised(seen)
        return torch.stack([self.mean_at(seed, self.covariance(seed, new, self.of_seed(seed)).mT, new)
                            for seed in range(len(self.weight))])

    def posterior(self, seen: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """seen [B, P] each -> mean and standard deviation [S, B] of the function, without label noise."""
        new, means, deviations = self.standardised(seen), [], []
        for seed in range(len(self.weight)):
            near = self.covariance(seed, new, self.of_seed(seed)).mT  # [n, B]
            means.append(self.mean_at(seed, near, new))
            deviations.append(self.std_at(seed, near, new))
        return torch.stack(means), torch.stack(deviations)

    def mean_at(self, seed: int, near: torch.Tensor, new: Features) -> torch.Tensor:
        """Posterior mean [B] of a seed; near [n, B] is the covariance of its labels with B points `new`."""
        return self.weight[seed] @ near + self.rankings(new) @ self.trust[seed]

    def std_at(self, seed: int, near: torch.Tensor, new: Features) -> torch.Tensor:
        """Posterior standard deviation [B], likewise."""
        alone = OFFSET + sum(
            size * (new[name].square().sum(-1) if name in LINEAR else 1.0)
            for name, size in zip(self.kernels, self.size[seed]))  # [B] or a scalar
        told = torch.linalg.solve_triangular(self.cholesky(seed), near.cpu().double(), upper=False)  # [n, B]
        left = torch.as_tensor(alone).cpu().double() - told.square_().sum(0)  # [B]
        return left.clamp_(min=0).sqrt_().to(self.weight)

    def posterior_covariance(self, seen: Features) -> torch.Tensor:
        """seen [B, P] each -> float64[S, B, B]: the posterior covariance of the function."""
        new, covariances = self.standardised(seen), []
        for seed in range(len(self.weight)):
            near = self.covariance(seed, self.of_seed(seed), new).cpu().double()  # [n, B]
            told = torch.linalg.solve_triangular(self.cholesky(seed), near, upper=False)  # [n, B]
            covariances.append(self.covariance(seed, new, new).cpu().double() - told.mT @ told)
        return torch.stack(covariances)

    def left_out(self, seed: int) -> torch.Tensor:
        """float64[n]: what the other labels say of each of `targets`, since `fit`.

        Rasmussen and Williams, 2006, equation 5.12.
        """
        precision = torch.cholesky_inverse(self.cholesky(seed)).diagonal()  # [n]
        return self.targets[seed].double() - self.weight[seed].cpu().double() / precision

    def foresight(self) -> list[float]:
        """Spearman's rho, per seed, between the labels and what the others say of each, since `fit`."""
        return [spearman_rho(self.left_out(seed).numpy(), target.numpy())
                for seed, target in enumerate(self.targets)]

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

    def rankings(self, known: Features) -> torch.Tensor:
        """[B, m]: the standardised rankings that are the mean."""
        some = next(iter(known.values()))
        return torch.cat([some.new_zeros(len(some), 0), *(known[name] for name in self.means)], dim=1)

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


@torch.enable_grad()
def most_probable(grams: torch.Tensor, means: torch.Tensor, target: torch.Tensor, sizes: torch.Tensor,
                  trusts: Sequence[tuple[float, float]]) -> tuple[torch.Tensor, float, torch.Tensor]:
    """The most probable sizes [C], noise and trust [m] for a target [n]; grams [C, n, n], rankings [n, m].

    sizes: logarithms [C] before the labels. trusts: of `Beliefs`, of each ranking. Logarithms of sizes and
    noise, and the trust, have normal distributions before the labels.
    """
    kernels = len(sizes)
    trust, trust_std = zip(*trusts) if trusts else ((), ())
    rest = torch.tensor([np.log(NOISE + 1 / len(target)), *trust]).double()
    before = torch.cat([sizes, rest])  # [C + 1 + m]
    std = torch.tensor([SIZE_FACTOR] * kernels + [NOISE_FACTOR, *trust_std]).double()
    now = before.clone().requires_grad_()
    first, second = torch.zeros(2, len(now)).double()  # moments of the gradient
    eye = torch.eye(len(target)).double()
    for step in range(STEPS):
        sizes, noise = now[:kernels].exp(), now[kernels].exp()
        gram = torch.tensordot(sizes, grams, 1) + OFFSET + noise * eye  # [n, n]
        lower = torch.linalg.cholesky(gram)
        off = (target - means @ now[kernels + 1:])[:, None]  # [n, 1]
        z = torch.linalg.solve_triangular(lower, off, upper=False)  # [n, 1]
        loss = z.square().sum() / 2 + lower.diagonal().log().sum() + ((now - before) / std).square().sum() / 2
        slope, = torch.autograd.grad(loss, now)
        with torch.no_grad():
            first.lerp_(slope, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
            rate = RATE * (1 - step / STEPS) / (1 - BETAS[0] ** (step + 1))
            now.addcdiv_(first, second.sqrt() / (1 - BETAS[1] ** (step + 1)) ** 0.5 + EPS, value=-rate)
    now = now.detach()
    return now[:kernels].exp(), float(now[kernels].exp()), now[kernels + 1:]
