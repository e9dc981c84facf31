"""Functional signatures: the responses of a cell with random weights to random images.

They need no label, no training, no data set. Two cells that transform images alike get close signatures,
however different their graphs. So an encoder that predicts the signature from the graph has learned the
effect of operations and not just their names. Signatures are related to zero-cost proxies, e.g. NASWOT
(Mellor et al., ICML 2021), whose log-determinant is one of their numbers.

N graphs, V vertices in topological order, I images, C channels, X x X pixels, S numbers in a signature.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

IMAGES, CHANNELS, PIXELS = 8, 6, 6
SIGNATURE = IMAGES * (IMAGES - 1) // 2 + 4


def signatures(ops, adj, node_mask, names: tuple[str, ...], chunk: int = 512) -> torch.Tensor:
    """uint8 ops [N, V], uint8 adj [N, V, V], bool node_mask [N, V] -> float[N, V, S], zero at padding.

    ops are indices into `names`. All vertices of one operation and depth share their weights, so isomorphic
    graphs have equal signatures.
    """
    pieces = [simulate(o, a, r, names)
              for o, a, r in zip(ops.split(chunk), adj.split(chunk), node_mask.split(chunk))]
    return torch.cat(pieces)


def simulate(ops: torch.Tensor, adj: torch.Tensor, node_mask: torch.Tensor,
             names: tuple[str, ...]) -> torch.Tensor:
    """Computes one chunk of `signatures`."""
    count, vertices = ops.shape
    device = ops.device
    draw = Weights(device)
    stem = [draw.images(i) for i in range(2)]  # images at the first and second input of a cell, [I, C, X, X]
    maps = ops.new_zeros(
        (count, vertices, IMAGES, CHANNELS, PIXELS, PIXELS), dtype=torch.float32)  # [N, V, I, C, X, X]
    depth = torch.zeros(count, vertices, dtype=torch.long, device=device)  # [N, V]
    signature = torch.zeros(count, vertices, SIGNATURE, device=device)  # [N, V, S]
    for v in range(vertices):
        feeds = adj[:, :v, v].float()  # [N, v]
        received = torch.einsum(
            "nu,nuicxy->nicxy", feeds / feeds.sum(1, keepdim=True).clamp(min=1).sqrt(), maps[:, :v])
        depth[:, v] = ((depth[:, :v] + 1) * feeds.long()).amax(1) if v else 0
        for operation in ops[:, v].unique().tolist():
            operate = operation_of(names[operation])
            for level in depth[ops[:, v] == operation, v].unique().tolist():
                chosen = (ops[:, v] == operation) & (depth[:, v] == level) & node_mask[:, v]  # [N]
                if names[operation].startswith("input"):
                    maps[chosen, v] = stem[names[operation] == "input2"]
                elif chosen.any():
                    flat = received[chosen].flatten(0, 1)  # [n I, C, X, X]
                    out = operate(flat, draw.of(operation, level)).view(-1, IMAGES, CHANNELS, PIXELS, PIXELS)
                    maps[chosen, v] = out
        signature[:, v] = describe(maps[:, v])
    return signature * node_mask[..., None]


class Weights:
    """Random images and filters, the same in every call; each operation and depth has its own stream."""

    def __init__(self, device: torch.device):
        self.device = device

    def images(self, seed: int) -> torch.Tensor:
        """Smooth noise, [I, C, X, X]."""
        noise = torch.randn(IMAGES, CHANNELS, PIXELS, PIXELS, generator=torch.Generator().manual_seed(seed))
        return 3 * F.avg_pool2d(noise, 3, 1, 1).to(self.device)

    def of(self, operation: int, level: int) -> Callable[..., torch.Tensor]:
        """draw(out, in, k): filters with He-scaled normal entries, [out, in, k, k]."""
        stream = torch.Generator().manual_seed(1000 * (operation + 1) + level)

        def draw(out: int, into: int, k: int) -> torch.Tensor:
            return (torch.randn(out, into, k, k, generator=stream)
                    * math.sqrt(2 / (into * k * k))).to(self.device)

        return draw


def describe(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps [N, I, C, X, X] of one vertex -> [N, S].

    Cosine similarities of the images' responses, log-determinant of their matrix, log size, share of active
    units, roughness in space; all zero for maps that do not depend on the image.
    """
    response = maps.flatten(2)  # [N, I, CXX]
    response = response - response.mean(1, keepdim=True)
    gram = response @ response.transpose(1, 2)  # [N, I, I]
    power = gram.diagonal(dim1=1, dim2=2)  # [N, I]
    alive = power.amin(1, keepdim=True) > 1e-4  # [N, 1]
    power = power.clamp(min=1e-4)
    cosine = gram / (power[:, :, None] * power[:, None, :]).sqrt()  # [N, I, I]
    i, j = torch.triu_indices(IMAGES, IMAGES, 1, device=maps.device)
    volume = torch.linalg.slogdet(
        cosine + 0.05 * torch.eye(IMAGES, device=maps.device)).logabsdet[:, None]  # [N, 1]
    size = power.log().mean(1, keepdim=True)  # [N, 1]
    active = (maps > 0).float().mean((1, 2, 3, 4))[:, None]  # [N, 1]
    steps = (maps[..., 1:] - maps[..., :-1]).square().mean((1, 2, 3, 4))[:, None]  # [N, 1]
    roughness = steps / maps.flatten(1).var(1, keepdim=True).clamp(min=1e-4)  # [N, 1]
    return torch.cat([cosine[:, i, j], volume, size, active, roughness], dim=1) * alive  # [N, S]


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Batch normalisation per graph: x [n I, C, X, X], mean and variance over its images and pixels."""
    x = x.view(-1, IMAGES, *x.shape[1:])
    mean, var = x.mean((1, 3, 4), keepdim=True), x.var((1, 3, 4), keepdim=True)
    return ((x - mean) / (var + 1e-5).sqrt()).flatten(0, 1)


def convolve(x, draw, k: int, dilation: int = 1, separable: bool = False):
    """k x k convolution that keeps the size; separable: depthwise, then pointwise."""
    padding = dilation * (k // 2)
    if not separable:
        return F.conv2d(x, draw(CHANNELS, CHANNELS, k), padding=padding, dilation=dilation)
    x = F.conv2d(x, draw(CHANNELS, 1, k), padding=padding, dilation=dilation, groups=CHANNELS)
    return F.conv2d(x, draw(CHANNELS, CHANNELS, 1))


def conv_norm_relu(k: int):  # the order of NAS-Bench-101
    return lambda x, draw: normalised(convolve(x, draw, k)).relu()


def relu_conv_norm(k: int, **kind):  # the order of NAS-Bench-201 and DARTS
    return lambda x, draw: normalised(convolve(x.relu(), draw, k, **kind))


def twice(operate):
    return lambda x, draw: operate(operate(x, draw), draw)


SIMULATIONS = {
    "conv3x3-bn-relu": conv_norm_relu(3),
    "conv1x1-bn-relu": conv_norm_relu(1),
    "nor_conv_3x3": relu_conv_norm(3),
    "nor_conv_1x1": relu_conv_norm(1),
    "sep_conv_3x3": twice(relu_conv_norm(3, separable=True)),
    "sep_conv_5x5": twice(relu_conv_norm(5, separable=True)),
    "dil_conv_3x3": relu_conv_norm(3, dilation=2, separable=True),
    "dil_conv_5x5": relu_conv_norm(5, dilation=2, separable=True),
    "maxpool3x3": lambda x, draw: F.max_pool2d(x, 3, 1, 1),
    "max_pool_3x3": lambda x, draw: normalised(F.max_pool2d(x, 3, 1, 1)),
    "avg_pool_3x3": lambda x, draw: F.avg_pool2d(x, 3, 1, 1),
    "none": lambda x, draw: torch.zeros_like(x),
    "skip_connect": lambda x, draw: x,
    "output": lambda x, draw: x,
}


def operation_of(name: str) -> Callable:
    """The simulation of an operation on feature maps. Raises ValueError if it is not in SIMULATIONS."""
    if name not in SIMULATIONS and not name.startswith("input"):
        raise ValueError(f"models/features/signature.py does not know what operation {name!r} does: "
                         "add it to SIMULATIONS")
    return SIMULATIONS.get(name)
