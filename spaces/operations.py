"""Operations as data: what each computes, from which pretext tasks, kernel features and costs follow.

    OPERATIONS["sep_conv_3x3"]  # {"is": "convolution", "kernel": 3, "groups": "channels", "repeats": 2, ...}
    described(("input", "nor_conv_3x3", "mix"), mine={"mix": {"is": "attention", "heads": 2}})

A description is a plain dict, complete with its defaults, so that it can be stored and read by anyone; `read`
makes one of a user's entries and checks it. Its kind stands under "is"; the classes below are the kinds.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from runtime.errors import InputError
from runtime.guarded import reason

Count = Annotated[int, Meta(ge=1, le=64)]
Share = Annotated[float, Meta(gt=0, le=64)]
Description = dict[str, Any]
Order = Literal["conv-norm-relu", "relu-conv-norm"]


class Kind(msgspec.Struct, tag_field="is", forbid_unknown_fields=True, frozen=True):
    """What an operation computes, from C channels to C', of X x X pixels."""


class Input(Kind, tag="input"):
    number: Annotated[int, Meta(ge=0, le=1)] = 0  # which of a cell's inputs


class Output(Kind, tag="output"):
    """The sum or the concatenation of all that feeds it."""


class Zero(Kind, tag="zero"):
    """Nothing passes."""


class Identity(Kind, tag="identity"):
    """The input; where channels or size change, a 1 x 1 convolution with normalisation in its place."""


class Convolution(Kind, tag="convolution"):
    """kernel x kernel convolution and normalisation, `repeats` times."""

    kernel: Annotated[int, Meta(ge=1, le=31)] = 3
    dilation: Count = 1
    stride: Count = 1
    groups: Annotated[int, Meta(ge=1, le=4096)] | Literal["channels"] = 1  # "channels" = depthwise
    pointwise: bool = False  # a 1 x 1 convolution follows, without a normalisation between (separable)
    expansion: Share | None = None  # inverted bottleneck: 1 x 1 to so many times C, the kernel, 1 x 1 to C'
    residual: bool = False  # the input is added, where its shape allows
    repeats: Count = 1
    order: Order = "conv-norm-relu"
    divides: bool = False  # works on a share of the output's channels, as in NAS-Bench-101


class Pooling(Kind, tag="pooling"):
    """Where channels change, a 1 x 1 convolution with normalisation follows."""

    kernel: Annotated[int, Meta(ge=1, le=31)] = 3
    stride: Count = 1
    of: Literal["max", "average"] = "max"
    norm: bool = False  # a normalisation without parameters follows
    divides: bool = False


class Attention(Kind, tag="attention"):
    """Self-attention over all pixels: query, key, value and output projection."""

    heads: Count = 1
    residual: bool = True


class Linear(Kind, tag="linear"):
    """A linear map of the channels at each pixel, or, with an expansion, two with a ReLU between."""

    expansion: Share | None = None
    residual: bool = False


KINDS = Input | Output | Zero | Identity | Convolution | Pooling | Attention | Linear


def read(entry: Any, where: str) -> Description:
    """The complete description of an entry: a dict, or the name of a known operation.

    Raises InputError, which begins with `where`, for anything else.
    """
    if isinstance(entry, str):
        if entry not in OPERATIONS:
            raise InputError(f"{where}: no known operation {entry!r:.60}: describe it, or name one of "
                             f"{', '.join(OPERATIONS)}")
        return OPERATIONS[entry]
    if isinstance(entry, dict) and "is" not in entry:
        raise InputError(f"{where} lacks is, the kind of the operation: one of {', '.join(kinds())}")
    try:
        kind = msgspec.convert(entry, KINDS)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {reason(error)}") from None
    if isinstance(kind, (Convolution, Pooling)) and kind.kernel % 2 == 0:
        raise InputError(f"{where}: kernel must be odd, as {kind.kernel} has no centre")
    return msgspec.to_builtins(kind)


def kinds() -> list[str]:
    return [kind.__struct_config__.tag for kind in Kind.__subclasses__()]


def described(names: tuple[str, ...], mine: Mapping[str, Any] = {}) -> dict[str, Description]:
    """{name: description} in the order of `names`; those in `mine` are described there, others are known."""
    return {name: read(mine.get(name, name), name) for name in names}


