"""M networks of one architecture, trained and evaluated together: every parameter is stacked to [M, ...].

Small networks on small graphs leave a machine idle when they run one after another; stacked, a matmul serves all members.
Members never mix: each has its own batch, its own loss, its own gradient norm.
"""
from __future__ import annotations

import copy

import torch
from torch import nn
from torch.func import functional_call, vmap

from models.batch import Batch


class Ensemble(nn.Module):
    """Stacked copies of `members` (all of one class and shape). Iterate over `params` to train; `member(i)` unstacks one."""

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.size = len(members)
        object.__setattr__(self, "skeleton", Call(copy.deepcopy(members[0]).to("meta")))  # forward only; not a child
        stacked = {name: torch.stack([dict(m.named_parameters())[name].detach() for m in members])
                   for name, _ in members[0].named_parameters()}
        self.params = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(value) for name, value in stacked.items()})

    def forward(self, inputs: Batch | torch.Tensor, method: str = "forward") -> torch.Tensor:
        """inputs: tensor or fields [M, B, ...] -> what `method` of the network gives, [M, B, ...]."""
        self.skeleton.train(self.training)
        params = {f"network.{name.replace('/', '.')}": value for name, value in self.params.items()}

        def run(member, x):
            return functional_call(self.skeleton, member, (x, method))

        return vmap(run, randomness="different")(params, inputs)

    def member(self, i: int) -> dict[str, torch.Tensor]:
        """The state dict of member i."""
        return {name.replace("/", "."): value[i].detach().cpu().clone() for name, value in self.params.items()}

    @torch.no_grad()
    def clip_gradients(self, limit: float) -> None:
        """Scale the gradient of each member to a norm of at most `limit`."""
        grads = [p.grad for p in self.params.values() if p.grad is not None]
        norm = torch.stack([g.flatten(1).pow(2).sum(1) for g in grads]).sum(0).sqrt()  # [M]
        scale = (limit / (norm + 1e-6)).clamp(max=1)  # [M]
        for grad in grads:
            grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))


class Call(nn.Module):
    """functional_call runs forward only; this forward runs any method."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs, method: str):
        return getattr(self.network, method)(inputs)
