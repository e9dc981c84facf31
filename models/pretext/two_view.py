"""The contrastive pretext tasks of the literature (`--model_type`): baselines of the masked autoencoder.

    graphcl       the two views of a cell agree, those of other cells do not
    mvgrl         a vertex in one view and its cell in the other belong together (adjacency, diffusion)
    bgrl          a vertex predicts its embedding in the other view by a moving average of the encoder
    grace         the two views of a vertex agree, other vertices do not
    barlow_twins  each feature agrees between the two views, and is uncorrelated with the others

Called like the tasks of `models.pretext`; none reads the target. If a paper has one large graph, the batch is
that graph, and its cells are the components. Cells with equal tensors are never each other's negatives.

B graphs, V vertices, D width of the encoder, P width of a projection, N = all real vertices of the batch.
"""
from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch
from models.pretext.contrast import identities, info_nce
from models.pretext.heads import PROJECTION, mlp
from models.pretext.masked import draw_mask
from models.pretext.views import View, diffused, edges_and_features, one_of_three


class ViewSettings(NamedTuple):
    """Settings of the tasks that compare two views."""

    edge_drop: float = 0.2  # all but mvgrl: probability that an edge is dropped
    feature_mask: float = 0.2  # all but mvgrl: share of the features that are masked
    node_drop: float = 0.2  # graphcl: share of the vertices that are dropped
    teleport: float = 0.2  # mvgrl: of its diffusion
    temperature: float = 0.2  # graphcl, grace: of the softmax
    target_momentum: float = 0.99  # bgrl: of its target encoder at the start; it rises to 1 ...
    iterations: int = 600  # bgrl: ... within this number of steps


class TwoViews(nn.Module):
    """The base of the tasks. All random draws are in `forward`, so the loss is a function of the views."""

    name: str

    def __init__(self, encoder: nn.Module, settings: ViewSettings):
        super().__init__()
        self.settings = settings

    def forward(self, encoder: nn.Module, batch: Batch, target: None, generator: torch.Generator) -> dict:
        views = self.views(batch, encoder.operations, generator)
        one = draw_mask(batch.node_mask, 0.0, generator)  # [B, V]
        return {self.name: self.loss(encoder, batch, views, one)}

    def views(self, batch: Batch, operations: int, generator: torch.Generator) -> tuple[View, View]:
        """Draws two views of each graph, independently; both have the same vertices, except in GraphCL."""
        rates = self.settings.edge_drop, self.settings.feature_mask
        return tuple(edges_and_features(batch, *rates, operations, generator) for _ in range(2))

    def loss(self, encoder: nn.Module, batch: Batch, views: tuple[View, View],
             one: torch.Tensor) -> torch.Tensor:
        """-> scalar. one bool[B, V]: True at a single vertex of each graph, drawn uniformly."""
        raise NotImplementedError


class GraphCL(TwoViews):
    """Graph Contrastive Learning with Augmentations (You et al., NeurIPS 2020).

    As in SimCLR, whose loss it adopts, the positive is in the denominator of the softmax, too.
    """

    name = "graphcl"

    def __init__(self, encoder: nn.Module, settings: ViewSettings):
        super().__init__(encoder, settings)
        self.project = mlp(encoder.readout_width, PROJECTION)

    def views(self, batch, operations, generator):
        shares = self.settings.edge_drop, self.settings.feature_mask, self.settings.node_drop
        return tuple(one_of_three(batch, *shares, generator) for _ in range(2))

    def loss(self, encoder, batch, views, one):
        shown, masked = together(views)
        cells = self.project(encoder.readout(encoder(shown, masked), shown))  # [2B, P]
        return info_nce(*cells.chunk(2), alike(batch), self.settings.temperature)


class MVGRL(TwoViews):
    """Contrastive Multi-View Representation Learning on Graphs (Hassani and Khasahmadi, ICML 2020).

    The views are the cell and its diffusion, without randomness, and each has its own encoder; pre-training
    keeps the one of the cell. The heads are shared. A randomly drawn vertex of each cell stands for all.
    """

    name = "mvgrl"

    def __init__(self, encoder: nn.Module, settings: ViewSettings):
        super().__init__(encoder, settings)
        self.of_diffusion = copy.deepcopy(encoder)
        self.project_vertex = mlp(encoder.width, PROJECTION)
        self.project_cell = mlp(encoder.readout_width, PROJECTION)

    def views(self, batch, operations, generator):
        nothing = torch.zeros_like(batch.node_mask)  # [B, V]
        return View(batch, nothing), View(diffused(batch, self.settings.teleport), nothing)

    def loss(self, encoder, batch, views, one):
        vertex, cell = [], []
        for network, (shown, masked) in zip((encoder, self.of_diffusion), views):
            h = network(shown, masked)  # [B, V, D]
            vertex.append(self.project_vertex(h[one]))  # [B, P]
            cell.append(self.project_cell(network.readout(h, batch)))  # [B, P], by the cell's own outputs
        same = alike(batch)
        return jensen_shannon(vertex[0] @ cell[1].T, same) + jensen_shannon(vertex[1] @ cell[0].T, same)


