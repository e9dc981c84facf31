"""Layers that serve M networks at once if their parameters are stacked, [M, ...], fast on small graphs.

A network that computes with these alone, and counts the dimensions of its input from the last, is a whole
ensemble once its parameters are stacked (`models.predictor.ensemble`): x [B, V, D] becomes x [M, B, V, D],
and one matmul serves all members. Some layers replace operations of torch that are slow on graphs this small.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from runtime.seeding import GOLDEN, scramble

SHORT = 16  # vertices below which torch's own softmax, one row at a time, is the slower


def affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [..., P], weight [Q, P], bias [Q] -> [..., Q].

    Stacked: x [M, ..., P], weight [M, Q, P], bias [M, Q] -> [M, ..., Q].
    """
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    rows = x.flatten(1, -2)  # [M, N, P]
    out = rows @ weight.mT if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)  # [M, N, Q]
    return out.unflatten(1, x.shape[1:-1])  # [M, ..., Q]


class Linear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return affine(x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.dim() == 1:
            return super().forward(x)
        return torch.addcmul(
            stacked_like(self.bias, x), Standardise.apply(x, self.eps), stacked_like(self.weight, x))


class PReLU(nn.PReLU):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (super().forward(x) if self.weight.dim() == 1
                else torch.where(x > 0, x, stacked_like(self.weight, x) * x))


def stacked_like(parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A stacked parameter [M, D] with the dimensions of x [M, ..., D]."""
    return parameter.view(len(parameter), *[1] * (x.dim() - 2), -1)


class Standardise(torch.autograd.Function):
    """x [..., D] -> mean 0 and variance 1 over the last dimension."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, eps: float) -> torch.Tensor:
        out = x - x.mean(-1, keepdim=True)
        scale = (out * out).mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(out.mul_(scale), scale)
        return out

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        out, scale = ctx.saved_tensors
        along = (grad * out).mean(-1, keepdim=True)
        return (grad - grad.mean(-1, keepdim=True)).addcmul_(out, along, value=-1).mul_(scale), None


class MemberDropout(nn.Dropout):
    """Dropout with a stream of its own for each member of an ensemble, so that no other changes its draws.

    `stream` long[M] is a number per member (a scalar inside torch.func.vmap), which moves on with each call;
    without it, torch's own generator draws. The masks are bytes of a hash of stream and position, a pure
    function, so the dropped share is a whole number of 256ths.
    """

    def __init__(self, p: float = 0.5):
        super().__init__(p)
        self.register_buffer("stream", None, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped = round(256 * self.p)
        if not self.training or not 0 < dropped < 256:
            return super().forward(x)
        if self.stream is None:
            return self.drop_by_generator(x, dropped)
        own = x.numel() if self.stream.dim() == 0 else x[0].numel()  # numbers of a member
        position = torch.arange(-(-own // 8), device=x.device) * GOLDEN  # [W]
        words = scramble(scramble(self.stream.add_(GOLDEN))[..., None] + position)  # [M, W]
        byte = words.view(torch.int8)[..., :own].view(x.shape)  # -128 to 127
        return x * ((byte >= dropped - 128).to(x.dtype) * (256 / (256 - dropped)))

    def drop_by_generator(self, x: torch.Tensor, dropped: int) -> torch.Tensor:
        return super().forward(x)


class Dropout(MemberDropout):
    """Dropout by random bytes on the CPU, in a third of the time of torch's random number for each entry."""

    def drop_by_generator(self, x: torch.Tensor, dropped: int) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().drop_by_generator(x, dropped)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-2**63, None)
        byte = words.view(torch.int8)[:x.numel()].view(x.shape)  # -128 to 127
        kept = torch.ge(byte, dropped - 128, out=torch.empty_like(x, requires_grad=False))
        return x * kept.mul_(256 / (256 - dropped))


class Attention(torch.autograd.Function):
    """softmax(query key' / sqrt d + bias) value: [3, ..., V, d] and bias [..., V, V] -> [..., V, d].

    One node of the autograd graph; `benchmarks.layers` compares it with autograd and torch's own attention.
    """

    @staticmethod
    def forward(ctx, split: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = split
        ctx.scale = split.shape[-1] ** -0.5
        weight = (query @ key.mT).mul_(ctx.scale).add_(bias)  # [..., V, V]
        if weight.shape[-1] < SHORT:
            weight.sub_(weight.amax(-1, keepdim=True)).exp_()
            weight.div_(weight.sum(-1, keepdim=True))
        else:
            weight = weight.softmax(-1)
        ctx.save_for_backward(split, weight)
        return weight @ value

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (query, key, value), weight = ctx.saved_tensors
        of_logits = grad @ value.mT  # [..., V, V]
        of_logits.sub_((of_logits * weight).sum(-1, keepdim=True)).mul_(weight)
        scaled = of_logits * ctx.scale
        return torch.stack([scaled @ key, scaled.mT @ query, weight.mT @ grad]), of_logits


def one_hot(codes: torch.Tensor, classes: int, dtype: torch.dtype, dim: int = -1) -> torch.Tensor:
    """uint8 codes -> one-hot of type `dtype`, the classes along a new dimension `dim`."""
    codes = codes.unsqueeze(dim)
    shape = [1] * codes.dim()
    shape[dim] = classes
    each = torch.arange(classes, dtype=codes.dtype, device=codes.device).view(shape)
    return (codes == each).view(torch.uint8).to(dtype)  # five times as fast as from bool


class Chosen:
    """Columns of weights, one for each of the uint8 codes [...]; K classes.

    Where something learns, by a matmul with one-hot rows, as the backward of a lookup is a scatter, which
    is slow; elsewhere by a lookup. Both give the same numbers.
    """

    def __init__(self, codes: torch.Tensor, classes: int):
        self.codes, self.classes, self._dense = codes, classes, {}

    def dense(self, dtype: torch.dtype, dim: int) -> torch.Tensor:
        """The one-hot rows, computed once."""
        if (dtype, dim) not in self._dense:
            self._dense[dtype, dim] = one_hot(self.codes, self.classes, dtype, dim)
        return self._dense[dtype, dim]

    def along_last(self, weight: torch.Tensor) -> torch.Tensor:
        """weight [Q, K] -> [..., Q]. Stacked: [M, Q, K] and codes [M, ...] -> [M, ..., Q]."""
        if torch.is_grad_enabled():
            return affine(self.dense(weight.dtype, -1), weight)
        codes, rows = self.codes.int(), weight.mT.reshape(-1, weight.shape[-2])  # [M K, Q]
        if weight.dim() == 3:
            member = torch.arange(len(weight), dtype=torch.int32, device=codes.device)
            codes = codes + self.classes * member.view(-1, *[1] * (codes.dim() - 1))
        return F.embedding(codes, rows)

    def along_first(self, weight: torch.Tensor) -> torch.Tensor:
        """weight [Q, K] and codes [N] -> [Q, N]. Stacked: [M, Q, K] and [M, N] -> [M, Q, N]."""
        if torch.is_grad_enabled():
            return weight @ self.dense(weight.dtype, -2)
        return weight.gather(-1, self.codes.long().unsqueeze(-2).expand(*weight.shape[:-1], -1))


def average(h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """h [B, V, D], weight [B, V] -> [B, D]: the weighted mean over vertices."""
    return (h * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True).clamp(min=1)
