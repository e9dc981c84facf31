"""Reads and writes predictor.pt: a fine-tuned predictor with all that it needs to score cells."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta

from models.checkpoint import as_encoder, load_networks, stored_checkpoint
from models.encoders import build_encoder
from models.predictor.blend import BlendedPredictor
from models.predictor.ensemble import Ensemble
from models.predictor.fit import frozen_encoder
from models.predictor.gaussian_process import GaussianProcess
from models.predictor.network import PredictorNetwork
from runtime.checkpoint import need_finite, need_fitting, save_checkpoint, unwrapped
from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import checked


class KernelFile(TypedDict):
    """The Gaussian process in a predictor.pt, by `save_predictor`."""

    share: Annotated[float, Meta(ge=0, le=1)]
    sizes: Annotated[list[Annotated[int, Meta(ge=1, le=10**6)]], Meta(min_length=1, max_length=8)]
    n: Annotated[int, Meta(ge=1, le=10**8)]
    level: torch.Tensor
    state: dict[str, torch.Tensor]
    encoder: dict[str, torch.Tensor] | None


def save_predictor(
    path: Path, parts: Sequence[BlendedPredictor], checkpoint: dict | None, **about
) -> None:
    """Writes predictor.pt, atomically.

    parts: of different seeds, fitted alike; they become one predictor. checkpoint: of the encoder that these
    started from, if any. about: space, cell_marks, ops and the encoder's config.
    """
    process = parts[0].process
    kernel = None if process is None else {
        "share": parts[0].share,
        "sizes": process.sizes,
        "n": process.weight.shape[1],
        "level": torch.cat([part.scale for part in parts], dim=-1).cpu(),
        "state": {name: joined([part.process.state_dict()[name] for part in parts]).cpu()
                  for name in process.state_dict()},
        "encoder": checkpoint and checkpoint["weights"],
    }
    weights = [part.ensemble.member(i) for part in parts for i in range(part.ensemble.size)]
    save_checkpoint(
        path, **about, kernel=kernel, seeds=sum(part.seeds for part in parts), weights=weights)


def joined(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Joins a buffer of Gaussian processes: [S, ...] along the seeds; one [P] is the same in all."""
    return values[0] if values[0].dim() == 1 else torch.cat(list(values))


def load_predictor(path: str | Path, space_of: Callable[[dict], Any]) -> tuple[dict, Any, BlendedPredictor]:
    """Reads predictor.pt: its content, its space, and the predictor, on the CPU.

    space_of(content) finds the space, e.g. `spaces.stored`. Raises InputError for any other file, or for one
    that was made for other operations than those of the space.
    """
    path = path_of(path)
    content = load_networks(path)
    if not isinstance(content["weights"], list):
        raise InputError(f"{path} holds an encoder, not a predictor: give a predictor.pt of finetune.py")
    space = space_of(content)
    need_space(content, space, path)
    need_predictor(content, path)
    networks = []
    for weights in content["weights"]:
        network = new_network(content)
        network.load_state_dict(weights)
        networks.append(network)
    ensemble, stored = Ensemble(networks).eval(), content.get("kernel")
    if stored is None:
        return content, space, BlendedPredictor(ensemble, content.get("seeds", 1))
    process = GaussianProcess(stored["sizes"], content["seeds"], stored["n"])
    process.load_state_dict(stored["state"])
    encoder = frozen_encoder(content, stored["encoder"])
    predictor = BlendedPredictor(
        ensemble, content["seeds"], process, stored["share"], encoder, space.vocabulary)
    predictor.scale = stored["level"]
    return content, space, predictor


def load_encoder_or_predictor(source: str, space) -> dict:
    """Like `models.checkpoint.load_encoder`, but accepts a predictor.pt of finetune.py as well.

    The content of one has "members", the weights of its networks, beside those of the encoder that it started
    from, if any.
    """
    path, content = stored_checkpoint(source, space)
    if not isinstance(content["weights"], list):
        return as_encoder(path, content, space)
    need_space(content, space, path)
    need_predictor(content, path)
    kernel = content.get("kernel")
    return content | {"members": content["weights"], "weights": kernel and kernel["encoder"]}


# What a file must hold --------------------------------------------------------------------------------------

def need_space(content: dict, space, path: str | Path) -> None:
    """Raises InputError if a predictor was made for other operations than those of the space."""
    if content["ops"] != list(space.ops):
        raise InputError(f"{path} is a predictor for {content['space']}, "
                         f"whose operations are not those of {space.name}: make it anew")


def new_network(content: dict) -> PredictorNetwork:
    return PredictorNetwork(build_encoder(content["encoder"], len(content["ops"])))


def need_predictor(content: dict, path: Path) -> None:
    """Raises InputError unless the tensors in the content of a predictor.pt are finite and fit each other.

    The weights get their bare names.
    """
    content["weights"] = [unwrapped(weights) for weights in content["weights"]]
    for i, weights in enumerate(content["weights"]):
        need_fitting(lambda: new_network(content), weights, f"{path}, member {i}")
        need_finite(weights, f"{path}, member {i}")
    seeds, kernel = content.get("seeds", 1), content.get("kernel")
    if len(content["weights"]) % seeds:
        raise InputError(
            f"{path}: {len(content['weights'])} networks cannot be of {seeds} seeds: make it anew")
    if kernel is None:
        return
    checked(kernel, KernelFile, f"{path}, kernel", "make it anew")
    need_fitting(lambda: GaussianProcess(kernel["sizes"], seeds, kernel["n"]), kernel["state"],
                 f"{path}, kernel")
    if kernel["level"].shape != (2, 2, seeds):
        raise InputError(f"{path}, kernel: level is {list(kernel['level'].shape)}, not {[2, 2, seeds]}: make "
                         "it anew")
    # the scale of a constant feature is infinite
    state = {name: 1 / value if name.startswith("scale") else value
             for name, value in kernel["state"].items()}
    need_finite(state | {"level": kernel["level"]}, f"{path}, kernel")
    if kernel["encoder"] is not None:
        kernel["encoder"] = unwrapped(kernel["encoder"])
        need_fitting(lambda: build_encoder(content["encoder"], len(content["ops"])), kernel["encoder"], path)
        need_finite(kernel["encoder"], path)