def _convolution(kernel: int, order: Order, **more) -> Description:
    return msgspec.to_builtins(Convolution(kernel, order=order, **more))


def _separable(kernel: int, **more) -> Description:
    return _convolution(kernel, "relu-conv-norm", groups="channels", pointwise=True, **more)


OPERATIONS = {  # of the benchmarks, by the names that these give them
    "input": {"is": "input", "number": 0},
    "input1": {"is": "input", "number": 0},
    "input2": {"is": "input", "number": 1},
    "output": {"is": "output"},
    "none": {"is": "zero"},
    "skip_connect": {"is": "identity"},
    "conv3x3-bn-relu": _convolution(3, "conv-norm-relu", divides=True),
    "conv1x1-bn-relu": _convolution(1, "conv-norm-relu", divides=True),
    "maxpool3x3": msgspec.to_builtins(Pooling(divides=True)),
    "nor_conv_3x3": _convolution(3, "relu-conv-norm"),
    "nor_conv_1x1": _convolution(1, "relu-conv-norm"),
    "max_pool_3x3": msgspec.to_builtins(Pooling(norm=True)),
    "avg_pool_3x3": msgspec.to_builtins(Pooling(of="average")),
    "sep_conv_3x3": _separable(3, repeats=2),
    "sep_conv_5x5": _separable(5, repeats=2),
    "dil_conv_3x3": _separable(3, dilation=2),
    "dil_conv_5x5": _separable(5, dilation=2),
}


# Cost -------------------------------------------------------------------------------------------------------

class Place(NamedTuple):
    """Where an operation stands in a network: channels in and out, pixels a side of its input, stride."""

    into: int
    out: int
    pixels: int
    stride: int = 1


class Cost(NamedTuple):
    """Trainable parameters, with those of normalisations, and multiplications of one image (MACs)."""

    params: float = 0
    macs: float = 0

    def __add__(self, other: Cost) -> Cost:  # in place of a tuple's, which joins
        return Cost(self.params + other.params, self.macs + other.macs)


def cost(operation: Description, place: Place) -> Cost:
    """What an operation costs at a place, whose stride comes besides the operation's own."""
    into, out, pixels, stride = place
    stride *= operation.get("stride", 1)
    after = -(-pixels // stride)  # pixels a side of the output
    kind = operation["is"]
    if into != out and kind in ("identity", "pooling") or kind == "identity" and stride > 1:
        return convolved(into, out, after) + norm(out)
    if kind == "convolution":
        rest = convolution_cost(operation, Place(out, out, after), 1)
        first = convolution_cost(operation, place, stride)
        return Cost(first.params + (operation["repeats"] - 1) * rest.params,
                    first.macs + (operation["repeats"] - 1) * rest.macs)
    if kind == "attention":
        tokens = after**2
        return Cost(3 * into * out + out * out, tokens * (3 * into * out + out * out) + 2 * tokens**2 * out)
    if kind == "linear":
        wide = operation["expansion"]
        weights = into * out if wide is None else round(wide * into) * (into + out)
        return Cost(weights, weights * after**2)
    return Cost()


def convolution_cost(operation: Description, place: Place, stride: int) -> Cost:
    """What one of the `repeats` of a convolution costs."""
    into, out, pixels, _ = place
    after, k = -(-pixels // stride), operation["kernel"]
    depthwise, wide = operation["groups"] == "channels", operation["expansion"]
    groups = 1 if depthwise else operation["groups"]
    if wide is not None:
        inner = round(wide * into)
        middle = k * k * inner if depthwise else k * k * inner * inner / groups
        return (convolved(into, inner, pixels) + norm(inner) + Cost(middle, middle * after**2) + norm(inner)
                + convolved(inner, out, after) + norm(out))
    own = k * k * into if depthwise else k * k * into * out / groups
    total = Cost(own, own * after**2) + norm(out)
    return total + convolved(into if depthwise else out, out, after) if operation["pointwise"] else total


def convolved(into: int, out: int, pixels: int) -> Cost:
    """A 1 x 1 convolution."""
    return Cost(into * out, into * out * pixels**2)


def norm(channels: int) -> Cost:
    return Cost(2 * channels)
