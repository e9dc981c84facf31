"""Analytic properties of architectures, from the graph alone: depth, width, receptive field, cost.

They are targets of the pretext task `properties` (T numbers per vertex) and features of whole cells for any
predictor. Nothing here reads a label or knows a space: a vocabulary says what each operation computes, in the
terms of `spaces.operations`.

N graphs, V vertices, T numbers per vertex, P numbers per cell. Widths are in channels of the cell's output,
C; parameters and multiplications (per pixel) in C^2; the reach of a path is the number of pixels by which it
widens the receptive field. A vertex is dead if every path from an input to an output through it runs over
`none`: it has parameters, nothing else.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.batch import Batch
from models.features.flow import extremes, turned
from models.features.vocabulary import Description, Vocabulary

CHANNELS = 64  # C, for costs that grow with C and not with C^2
EVERYWHERE = 31  # reach of an operation that sees the whole image, here of 32 x 32 pixels
COUNT = "number of "  # begins the names of facts that only one vocabulary has
SMALLEST = 0.01  # costs below a hundredth of a 1x1 convolution are alike in a logarithm


class Effect(NamedTuple):
    """The effect and the cost of an operation."""

    reach: float = 0  # pixels that it adds to the receptive field
    layers: int = 0  # convolutions, one after the other
    per_pair: float = 0  # parameters per input and output channel
    per_channel: float = 0  # parameters per channel
    window: int = 0  # pixels read per channel and pixel without parameters
    blocks: bool = False  # nothing passes
    divided: bool = False  # works on a share of the output's channels: `channel_shares`


def convolution(does: Description) -> Effect:
    times, area = does["repeats"], does["kernel"]**2
    reach = times * does["dilation"] * (does["kernel"] - 1)
    depthwise, wide = does["groups"] == "channels", does["expansion"]
    if wide is None:
        pairs = (0 if depthwise else area / does["groups"]) + does["pointwise"]
        return Effect(reach, times, times * pairs, times * area * depthwise, divided=does["divides"])
    pairs = 2 * wide + (0 if depthwise else area * wide**2 / does["groups"])
    return Effect(reach, 2 * times, times * pairs, times * area * wide * depthwise)


def linear(does: Description) -> Effect:
    wide = does["expansion"]
    return Effect(layers=1, per_pair=1) if wide is None else Effect(layers=2, per_pair=2 * wide)


EFFECTS: dict[str, Callable[[Description], Effect]] = {  # by the kind of the operation
    "input": lambda does: Effect(),
    "output": lambda does: Effect(),
    "identity": lambda does: Effect(),
    "zero": lambda does: Effect(blocks=True),
    "convolution": convolution,
    "pooling": lambda does: Effect(does["kernel"] - 1, window=does["kernel"]**2, divided=does["divides"]),
    "attention": lambda does: Effect(EVERYWHERE, 1, per_pair=4),
    "linear": linear,
}


def properties(batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
    """N graphs over a vocabulary -> float[N, V, T], zero at padding.

    The columns are the keys of `vertex_facts`.
    """
    return torch.stack(list(vertex_facts(batch, vocabulary).values()), dim=-1)  # [N, V, T]


def cell_properties(batch: Batch, vocabulary: Vocabulary, chunk: int = 16384) -> torch.Tensor:
    """N graphs over a vocabulary -> float[N, P], equal for isomorphic graphs.

    The columns are the keys of `cell_facts`, for each marked cell in turn (DARTS: the normal, then the
    reduction cell). Nothing is standardised, and a column may be constant over a space.
    """
    cells = range(int(batch.marks.max()) + 1)
    pieces = []
    for rows in torch.arange(batch.num_graphs, device=batch.ops.device).split(chunk):
        piece = batch.rows(rows)
        pieces.append(of_cells(piece, vocabulary, vertex_facts(piece, vocabulary), cells))
    return torch.cat(pieces)


def of_cells(batch: Batch, vocabulary: Vocabulary, facts: dict[str, torch.Tensor],
             cells: Sequence[int]) -> torch.Tensor:
    """`cell_properties` [N, P] from the `vertex_facts`; cells: the marks."""
    return torch.stack([fact for cell in cells for fact in cell_facts(
        batch, vocabulary, facts, cell).values()], dim=-1)


def property_targets(batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
    """float[N, V, T + P]: the `properties` of each vertex beside the `cell_properties` of its graph."""
    of_cell = cell_properties(batch, vocabulary)[:, None] * batch.node_mask[..., None]  # [N, V, P]
    return torch.cat([properties(batch, vocabulary), of_cell], dim=-1)


def portable_targets(batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
    """As `property_targets`, but the same columns for every vocabulary and number of cells, float[N, V, T].

    A vertex has the facts of its own cell, without the numbers of each operation.
    """
    of_vertices, own = vertex_facts(batch, vocabulary), 0
    for cell in range(int(batch.marks.max()) + 1):
        facts = cell_facts(batch, vocabulary, of_vertices, cell)
        kept = [fact for name, fact in facts.items() if not name.startswith(COUNT)]
        mine = batch.node_mask & (batch.marks == cell)  # [N, V]
        own = own + torch.stack(kept, dim=-1)[:, None] * mine[..., None]  # [N, V, P]
    return torch.cat([properties(batch, vocabulary), own], dim=-1)


def vertex_facts(batch: Batch, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """{name: float[N, V]}; `before`: on the paths from the inputs to a vertex, `after`: on to the outputs."""
    does = lookup(batch, vocabulary)
    live = alive(batch, does["blocks"])  # [N, V]
    adj = batch.adj * live[:, :, None] * live[:, None, :]  # [N, V, V]
    reaches = downstream(adj)  # [N, V, V]
    own, projection, work = costs(batch, vocabulary)  # [N, V] each
    facts = {
        "fan-in": adj.sum(1),
        "fan-out": adj.sum(2),
        "ancestors": reaches.sum(1),
        "descendants": reaches.sum(2),
        "log width": channel_shares(batch, does["divided"]).log(),
        "log parameters": logarithm(own + projection),
        "log work": logarithm(work),
    }
    lengths = {"vertices": batch.node_mask.float(), "convolutions": does["layers"],
               "spatial convolutions": does["layers"] * (does["reach"] > 0), "reach": does["reach"]}
    weight = torch.stack(list(lengths.values()), dim=-1) * live[..., None]  # [N, V, W]
    before = extremes(weight, adj)
    after = (way.flip(1) for way in extremes(weight.flip(1), turned(adj)))
    for side, ways in (("before", before), ("after", after)):
        for end, way in zip(("most", "least"), ways):
            facts |= {f"{end} {what} {side}": value for what, value in zip(lengths, way.unbind(-1))}
    return {name: fact * batch.node_mask for name, fact in facts.items()} | {"live": live}


def cell_facts(batch: Batch, vocabulary: Vocabulary, facts: dict[str, torch.Tensor], cell: int = 0) -> dict:
    """{name: float[N]} of the cell that the vertices with the mark `cell` form. facts: the `vertex_facts`."""
    does, source = lookup(batch, vocabulary), batch.is_input.float()
    mine = (batch.node_mask & (batch.marks == cell)).float()  # [N, V]
    live = facts["live"] * mine
    ends = live * (facts["fan-out"] == 0)  # [N, V]
    own, projection, work = costs(batch, vocabulary)  # [N, V] each
    convolves, looks = does["layers"] > 0, does["reach"] > 0

    def logged(cost):
        return logarithm((cost * mine).sum(1))  # [N]

    def largest(fact, where=mine):
        return (fact * where).amax(1)  # [N]

    costly = {
        "log parameters": logged(own + projection),
        "log parameters alive": logged((own + projection) * live),
        "log work": logged(work),
        "log spatial parameters": logged(own * looks),
        "log pointwise parameters": logged(own * (convolves & ~looks)),
        "log projections": logged(projection),
        "log width": (facts["log width"] * mine).amin(1),
    }
    shape = {
        "vertices": live.sum(1),
        "edges": (facts["fan-in"] * mine).sum(1),
        "largest fan-in": largest(facts["fan-in"]),
        "largest fan-out": largest(facts["fan-out"]),
        "fan-in of the output": largest(facts["fan-in"], ends),
        "fan-out of the input": largest(facts["fan-out"], mine * source),
        "input feeds output": largest((source[:, None] @ batch.adj.float())[:, 0], ends),
    }
    ways = {name.removesuffix(" before"): largest(fact, ends)
            for name, fact in facts.items() if name.endswith(" before")}
    counts = (F.one_hot(batch.ops.long(), len(vocabulary)) * live[..., None]).sum(1)  # [N, K]
    return costly | shape | ways | {
        f"{COUNT}{name}": count for name, count in zip(vocabulary, counts.unbind(-1))}


def lookup(batch: Batch, vocabulary: Vocabulary) -> dict[str, torch.Tensor]:
    """{field of Effect: float[N, V]}, zero at padding."""
    effects = [EFFECTS[does["is"]](does) for does in vocabulary.values()]
    table = torch.tensor(effects, dtype=torch.float32, device=batch.ops.device)  # [K, F]
    fields = table[batch.ops.long()] * batch.node_mask[..., None]  # [N, V, F]
    return dict(zip(Effect._fields, fields.unbind(-1)))


def alive(batch: Batch, blocks: torch.Tensor) -> torch.Tensor:
    """float[N, V]: 1 at the vertices on some path from an input to an output without a blocking vertex."""
    ends = batch.is_output & ~batch.is_input  # an input that nobody uses is no output
    passes = (batch.node_mask & (blocks == 0)).float()  # [N, V]
    reaches = downstream(batch.adj * passes[:, :, None] * passes[:, None, :])  # [N, V, V]
    reaches = reaches + torch.diag_embed(passes)  # every vertex from itself
    fed = (batch.is_input.float()[:, None] @ reaches)[:, 0]  # [N, V]
    feeding = (reaches @ ends.float()[..., None])[..., 0]  # [N, V]
    return ((fed > 0) & (feeding > 0)).float()


def downstream(adj: torch.Tensor) -> torch.Tensor:
    """adj [N, V, V] -> bool[N, V, V]: True where a path of at least one edge leads from i to j."""
    reaches, length = adj.float(), 1  # [N, V, V]: by at most `length` edges
    while length < adj.shape[-1] - 1:
        reaches, length = (reaches + reaches @ reaches).clamp_(max=1), 2 * length
    return reaches > 0


def channel_shares(batch: Batch, divided: torch.Tensor) -> torch.Tensor:
    """float[N, V]: channels of each vertex as a share of the output's; 1 if the operation is undivided.

    In NAS-Bench-101 the predecessors of the output, except the input, divide its channels among them, and an
    earlier vertex takes the width of the widest that it feeds. So all inner vertices are equally wide
    (nasbench/lib/model_builder.py, compute_vertex_channels; remainders are ignored).
    """
    ends = batch.is_output.float()  # [N, V]
    share = 1 / ((divided[..., None] * batch.adj).sum(1) * ends).amax(1, keepdim=True).clamp(min=1)  # [N, 1]
    return torch.where(divided > 0, share, 1.0)


def costs(batch: Batch, vocabulary: Vocabulary) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Costs of each vertex in C^2, float[N, V] each, without normalisation and additions.

    Parameters of the operation, parameters of its projection, and multiplications per pixel of both. If
    operations divide the output's channels, an input is projected (1x1) to the width of each vertex that it
    feeds.
    """
    does = lookup(batch, vocabulary)
    width = channel_shares(batch, does["divided"])  # [N, V]
    own = does["per_pair"] * width**2 + does["per_channel"] * width / CHANNELS  # [N, V]
    projection = torch.zeros_like(own)
    if any(does.get("divides") for does in vocabulary.values()):
        projection = (batch.is_input.float()[:, None] @ batch.adj.float())[:, 0] * width  # [N, V]
    return own, projection, own + projection + does["window"] * width / CHANNELS


def logarithm(cost: torch.Tensor) -> torch.Tensor:
    return cost.clamp(min=SMALLEST).log()
