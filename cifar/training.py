"""Trains a DARTS network on CIFAR-10: the recipe, the steps, checkpoints within an epoch.

    training = Training(recipe, genotype, seed=0, worker=Worker(device))
    result = fit(training, (train_images, test_images), folder)

A step depends on the recipe, the seed and its number alone (cifar/augment.py), never on a generator. So a
restart repeats nothing and changes nothing. train.py is the script; `cifar.oracle.evaluate` trains for a
query of a search.

B images in a batch, R processes, L cells.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import torch
import torch.nn.functional as F
from torch import nn

from cifar.augment import augmented, drop_path_masks, normalised, padded
from cifar.images import Images
from cifar.network import EDGES, SMALLEST, Network, cost
from runtime.checkpoint import (
    load_checkpoint,
    restore_optimiser,
    restore_state,
    restore_weights,
    save_checkpoint,
)
from runtime.errors import InputError
from runtime.files import write_json
from runtime.guarded import checked, read_json
from runtime.log import Log
from runtime.seeding import DeviceSettings, device_name, mix, seeded
from runtime.settings import check_same, fingerprint, setting
from runtime.workers import Worker

AT_ONCE = 500  # images per batch of an evaluation


class Diverged(InputError):
    """The loss or a weight of a training is not finite."""


@dataclass
class CifarRecipe(DeviceSettings):
    """How a network is built and trained.

    The defaults are those of DARTS (Liu et al., ICLR 2019).
    """

    epochs: int = setting(600, "passes over the training images", within=(1, 10**6))
    batch_size: int = setting(
        96, "images per step, over all processes; an epoch is split into batches of nearly this size",
        within=(2, 10**6))
    layers: int = setting(20, "cells", within=(SMALLEST, 1000))
    init_channels: int = setting(36, "channels of the first cell", within=(2, 10**5))
    auxiliary: bool = setting(True, "train an auxiliary classifier, at two thirds of the depth")
    auxiliary_weight: float = setting(0.4, "weight of the auxiliary classifier's loss", within=(0, 100))
    lr: float = setting(
        0.025, "learning rate of the first step (SGD); it falls as a cosine to 0", within=(0, math.inf))
    momentum: float = setting(0.9, "momentum of SGD", within=(0, 1))
    weight_decay: float = setting(3e-4, "weight decay of SGD", within=(0, math.inf))
    grad_clip: float = setting(5.0, "largest norm of the gradient", within=(1e-9, math.inf))
    cutout: int = setting(16, "side of the square cut out of each image, pixels; 0 = none", within=(0, 64))
    drop_path_prob: float = setting(
        0.2, "share of the edges dropped at the end; it rises with the epochs from 0", within=(0, 0.95))
    amp: str = setting(
        "auto", "mixed precision; auto = bf16 (fp16 on older GPUs) on CUDA, off elsewhere",
        ("auto", "off", "bf16", "fp16"))
    sync_bn: bool = setting(
        False, "several GPUs: normalise over the whole batch, not over each process's share")
    compile: bool = setting(False, "torch.compile: slower start (minutes), faster steps", role="machine")
    channels_last: bool = setting(True, "keep feature maps as [B, X, X, C] in memory", role="machine")
    checkpoint_minutes: float = setting(
        3.0, "minutes between two checkpoints, at most; every epoch ends with one, too",
        within=(0, math.inf), role="output")
    tensorboard: bool = setting(True, "write TensorBoard curves", role="output")


Plain = str | int | float | bool | None


class Decided(TypedDict, total=False):
    """The `fingerprint_of` a training in its files; earlier versions called it `course`."""

    fingerprint: dict[str, Plain]
    course: dict[str, Plain]


class TrainingFile(Decided):
    """last.pt, by `Training.save`."""

    weights: dict[str, torch.Tensor]
    optimiser: dict
    scaler: dict
    epoch: Annotated[int, msgspec.Meta(ge=0)]
    step: Annotated[int, msgspec.Meta(ge=0)]
    sums: torch.Tensor
    loss: float
    scores: list[float]
    seconds: float


class ResultFile(Decided):
    """result.json of one training, by `fit`."""

    scores: Annotated[list[Annotated[float, msgspec.Meta(ge=0, le=100)]], msgspec.Meta(min_length=1)]
    seconds: float
    device: str
    parameters: int
    macs: int


class Training:
    """A network in training: `step` batches of epoch `epoch` are done."""

    def __init__(self, recipe: CifarRecipe, genotype: Any, seed: int, worker: Worker):
        self.recipe, self.genotype, self.seed, self.worker = recipe, genotype, seed, worker
        self.device = worker.device
        with seeded(seed, 1):
            network = Network(genotype, recipe.init_channels, recipe.layers, recipe.auxiliary)
        if recipe.sync_bn and worker.ranks > 1:
            if self.device.type != "cuda":
                raise InputError("--sync_bn works on CUDA only: leave it out, "
                                 "each process then normalises its own share")
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # Channels last, oneDNN of torch 2.14 corrupts the heap on some CPUs if there are 2 or 3 channels.
        broken = self.device.type == "cpu" and recipe.init_channels < 4
        layout = torch.channels_last if recipe.channels_last and not broken else torch.contiguous_format
        self.network = self.model = network.to(self.device, memory_format=layout)
        if worker.ranks > 1:  # all processes keep the first one's running means
            self.model = nn.parallel.DistributedDataParallel(network)
        if recipe.compile:
            self.model = torch.compile(self.model, dynamic=False)
        self.optimiser = torch.optim.SGD(
            network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
        self.numbers = number_format(recipe.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.numbers == torch.float16)
        self.epoch = self.step = 0
        self.sums = torch.zeros(3, device=self.device)  # of this epoch so far: loss, correct answers, images
        self.loss = 0.0  # mean over the last whole epoch, if any
        self.scores: list[float] = []  # held-out accuracy after each of the last epochs, percent
        self.seconds = 0.0  # of training up to the last checkpoint
        self.start_clock()

    def start_clock(self) -> None:
        """Starts the clock of `elapsed`, at the seconds that a restored training took before."""
        self.began, self.saved = time.monotonic() - self.seconds, time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training so far, including those before a restart."""
        return time.monotonic() - self.began

    def since_save(self) -> float:
        """Seconds since the last checkpoint, or the start."""
        return time.monotonic() - self.saved

    def batches(self, images: int) -> list[torch.Tensor]:
        """This epoch's batches, long[B] each: every image once, sizes that differ by at most one."""
        order = torch.Generator().manual_seed(mix(self.seed, self.epoch, 2))
        number = max(1, math.ceil(images / self.recipe.batch_size))
        return list(torch.randperm(images, generator=order).tensor_split(number))

    def gradient(self, stored: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, total: int) -> None:
        """Adds the gradient of one process's share, the images at index long[b], of a batch of `total`.

        stored, labels: all images, padded, and their labels. Each process's loss is scaled so that the mean
        over the processes, which data parallel takes, is the mean over the batch.
        """
        stream, recipe = mix(self.seed, self.epoch, 3), self.recipe
        batch, target = augmented(stored, index, stream, recipe.cutout), labels[index]
        rate, kept = recipe.drop_path_prob * self.epoch / recipe.epochs, None
        if recipe.drop_path_prob:
            kept = drop_path_masks(
                index, mix(self.seed, self.epoch, 4), rate, recipe.layers, EDGES)  # [b, L, 8]
        with self.autocast():
            logits, auxiliary = self.model(batch, kept)  # [b, 10]
            loss = F.cross_entropy(logits, target, reduction="sum")
            objective = loss
            if auxiliary is not None:
                objective = loss + recipe.auxiliary_weight * F.cross_entropy(
                    auxiliary, target, reduction="sum")
        self.scaler.scale(objective * (self.worker.ranks / total)).backward()
        correct = (logits.argmax(1) == target).sum()
        self.sums += torch.stack([loss.detach().float(), correct.float(), torch.full_like(loss, len(index))])

    def update(self, progress: float) -> None:
        """Makes one step of SGD. progress: the share of the whole training that is done."""
        self.optimiser.param_groups[0]["lr"] = self.recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()

    def end_epoch(self) -> dict:
        """Starts the next epoch; returns loss, accuracy (percent) and learning rate of the finished one.

        Loss and accuracy are means over its augmented images.
        """
        self.check()
        loss, correct, images = self.sums.tolist()
        self.sums.zero_()
        self.epoch, self.step, self.loss = self.epoch + 1, 0, loss / images
        return {"loss": self.loss, "train": 100 * correct / images,
                "lr": self.optimiser.param_groups[0]["lr"]}

    def autocast(self):
        return torch.autocast(self.device.type, self.numbers, enabled=self.numbers is not None)

    @torch.no_grad()
    def accuracy(self, images: Images) -> float:
        """Top-1 accuracy on images without augmentation, percent."""
        self.network.eval()
        correct = 0
        for pixels, labels in zip(images.pixels.split(AT_ONCE), images.labels.split(AT_ONCE)):
            with self.autocast():
                logits, _ = self.network(normalised(pixels.to(self.device)))
            correct += int((logits.argmax(1).cpu() == labels).sum())
        self.network.train()
        return 100 * correct / len(images)

    def check(self) -> None:
        """Raises Diverged if the training has; called before anything is written."""
        if not all(value.isfinite().all() for value in (self.sums, *self.network.parameters())):
            raise Diverged(f"the training diverged in epoch {self.epoch + 1} (loss or weights are not "
                           "finite): lower --lr; the last checkpoint, if any, is from before")

    def save(self, path: Path, decided: dict) -> None:
        """Writes a checkpoint, in the first process only. Raises Diverged if the training has.

        decided: the `fingerprint_of` the training.
        """
        self.check()
        self.seconds = self.elapsed()
        if self.worker.rank == 0:
            save_checkpoint(
                path, fingerprint=decided, weights=self.network.state_dict(),
                optimiser=self.optimiser.state_dict(), scaler=self.scaler.state_dict(), epoch=self.epoch,
                step=self.step, sums=self.sums, loss=self.loss, scores=self.scores, seconds=self.seconds)
        self.saved = time.monotonic()

    def restore(self, path: Path, decided: dict) -> None:
        """Restores the state of a checkpoint. Raises InputError if it is of another training or damaged."""
        content = load_checkpoint(path, TrainingFile)
        check_same(fingerprint_in(content), decided, path)
        if content["epoch"] > self.recipe.epochs or content["sums"].shape != self.sums.shape:
            raise InputError(f"{path} is damaged (epoch {content['epoch']}): remove it to train anew")
        restore_weights(self.network, content["weights"], path)
        restore_optimiser(self.optimiser, content["optimiser"], path)
        restore_state(self.scaler.load_state_dict, content["scaler"], "the scaler of mixed precision", path)
        self.epoch, self.step, self.sums = content["epoch"], content["step"], content["sums"].to(self.device)
        self.loss, self.scores, self.seconds = content["loss"], content["scores"], content["seconds"]


