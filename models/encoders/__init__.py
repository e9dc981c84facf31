"""Encoders of architectures by name. They know no search space, only a number of operations."""
from __future__ import annotations

from importlib import import_module
from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from runtime.errors import InputError

ENCODERS = {  # name: (module, class), imported on use: torch-geometric takes seconds to import
    "transformer": ("models.encoders.transformer", "GraphTransformer"),
    "gat": ("models.encoders.gat", "GAT"),
    "gcn": ("models.encoders.gnn", "GCN"),
    "npnas": ("models.encoders.published", "NPNAS"),
    "gates": ("models.encoders.published", "GATES"),
}


class Sizes(TypedDict):
    """The config of an encoder in a checkpoint, see `build_encoder`."""

    base_model: Literal["transformer", "gat", "gcn", "npnas", "gates"]
    width: Annotated[int, Meta(ge=1, le=4096)]
    layers: Annotated[int, Meta(ge=1, le=100)]
    heads: Annotated[int, Meta(ge=1, le=64)]
    dropout: Annotated[float, Meta(ge=0, le=0.95)]


class EncoderConfig(Sizes, total=False):
    direction: bool


def build_encoder(config: dict, operations: int, dropout: float | None = None):
    """Builds an encoder from a config {base_model, width, layers, heads, dropout, direction}.

    direction, True if the config lacks it, belongs to the graph transformer alone. dropout: overrides that of
    the config.
    """
    module, name = ENCODERS[config["base_model"]]
    sizes = {size: config[size] for size in ("width", "layers", "heads")}
    if not config.get("direction", True):
        sizes["direction"] = False
    dropout = config["dropout"] if dropout is None else dropout
    return getattr(import_module(module), name)(operations, dropout=dropout, **sizes)


def encoder_config(settings) -> dict:
    """The config of `build_encoder`, from a script's settings; a checkpoint stores it."""
    config = {name: getattr(settings, name)
              for name in ("base_model", "width", "layers", "heads", "dropout", "direction")}
    if config["width"] % config["heads"]:
        raise InputError(f"--width {config['width']} does not divide among --heads {config['heads']}")
    if not config["direction"] and config["base_model"] != "transformer":
        raise InputError("--no-direction: it is a switch of the transformer, "
                         f"and base_model is {config['base_model']}")
    return config
