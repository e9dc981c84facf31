"""An encoder pre-trained on one space, for the vocabulary of another: what it knows of an operation goes by name.

K operations of the new vocabulary, D width.
"""
from __future__ import annotations

import torch

from models import build_encoder

ALIKE = (  # the same operation under other names; an operation of the same name is always the same
    ("conv3x3-bn-relu", "nor_conv_3x3"),
    ("conv1x1-bn-relu", "nor_conv_1x1"),
    ("maxpool3x3", "max_pool_3x3"),
    ("input", "input1", "input2"),
)
ENDS = {"input", "input1", "input2", "output"}  # every space has them, so that they map says nothing
OF_OPERATIONS = {"embed_op.weight": 1, "gate": 0}  # weights with an entry for each operation: which dimension


def origins(names: tuple[str, ...], known: list[str]) -> list[int | None]:
    """For each operation of `names` the place in `known` of the same one, None where it is new."""
    found = []
    for name in names:
        same = {name, *(other for group in ALIKE if name in group for other in group)}
        alike = [name] * (name in known) + [other for other in known if other in same]
        found.append(known.index(alike[0]) if alike else None)
    return found


def transfer(checkpoint: dict, names: tuple[str, ...]) -> tuple[dict, list[str]]:
    """A checkpoint's content for the vocabulary `names`, and which of these operations are new to it.

    The weights of a new operation are initial ones, drawn from torch's own generator. ValueError where, but for inputs and
    outputs, all are new.
    """
    known, places = checkpoint["ops"], origins(names, checkpoint["ops"])
    if not any(place is not None for name, place in zip(names, places) if name not in ENDS):
        raise ValueError("no operation of the two is the same")
    weights = build_encoder(checkpoint["encoder"], len(names)).state_dict()
    for name, stored in checkpoint["weights"].items():
        dim = next((dim for end, dim in OF_OPERATIONS.items() if name.endswith(end)), None)
        weights[name] = stored if dim is None else moved(weights[name], stored, places, len(known), dim)
    new = [name for name, place in zip(names, places) if place is None]
    return checkpoint | {"ops": list(names), "weights": weights}, new


def moved(fresh: torch.Tensor, stored: torch.Tensor, places: list[int | None], known: int, dim: int) -> torch.Tensor:
    """`fresh` with the entries of `stored` along `dim` where an operation has a place; what comes behind the operations
    in both, the mask token, is kept."""
    behind = stored.shape[dim] - known
    pairs = [(i, place) for i, place in enumerate(places) if place is not None]
    pairs += [(len(places) + i, known + i) for i in range(behind)]
    to, source = (torch.tensor(index) for index in zip(*pairs))
    return fresh.index_copy(dim, to, stored.index_select(dim, source))
