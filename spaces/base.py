"""The base of every search space: table of graphs, interfaces of spaces and oracles, record of one answer.

Letters in shape comments: N architectures (B in a batch), V vertices, K operations.
"""
from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch


@dataclass(frozen=True)
class Graphs:
    """A table of architectures as padded graphs; an index tensor, a slice or a mask picks a batch.

    ops    uint8[N, V]     operation id of each vertex, an index into the space's vocabulary; 0 at padding
    adj    uint8[N, V, V]  1 where a tensor flows from vertex i to vertex j; upper triangular; 0 at padding
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
        """Builds the table from ops [N, V] and adj [N, V, V].

        Without n every vertex is real; without marks there is one cell.
        """
        count, vertices = ops.shape
        n = np.full(count, vertices) if n is None else n
        marks = np.zeros((count, vertices)) if marks is None else marks
        return cls(*(torch.from_numpy(np.ascontiguousarray(a, dtype=np.uint8)) for a in (ops, adj, n, marks)))

    @property
    def node_mask(self) -> torch.Tensor:
        """bool[N, V], True at real vertices."""
        positions = torch.arange(self.ops.shape[1], device=self.ops.device)  # [V]
        return positions < self.n[:, None]  # [N, V]

    def digest(self) -> str:
        """SHA-256 of all tensors, by which a resumed run checks that it has the same architectures."""
        sha = hashlib.sha256()
        for value in (self.ops, self.adj, self.n, self.marks):
            sha.update(value.cpu().numpy().tobytes())
        return sha.hexdigest()

    def __len__(self) -> int:
        return self.ops.shape[0]

    def __getitem__(self, index) -> Graphs:
        return Graphs(self.ops[index], self.adj[index], self.n[index], self.marks[index])

    def to(self, device: torch.device | str) -> Graphs:
        return Graphs(self.ops.to(device), self.adj.to(device), self.n.to(device), self.marks.to(device))


class Space(Protocol):
    """A search space.

    Each space has a type of architecture of its own, hashable and never changed in place. Randomness comes
    only from the generator that is passed in.
    """

    name: str
    ops: tuple[str, ...]  # names of the operations; a vertex's operation id is an index into it
    vocabulary: dict[str, dict]  # the same names with what each computes, by `spaces.operations`
    max_vertices: int  # V of every table of this space
    protocol: str  # the default of `spaces.labels.protocols`
    labels: str | None  # the default label table: a name, or a file under ~/datasets; None if there is none
    size: int | None  # number of architectures, if the space can be enumerated
    choices: tuple[int, ...]  # an architecture as independent decisions (see `decode`): options of each

    def sample(self, n: int, rng: np.random.Generator) -> list[Hashable]:
        """Draws n architectures uniformly and independently (so a small space repeats itself)."""

    def mutate(self, arch: Any, rng: np.random.Generator) -> Hashable:
        """A valid architecture one edit away; its key differs from arch's."""

    def neighbours(self, arch: Any) -> list[Hashable]:
        """Everything that `mutate` may return, each key once, in an order that arch alone decides."""

    def decode(self, decisions: np.ndarray) -> list[Hashable | None]:
        """The architecture of each row of int[N, D], None if the row gives none.

        Entries are below those of `choices`. Every architecture is the decoding of some row.
        """

    def encode(self, archs: Sequence[Any]) -> Graphs:
        """The graphs of the architectures, in order."""

    def placement(self, table: Graphs) -> np.ndarray:
        """float32[N, P]: which operation stands where, one-hot, and how often each operation stands.

        A linear function of them values every position by itself; it is what a search's kernel reads. table:
        graphs of this space; `ops`, `adj` and `node_mask` are all that is read.
        """

    def key(self, arch: Any) -> str:
        """The canonical identity of an architecture, equal exactly for those that are the same network."""

    def keys(self, archs: Sequence[Any]) -> list[str]:
        """The key of each, vectorised where that is faster."""

    def text(self, arch: Any) -> str:
        """The notation of the field, one line; parse(text(a)) has the key of a."""

    def parse(self, text: str) -> Hashable:
        """Reads a user's text: text(), key() or a notation of the field; raises InputError otherwise."""

    def table(self, n: int | None = None, rng: np.random.Generator | None = None) -> Graphs:
        """The whole space in its official order, or n uniform samples, vectorised.

        Raises InputError if the whole space is asked for and size is None.
        """

    def encode_keys(self, keys: Sequence[str]) -> Graphs:
        """The graphs of the architectures with these keys, in order, vectorised.

        Raises InputError that names the first unknown key.
        """


def one_hot(digits: np.ndarray, choices: Sequence[int]) -> np.ndarray:
    """digits int[N, D] below choices [D] -> float32[N, sum of the choices]."""
    first = np.cumsum([0, *choices[:-1]])  # [D]
    found = np.zeros((len(digits), sum(choices)), np.float32)
    np.put_along_axis(found, digits + first, 1, axis=1)
    return found


class Record(NamedTuple):
    """One answer of an oracle; None stands for what the oracle does not know."""

    val: float | None  # validation accuracy, percent
    test: float | None  # test accuracy, percent
    cost: float | None  # simulated training time, seconds


class Oracle(Protocol):
    """Anything that answers queries about architectures of one space."""

    name: str
    digest: str  # SHA-256 of all content that its answers depend on; the names of files are not part of it

    def covers(self, key: str) -> bool:
        """Whether query() can answer for the architecture with this key."""

    def query(self, arch: Any) -> Record:
        """The answer; raises InputError if there is none."""
