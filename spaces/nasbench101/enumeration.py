"""The whole NAS-Bench-101 space, enumerated: every cell once, in the official order, kept in a cache file.

A cell is a directed acyclic graph of 2..7 vertices and at most 9 edges; every vertex lies on a path from the
input (first) to the output (last); each inner vertex has one of three operations. Two cells are the same if a
permutation of the inner vertices turns one into the other. `build` makes the table in three steps:

1. wirings: graphs without operations, one per isomorphism class (all edge sets under all permutations);
2. labellings: of each wiring's 3^(n-2) operation tuples, one per orbit of the wiring's automorphisms;
3. the module hash of NAS-Bench-101 for every cell; ascending hashes are the official order.

An edge set is an integer: bit j(j-1)/2 + i stands for the edge i→j. The bits of the first n vertices come
first, so an edge set of n vertices is also one of 7 vertices with the last 7-n unused. Letters: N cells (B in
a batch), n vertices, E = n(n-1)/2 possible edges, W wirings, L = 3^(n-2) labellings, G vertices of a group, M
any number of digests.
"""
from __future__ import annotations

import hashlib
import sys
from itertools import permutations, product

import numpy as np
from rich.console import Console
from rich.progress import track

from runtime.files import atomic_write, cache_dir
from spaces.nasbench101.md5 import md5

OPS = ("input", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "output")
LABELS = (-1, 0, 1, 2, -2)  # the number of each of OPS inside the module hash
MAX_VERTICES, MAX_EDGES = 7, 9
CELL = np.dtype([("hash", "u1", 16), ("edges", "<u4"), ("ops", "u1", MAX_VERTICES)])  # a row; 0 pads ops
SHA256 = "73b0fb33dae06b3c8cbc6ac7efd8c0b96047a21b5064ea969e4302cf05f416ed"  # of the table, on any machine
CACHE_FILE = "nasbench101.bin"  # the bytes of the table, nothing else
HASH_BATCH = 32768  # cells hashed at a time: long vectors in little memory


# Wirings ----------------------------------------------------------------------------------------------------

