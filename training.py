"""One training of a DARTS network on CIFAR-10: the recipe, the steps, checkpoints that go on in the middle of an epoch.

    training = Training(recipe, genotype, seed=0, place=Place(device))
    result = fit(training, (train_images, test_images), folder)

What a step does depends on the recipe, the seed and the step's number alone (models/augment.py), never on a generator.
So a restart repeats nothing and changes nothing. train.py is the script; search-time training is train.evaluate().

B images in a batch, R processes, L cells.
"""
from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import runtime
from images import Images
from models import augment, cnn
from runtime import setting
from spaces import InputError

AT_ONCE = 500  # images classified together where nothing is learned


class Diverged(InputError):
    """Loss or weights of a training are not finite."""


@dataclass
class Recipe:
    """How a network is built and trained. The defaults are those of DARTS (Liu et al., ICLR 2019)."""

    epochs: int = setting(600, "passes over the training images", within=(1, 10**6))
    batch_size: int = setting(96, "images a step, over all processes; an epoch is cut into batches of nearly this size",
                              within=(2, 10**6))
    layers: int = setting(20, "cells", within=(cnn.SMALLEST, 1000))
    init_channels: int = setting(36, "channels of the first cell", within=(2, 10**5))
    auxiliary: bool = setting(True, "train a second classifier at two thirds of the depth along")
    auxiliary_weight: float = setting(0.4, "its share of the loss", within=(0, 100))
    lr: float = setting(0.025, "learning rate of the first step (SGD); it falls as a cosine to 0", within=(0, math.inf))
    momentum: float = setting(0.9, "of SGD", within=(0, 1))
    weight_decay: float = setting(3e-4, "of SGD", within=(0, math.inf))
    grad_clip: float = setting(5.0, "largest norm of the gradient", within=(1e-9, math.inf))
    cutout: int = setting(16, "side of the square cut out of each image, pixels; 0 = none", within=(0, 64))
    drop_path_prob: float = setting(0.2, "share of the edges dropped at the end; it rises with the epochs from 0",
                                    within=(0, 0.95))
    amp: str = setting("auto", "16-bit numbers in convolutions; auto = bf16 (fp16 on older cards) on CUDA, off elsewhere",
                       ("auto", "off", "bf16", "fp16"))
    sync_bn: bool = setting(False, "several GPUs: normalise over the whole batch, not over each process's share")
    compile: bool = setting(False, "torch.compile: minutes at the start, faster after that")
    channels_last: bool = setting(True, "keep feature maps as [B, X, X, C] in memory")
    checkpoint_minutes: float = setting(3.0, "minutes at most between two checkpoints; there is one after every epoch, too",
                                        within=(0, math.inf))
    tensorboard: bool = setting(True, "write TensorBoard curves")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    threads: int = setting(0, "CPU threads of torch; 0 = torch's choice")


# Fields that may differ at a restart, because they do not decide the weights but for rounding.
FREE_TO_CHANGE = ("compile", "channels_last", "checkpoint_minutes", "tensorboard", "device", "threads")


class Place(NamedTuple):
    """Where a process works: its device, its number, and how many processes share each batch."""

    device: torch.device
    rank: int = 0
    ranks: int = 1


