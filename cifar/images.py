"""CIFAR-10: the official Python archive, or an .npz with x_train, y_train, x_test and y_test.

    train = read_images("~/datasets", "train")

Training and test images are read separately, so that code which must not see the test images never opens
them.
"""
from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from runtime.errors import InputError
from runtime.files import path_of
from runtime.guarded import load_plain_pickle, need_file
from spaces.download import RESOURCES, download

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (32, 32, 3)
LARGEST = 2**33  # bytes of an array of an .npz; all of CIFAR-10 has 2^27.2
OFFICIAL = RESOURCES["cifar10"]
# The classes in a pickled batch beside plain values, each loaded as itself.
ARRAYS = dict.fromkeys(("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"))
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


@dataclass(frozen=True, eq=False)
class Images:
    """pixels uint8[N, 32, 32, 3] and labels long[N]."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows) -> Images:
        return Images(self.pixels[rows], self.labels[rows])

    def digest(self) -> str:
        """SHA-256 of pixels and labels, by which a resumed training checks that it has the same images."""
        return hashlib.sha256(self.pixels.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


def read_images(source: str | Path, part: str) -> Images:
    """Reads the images of a part, "train" or "test".

    source: an .npz, the archive, the folder it unpacks to, or a folder that holds one of the two (an archive
    is verified and unpacked beside itself). Raises InputError if there is none, if it is damaged, or if it
    lacks a class.
    """
    path = path_of(source)
    if path.suffix == ".npz":
        pixels, labels = _read_npz(path, part)
    else:
        path = _official_folder(path)
        pixels, labels = _read_batches([path / name for name in BATCHES[part]])
    _check(pixels, labels, f"{path}, {part} images")
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))


def fetch_archive(source: str | Path) -> None:
    """Downloads the official archive into the folder `source` and verifies it, unless it is there."""
    if Path(source).suffix:
        raise InputError(f"--download: --data {source} is a file; name a folder for the archive")
    download(RESOURCES["cifar10"], path_of(source))


def random_halves(images: Images, seed: int, subset: int = 0) -> tuple[Images, Images]:
    """Draws two disjoint halves, to train on and to validate on, of `subset` random images (0 = of all)."""
    chosen = np.random.default_rng([seed, 0]).permutation(len(images))[:subset or None]  # [n]
    if subset > len(images):
        raise InputError(f"subset {subset}: there are only {len(images):,} training images")
    middle = len(chosen) // 2
    parts = images[torch.from_numpy(chosen[:middle])], images[torch.from_numpy(chosen[middle:])]
    for part, use in zip(parts, ("train on", "validate on")):
        _check_classes(part.labels.numpy(), f"the {len(part)} images to {use}")
    return parts


# Files ------------------------------------------------------------------------------------------------------

def _official_folder(path: Path) -> Path:
    """The folder of the unpacked archive, which `path` is or holds; the archive itself is unpacked first."""
    if path.name == OFFICIAL.file:
        path = path.parent
    for folder in (path, path / OFFICIAL.folder):
        if (folder / "data_batch_1").is_file():
            return folder
    if (path / OFFICIAL.file).is_file():
        return download(RESOURCES["cifar10"], path)
    raise InputError(f"--data {path}: no CIFAR-10 here: python -m spaces.download cifar10 --root {path} "
                     "fetches it; or name an .npz with x_train, y_train, x_test, y_test")


def _read_npz(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads pixels and labels; labels of shape [N, 1], as Keras saves them, become [N].

    What the file declares is compared with what it holds before anything is allocated.
    """
    need_file(path, "name an .npz with x_train, y_train, x_test, y_test")
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (f"x_{part}", f"y_{part}"):
                need_honest_array(archive, name)
        with np.load(path, allow_pickle=False) as arrays:
            pixels, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    except KeyError:
        raise InputError(f"{path} lacks x_{part} or y_{part}: "
                         "name an .npz with x_train, y_train, x_test, y_test") from None
    except Exception as error:  # numpy and zipfile have a dozen types for damage
        raise InputError(f"{path} is damaged or no .npz of plain arrays ({type(error).__name__}: {error}): "
                         "make it anew") from None
    return pixels, labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def need_honest_array(archive: zipfile.ZipFile, name: str) -> None:
    """Raises ValueError if an array of an .npz declares another size than it has, or is far too large."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > LARGEST:
        raise ValueError(f"{name} unfolds to {entry.file_size:,} bytes")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} is of version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else (
            np.lib.format.read_array_header_2_0)
        shape, _, dtype = read(file)
        held = entry.file_size - file.tell()
    if math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"{name} declares {list(shape)} of {dtype}, and holds {held:,} bytes")


def _read_batches(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Reads files of the official archive.

    Each is a pickled {b"data": uint8[n, 3072], channel by channel, b"labels": [n]}.
    """
    pixels, labels = [], []
    for file in files:
        mend = f"remove {file.parent} and unpack or download it anew"
        batch = load_plain_pickle(file, ARRAYS, mend, encoding="bytes")
        try:
            planes = batch[b"data"].reshape(-1, 3, *SHAPE[:2])  # [n, 3, X, X]
            labels.append(np.array(batch[b"labels"], np.int64))
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise InputError(f"{file} is damaged ({type(error).__name__}): {mend}") from None
        pixels.append(planes.transpose(0, 2, 3, 1))  # [n, X, X, 3]
    return np.concatenate(pixels), np.concatenate(labels)


def _check(pixels: np.ndarray, labels: np.ndarray, what: str) -> None:
    if pixels.dtype != np.uint8 or pixels.shape[1:] != SHAPE:
        raise InputError(f"{what}: images must be uint8 [N, 32, 32, 3], "
                         f"these are {pixels.dtype} {list(pixels.shape)}")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(f"{what}: one whole number a label is needed for each of the {len(pixels)} images")
    _check_classes(labels, what)


def _check_classes(labels: np.ndarray, what: str) -> None:
    """Raises InputError unless the labels are 0..9, each at least once."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(CLASSES):
        raise InputError(f"{what}: labels must be 0..9, these are {labels.min()}..{labels.max()}")
    missing = np.setdiff1d(np.arange(len(CLASSES)), labels)
    if missing.size:
        raise InputError(f"{what}: there is none of class {missing[0]} ({CLASSES[missing[0]]}): "
                         "give more images")
