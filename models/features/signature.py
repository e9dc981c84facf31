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

from models.features.vocabulary import Description, Vocabulary

IMAGES, CHANNELS, PIXELS = 8, 6, 6
SIGNATURE = IMAGES * (IMAGES - 1) // 2 + 4
Draw = Callable[[int, int, int], torch.Tensor]  # draw(out, in, k): filters [out, in, k, k]


def signatures(ops, adj, node_mask, vocabulary: Vocabulary, chunk: int = 512) -> torch.Tensor:
    """uint8 ops [N, V], uint8 adj [N, V, V], bool node_mask [N, V] -> float[N, V, S], zero at padding.

    ops are indices into the vocabulary. All vertices of one operation and depth share their weights, so
    isomorphic graphs have equal signatures.
    """
    pieces = [simulate(o, a, r, vocabulary)
              for o, a, r in zip(ops.split(chunk), adj.split(chunk), node_mask.split(chunk))]
    return torch.cat(pieces)


def simulate(ops: torch.Tensor, adj: torch.Tensor, node_mask: torch.Tensor,
             vocabulary: Vocabulary) -> torch.Tensor:
    """Computes one chunk of `signatures`."""
    count, vertices = ops.shape
    device = ops.device
    kinds = list(vocabulary.values())
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
            does = kinds[operation]
            for level in depth[ops[:, v] == operation, v].unique().tolist():
                chosen = (ops[:, v] == operation) & (depth[:, v] == level) & node_mask[:, v]  # [N]
                if does["is"] == "input":
                    maps[chosen, v] = stem[does["number"]]
                elif chosen.any():
                    flat = received[chosen].flatten(0, 1)  # [n I, C, X, X]
                    out = SIMULATIONS[does["is"]](flat, draw.of(operation, level), does)
                    maps[chosen, v] = out.view(-1, IMAGES, CHANNELS, PIXELS, PIXELS)
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

    def of(self, operation: int, level: int) -> Draw:
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


# Operations: feature maps x [n I, C, X, X], weights from draw(out, in, k) -----------------------------------

def convolution(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    once = convolved if does["expansion"] is None else bottleneck
    for _ in range(does["repeats"]):
        x = shrunk(once(x, draw, does), does["stride"]) + (x if does["residual"] else 0)
    return x


def convolved(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    before = does["order"] == "relu-conv-norm"
    x = filtered(x.relu() if before else x, draw, does)
    if does["pointwise"]:
        x = F.conv2d(x, draw(CHANNELS, CHANNELS, 1))
    return normalised(x) if before else normalised(x).relu()


def bottleneck(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    """1 x 1 to the expanded width, the kernel, 1 x 1 back; the last is linear (Sandler et al., CVPR 2018)."""
    wide = max(1, round(CHANNELS * does["expansion"]))
    x = normalised(F.conv2d(x, draw(wide, CHANNELS, 1))).relu()
    x = normalised(filtered(x, draw, does)).relu()
    return normalised(F.conv2d(x, draw(CHANNELS, wide, 1)))


def filtered(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    """kernel x kernel convolution that keeps size and channels."""
    k, dilation, channels = does["kernel"], does["dilation"], x.shape[1]
    groups = channels if does["groups"] == "channels" else math.gcd(does["groups"], channels)
    weights = draw(channels, channels // groups, k)
    return F.conv2d(x, weights, padding=dilation * (k // 2), dilation=dilation, groups=groups)


def pooling(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    pool, k = (F.max_pool2d if does["of"] == "max" else F.avg_pool2d), does["kernel"]
    x = pool(x, k, 1, k // 2)
    return shrunk(normalised(x) if does["norm"] else x, does["stride"])


def attention(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    """Pixels attend to each other by the likeness of their projections; 6 channels hold few heads."""
    heads = math.gcd(does["heads"], CHANNELS)
    query, key, value = F.conv2d(normalised(x), draw(3 * CHANNELS, CHANNELS, 1)).flatten(2).unflatten(
        1, (3, heads, -1)).transpose(-1, -2).unbind(1)  # [n I, heads, XX, C / heads] each
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2).reshape(x.shape)
    return F.conv2d(mixed, draw(CHANNELS, CHANNELS, 1)) + (x if does["residual"] else 0)


def linear(x: torch.Tensor, draw: Draw, does: Description) -> torch.Tensor:
    wide = CHANNELS if does["expansion"] is None else max(1, round(CHANNELS * does["expansion"]))
    y = F.conv2d(x, draw(wide, CHANNELS, 1))
    if does["expansion"] is not None:
        y = F.conv2d(y.relu(), draw(CHANNELS, wide, 1))
    return y + (x if does["residual"] else 0)


def shrunk(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Every stride-th pixel, spread over the places of those left out, as all maps have one size."""
    if stride == 1:
        return x
    few = x[..., ::stride, ::stride]
    return few.repeat_interleave(stride, -1).repeat_interleave(stride, -2)[..., :PIXELS, :PIXELS]


SIMULATIONS: dict[str, Callable[[torch.Tensor, Draw, Description], torch.Tensor]] = {  # by kind
    "output": lambda x, draw, does: x,
    "identity": lambda x, draw, does: x,
    "zero": lambda x, draw, does: torch.zeros_like(x),
    "convolution": convolution,
    "pooling": pooling,
    "attention": attention,
    "linear": linear,
}
