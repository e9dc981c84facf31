"""A pre-training run: what a step changes, and the checkpoint from which it goes on."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np
import torch

from models.encoders import encoder_config
from models.encoders.described import bare_weights
from models.predictor.fit import warm_cosine
from models.pretext.corpus import Corpus
from models.pretext.shared import SharedEncoder
from models.pretext.tasks import Pretext, total
from runtime.checkpoint import (
    load_checkpoint,
    restore_optimiser,
    restore_state,
    restore_weights,
    save_checkpoint,
)
from runtime.errors import InputError
from runtime.log import console
from runtime.seeding import mix, rng_state, seeded, set_rng_state
from runtime.settings import check_same
from runtime.workers import Worker


class RunFile(TypedDict):
    """last.pt: what --resume needs beside the bare encoder, by `Run.save`."""

    config: dict[str, Any]
    pretext: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    step: Annotated[int, msgspec.Meta(ge=1)]
    losses: list[float]
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    generator: torch.Tensor
    rng: dict[str, Any]


class Run:
    """A pre-training run: all state that a step changes, and its checkpoint; `step` steps are done."""

    def __init__(self, config: Any, decided: dict, about: dict, pretext: Pretext, worker: Worker):
        """config: of pretrain.py. decided: its fingerprint. about: the space, as in a checkpoint."""
        self.config, self.decided, self.about, self.pretext = config, decided, about, pretext
        self.device, self.rank = worker.device, worker.rank
        self.shared = SharedEncoder(pretext.encoder, *worker[1:]) if worker.ranks > 1 else None
        self.optimiser = torch.optim.AdamW(
            pretext.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.generator = torch.Generator(self.device).manual_seed(mix(config.seed, 2))
        self.step, self.losses, self.seconds = 0, [], 0.0
        self.rng = None  # states of torch's own generators, after a restart

    def advance(self, corpus: Corpus) -> dict[str, torch.Tensor]:
        """Makes one optimiser step on a batch; returns the loss of each task."""
        config = self.config
        self.optimiser.param_groups[0]["lr"] = config.lr * warm_cosine(
            self.step / config.iterations, config.warmup)
        batch, target = corpus.draw(config.batch_size, self.generator)
        parts = self.pretext(batch, target, self.generator, self.shared)
        loss = total(parts)
        self.optimiser.zero_grad()
        loss.backward()
        if self.shared:
            self.shared.reduce()
        torch.nn.utils.clip_grad_norm_(self.pretext.parameters(), 5.0)
        self.optimiser.step()
        self.losses.append(loss.item())
        self.step += 1
        return parts

    @property
    def tenth(self) -> int:
        """The number of steps in a tenth of the run."""
        return max(1, self.config.iterations // 10)

    @property
    def loss(self) -> float:
        """The mean loss of the last tenth of the run."""
        return float(np.mean(self.losses[-self.tenth:]))

    def bare_encoder(self) -> dict:
        """The part of a checkpoint that other scripts start from: the encoder, no optimiser, no heads."""
        return {
            **self.about,
            "encoder": encoder_config(self.config),
            "weights": {name: value.cpu() for name, value in bare_weights(self.pretext.encoder).items()},
        }

    def save(self, path: Path) -> None:
        """Writes the bare encoder and all state that --resume needs."""
        save_checkpoint(
            path,
            **self.bare_encoder(),
            config=dataclasses.asdict(self.config),
            decided=self.decided,
            rng=rng_state(),
            pretext=self.pretext.state_dict(),
            optimiser=self.optimiser.state_dict(),
            step=self.step,
            losses=self.losses,
            seconds=self.seconds,
            generator=self.generator.get_state(),
        )

    def restore(self, path: Path) -> None:
        """Reads the state of a checkpoint; raises InputError if it is of another run, device or project.

        A finished run goes on to more iterations: the learning rate then follows the cosine of the larger
        number from the step that was reached, so it rises again.
        """
        content = load_checkpoint(path, RunFile)
        stored, config = content.get("decided", content["config"]), self.config
        step, planned = content["step"], stored.get("iterations")
        if step == planned and step < config.iterations:
            stored = stored | {"iterations": config.iterations}
            console.print(f"{path}: finished after {step} steps; goes on with the learning rate of step "
                          f"{step} of {config.iterations}")
        check_same(stored, self.decided, path, {"data": config.data})
        if content["rng"].keys() != rng_state().keys():
            raise InputError(f"{path} was made on another kind of device: resume it with the same --device")
        if len(content["losses"]) != step or step > config.iterations:
            raise InputError(f"{path} is damaged ({step} steps, {len(content['losses'])} losses): start anew "
                             "in another folder")
        restore_weights(self.pretext, content["pretext"], path)
        restore_optimiser(self.optimiser, content["optimiser"], path)
        restore_state(self.generator.set_state, content["generator"], "the state of the batches", path)
        with seeded(0):
            restore_state(set_rng_state, content["rng"], "the state of torch's generators", path)
        self.step, self.losses, self.seconds = step, content["losses"], content["seconds"]
        self.rng = content["rng"]
