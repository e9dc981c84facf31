"""Loads pre-trained encoders, and moves them to another space's vocabulary by the names of operations.

K operations of the new vocabulary, D width.
"""
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta

from models.encoders import EncoderConfig, build_encoder
from models.encoders.described import for_vocabulary
from models.features.operations import FEATURES
from runtime.checkpoint import load_checkpoint, need_finite, need_fitting, unwrapped
from runtime.errors import InputError
from runtime.files import ROOT
from runtime.log import console
from runtime.seeding import seeded

ALIKE = (  # the same operation under different names; operations of one name are always the same
    ("conv3x3-bn-relu", "nor_conv_3x3"),
    ("conv1x1-bn-relu", "nor_conv_1x1"),
    ("maxpool3x3", "max_pool_3x3"),
    ("input", "input1", "input2"))
ENDS = {"input", "input1", "input2", "output"}  # in every space, so that a match of these means nothing
UNIVERSAL = ROOT / "checkpoints" / "universal.pt"
NO_SPACE = ("prior.pt", UNIVERSAL.name)  # what is shipped beside the encoders of single spaces
OF_OPERATIONS = {"embed_op.weight": 1, "gate": 0}  # weights with one entry per operation: its dimension


class About(TypedDict):
    """What every checkpoint says of its networks: the space, its vocabulary, the encoder's config."""

    space: str
    ops: Annotated[list[str], Meta(min_length=1, max_length=64)]
    encoder: EncoderConfig


class NetworkFile(About):
    """A file with weights: of an encoder (pretrain.py), or of the members of a predictor (finetune.py)."""

    weights: dict[str, torch.Tensor] | Annotated[list[dict[str, torch.Tensor]], Meta(max_length=10_000)]


class AnyNetworkFile(NetworkFile, total=False):
    cell_marks: bool
    declared: str  # the JSON of a declared space
    kernel: dict[str, Any] | None
    prior: dict[str, Any] | None
    seeds: Annotated[int, Meta(ge=1, le=10_000)]


def about_space(space) -> dict[str, Any]:
    """What a file of networks says of their space, so that `spaces.stored` finds it again."""
    declared = getattr(space, "declaration", None)
    return {"space": space.name, "cell_marks": getattr(space, "cell_marks", True), "ops": list(space.ops),
            **({"declared": declared} if declared else {})}


def load_encoder(source: str, space) -> dict:
    """Loads the checkpoint of a pre-trained encoder for `space`.

    source: a file, or 'default' for the shipped one with the space's operations, else the universal one. An
    encoder of another space is moved to the operations of this one (`transfer`), and a line on stderr names
    the new ones. The universal encoder reads them from their descriptions.
    """
    return as_encoder(*stored_checkpoint(source, space), space)


def stored_checkpoint(source: str, space) -> tuple[Path, dict]:
    """The file that `source` names, and its content. Raises InputError if it marks cells differently."""
    path = shipped_for(space) if source == "default" else Path(source)
    content = load_networks(path)
    marks = content.get("cell_marks", True)
    if marks != getattr(space, "cell_marks", True):
        raise InputError(f"{path} was pre-trained with cell_marks = {marks}: give the same flag here")
    return path, content


def shipped_for(space) -> Path:
    """The shipped encoder of the space's own operations, else the universal one."""
    for path in sorted((ROOT / "checkpoints").glob("*.pt")):
        if path.name not in NO_SPACE and load_networks(path)["ops"] == list(space.ops):
            return path
    return UNIVERSAL


def load_networks(path: str | Path) -> dict:
    """Reads a file of an encoder or a predictor, its weights under their bare names, finite and fitting.

    Raises InputError for anything else.
    """
    content = load_checkpoint(path, AnyNetworkFile)
    if isinstance(content["weights"], list):
        return content  # models/predictor/file.py checks these
    weights = unwrapped(content["weights"])
    need_finite(weights, path)
    need_fitting(lambda: build_encoder(content["encoder"], len(content["ops"])), weights, path)
    return content | {"weights": weights}


def as_encoder(path: Path, content: dict, space) -> dict:
    """The content of an encoder's checkpoint, for `space`. Raises InputError for that of a predictor."""
    if isinstance(content["weights"], list):
        raise InputError(f"{path} is a fine-tuned predictor: give the last.pt of pretrain.py")
    if content["ops"] == list(FEATURES):
        weights = for_vocabulary(content["weights"], space.vocabulary)
        return content | {"ops": list(space.ops), "weights": weights}
    return content if content["ops"] == list(space.ops) else moved(content, path, space)


def moved(content: dict, path: Path, space) -> dict:
    """Moves a checkpoint to the operations of `space`, and names the new ones on stderr."""
    try:
        with seeded(0):
            content, new = transfer(content, space.ops)
    except ValueError as error:
        raise InputError(f"{path} was pre-trained on {content['space']}, for {space.name}: {error}") from None
    console.print(
        f"{path}: pre-trained on {content['space']}; new to it are {', '.join(new) or 'no operations'}")
    return content


def origins(names: tuple[str, ...], known: list[str]) -> list[int | None]:
    """The place in `known` of each operation of `names`, None if it is new."""
    found = []
    for name in names:
        same = {name, *(other for group in ALIKE if name in group for other in group)}
        alike = [name] * (name in known) + [other for other in known if other in same]
        found.append(known.index(alike[0]) if alike else None)
    return found


def transfer(checkpoint: dict, names: tuple[str, ...]) -> tuple[dict, list[str]]:
    """Returns a checkpoint's content for the vocabulary `names`, and which of these operations are new to it.

    A new operation gets initial weights, drawn from torch's own generator. Raises ValueError if all but
    inputs and outputs are new.
    """
    known, places = checkpoint["ops"], origins(names, checkpoint["ops"])
    if not any(place is not None for name, place in zip(names, places) if name not in ENDS):
        raise ValueError("no operation of the two is the same")
    weights = build_encoder(checkpoint["encoder"], len(names)).state_dict()
    for name, stored in checkpoint["weights"].items():
        dim = next((dim for end, dim in OF_OPERATIONS.items() if name.endswith(end)), None)
        weights[name] = (
            stored if dim is None else moved_weights(weights[name], stored, places, len(known), dim))
    new = [name for name, place in zip(names, places) if place is None]
    return checkpoint | {"ops": list(names), "weights": weights}, new


def moved_weights(fresh: torch.Tensor, stored: torch.Tensor, places: list[int | None], known: int,
                  dim: int) -> torch.Tensor:
    """Copies the entries along `dim` of all operations with a place from `stored` to `fresh`.

    The mask token, which follows the operations in both, is copied, too.
    """
    behind = stored.shape[dim] - known
    pairs = [(i, place) for i, place in enumerate(places) if place is not None]
    pairs += [(len(places) + i, known + i) for i in range(behind)]
    to, source = (torch.tensor(index) for index in zip(*pairs))
    return fresh.index_copy(dim, to, stored.index_select(dim, source))
