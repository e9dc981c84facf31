"""What every search space shares: the graph table, the space protocol, and the error for bad input.

Letters in shape comments mean one thing everywhere: N architectures (B in a batch), V vertices, K operations.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Hashable, Protocol, Sequence

import numpy as np
import torch


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line: what, where, how to mend. Scripts exit with code 2."""


@dataclass(frozen=True)
class Graphs:
    """A table of architectures as padded graphs. Indexing with an index tensor, a slice or a mask gives a batch.

    ops    uint8[N, V]     operation id of each vertex, an index into the space's vocabulary; 0 at padding
    adj    uint8[N, V, V]  adj[g, i, j] = 1 where a tensor flows from vertex i to vertex j; upper triangular; 0 at padding
    n      uint8[N]        number of real vertices; they come first, padding follows
    marks  uint8[N, V]     which cell a vertex belongs to (DARTS: 0 normal, 1 reduction; 0 everywhere else)
    """

    ops: torch.Tensor
    adj: torch.Tensor
    n: torch.Tensor
    marks: torch.Tensor

    @classmethod
    def from_numpy(cls, ops: np.ndarray, adj: np.ndarray, n: np.ndarray | None = None,
                   marks: np.ndarray | None = None) -> Graphs:
        """ops [N, V] and adj [N, V, V]; without n every vertex is real, without marks there is one cell."""
        count, vertices = ops.shape
        n = np.full(count, vertices) if n is None else n
        marks = np.zeros((count, vertices)) if marks is None else marks
        return cls(*(torch.from_numpy(np.ascontiguousarray(a, dtype=np.uint8)) for a in (ops, adj, n, marks)))

    @property
    def real(self) -> torch.Tensor:
        """bool[N, V]: True at real vertices."""
        positions = torch.arange(self.ops.shape[1], device=self.ops.device)  # [V]
        return positions < self.n[:, None]  # [N, V]

    def __len__(self) -> int:
        return self.ops.shape[0]

    def __getitem__(self, index) -> Graphs:
        return Graphs(self.ops[index], self.adj[index], self.n[index], self.marks[index])

    def to(self, device: torch.device | str) -> Graphs:
        return Graphs(self.ops.to(device), self.adj.to(device), self.n.to(device), self.marks.to(device))


class Space(Protocol):
    """A search space. `Arch` is whatever value object suits the space; it is hashable and never changed in place.

    Randomness comes only from the generator that is passed in.
    """

    name: str
    ops: tuple[str, ...]  # the vocabulary; a vertex's operation id is an index into it
    max_vertices: int  # V of every table of this space
    protocol: str  # the default of `spaces.protocols`
    labels: str | None  # the default label table: a name or a file under ~/datasets; None where there is no usual one
    size: int | None  # number of architectures where the space can be enumerated, else None
    choices: tuple[int, ...]  # an architecture as independent decisions: how many options each has; `decode` reads them

    def sample(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """n architectures, uniform, independent (so a small space repeats itself)."""

    def mutate(self, arch: Any, rng: np.random.Generator) -> Hashable:
        """A valid architecture one edit away; its key differs from arch's."""

    def neighbours(self, arch: Any) -> list[Hashable]:
        """Everything that `mutate` may return, each key once, in an order that arch alone decides."""

    def decode(self, decisions: np.ndarray) -> list[Hashable | None]:
        """The architecture of each row of int[N, D], entries below those of `choices`; None where a row gives none.

        Every architecture has its decisions.
        """

    def encode(self, archs: Sequence[Any]) -> Graphs:
        """The graphs of the architectures, in order."""

    def key(self, arch: Any) -> str:
        """The canonical identity of the whole architecture: equal exactly for architectures that are the same network."""

    def text(self, arch: Any) -> str:
        """The notation of the field, one line; parse(text(a)) has the key of a."""

    def parse(self, text: str) -> Hashable:
        """The architecture that a user's text names: text(), key() or a notation of the field. InputError otherwise."""

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        """The whole space in its official order (n None; InputError where size is None), or n uniform samples. Vectorised."""

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        """The graphs of the architectures with these keys, in order, vectorised. InputError names the first unknown key."""