def edge_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources int[E] and targets int[E] of the edges, in bit order."""
    targets, sources = np.tril_indices(n, -1)
    return sources, targets


def adjacency(edges: np.ndarray, n: int) -> np.ndarray:
    """Edge sets uint32[B] as matrices uint8[B, n, n]."""
    sources, targets = edge_pairs(n)
    matrices = np.zeros((len(edges), n, n), np.uint8)
    matrices[:, sources, targets] = edges[:, None] >> np.arange(len(sources), dtype=np.uint32) & 1  # [B, E]
    return matrices


def edge_sets(n: int) -> np.ndarray:
    """uint32[B] ascending: every edge set of n vertices with at most 9 edges and every vertex on a path."""
    sources, targets = edge_pairs(n)
    edges = np.arange(1 << len(sources), dtype=np.uint32)
    edges = edges[np.bitwise_count(edges) <= MAX_EDGES]
    for v in range(n):  # all but the input need an edge in, all but the output an edge out; no more is needed
        into, out = (np.uint32((1 << np.flatnonzero(ends == v)).sum()) for ends in (targets, sources))
        edges = edges[((edges & into != 0) | (v == 0)) & ((edges & out != 0) | (v == n - 1))]
    return edges


def wirings(n: int) -> tuple[np.ndarray, np.ndarray]:
    """One edge set per isomorphism class, uint32[W] ascending, and its automorphisms, bool[W, (n-2)!].

    A class is named by its least edge set over all permutations; the columns follow `inner_permutations`.
    """
    edges = edge_sets(n)
    least = edges.copy()
    for permutation in inner_permutations(n):
        np.minimum(least, _permuted(edges, permutation), out=least)
    classes = np.unique(least)  # [W]
    automorphisms = np.stack(
        [_permuted(classes, p) == classes for p in inner_permutations(n)], axis=1)  # [W, (n-2)!]
    return classes, automorphisms


def inner_permutations(n: int) -> list[tuple[int, ...]]:
    """Every permutation p of n vertices that keeps input and output in place; vertex v moves to p[v]."""
    return [(0, *inner, n - 1) for inner in permutations(range(1, n - 1))]


def _permuted(edges: np.ndarray, permutation: tuple[int, ...]) -> np.ndarray:
    """Edge sets uint32[B] after the permutation.

    An edge that turns back sets bit 31, so that its edge set is never the least.
    """
    n = len(permutation)
    moved = [1 << (q * (q - 1) // 2 + p if p < q else 31)  # the bit that each bit turns into
             for p, q in ((permutation[i], permutation[j]) for i, j in zip(*edge_pairs(n)))]  # [E]
    result = np.zeros_like(edges)
    for low in range(0, len(moved), 7):  # seven bits at a time through a table of their 128 images
        images = np.zeros(1, np.uint32)
        for bit in moved[low:low + 7]:
            images = np.concatenate([images, images | np.uint32(bit)])  # [2, 4, .. 128]
        result |= images[edges >> low & (len(images) - 1)]  # [B]
    return result


# Labellings -------------------------------------------------------------------------------------------------

def cells(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every cell of n vertices once: edge sets uint32[N] and operation ids uint8[N, n]."""
    classes, automorphisms = wirings(n)
    inner = n - 2
    place_values = 3 ** np.arange(inner)  # [n-2]
    digits = np.arange(3 ** inner)[:, None] // place_values % 3  # [L, n-2]
    least = np.ones((len(classes), len(digits)), bool)  # [W, L]
    for column, permutation in enumerate(inner_permutations(n)):
        places = np.array(permutation[1:-1], int) - 1  # [n-2]
        moved = digits @ place_values[places]  # [L]
        symmetric = automorphisms[:, column]
        # keep a labelling that no automorphism makes smaller
        least[symmetric] &= np.arange(len(digits)) <= moved
    wiring, labelling = np.nonzero(least)  # [N], [N]
    ops = np.zeros((len(wiring), n), np.uint8)
    ops[:, 1:-1] = 1 + digits[labelling]
    ops[:, -1] = len(OPS) - 1
    return classes[wiring], ops


# Hashes -----------------------------------------------------------------------------------------------------

HEX = np.frombuffer(
    "".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)  # [256]: two characters per byte


def module_hashes(adj: np.ndarray, ops: np.ndarray) -> np.ndarray:
    """NAS-Bench-101's module hash, uint8[B, 16], of cells adj uint8[B, n, n] with operations uint8[B, n].

    Every vertex starts from the digest of its degrees and operation. In each of n rounds it takes the digest
    of its in-neighbours' digests (hexadecimal, sorted), its out-neighbours' and its own. The hash is the
    digest of all of them, sorted. Vertices of equal degrees have messages of equal length, so they are hashed
    together.
    """
    count, n = ops.shape
    groups = _degree_groups(adj)
    digests = _first_digests(adj, ops)  # [B * n, 16]
    for _ in range(n):
        texts, halves = _texts(digests), leading_half(digests)  # [B * n, 32], [B * n]
        digests = np.empty_like(digests)
        for vertices, sources, targets in groups:
            neighbours = (_sorted_texts(sources, texts, halves), b"|",
                          _sorted_texts(targets, texts, halves), b"|")
            digests[vertices] = md5(_rows((*neighbours, texts[vertices]), len(vertices)))
    everyone = np.arange(count * n).reshape(count, n)
    texts = _sorted_texts(everyone, _texts(digests), leading_half(digests)).reshape(count, n, 32)
    parts = [part for v in range(n) for part in (b"', '" if v else b"['", texts[:, v])]
    return md5(_rows((*parts, b"']"), count))


