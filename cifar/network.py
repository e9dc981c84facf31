"""The DARTS network: an image classifier stacked from a normal and a reduction cell (Liu et al., ICLR 2019).

    network = Network(genotype, channels=36, cells=20, auxiliary=True)
    logits, auxiliary = network(images, paths)

A genotype has `normal` and `reduce`, each eight (operation, node) pairs, two for each of the nodes 2..5,
whose outputs a cell concatenates. The network draws no random numbers: the masks of drop-path are passed in
as `paths`.

B images, C channels, X x X pixels, L cells.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

CLASSES = 10
NODES, EDGES = 4, 8  # a cell's own nodes, and its edges
SMALLEST = 3  # cells: two reductions, at a third and at two thirds of the depth, and one before them


class Network(nn.Module):
    """Stem, L cells, global average, linear classifier.

    The first cell has `channels` C (its output has 4 C); cells L // 3 and 2 L // 3 halve the image and
    double C. auxiliary: adds a second classifier after cell 2 L // 3, in training only.
    """

    def __init__(self, genotype: Any, channels: int, cells: int, auxiliary: bool = False):
        super().__init__()
        if cells < SMALLEST:
            raise ValueError(f"a network has at least {SMALLEST} cells, not {cells}")
        self.stem = nn.Sequential(
            nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels))
        self.cells, self.branch = nn.ModuleList(), 2 * cells // 3
        # before, last: channels of the two previous outputs; halved: the last cell reduced
        before, last, halved = 3 * channels, 3 * channels, False
        for i in range(cells):
            reduces = i in (cells // 3, self.branch)
            channels *= 2 if reduces else 1
            self.cells.append(Cell(
                genotype.reduce if reduces else genotype.normal, before, last, channels, reduces, halved))
            before, last, halved = last, NODES * channels, reduces
            if i == self.branch:
                self.auxiliary = Auxiliary(last) if auxiliary else None
        self.classifier = nn.Linear(last, CLASSES)

    def forward(self, images: torch.Tensor, paths: torch.Tensor | None = None):
        """images float[B, 3, 32, 32] -> logits [B, 10], and those of the auxiliary classifier.

        The latter are None outside training or without one. paths float[B, L, 8]: factors of the edges'
        outputs (`cifar.augment.drop_path_masks`); None drops nothing. Identity edges are never dropped.
        """
        before = last = self.stem(images)  # [B, 3C, X, X]
        auxiliary = None
        for i, cell in enumerate(self.cells):
            before, last = last, cell(before, last, None if paths is None else paths[:, i])  # [B, 4C, X, X]
            if i == self.branch and self.training and self.auxiliary is not None:
                auxiliary = self.auxiliary(last)  # [B, 10]
        return self.classifier(last.mean((2, 3))), auxiliary


class Cell(nn.Module):
    """Nodes 0 and 1 are the two previous outputs, brought to C channels; nodes 2..5 sum two operations."""

    def __init__(self, edges, before: int, last: int, channels: int, reduces: bool, halved: bool):
        """halved: the previous cell reduced, so the output before it has twice the height and width."""
        super().__init__()
        self.first = Halve(before, channels) if halved else pointwise(before, channels)
        self.second = pointwise(last, channels)
        self.sources = [node for _, node in edges]
        self.edges = nn.ModuleList(
            operation(name, channels, 2 if reduces and node < 2 else 1) for name, node in edges)

    def forward(self, before: torch.Tensor, last: torch.Tensor, paths: torch.Tensor | None) -> torch.Tensor:
        """[B, C', X', X'], [B, C'', X, X], paths [B, 8] -> [B, 4C, X, X]; X is halved if the cell reduces."""
        nodes = [self.first(before), self.second(last)]
        for node in range(NODES):
            nodes.append(
                sum(self.along(edge, nodes, paths) for edge in (2 * node, 2 * node + 1)))  # [B, C, X, X]
        return torch.cat(nodes[2:], dim=1)

    def along(self, edge: int, nodes: list[torch.Tensor], paths: torch.Tensor | None) -> torch.Tensor:
        out = self.edges[edge](nodes[self.sources[edge]])  # [B, C, X, X]
        if paths is None or not self.training or isinstance(self.edges[edge], nn.Identity):
            return out
        return out * paths[:, edge, None, None, None].to(out.dtype)


# Operations -------------------------------------------------------------------------------------------------

class Halve(nn.Module):
    """Halves height and width: two 1 x 1 convolutions of stride 2, the second one pixel down and right."""

    def __init__(self, into: int, out: int):
        super().__init__()
        self.even = nn.Conv2d(into, out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(into, out - out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        return self.norm(
            torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))  # [B, out, X / 2, X / 2]


def pointwise(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(into, out, 1, bias=False), nn.BatchNorm2d(out))


def depthwise(channels: int, k: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise k x k, pointwise, normalisation; only the stride changes the size of the image."""
    spatial = nn.Conv2d(
        channels, channels, k, stride, dilation * (k // 2), dilation, groups=channels, bias=False)
    return nn.Sequential(
        nn.ReLU(), spatial, nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))


def separable(channels: int, k: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*depthwise(channels, k, stride), *depthwise(channels, k, 1))


BUILDERS = {  # name: builder of (channels, stride)
    "max_pool_3x3": lambda c, stride: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda c, stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "skip_connect": lambda c, stride: nn.Identity() if stride == 1 else Halve(c, c),
    "sep_conv_3x3": lambda c, stride: separable(c, 3, stride),
    "sep_conv_5x5": lambda c, stride: separable(c, 5, stride),
    "dil_conv_3x3": lambda c, stride: depthwise(c, 3, stride, dilation=2),
    "dil_conv_5x5": lambda c, stride: depthwise(c, 5, stride, dilation=2),
}


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """Builds an operation, [B, C, X, X] -> [B, C, X / stride, X / stride]. ValueError if not in BUILDERS."""
    if name not in BUILDERS:
        raise ValueError(f"cifar/network.py does not know the operation {name!r}: add it to BUILDERS")
    return BUILDERS[name](channels, stride)


class Auxiliary(nn.Sequential):
    """A classifier on the 8 x 8 maps after the second reduction."""

    def __init__(self, channels: int):
        super().__init__(
            nn.ReLU(), nn.AvgPool2d(5, stride=3, count_include_pad=False),  # [B, C, 2, 2]
            nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU(),  # [B, 768, 1, 1]
            nn.Flatten(), nn.Linear(768, CLASSES))


# Cost -------------------------------------------------------------------------------------------------------

class Cost(NamedTuple):
    parameters: int
    macs: int  # multiply-accumulates of convolutions and linear layers, for one image


def cost(genotype: Any, channels: int, cells: int) -> Cost:
    """The cost of the network at inference, without the auxiliary classifier. Allocates no tensors."""
    with torch.device("meta"):
        network = Network(genotype, channels, cells).eval()
        image = torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)  # two per MAC
