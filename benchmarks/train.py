"""Time training: the classic pipeline against ours, with the same network and batches, in turns.

    python -m benchmarks.train --data cifar10.npz --threads 1 --device cpu

Classic: PIL images, torchvision transforms per image in a DataLoader, eager, feature maps as [B, C, X, X].
Ours: all images on the device, augmented per batch, [B, X, X, C], with --compile and --amp if given. Prints
images per second, their ratio, and the share of a step that our input pipeline takes; --out gets the JSON
record.
"""
from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table

from cifar.augment import MEAN, PADDING, STD, augmented, padded
from cifar.images import Images, read_images
from cifar.training import CifarRecipe, Training
from runtime.errors import main_guard
from runtime.files import write_json
from runtime.log import output, progress_bar
from runtime.seeding import choose_device, device_name, synchronise
from runtime.settings import parse, setting
from runtime.workers import Worker
from spaces.darts import architecture_of


@dataclass
class Config(CifarRecipe):
    arch: str = setting("DARTS_V2", "cell, as for train.py", role="data")
    data: str = setting("~/datasets", "CIFAR-10: folder with the official archive, or an .npz", role="data")
    param: str = setting(
        "local:params/train_cifar10_tiny.json", "size of the network and the batch", role="output")
    images: int = setting(640, "images per turn", within=(32, math.inf), role="data")
    turns: int = setting(5, "alternating turns of each pipeline; the median counts", within=(1, 1000))
    workers: int = setting(2, "processes of the classic DataLoader (the DARTS code: 2)", within=(0, 64))
    out: str = setting("", "file of the JSON record", role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    # the whole input pipeline, and no drop-path, so that both sides train the same network
    config = dataclasses.replace(config, cutout=16, drop_path_prob=0.0)
    device = choose_device(config.device, config.threads)
    data = read_images(config.data, "train")[:config.images]
    sides = {"classic": classic(config, data, device), "ours": ours(config, data, device)}
    seconds = {name: [] for name in (*sides, "input")}
    with progress_bar() as bar:
        line = bar.add_task("turns", total=config.turns + 1)
        for turn in range(config.turns + 1):
            for name, side in sides.items():
                began = time.perf_counter()
                side(turn)
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - began)
            if turn:
                seconds["input"].append(input_seconds(config, data, device, turn))
            bar.advance(line)
    return report(config, data, device, seconds)


def classic(config: Config, data: Images, device: torch.device) -> Callable[[int], None]:
    """The classic pipeline: a function of the turn that makes one pass over the images."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    def cut(image: torch.Tensor) -> torch.Tensor:
        y, x = (int(torch.randint(32, ())) for _ in range(2))
        half = config.cutout // 2
        image[:, max(0, y - half):y + half, max(0, x - half):x + half] = 0
        return image

    steps = [
        transforms.RandomCrop(32, padding=PADDING),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
        transforms.Lambda(cut),
    ]

    class Pictures(Dataset):
        altered = transforms.Compose(steps)
        pictures = tuple(Image.fromarray(pixels) for pixels in data.pixels.numpy())

        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return self.altered(self.pictures[i]), int(data.labels[i])

    context = "fork" if config.workers else None  # the data set is local to this function
    loader = DataLoader(Pictures(), config.batch_size, shuffle=True, num_workers=config.workers,
                        multiprocessing_context=context, pin_memory=device.type == "cuda")
    eager = dataclasses.replace(config, channels_last=False, compile=False, amp="off")
    training = Training(eager, architecture_of(config.arch), 0, Worker(device))

    def turn(_: int) -> None:
        for batch, target in loader:
            logits, auxiliary = training.model(batch.to(device, non_blocking=True), None)  # [B, 10]
            loss = F.cross_entropy(logits, target.to(device, non_blocking=True))
            if auxiliary is not None:
                loss = loss + config.auxiliary_weight * F.cross_entropy(auxiliary, target.to(device))
            loss.backward()
            training.update(0.0)
        synchronise(device)

    return turn


def ours(config: Config, data: Images, device: torch.device) -> Callable[[int], None]:
    """Our pipeline: a function of the turn that makes one pass over the images, as `training.fit` does."""
    training = Training(config, architecture_of(config.arch), 0, Worker(device))
    stored, labels = padded(data.pixels.to(device)), data.labels.to(device)

    def turn(number: int) -> None:
        training.epoch = number
        for batch in training.batches(len(data)):
            training.gradient(stored, labels, batch.to(device), len(batch))
            training.update(0.0)
        synchronise(device)

    return turn


def input_seconds(config: Config, data: Images, device: torch.device, turn: int) -> float:
    """The seconds of one pass of our input pipeline: order, crop, flip, normalisation, cutout."""
    training = Training(config, architecture_of(config.arch), 0, Worker(device))
    stored = padded(data.pixels.to(device))
    synchronise(device)
    began = time.perf_counter()
    for batch in training.batches(len(data)):
        augmented(stored, batch.to(device), turn, config.cutout)
    synchronise(device)
    return time.perf_counter() - began


def report(config: Config, data: Images, device: torch.device, seconds: dict[str, list[float]]) -> dict:
    rate = {name: len(data) / np.median(seconds[name]) for name in ("classic", "ours")}
    ratios = np.array(seconds["classic"]) / np.array(seconds["ours"])  # [turns], neighbours in time
    share = np.array(seconds["input"]) / np.array(seconds["ours"])  # [turns]
    result = {
        "images_per_second": rate,
        "ratio": float(np.median(ratios)),
        "ratios": ratios.tolist(),
        "input_share": float(np.median(share)),
        "arch": config.arch,
        "layers": config.layers,
        "init_channels": config.init_channels,
        "batch_size": config.batch_size,
        "auxiliary": config.auxiliary,
        "amp": config.amp,
        "compile": config.compile,
        "workers": config.workers,
        "turns": config.turns,
        "images": len(data),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    table = Table("pipeline", "images/s", title=(
        f"{config.arch}, {config.init_channels} channels, {config.layers} cells, batch {config.batch_size}, "
        f"{result['device']}, {result['threads']} threads"))
    for name, value in rate.items():
        table.add_row(name, f"{value:.0f}")
    output.print(table)
    output.print(
        f"ratio {result['ratio']:.2f} (median of {config.turns} turns, {ratios.min():.2f} to "
        f"{ratios.max():.2f}); our input pipeline takes {100 * result['input_share']:.1f} % of a step")
    if config.out:
        write_json(Path(config.out), result)
    return result


if __name__ == "__main__":
    main_guard(main)