def _degree_groups(adj: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Groups the vertices by in- and out-degree; vertex v of cell b has the number b * n + v.

    A group is (numbers int[G], in-neighbours int[G, in], out-neighbours int[G, out]).
    """
    n = adj.shape[1]
    into, out = adj.sum(1).ravel(), adj.sum(2).ravel()  # [B * n], [B * n]
    feeders, fed = adj.transpose(0, 2, 1).reshape(-1, n), adj.reshape(-1, n)  # [B * n, n], [B * n, n]
    groups = []
    for kind in np.unique(into * n + out):
        vertices = np.flatnonzero(into * n + out == kind)
        first = vertices[:, None] // n * n  # [G, 1]: the number of the cell's vertex 0
        sources, targets = (np.nonzero(links[vertices])[1].reshape(len(vertices), -1) + first
                            for links in (feeders, fed))
        groups.append((vertices, sources, targets))  # [G], [G, in], [G, out]
    return groups


def _first_digests(adj: np.ndarray, ops: np.ndarray) -> np.ndarray:
    """Digests uint8[B * n, 16] of "(out-degree, in-degree, label)"."""
    n = ops.shape[1]
    known = [hashlib.md5(str(state).encode()).digest() for state in product(range(n), range(n), LABELS)]
    known = np.frombuffer(b"".join(known), np.uint8).reshape(-1, 16)  # [n * n * 5, 16]
    return known[((adj.sum(2) * n + adj.sum(1)) * len(LABELS) + ops).ravel()]  # [B * n, 16]


def _texts(digests: np.ndarray) -> np.ndarray:
    """Digests uint8[M, 16] as hexadecimal characters uint8[M, 32]."""
    return HEX[digests].view(np.uint8)


def leading_half(digests: np.ndarray) -> np.ndarray:
    """First halves uint64[M] of digests uint8[M, 16]; same order (ties have odds of 2^-64 per pair)."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)


def _sorted_texts(vertices: np.ndarray, texts: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Joins each row's digests in ascending order: vertices int[G, k] → characters uint8[G, 32 * k]."""
    ranks = np.argsort(halves[vertices], axis=1)  # [G, k]
    return texts[np.take_along_axis(vertices, ranks, axis=1)].reshape(len(vertices), -1)  # [G, 32 * k]


def _rows(parts, count: int) -> np.ndarray:
    """Messages uint8[count, L]: the parts side by side, each a constant or characters uint8[count, ...]."""
    return np.concatenate([np.broadcast_to(np.frombuffer(part, np.uint8), (count, len(part)))
                           if isinstance(part, bytes) else part for part in parts], axis=1)  # [count, L]


# The table --------------------------------------------------------------------------------------------------

def load() -> np.ndarray:
    """The table, CELL[N], from the cache file; built and kept there if the file is absent or damaged."""
    try:
        path = cache_dir() / CACHE_FILE
        if path.exists():
            return _table(path.read_bytes(), str(path))
    except (OSError, ValueError) as fault:
        print(f"{fault}; building it again", file=sys.stderr)
    content = build().tobytes()
    table = _table(content, "the NAS-Bench-101 table as built here")
    try:
        atomic_write(cache_dir() / CACHE_FILE, lambda file: file.write(content))
    except OSError as fault:
        print(f"the NAS-Bench-101 table is not kept: {fault}; GMAE_NAS_CACHE names another folder",
              file=sys.stderr)
    return table


def build() -> np.ndarray:
    """Builds the table of every cell, CELL[N], by ascending hash.

    Takes about 14 s on an idle core, with progress on stderr.
    """
    batches = []
    for n in range(2, MAX_VERTICES + 1):
        edges, ops = cells(n)
        cuts = range(HASH_BATCH, len(edges), HASH_BATCH)
        batches += zip(np.split(edges, cuts), np.split(ops, cuts))
    parts = []
    for edges, ops in track(batches, "enumerating NAS-Bench-101, once", console=Console(stderr=True)):
        n = ops.shape[1]
        part = np.zeros(len(edges), CELL)
        part["edges"], part["ops"][:, :n] = edges, ops
        part["hash"] = module_hashes(adjacency(edges, n), ops)
        parts.append(part)
    table = np.concatenate(parts)
    return table[np.argsort(leading_half(table["hash"]))]


def _table(content: bytes, origin: str) -> np.ndarray:
    """The bytes as CELL[N], read-only; raises ValueError unless they are the space's."""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{origin} fails its checksum")
    return np.frombuffer(content, CELL)
