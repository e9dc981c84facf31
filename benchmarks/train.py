"""Training speed: the classic pipeline against ours, the same network and batches, in turns.

    python -m benchmarks.train --data cifar10.npz --threads 1 --device cpu

Classic: PIL images, torchvision transforms an image at a time in a DataLoader, eager, feature maps as [B, C, X, X].
Ours: all images on the device, augmented a batch at a time, [B, X, X, C]; --compile and --amp where asked for.
Prints images per second, their ratio and the share of a step that our input pipeline takes; --out gets the JSON record.
"""
from __future__ import annotations

import dataclasses
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table

import images
import runtime
from models import augment
from runtime import setting
from train import parse_arch
from training import Place, Recipe, Training, device_name


@dataclass
class Config(Recipe):
    arch: str = setting("DARTS_V2", "cell, as for train.py")
    data: str = setting("~/datasets", "CIFAR-10: folder with the official archive, or an .npz")
    param: str = setting("local:params/train_cifar10_tiny.json", "size of the network and the batch")
    images: int = setting(640, "images a turn", within=(32, math.inf))
    turns: int = setting(5, "turns of each pipeline, one after the other; the median counts", within=(1, 1000))
    workers: int = setting(2, "processes of the classic DataLoader; the DARTS code has 2", within=(0, 64))
    out: str = setting("", "JSON file to write")


def main(argv: list[str] | None = None) -> dict:
    config = runtime.parse(Config, argv, __doc__)
    config = dataclasses.replace(config, cutout=16, drop_path_prob=0.0)  # the whole input pipeline, the same network
    device = runtime.choose_device(config.device, config.threads)
    data = images.read(config.data, "train")[:config.images]
    sides = {"classic": classic(config, data, device), "ours": ours(config, data, device)}
    seconds = {name: [] for name in (*sides, "input")}
    with runtime.progress() as bar:
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


def classic(config: Config, data: images.Images, device: torch.device) -> Callable[[int], None]:
    """turn -> None: one pass over the images."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    def cut(image: torch.Tensor) -> torch.Tensor:
        y, x = (int(torch.randint(32, ())) for _ in range(2))
        half = config.cutout // 2
        image[:, max(0, y - half):y + half, max(0, x - half):x + half] = 0
        return image

    steps = [transforms.RandomCrop(32, padding=augment.PADDING), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
             transforms.Normalize(augment.MEAN, augment.STD), transforms.Lambda(cut)]

    class Pictures(Dataset):
        altered = transforms.Compose(steps)
        pictures = [Image.fromarray(pixels) for pixels in data.pixels.numpy()]

        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return self.altered(self.pictures[i]), int(data.labels[i])

    context = "fork" if config.workers else None  # the data set is local to this function
    loader = DataLoader(Pictures(), config.batch_size, shuffle=True, num_workers=config.workers,
                        multiprocessing_context=context, pin_memory=device.type == "cuda")
    eager = dataclasses.replace(config, channels_last=False, compile=False, amp="off")
    training = Training(eager, parse_arch(config.arch), 0, Place(device))

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


def ours(config: Config, data: images.Images, device: torch.device) -> Callable[[int], None]:
    """turn -> None: one pass over the images, as `training.fit` makes it."""
    training = Training(config, parse_arch(config.arch), 0, Place(device))
    stored, labels = augment.padded(data.pixels.to(device)), data.labels.to(device)

    def turn(number: int) -> None:
        training.epoch = number
        for batch in training.batches(len(data)):
            training.gradient(stored, labels, batch.to(device), len(batch))
            training.update(0.0)
        synchronise(device)

    return turn


def input_seconds(config: Config, data: images.Images, device: torch.device, turn: int) -> float:
    """What one pass of our pipeline takes without the network: order, crop, flip, normalisation, cutout."""
    training = Training(config, parse_arch(config.arch), 0, Place(device))
    stored = augment.padded(data.pixels.to(device))
    synchronise(device)
    began = time.perf_counter()
    for batch in training.batches(len(data)):
        augment.augmented(stored, batch.to(device), turn, config.cutout)
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(config: Config, data: images.Images, device: torch.device, seconds: dict[str, list[float]]) -> dict:
    rate = {name: len(data) / np.median(seconds[name]) for name in ("classic", "ours")}
    ratios = np.array(seconds["classic"]) / np.array(seconds["ours"])  # [turns], neighbours in time
    share = np.array(seconds["input"]) / np.array(seconds["ours"])  # [turns]
    result = {
        "images_per_second": rate, "ratio": float(np.median(ratios)), "ratios": ratios.tolist(),
        "input_share": float(np.median(share)), "arch": config.arch, "layers": config.layers,
        "init_channels": config.init_channels, "batch_size": config.batch_size, "auxiliary": config.auxiliary,
        "amp": config.amp, "compile": config.compile,
        "workers": config.workers, "turns": config.turns, "images": len(data), "threads": torch.get_num_threads(),
        "device": device_name(device), "machine": platform.machine(), "torch": torch.__version__,
    }
    table = Table("pipeline", "images/s", title=(
        f"{config.arch}, {config.init_channels} channels, {config.layers} cells, batch {config.batch_size}, "
        f"{result['device']}, {result['threads']} threads"))
    for name, value in rate.items():
        table.add_row(name, f"{value:.0f}")
    runtime.output.print(table)
    runtime.output.print(f"ratio {result['ratio']:.2f} (median of {config.turns} turns, {ratios.min():.2f} to "
                         f"{ratios.max():.2f}); our input pipeline takes {100 * result['input_share']:.1f} % of a step")
    if config.out:
        runtime.write_json(Path(config.out), result)
    return result


if __name__ == "__main__":
    runtime.main_guard(main)
