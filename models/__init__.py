"""Networks, losses and metrics. Nothing here knows a search space: encoders are built from a number of operations."""
from __future__ import annotations

from models.encoder import GraphTransformer
from models.gnn import GAT, GCN

ENCODERS = {"transformer": GraphTransformer, "gat": GAT, "gcn": GCN}


def build_encoder(config: dict, operations: int, dropout: float | None = None):
    """The encoder that a config {base_model, width, layers, heads, dropout} describes; `dropout` overrides the config's."""
    sizes = {name: config[name] for name in ("width", "layers", "heads")}
    return ENCODERS[config["base_model"]](operations, dropout=config["dropout"] if dropout is None else dropout, **sizes)
