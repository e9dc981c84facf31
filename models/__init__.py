"""Networks, losses and metrics. Nothing here knows a search space: encoders are built from a number of operations."""
from __future__ import annotations

from importlib import import_module

ENCODERS = {  # name: (module, class); torch-geometric takes seconds to import, so only its own encoders do
    "transformer": ("models.encoder", "GraphTransformer"),
    "gat": ("models.gnn", "GAT"),
    "gcn": ("models.gnn", "GCN"),
    "npnas": ("models.references", "NPNAS"),
    "gates": ("models.references", "GATES"),
}


def build_encoder(config: dict, operations: int, dropout: float | None = None):
    """The encoder that a config {base_model, width, layers, heads, dropout} describes; `dropout` overrides its own.

    `direction`, True where the config lacks it, is the graph transformer's alone.
    """
    module, name = ENCODERS[config["base_model"]]
    sizes = {size: config[size] for size in ("width", "layers", "heads")}
    if not config.get("direction", True):
        sizes["direction"] = False
    dropout = config["dropout"] if dropout is None else dropout
    return getattr(import_module(module), name)(operations, dropout=dropout, **sizes)
