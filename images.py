"""CIFAR-10: the official Python archive, or an .npz with x_train, y_train, x_test and y_test.

    train = images.read("~/datasets", "train")

Training and test images are read apart, so that code which must not see the test images never opens them.
"""
from __future__ import annotations

import hashlib
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spaces import InputError
from spaces.download import RESOURCES, download

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (32, 32, 3)
OFFICIAL = RESOURCES["cifar10"]
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
        """SHA-256 of all of it: a training that goes on goes on with the same images."""
        return hashlib.sha256(self.pixels.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


def read(source: str | Path, part: str) -> Images:
    """The images of a part, "train" or "test".

    source is an .npz, the archive, the folder it unpacks to, or a folder that holds one of the two (an archive is verified
    and unpacked beside itself). InputError where there is none, or where it is damaged or lacks a class.
    """
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        pixels, labels = _read_npz(path, part)
    else:
        path = _official_folder(path)
        pixels, labels = _read_batches([path / name for name in BATCHES[part]])
    _check(pixels, labels, f"{path}, {part} images")
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))


def fetch(source: str | Path) -> None:
    """Download the official archive into the folder `source`, verified, unless it is there."""
    if Path(source).suffix:
        raise InputError(f"--download: --data {source} is a file; name a folder for the archive")
    download(RESOURCES["cifar10"], Path(source).expanduser())


def halves(images: Images, seed: int, subset: int = 0) -> tuple[Images, Images]:
    """Two disjoint random halves of `subset` random images (0 = of all): to train on, and to validate on."""
    chosen = np.random.default_rng([seed, 0]).permutation(len(images))[:subset or None]  # [n]
    if subset > len(images):
        raise InputError(f"subset {subset}: there are only {len(images):,} training images")
    middle = len(chosen) // 2
    parts = images[torch.from_numpy(chosen[:middle])], images[torch.from_numpy(chosen[middle:])]
    for part, use in zip(parts, ("train on", "validate on")):
        _check_classes(part.labels.numpy(), f"the {len(part)} images to {use}")
    return parts


# Files ----------------------------------------------------------------------------------------------------------------

def _official_folder(path: Path) -> Path:
    """The unpacked folder that `path` is, holds, or can be unpacked to."""
    if path.name == OFFICIAL.file:
        path = path.parent
    for folder in (path, path / OFFICIAL.folder):
        if (folder / "data_batch_1").is_file():
            return folder
    if (path / OFFICIAL.file).is_file():
        return download(RESOURCES["cifar10"], path)
    raise InputError(f"--data {path}: no CIFAR-10 here: python -m spaces.download cifar10 --root {path} fetches it; "
                     "or name an .npz with x_train, y_train, x_test, y_test")


def _read_npz(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[f"x_{part}"], arrays[f"y_{part}"]
    except FileNotFoundError:
        raise InputError(f"--data {path}: no such file") from None
    except KeyError:
        raise InputError(f"{path} lacks x_{part} or y_{part}: name an .npz with x_train, y_train, x_test, y_test") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or no .npz of plain arrays ({error}): make it anew") from None


class _PlainArrays(pickle.Unpickler):
    """Loads what a batch of the official archive is made of: dictionaries, lists, texts, numbers and numpy arrays.

    A pickle that asks for more could run code and is refused.
    """

    ARRAYS = {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str):
        place = module.replace("numpy.core.", "numpy._core.")  # as numpy 2 calls it
        if (place, name) not in self.ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(place, name)


def _read_batches(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Files of the official archive, each a pickled {b"data": uint8[n, 3072], channel by channel, b"labels": [n]}."""
    pixels, labels = [], []
    for file in files:
        try:
            with open(file, "rb") as stream:
                batch = _PlainArrays(stream, encoding="bytes").load()
            planes = batch[b"data"].reshape(-1, 3, *SHAPE[:2])  # [n, 3, X, X]
            labels.append(np.array(batch[b"labels"], np.int64))
        except (OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, pickle.UnpicklingError) as error:
            raise InputError(f"{file} is missing or damaged ({error}): remove {file.parent} and unpack or download it "
                             "anew") from None
        pixels.append(planes.transpose(0, 2, 3, 1))  # [n, X, X, 3]
    return np.concatenate(pixels), np.concatenate(labels)


def _check(pixels: np.ndarray, labels: np.ndarray, what: str) -> None:
    if pixels.dtype != np.uint8 or pixels.shape[1:] != SHAPE:
        raise InputError(f"{what}: images must be uint8 [N, 32, 32, 3], these are {pixels.dtype} {list(pixels.shape)}")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(f"{what}: one whole number a label is needed for each of the {len(pixels)} images")
    _check_classes(labels, what)


def _check_classes(labels: np.ndarray, what: str) -> None:
    """InputError unless the labels are 0..9, each at least once."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(CLASSES):
        raise InputError(f"{what}: labels must be 0..9, these are {labels.min()}..{labels.max()}")
    missing = np.setdiff1d(np.arange(len(CLASSES)), labels)
    if missing.size:
        raise InputError(f"{what}: there is none of class {missing[0]} ({CLASSES[missing[0]]}): give more images")