def number_format(amp: str, device: torch.device) -> torch.dtype | None:
    """The number format of mixed precision; None = float32."""
    if amp == "auto":
        amp = "off" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def fit(training: Training, data: tuple[Images, Images], folder: Path, last: int = 1,
        on_step: Callable[[Training, int], None] = lambda training, images: None) -> dict:
    """Trains to the end, from folder/last.pt on if it exists; returns the content of folder/result.json.

    data: images to train on, and held-out ones, which are scored after each of the last `last` epochs and
    choose nothing. on_step(training, images) is called after every step with the size of its batch. A
    finished training is not repeated. Raises InputError if the folder holds another training, Diverged if
    this one does.
    """
    (train, held), worker, recipe = data, training.worker, training.recipe
    decided, checkpoint = fingerprint_of(training, train), folder / "last.pt"
    if (folder / "result.json").exists():
        return read_result(folder / "result.json", decided)
    if checkpoint.exists():
        training.restore(checkpoint, decided)
    log = Log(folder, recipe.tensorboard, keep=training.epoch) if worker.rank == 0 else None
    stored = padded(train.pixels.to(training.device)), train.labels.to(training.device)
    training.start_clock()
    on_step(training, 0)
    while training.epoch < recipe.epochs:
        rate = train_epoch(training, stored, lambda: training.save(checkpoint, decided), on_step)
        facts = training.end_epoch() | {"images_per_second": rate}
        if training.epoch > recipe.epochs - last and worker.rank == 0:
            training.scores.append(training.accuracy(held))
            facts["held_out"] = training.scores[-1]
        facts["seconds"] = training.elapsed()
        if log:
            log.write(training.epoch, **facts)
        training.save(checkpoint, decided)
    if not log:
        return {}
    log.close()
    result = {"fingerprint": decided, "scores": training.scores, "seconds": training.seconds,
              "device": device_name(training.device),
              **cost(training.genotype, recipe.init_channels, recipe.layers)._asdict()}
    write_json(folder / "result.json", result)
    return result


