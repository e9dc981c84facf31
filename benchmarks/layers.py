"""Time our hand-written layers against torch's: forward and backward, the same input, in turns.

    python -m benchmarks.layers --device cpu --threads 1 --out results/layers_cpu.json

Attention is compared with the same formula under autograd and with scaled_dot_product_attention,
standardisation with layer_norm, dropout with torch's. Shapes are those of a pre-training step: --graphs cells
of --vertices vertices. Ratios are torch's time divided by ours, so above 1 ours is faster. Both give the same
values and gradients (tests/test_layers.py), except dropout, which draws other random numbers.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import nn

from models.encoders.layers import Attention, Dropout, Standardise
from runtime.errors import main_guard
from runtime.files import write_json
from runtime.log import command_line, output, progress_bar, provenance
from runtime.seeding import DeviceSettings, choose_device, device_name, synchronise
from runtime.settings import parse, setting

HEADS, WIDTH = 4, 64  # of the default encoder


@dataclass
class Config(DeviceSettings):
    graphs: int = setting(512, "cells per batch", within=(1, np.inf), role="data")
    vertices: int = setting(8, "vertices per cell", within=(2, np.inf), role="data")
    turns: int = setting(30, "turns, each ours and then torch's", within=(1, np.inf))
    steps: int = setting(10, "forward and backward passes per turn", within=(1, np.inf))
    out: str = setting("", "file of the JSON record", role="output")


def attention_by_autograd(split: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    query, key, value = split
    return (query @ key.mT * query.shape[-1] ** -0.5 + bias).softmax(-1) @ value


def attention_by_torch(split: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(*split, attn_mask=bias)


def pairs(
    config: Config, device: torch.device
) -> dict[str, tuple[Callable, Callable, tuple[torch.Tensor, ...]]]:
    """{name: (ours, torch's, inputs that get a gradient)}"""
    shape = (HEADS, config.graphs, config.vertices)
    split = torch.randn(3, *shape, WIDTH // HEADS, device=device, requires_grad=True)  # [3, H, B, V, d]
    bias = torch.randn(*shape, config.vertices, device=device, requires_grad=True)  # [H, B, V, V]
    h = torch.randn(config.graphs, config.vertices, WIDTH, device=device, requires_grad=True)  # [B, V, D]
    ours, theirs = Dropout(0.2).train(), nn.Dropout(0.2).train()
    return {
        "attention, formula under autograd": (Attention.apply, attention_by_autograd, (split, bias)),
        "attention, scaled_dot_product_attention": (Attention.apply, attention_by_torch, (split, bias)),
        "standardisation, layer_norm": (
            lambda x: Standardise.apply(x, 1e-5), lambda x: F.layer_norm(x, (WIDTH,)), (h,)),
        "dropout, torch.nn.Dropout": (ours, theirs, (h,)),
    }


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    device = choose_device(config.device, config.threads)
    seconds = {}
    with progress_bar() as bar:
        for name, (ours, theirs, inputs) in bar.track(pairs(config, device).items(), description="layers"):
            turns = [(timed(ours, inputs, config.steps), timed(theirs, inputs, config.steps))
                     for _ in range(config.turns + 1)]
            seconds[name] = np.array(turns[1:])  # the first one warms up
    rows = {name: row(turns) for name, turns in seconds.items()}
    report = {"layers": rows, "graphs": config.graphs, "vertices": config.vertices, "turns": config.turns,
              "threads": torch.get_num_threads(), "device": device_name(device),
              "command": command_line("benchmarks.layers", argv), **provenance()}
    show(report)
    if config.out:
        write_json(Path(config.out), report)
    return report


def timed(layer: Callable, inputs: tuple[torch.Tensor, ...], steps: int) -> float:
    """The seconds that `steps` forward and backward passes take."""
    synchronise(inputs[0].device)
    began = time.perf_counter()
    for _ in range(steps):
        out = layer(*inputs)
        torch.autograd.grad(out, inputs, out)
    synchronise(inputs[0].device)
    return time.perf_counter() - began


def row(turns: np.ndarray) -> dict:
    """Summarises the ratios of turns float[T, 2], ours and torch's, neighbours in time."""
    ratio = turns[:, 1] / turns[:, 0]  # [T]
    return {"ratio": float(np.median(ratio)), "lowest": float(ratio.min()), "highest": float(ratio.max())}


def show(report: dict) -> None:
    table = Table("layer, against", "ratio", "lowest", "highest", title=(
        f"{report['graphs']} cells of {report['vertices']} vertices, {report['device']}, {report['threads']} "
        f"threads; median of {report['turns']} turns, above 1 ours is faster"))
    for name, values in report["layers"].items():
        table.add_row(name, *(f"{values[what]:.2f}" for what in ("ratio", "lowest", "highest")))
    output.print(table)


if __name__ == "__main__":
    main_guard(main)
