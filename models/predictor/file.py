"""Reads and writes predictor.pt: a fine-tuned predictor with all that it needs to score cells."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta

from models.checkpoint import as_encoder, load_networks, stored_checkpoint
from models.encoders import build_encoder
from models.features.facts import FACTS
from models.predictor.background import ALWAYS, Background
from models.predictor.blend import BlendedPredictor
from models.predictor.ensemble import Ensemble
from models.predictor.fit import frozen_encoder
from models.predictor.gaussian_process import MEAN, GaussianProcess
from models.predictor.network import PredictorNetwork
from models.predictor.prior import Prior
from runtime.checkpoint import need_finite, need_fitting, save_checkpoint, unwrapped
from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import checked


class KernelFile(TypedDict):
    """The Gaussian process in a predictor.pt, by `save_predictor`."""

    share: Annotated[float, Meta(ge=0, le=1)]
    sizes: Annotated[dict[str, Annotated[int, Meta(ge=1, le=10**6)]], Meta(min_length=1, max_length=8)]
    n: Annotated[int, Meta(ge=0, le=10**8)]
    level: torch.Tensor
    state: dict[str, torch.Tensor]
    encoder: dict[str, torch.Tensor] | None


class OffsetFile(TypedDict):
    """The prior in a predictor.pt, and the offset of each seed's networks."""

    weights: torch.Tensor
    offset: torch.Tensor


def save_predictor(
    path: Path, parts: Sequence[BlendedPredictor], checkpoint: dict | None, **about
) -> None:
    """Writes predictor.pt, atomically.

    parts: of different seeds, fitted alike; they become one predictor. checkpoint: of the encoder that these
    started from, if any. about: space, cell_marks, ops and the encoder's config.
    """
    process, prior = parts[0].process, parts[0].background.prior
    kernel = None if process is None else {
        "share": parts[0].share,
        "sizes": process.sizes,
        "n": process.weight.shape[1],
        "level": torch.cat([part.scale for part in parts], dim=-1).cpu(),
        "state": {name: joined(name, [part.process.state_dict()[name] for part in parts]).cpu()
                  for name in process.state_dict()},
        "encoder": checkpoint and checkpoint["weights"],
    }
    offset = None if prior is None else {
        "weights": prior.weights, "offset": torch.cat([part.offset for part in parts], dim=-1).cpu()}
    weights = [part.ensemble.member(i) for part in parts if part.ensemble is not None
               for i in range(part.ensemble.size)]
    save_checkpoint(path, **about, kernel=kernel, prior=offset, seeds=sum(part.seeds for part in parts),
                    weights=weights)


def joined(name: str, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Joins a buffer of Gaussian processes: [S, ...] along the seeds; mean and scale are the same in all."""
    return values[0] if name.startswith(("mean_", "scale_")) else torch.cat(list(values))


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
    ensemble, stored = Ensemble(networks).eval() if networks else None, content.get("kernel")
    known = content.get("prior")
    prior = Prior(known["weights"], []) if known else None
    if stored is None:
        background = Background(space.vocabulary, prior=prior)
        predictor = BlendedPredictor(ensemble, content.get("seeds", 1), background)
    else:
        background = Background(space.vocabulary, frozen_encoder(content, stored["encoder"]), prior)
        process = GaussianProcess(stored["sizes"], content["seeds"], stored["n"])
        process.load_state_dict(stored["state"])
        predictor = BlendedPredictor(ensemble, content["seeds"], background, process, stored["share"])
        predictor.scale = stored["level"]
    if known:
        predictor.offset = known["offset"]
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
    start = kernel and kernel["encoder"]
    if not content["weights"] and start is None:
        raise InputError(f"{path} holds no network to start from, as so few labels fit none: give an "
                         "encoder, like default")
    return content | {"members": content["weights"] or None, "weights": start}


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
    if content.get("prior") is not None:
        need_offset(content["prior"], seeds, path)
    if kernel is None:
        if not content["weights"]:
            raise InputError(f"{path} holds neither networks nor a process: make it anew")
        return
    checked(kernel, KernelFile, f"{path}, kernel", "make it anew")
    need_fitting(lambda: GaussianProcess(kernel["sizes"], seeds, kernel["n"]), kernel["state"],
                 f"{path}, kernel")
    parts = {MEAN: content.get("prior"), "embedding": kernel["encoder"]}
    if not content["weights"] and kernel["share"] < 1 or not {"facts"} <= set(kernel["sizes"]) <= {
            *ALWAYS, *(name for name, part in parts.items() if part is not None)}:
        raise InputError(f"{path}, kernel: its features are {', '.join(kernel['sizes'])}, and not those that "
                         "the file has the parts for: make it anew")
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


def need_offset(prior: dict, seeds: int, path: Path) -> None:
    """Raises InputError unless the prior in a predictor.pt is one of the facts, with an offset per seed."""
    checked(prior, OffsetFile, f"{path}, prior", "make it anew")
    if prior["weights"].shape != (len(FACTS),) or prior["offset"].shape != (2, seeds):
        raise InputError(f"{path}, prior: its tensors have other shapes than {len(FACTS)} and 2 x {seeds}: "
                         "make it anew")
    need_finite({name: prior[name] for name in ("weights", "offset")}, f"{path}, prior")