def train_epoch(training: Training, stored: tuple[torch.Tensor, torch.Tensor], save: Callable[[], None],
                on_step: Callable[[Training, int], None]) -> float:
    """Makes the remaining steps of this epoch; returns images per second.

    stored: all images, padded, and their labels, on the device. save() writes a checkpoint every few minutes.
    """
    recipe, worker = training.recipe, training.worker
    batches = training.batches(len(stored[1]))
    began, first = time.monotonic(), training.step
    while training.step < len(batches):
        batch = batches[training.step]  # [B]
        share = batch.tensor_split(worker.ranks)[worker.rank].to(training.device)  # [b]
        training.gradient(*stored, share, len(batch))
        training.update((training.epoch + training.step / len(batches)) / recipe.epochs)
        training.step += 1
        on_step(training, len(batch))
        if training.since_save() > 60 * recipe.checkpoint_minutes and training.step < len(batches):
            save()
    return sum(map(len, batches[first:])) / (time.monotonic() - began)


def fingerprint_of(training: Training, train: Images) -> dict:
    """All that decides the weights of a training. Raises InputError if a process gets fewer than 2 images."""
    recipe, ranks = training.recipe, training.worker.ranks
    smallest = min(
        len(share) for batch in training.batches(len(train)) for share in batch.tensor_split(ranks))
    if smallest < 2:
        raise InputError(f"--batch_size {recipe.batch_size}: of {len(train)} images some process gets a "
                         f"batch of {smallest}, and normalisation needs 2: choose another")
    return fingerprint(recipe, CifarRecipe) | {
        "cell": repr(training.genotype), "seed": training.seed, "processes": ranks, "images": train.digest()}


def read_result(path: Path, decided: dict) -> dict:
    """Reads the result of a finished training. Raises InputError if it is of another training or damaged."""
    mend = "remove it to train again, or name another folder"
    result = checked(read_json(path, mend), ResultFile, path, mend)
    check_same(fingerprint_in(result), decided, path)
    return result


def fingerprint_in(stored: dict) -> dict:
    """The fingerprint of a stored training."""
    return stored.get("fingerprint") or stored.get("course") or {}
