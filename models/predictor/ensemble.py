"""M networks of one architecture, trained and evaluated together: every parameter is stacked to [M, ...].

Small networks on small graphs leave a machine idle if they run one after another; stacked, one matmul serves
all members. Members never mix: each has its own batch, its own loss, its own gradient norm.
"""
from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.optim.adamw import adamw

from models.batch import Batch
from models.encoders.layers import MemberDropout


class Ensemble(nn.Module):
    """Stacked copies of `members`, all of one class and shape: train `params`, unstack one by `member(i)`.

    A network that `accepts_stacked_parameters` consists of `models.encoders.layers` and computes with them
    directly; torch.func.vmap serves any other, with more overhead.
    """

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.size = len(members)
        self.accepts_stacked_parameters = getattr(members[0], "accepts_stacked_parameters", False)
        self.call = Call(copy.deepcopy(members[0]))
        every = [dict(member.named_parameters()) for member in members]
        for name in every[0]:
            module, _, last = name.rpartition(".")
            stacked = torch.stack([parameters[name].detach() for parameters in every])  # [M, ...]
            setattr(self.call.network.get_submodule(module), last, nn.Parameter(stacked))

    def seed(self, streams: Sequence[Callable[[int], int]]) -> None:
        """Gives each member streams of its own for dropout: streams[m](i) for its i-th dropout layer."""
        layers = [module for module in self.modules() if isinstance(module, MemberDropout)]
        for i, layer in enumerate(layers):
            device = next(self.parameters()).device
            layer.stream = torch.tensor([stream(i) for stream in streams], device=device)  # [M]

    @property
    def params(self) -> dict[str, nn.Parameter]:
        """{name: [M, ...]}."""
        return dict(self.call.network.named_parameters())

    def forward(self, inputs: Batch | torch.Tensor, method: str = "forward") -> torch.Tensor:
        """inputs, a tensor or fields [M, B, ...] -> output of the network's `method`, [M, B, ...]."""
        if self.accepts_stacked_parameters:
            return self.call(inputs, method)

        def run(member, x):
            return functional_call(self.call, member, (x, method))

        params = dict(self.call.named_parameters()) | dict(self.call.named_buffers())
        if self.size == 1:  # without vmap, whose wrapping of every operation takes a third of a small step
            alone = (Batch(*(field.squeeze(0) for field in inputs)) if isinstance(inputs, Batch)
                     else inputs.squeeze(0))
            return run({name: value.squeeze(0) for name, value in params.items()}, alone).unsqueeze(0)
        return vmap(run, randomness="different")(params, inputs)

    def member(self, i: int) -> dict[str, torch.Tensor]:
        """The state dict of member i."""
        return {name: value[i].detach().cpu().clone() for name, value in self.params.items()}


class Flat:
    """Makes stacked parameters views of one, `value` [M, P], and their gradients views of its gradient.

    So a step of an optimiser, a norm or a scaling is one operation.
    """

    def __init__(self, params: list[nn.Parameter]):
        self.value = nn.Parameter(torch.cat([p.detach().flatten(1) for p in params], dim=1))  # [M, P]
        self.value.grad = torch.zeros_like(self.value)
        sizes = [p[0].numel() for p in params]
        for p, value, grad in zip(
                params, self.value.data.split(sizes, dim=1), self.value.grad.split(sizes, dim=1)):
            p.data, p.grad = value.view(p.shape), grad.view(p.shape)
        # torch warns of the strides of the views
        warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")


class AdamW:
    """AdamW over flat parameters: groups of them, each with its peak learning rate.

    Its steps are those of torch.optim.AdamW, whose constructor imports torch's compiler, for seconds.
    """

    def __init__(self, groups: list[tuple[Flat, float]], weight_decay: float):
        self.params, self.peaks = [flat.value for flat, _ in groups], [peak for _, peak in groups]
        self.weight_decay = weight_decay
        # mean of the gradient, mean of its square, and number of steps, per group
        self.means, self.squares = ([torch.zeros_like(p) for p in self.params] for _ in range(2))
        self.steps = [torch.zeros((), device=p.device) for p in self.params]

    @property
    def grads(self) -> list[torch.Tensor]:
        return [p.grad for p in self.params]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Makes a step at `factor` of the peak learning rates."""
        for p, mean, square, count, peak in zip(
                self.params, self.means, self.squares, self.steps, self.peaks):
            adamw([p], [p.grad], [mean], [square], [], [count], fused=True, lr=peak * factor, beta1=0.9,
                  beta2=0.999, eps=1e-8, weight_decay=self.weight_decay, amsgrad=False, maximize=False)


@torch.no_grad()
def clip_gradients(grads: list[torch.Tensor], limit: float) -> None:
    """Scales the gradients [M, ...] of an ensemble so that each member's norm over all is at most `limit`."""
    norm = torch.stack([grad.norm(dim=1) for grad in grads]).norm(dim=0)  # [M]
    for grad in grads:
        grad.mul_((limit / (norm + 1e-6)).clamp(max=1)[:, None])


class Call(nn.Module):
    """Wraps a network so that forward runs any of its methods: functional_call runs forward only."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs, method: str):
        return getattr(self.network, method)(inputs)
