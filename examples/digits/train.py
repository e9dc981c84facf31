"""Train one network of the declared space on scikit-learn's digits; print its accuracy as a line of JSON.

    python examples/digits/train.py '{"operations": {"layer1": "conv3", ..., "layer6": "skip"}}' --seed 0

597 of the 1,797 images train, 600 validate (the accuracy that the search sees), 600 test.
"""
from __future__ import annotations

import argparse
import json

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

EPOCHS, BATCH = 4, 32


def norm_conv(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False),
                         nn.BatchNorm2d(out))


class Bottleneck(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return x + y if x.shape == y.shape else y


def layer(operation: str, into: int, out: int, stride: int) -> nn.Module:
    """The operation as space.json describes it; where channels or size change, others add a projection."""
    if operation.startswith("conv"):
        return nn.Sequential(norm_conv(into, out, int(operation[-1]), stride), nn.ReLU())
    if operation == "sep3":
        return nn.Sequential(nn.Conv2d(into, into, 3, stride, 1, groups=into, bias=False),
                             norm_conv(into, out, 1), nn.ReLU())
    if operation == "mb2":
        return Bottleneck(norm_conv(into, 2 * into, 1), nn.ReLU(),
                          norm_conv(2 * into, 2 * into, 3, stride, groups=2 * into), nn.ReLU(),
                          norm_conv(2 * into, out, 1))
    pool = {"max3": nn.MaxPool2d(3, 1, 1), "avg3": nn.AvgPool2d(3, 1, 1), "skip": nn.Identity()}[operation]
    return pool if (into, stride) == (out, 1) else nn.Sequential(pool, norm_conv(into, out, 1, stride))


def network_of(chosen: dict[str, str]) -> nn.Sequential:
    width = (12, 12, 12, 12, 24, 24, 24)
    layers = [layer(chosen[f"layer{i}"], width[i - 1], width[i], 2 if i == 4 else 1) for i in range(1, 7)]
    return nn.Sequential(norm_conv(1, 12, 3), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(24, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", help="the architecture, as search.py writes it for {json}")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the images")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    network = network_of(json.loads(args.json)["operations"])

    digits = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))  # one split for all
    images, labels = torch.tensor(digits.images).float()[order, None] / 16, torch.tensor(digits.target)[order]
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=EPOCHS * -(-597 // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(597).split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    network.eval().requires_grad_(False)
    right = (network(images[597:]).argmax(1) == labels[597:]).double() * 100
    print(json.dumps({"accuracy": right[:600].mean().item(), "test": right[600:].mean().item()}))


if __name__ == "__main__":
    main()
