"""Operations as rows of numbers, by what they compute and not by what they are called.

    described(vocabulary)  # float[K, P]: the same row for the same description, in any space

So an encoder that reads these rows (`models.encoders.described`) knows operations that it never met. K
operations, P numbers of each.
"""
from __future__ import annotations

import math

import torch

from models.features.properties import EFFECTS, logarithm
from models.features.vocabulary import Description, Vocabulary

KINDS = ("input", "output", "zero", "identity", "convolution", "pooling", "attention", "linear")
KERNELS = (1, 3, 5)  # each with a column of its own; the rest share the logarithm


def numbers(does: Description) -> dict[str, float]:
    """{name: number} of one operation; all are 0 where they mean nothing, and most are at most about 1."""
    kind, effect = does["is"], EFFECTS[does["is"]](does)
    kernel, wide = does.get("kernel", 0), does.get("expansion") or 0
    groups = does.get("groups", 1)
    costs = logarithm(torch.tensor([effect.per_pair + effect.per_channel / 64, effect.window / 64]))
    return {
        "any": 1.0,
        **{kind_: float(kind == kind_) for kind_ in KINDS},
        "second input": float(does.get("number", 0) == 1),
        **{f"{kind_} {k}x{k}": float(kind == kind_ and kernel == k)
           for kind_ in ("convolution", "pooling") for k in KERNELS},
        "log kernel": math.log(max(1, kernel)) / 2,
        "log dilation": math.log(does.get("dilation", 1)),
        "log stride": math.log(does.get("stride", 1)),
        "depthwise": float(groups == "channels"),
        "log groups": 0.0 if groups == "channels" else math.log(groups) / 2,
        "pointwise": float(does.get("pointwise", False)),
        "expands": float(wide > 0),
        "log expansion": math.log(wide) / 2 if wide else 0.0,
        "residual": float(does.get("residual", False)),
        "log repeats": math.log(does.get("repeats", 1)),
        "activation first": float(does.get("order") == "relu-conv-norm"),
        "largest": float(does.get("of") == "max"),
        "normalised": float(does.get("norm", False)),
        "divides": float(does.get("divides", False)),
        "log heads": math.log(does.get("heads", 1)) / 2,
        "layers": effect.layers / 2,
        "log reach": math.log1p(effect.reach) / 2,
        "log parameters": float(costs[0]) / 4,
        "log window": float(costs[1]) / 4,
    }


FEATURES = tuple(numbers({"is": "identity"}))  # the names of the P columns


def described(vocabulary: Vocabulary) -> torch.Tensor:
    """float32[K, P]."""
    return torch.tensor([list(numbers(does).values()) for does in vocabulary.values()])


def classes(vocabulary: Vocabulary) -> torch.Tensor:
    """long[K]: a coarse class of each operation, the same in every space, below CLASSES."""
    found = []
    for does in vocabulary.values():
        place = KINDS.index(does["is"])
        if does["is"] == "convolution" and does["kernel"] == 1:
            place = len(KINDS)  # it sees one pixel
        elif does["is"] == "convolution" and does["groups"] != 1:
            place = len(KINDS) + 1
        elif does["is"] == "pooling" and does["of"] == "max":
            place = len(KINDS) + 2
        found.append(place)
    return torch.tensor(found)


CLASSES = len(KINDS) + 3
