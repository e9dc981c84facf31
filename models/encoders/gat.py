"""The paper's encoder: graph attention (Velickovic et al., ICLR 2018), fast on many small graphs.

A softmax over seven vertices wastes a machine that computes 16 numbers at a time. So the graphs are the last
dimension of every tensor here: each operation runs along thousands of them.

B graphs, V vertices, D width, H heads of C numbers, K operations. If the parameters are stacked
(`models.encoders.layers`), every shape below begins with M.
"""
from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from models.batch import Batch
from models.encoders.gnn import DenseGATConv, MessagePassing
from models.encoders.layers import one_hot

SLOPE = 0.2  # of leaky_relu below zero


class GAT(MessagePassing):
    """`heads` heads of width D / heads each; the weights are those of torch-geometric's `DenseGATConv`."""

    accepts_stacked_parameters = True

    def convolution(self, width: int, heads: int) -> nn.Module:
        return DenseGATConv(width, width // heads, heads=heads)

    def forward(self, batch: Batch, masked: torch.Tensor | None = None) -> torch.Tensor:
        """-> h [B, V, D]. The embedding of an operation is zero where masked bool[B, V] is True."""
        dtype = self.embed_op.weight.dtype
        op = batch.ops if masked is None else batch.ops.masked_fill(masked, self.operations)  # [B, V]
        known = torch.cat([one_hot(op, self.operations, dtype, 0), one_hot(batch.marks, 2, dtype, 0),
                           torch.ones_like(op, dtype=dtype)[None]])  # [K+3, (M,) B, V]; K: no operation
        known = known.movedim((0, -1), (-3, -2)).contiguous()  # [K+3, V, B]
        forbidden = (batch.adj + batch.adj.mT).movedim(-3, -1) == 0  # [V, V, B]
        forbidden.diagonal(dim1=-3, dim2=-2).fill_(False)
        forbidden = torch.zeros(forbidden.shape, dtype=dtype, device=op.device).masked_fill_(
            forbidden, -torch.inf).unsqueeze(-4)  # [1, V, V, B]
        embed = torch.cat([self.embed_op.weight, self.embed_mark.weight], dim=-1)  # [D, K+2]
        earlier = 0.0
        for skip, convolve, norm, activate in zip(
                self.skips, self.convolutions, self.norms, self.activations):
            h = attend(convolve, skip, embed, known, earlier, forbidden)  # [D, V, B]
            h = self.dropout(Activated.apply(h, norm.weight, norm.bias, activate.weight, norm.eps))
            earlier = earlier + h
        return h.movedim((-3, -1), (-1, -3))  # [B, V, D]


def attend(convolve: nn.Module, skip: nn.Linear, embed: torch.Tensor, known: torch.Tensor,
           earlier: torch.Tensor | float, forbidden: torch.Tensor) -> torch.Tensor:
    """A layer of attention over skip(embedding) + earlier: -> [D, V, B].

    embed [D, K+2] and known [K+3, V, B], whose last row is one, give the embedding; earlier [D, V, B]. Skip,
    projection and the logits of both ends are linear, so one matmul serves all three.
    """
    heads, size = convolve.heads, convolve.out_channels
    weight = convolve.lin.weight  # [D, D]
    ends = torch.cat([convolve.att_src, convolve.att_dst], dim=-3).squeeze(-4)  # [2, H, C]
    of_heads = weight.unflatten(-2, (heads, size))  # [H, C, D]
    logits = (ends.unsqueeze(-1) * of_heads.unsqueeze(-4)).sum(-2)  # [2, H, D]
    weight = torch.cat([weight, logits.flatten(-3, -2)], dim=-2)  # [D + 2H, D]
    of_known = weight @ torch.cat([skip.weight @ embed, skip.bias.unsqueeze(-1)], dim=-1)  # [D + 2H, K+3]
    # what a vertex receives sums up to one: so the bias of the sum may be that of every value
    bias = F.pad(convolve.bias, (0, 2 * heads)).unsqueeze(-1)  # [D + 2H, 1]
    of_known = torch.cat([of_known[..., :-1], of_known[..., -1:] + bias], dim=-1)
    x = of_known @ known.flatten(-2)  # [D + 2H, V B]
    if isinstance(earlier, torch.Tensor):
        earlier = earlier.flatten(-2)
        x = (torch.addmm if x.dim() == 2 else torch.baddbmm)(x, weight, earlier)
    x = x.unflatten(-1, known.shape[-2:])
    value, source, target = x.split([heads * size, heads, heads], dim=-3)
    out = Attention.apply(value.unflatten(-3, (heads, size)), source, target, forbidden)  # [H, C, V, B]
    return out.flatten(-4, -3)


class Attention(torch.autograd.Function):
    """value [H, C, V, B], logits of source and target [H, V, B], forbidden [1, V, V, B] -> [H, C, V, B].

    Vertex i receives of j with the weight softmax_j (leaky_relu(target_i + source_j) + forbidden_ij);
    forbidden is -inf where it receives nothing, else 0.
    """

    @staticmethod
    def forward(ctx, value, source, target, forbidden):
        logit = F.leaky_relu_(target.unsqueeze(-2) + source.unsqueeze(-3), SLOPE)  # [H, V, V, B]
        weight = logit.add_(forbidden).softmax(-2)
        ctx.save_for_backward(value, source, target, weight)
        return sum_of_products((weight[..., None, :, j, :], value[..., j:j + 1, :])
                               for j in range(value.shape[-2]))

    @staticmethod
    def backward(ctx, grad):
        value, source, target, weight = ctx.saved_tensors
        of_value = sum_of_products((weight[..., None, i, :, :], grad[..., i:i + 1, :])
                                   for i in range(value.shape[-2]))
        of_weight = sum_of_products((grad[..., c, :, None, :], value[..., c, None, :, :])
                                    for c in range(value.shape[-3]))  # [H, V, V, B]
        of_logit = torch.ops.aten.leaky_relu_backward(
            torch.ops.aten._softmax_backward_data(of_weight, weight, -2, weight.dtype),
            target.unsqueeze(-2) + source.unsqueeze(-3), SLOPE, False)
        return of_value, of_logit.sum(-3), of_logit.sum(-2), None


def sum_of_products(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    first, *others = pairs
    total = first[0] * first[1]
    for one, other in others:
        total.addcmul_(one, other)
    return total


class Activated(torch.autograd.Function):
    """prelu(layer_norm(x)): x [D, V, B], weight and bias [D], slope [1] -> [D, V, B]."""

    @staticmethod
    def forward(ctx, x, weight, bias, slope, eps):
        out = x - x.mean(-3, keepdim=True)
        scale = (out * out).mean(-3, keepdim=True).add_(eps).rsqrt_()
        out.mul_(scale)
        y = torch.addcmul(bias[..., None, None], out, weight[..., None, None])
        ctx.save_for_backward(out, scale, y, weight, slope)
        return y.clamp(max=0).mul_(slope[..., None, None]).add_(y.relu())

    @staticmethod
    def backward(ctx, grad):
        out, scale, y, weight, slope = ctx.saved_tensors
        rises = torch.ops.aten.threshold_backward(grad, y, 0)
        falls = grad - rises
        of_slope = (falls * y).sum((-3, -2, -1)).unsqueeze(-1)
        grad = falls.mul_(slope[..., None, None]).add_(rises)
        along = grad * out
        of_bias, of_weight = grad.sum((-2, -1)), along.sum((-2, -1))
        share = weight.unsqueeze(-2) / weight.shape[-1]  # [1, D]: of a row in a mean of grad * weight
        mean, along = ((share @ some.flatten(-2)).unflatten(-1, y.shape[-2:]) for some in (grad, along))
        grad.mul_(weight[..., None, None]).sub_(mean).addcmul_(out, along, value=-1).mul_(scale)
        return grad, of_weight, of_bias, of_slope, None