class BGRL(TwoViews):
    """Large-Scale Representation Learning on Graphs via Bootstrapping (Thakoor et al., ICLR 2022).

    The target is a moving average of the encoder, and part of the state, so that a resumed run keeps it.
    """

    name = "bgrl"

    def __init__(self, encoder: nn.Module, settings: ViewSettings):
        super().__init__(encoder, settings)
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.predict = mlp(encoder.width, encoder.width)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, encoder, batch, target, generator):
        if self.training:
            self.follow(encoder)
        return super().forward(encoder, batch, target, generator)

    @torch.no_grad()
    def follow(self, encoder: nn.Module) -> None:
        """Sets target <- m target + (1 - m) encoder; m rises from `target_momentum` to 1 as half a cosine.

        Called at the start of a step, on the encoder after the step before; at first both are equal.
        """
        done = min(self.step.item() / self.settings.iterations, 1)
        move = (1 - self.settings.target_momentum) * (1 + math.cos(math.pi * done)) / 2
        for old, new in zip(self.target.parameters(), encoder.parameters()):
            old.lerp_(new, move)
        self.step += 1

    def loss(self, encoder, batch, views, one):
        shown, masked = together(views)
        foretold = self.predict(encoder(shown, masked))  # [2B, V, D]
        with torch.no_grad():
            other = self.target(shown, masked).roll(batch.num_graphs, 0)  # [2B, V, D]: views change places
        agreement = F.cosine_similarity(foretold, other, dim=-1)  # [2B, V]
        return 2 - 2 * agreement[shown.node_mask].mean()


class GRACE(TwoViews):
    """Deep Graph Contrastive Representation Learning (Zhu et al., 2020, arXiv 2006.04131).

    Negatives are other vertices in both views. One randomly drawn vertex per cell takes part: all of them
    would need (B V)^2 comparisons.
    """

    name = "grace"

    def __init__(self, encoder: nn.Module, settings: ViewSettings):
        super().__init__(encoder, settings)
        self.project = mlp(encoder.width, PROJECTION)

    def loss(self, encoder, batch, views, one):
        h = encoder(*together(views))  # [2B, V, D]
        first, second = self.project(h[one.repeat(2, 1)]).chunk(2)  # [B, P] each
        same = alike(batch).repeat(1, 2)  # [B, 2B]: no anchor is its own negative
        there = info_nce(first, torch.cat([second, first]), same, self.settings.temperature)
        back = info_nce(second, torch.cat([first, second]), same, self.settings.temperature)
        return (there + back) / 2


class BarlowTwins(TwoViews):
    """Graph Barlow Twins (Bielak et al., Knowledge-Based Systems 2022), which has no projection.

    After Barlow Twins (Zbontar et al., ICML 2021).
    """

    name = "barlow_twins"

    def loss(self, encoder, batch, views, one):
        shown, masked = together(views)
        return redundancy(*encoder(shown, masked)[shown.node_mask].chunk(2))


CONTRASTIVE = {task.name: task for task in (GraphCL, MVGRL, BGRL, GRACE, BarlowTwins)}


def together(views: tuple[View, View]) -> View:
    """Joins both views into one of 2B graphs, for one pass through an encoder."""
    first, second = views
    return View(Batch.cat([first.batch, second.batch]), torch.cat([first.masked, second.masked]))


def alike(batch: Batch) -> torch.Tensor:
    """bool[B, B]: whether two graphs of the batch have equal tensors."""
    graph = identities(batch)  # [B]
    return graph[:, None] == graph


def jensen_shannon(score: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """score [B, B], same bool[B, B] -> scalar: minus the Jensen-Shannon estimate of mutual information.

    As in Hjelm et al. (ICLR 2019), up to a constant. Pairs on the diagonal are positives; the other `same`
    pairs are not negatives.
    """
    apart = ~same
    negative = (F.softplus(score) * apart).sum() / apart.sum().clamp(min=1)
    return F.softplus(-score.diagonal()).mean() + negative


def redundancy(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """first, second [N, D] -> scalar: the squared distance of their correlation matrix to the identity.

    The correlation is over N; entries off the diagonal have the weight 1 / D (Bielak et al.).
    """
    a, b = ((z - z.mean(0)) / z.std(0, correction=0).clamp(min=1e-6) for z in (first, second))  # [N, D] each
    correlation = a.T @ b / len(a)  # [D, D]
    identity = torch.eye(len(correlation), device=first.device)  # [D, D]
    weight = identity + (1 - identity) / len(correlation)  # [D, D]
    return (weight * (correlation - identity).square()).sum()