class Training:
    """A network in training. (epoch, step) says how far it is: `step` batches of epoch `epoch` are done."""

    def __init__(self, recipe: Recipe, genotype: Any, seed: int, place: Place):
        self.recipe, self.genotype, self.seed, self.place = recipe, genotype, seed, place
        self.device = place.device
        with runtime.seeded(seed, 1):
            network = cnn.Network(genotype, recipe.init_channels, recipe.layers, recipe.auxiliary)
        if recipe.sync_bn and place.ranks > 1:
            if self.device.type != "cuda":
                raise InputError("--sync_bn works on CUDA only: leave it out, each process then normalises its own share")
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network = self.model = network.to(self.device, memory_format=layout)
        if place.ranks > 1:
            self.model = nn.parallel.DistributedDataParallel(network)  # all processes keep the first one's running means
        if recipe.compile:
            self.model = torch.compile(self.model, dynamic=False)
        self.optimiser = torch.optim.SGD(network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
        self.numbers = number_format(recipe.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.numbers == torch.float16)
        self.epoch = self.step = 0
        self.sums = torch.zeros(3, device=self.device)  # over this epoch's images so far: loss, correct answers, images
        self.loss = 0.0  # mean over the last whole epoch, once there is one
        self.scores: list[float] = []  # accuracy on held-out images after each of the last epochs, percent
        self.seconds = 0.0

    def batches(self, images: int) -> list[torch.Tensor]:
        """This epoch's batches: long[B] each, all images once, sizes differing by one at most."""
        order = torch.Generator().manual_seed(runtime.mix(self.seed, self.epoch, 2))
        number = max(1, math.ceil(images / self.recipe.batch_size))
        return list(torch.randperm(images, generator=order).tensor_split(number))

    def gradient(self, stored: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, total: int) -> None:
        """Add the gradient of the images index, long[b], of a batch of `total`: one process's share of it.

        stored and labels are all images, padded. Each process's loss is scaled so that the mean over the processes, which
        data parallel takes, is the mean over the batch.
        """
        stream, recipe = runtime.mix(self.seed, self.epoch, 3), self.recipe
        batch, target = augment.augmented(stored, index, stream, recipe.cutout), labels[index]
        rate, kept = recipe.drop_path_prob * self.epoch / recipe.epochs, None
        if recipe.drop_path_prob:
            kept = augment.paths(index, runtime.mix(self.seed, self.epoch, 4), rate, recipe.layers, cnn.EDGES)  # [b, L, 8]
        with self.autocast():
            logits, auxiliary = self.model(batch, kept)  # [b, 10]
            loss = F.cross_entropy(logits, target, reduction="sum")
            objective = loss
            if auxiliary is not None:
                objective = loss + recipe.auxiliary_weight * F.cross_entropy(auxiliary, target, reduction="sum")
        self.scaler.scale(objective * (self.place.ranks / total)).backward()
        correct = (logits.argmax(1) == target).sum()
        self.sums += torch.stack([loss.detach().float(), correct.float(), torch.full_like(loss, len(index))])

    def update(self, progress: float) -> None:
        """One step of SGD along the gradient; progress is the share of the whole training that lies behind."""
        self.optimiser.param_groups[0]["lr"] = self.recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()

    def end_epoch(self) -> dict:
        """On to the next epoch; {mean loss, accuracy (percent), learning rate} of this one, on its augmented images."""
        self.check()
        loss, correct, images = self.sums.tolist()
        self.sums.zero_()
        self.epoch, self.step, self.loss = self.epoch + 1, 0, loss / images
        return {"loss": self.loss, "train": 100 * correct / images, "lr": self.optimiser.param_groups[0]["lr"]}

    def autocast(self):
        return torch.autocast(self.device.type, self.numbers, enabled=self.numbers is not None)

    @torch.no_grad()
    def accuracy(self, images: Images) -> float:
        """Top-1 accuracy on unaltered images, percent."""
        self.network.eval()
        correct = 0
        for pixels, labels in zip(images.pixels.split(AT_ONCE), images.labels.split(AT_ONCE)):
            with self.autocast():
                logits, _ = self.network(augment.normalised(pixels.to(self.device)))
            correct += int((logits.argmax(1).cpu() == labels).sum())
        self.network.train()
        return 100 * correct / len(images)

    def check(self) -> None:
        """Diverged where it has; called before anything is written."""
        if not all(value.isfinite().all() for value in (self.sums, *self.network.parameters())):
            raise Diverged(f"the training diverged in epoch {self.epoch + 1} (loss or weights are not finite): lower "
                           "--lr; the last checkpoint, if there is one, is from before")

    def save(self, path: Path, course: dict) -> None:
        self.check()
        if self.place.rank == 0:
            runtime.save_checkpoint(
                path, course=course, weights=self.network.state_dict(), optimiser=self.optimiser.state_dict(),
                scaler=self.scaler.state_dict(), epoch=self.epoch, step=self.step, sums=self.sums, loss=self.loss,
                scores=self.scores, seconds=self.seconds)

    def restore(self, path: Path, course: dict) -> None:
        """Go on from the checkpoint. InputError where it is of another course or damaged."""
        content = runtime.load_checkpoint(path, ("course", "weights", "optimiser", "scaler", "epoch", "step", "sums", "loss",
                                                 "scores", "seconds"))
        same_course(content["course"], course, path)
        self.network.load_state_dict(content["weights"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        self.epoch, self.step, self.sums = content["epoch"], content["step"], content["sums"].to(self.device)
        self.loss, self.scores, self.seconds = content["loss"], content["scores"], content["seconds"]


def number_format(amp: str, device: torch.device) -> torch.dtype | None:
    """What convolutions compute in; None = float32."""
    if amp == "auto":
        amp = "off" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def same_course(stored: dict, course: dict, path: Path) -> None:
    """InputError unless what decides a training's weights is as it was."""
    for name, value in course.items():
        if stored.get(name) != value:
            raise InputError(f"{path} was made with {name} = {stored.get(name)!r}, not {value!r}: give the same to go on, "
                             "or name another folder")


def fit(training: Training, data: tuple[Images, Images], folder: Path, last: int = 1,
        on_step: Callable[[Training, int], None] = lambda training, images: None) -> dict:
    """Train to the end, from folder/last.pt on where there is one; returns what folder/result.json holds.

    data  images to train on, and held-out ones, which are looked at after each of the `last` epochs and choose nothing
    on_step(training, images) is called after every step with the size of its batch.
    A training that has ended before is not repeated. InputError where the folder holds another one; Diverged.
    """
    (train, held), place, recipe = data, training.place, training.recipe
    course = course_of(training, train)
    if (folder / "result.json").exists():
        return read_result(folder / "result.json", course)
    if (folder / "last.pt").exists():
        training.restore(folder / "last.pt", course)
    log = runtime.Log(folder, recipe.tensorboard, keep=training.epoch) if place.rank == 0 else None
    stored, labels = augment.padded(train.pixels.to(training.device)), train.labels.to(training.device)
    started = time.monotonic() - training.seconds
    saved = time.monotonic()
    on_step(training, 0)
    while training.epoch < recipe.epochs:
        batches = training.batches(len(train))
        began, first = time.monotonic(), training.step
        while training.step < len(batches):
            batch = batches[training.step]  # [B]
            share = batch.tensor_split(place.ranks)[place.rank].to(training.device)  # [b]
            training.gradient(stored, labels, share, len(batch))
            training.update((training.epoch + training.step / len(batches)) / recipe.epochs)
            training.step += 1
            on_step(training, len(batch))
            if time.monotonic() - saved > 60 * recipe.checkpoint_minutes and training.step < len(batches):
                training.seconds = time.monotonic() - started
                training.save(folder / "last.pt", course)
                saved = time.monotonic()
        facts = training.end_epoch()
        facts["images_per_second"] = sum(map(len, batches[first:])) / (time.monotonic() - began)
        if training.epoch > recipe.epochs - last and place.rank == 0:
            training.scores.append(training.accuracy(held))
            facts["held_out"] = training.scores[-1]
        training.seconds = facts["seconds"] = time.monotonic() - started
        if log:
            log.write(training.epoch, **facts)
        training.save(folder / "last.pt", course)
        saved = time.monotonic()
    if not log:
        return {}
    log.close()
    result = {"course": course, "scores": training.scores, "seconds": training.seconds,
              "device": device_name(training.device),
              **cnn.cost(training.genotype, recipe.init_channels, recipe.layers)._asdict()}
    runtime.write_json(folder / "result.json", result)
    return result


def course_of(training: Training, train: Images) -> dict:
    """What decides the weights of a training. InputError where a process would get a batch of one image."""
    recipe, ranks = training.recipe, training.place.ranks
    smallest = min(len(share) for batch in training.batches(len(train)) for share in batch.tensor_split(ranks))
    if smallest < 2:
        raise InputError(f"--batch_size {recipe.batch_size}: of {len(train)} images some process gets a batch of "
                         f"{smallest}, and normalisation needs 2: choose another")
    decides = [field.name for field in dataclasses.fields(Recipe) if field.name not in FREE_TO_CHANGE]
    return {name: getattr(recipe, name) for name in decides} | {
        "cell": repr(training.genotype), "seed": training.seed, "processes": ranks, "images": train.digest()}


def read_result(path: Path, course: dict) -> dict:
    """The result of a training that has ended. InputError where it is of another course or damaged."""
    try:
        result = json.loads(path.read_text())
        same_course(result["course"], course, path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: remove it to train again, or name another folder") from None
    return result


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
