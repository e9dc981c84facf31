"""cifar/images.py: the official archive and .npz files, and what is wrong with them."""
import dataclasses
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar.images import OFFICIAL, RESOURCES, Images, random_halves, read_images
from runtime.errors import InputError

rng = np.random.default_rng(0)
LABELS = np.tile(np.arange(10), 4)
PIXELS = rng.integers(256, size=(40, 32, 32, 3), dtype=np.uint8)


def npz(path: Path, **changes) -> Path:
    arrays = {"x_train": PIXELS, "y_train": LABELS.astype(np.uint8), "x_test": PIXELS[:20],
              "y_test": LABELS[:20]} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def planes(pixels: np.ndarray) -> np.ndarray:
    """[n, 3072], channel by channel, as the official batches have them."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def python2_pickle(labels, data: np.ndarray) -> bytes:
    """A batch as cPickle of Python 2 wrote it: protocol 2, texts as byte strings, numpy's old module
    names."""
    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    numbers = b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    shape = b"".join(b"M" + struct.pack("<H", side) for side in data.shape)
    unknown = b"J" + b"\xff" * 4  # -1
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNN" + 2 * unknown + b"K\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array = empty + b"(K\x01" + shape + b"\x86" + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    return b"\x80\x02}(" + text(b"labels") + b"]" + numbers + text(b"data") + array + b"u."


def batches(official: bool) -> dict[str, bytes]:
    """The six files; 8 training images in each of five."""
    parts = {f"data_batch_{i + 1}": slice(8 * i, 8 * i + 8) for i in range(5)} | {"test_batch": slice(0, 20)}
    if official:
        return {name: python2_pickle(LABELS[rows], planes(PIXELS[rows])) for name, rows in parts.items()}
    return {name: pickle.dumps({b"data": planes(PIXELS[rows]), b"labels": LABELS[rows].tolist()}, protocol=4)
            for name, rows in parts.items()}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Writes an archive of these files below tmp_path, with its own checksum as the published one; returns
    its path."""
    def write(files: dict[str, bytes]) -> Path:
        path = tmp_path / "cifar-10-python.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        own = dataclasses.replace(OFFICIAL, checksum=f"md5:{digest}", size=None)
        monkeypatch.setitem(RESOURCES, "cifar10", own)
        return path
    return write


@pytest.mark.parametrize("official", [True, False], ids=["python2", "python3"])
def test_the_archive_is_unpacked_and_read(archive, official):
    path = archive(batches(official))
    for source in (path, path.parent, path.parent / "cifar-10-batches-py"):
        train, test = read_images(source, "train"), read_images(source, "test")
        assert np.array_equal(train.pixels, PIXELS) and np.array_equal(train.labels, LABELS)
        assert np.array_equal(test.pixels, PIXELS[:20]) and test.labels.dtype == torch.long


def test_a_wrong_checksum_is_refused_and_the_file_put_aside(archive):
    path = archive(batches(True))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="md5:.* instead of md5:.* damaged"):
        read_images(path.parent, "train")
    assert [p.name for p in path.parent.iterdir()] == ["cifar-10-python.tar.gz.bad"]


def test_the_published_checksum_is_the_official_one():
    assert OFFICIAL.checksum == "md5:c58f30108f718f92721af3b95e74349a"


def test_a_batch_that_is_cut_or_absent(archive):
    files = batches(True)
    files["data_batch_3"] = files["data_batch_3"][:500]
    del files["test_batch"]
    path = archive(files)
    for part, name in (("train", "data_batch_3"), ("test", "test_batch")):
        with pytest.raises(InputError, match=f"{name}.*anew"):
            read_images(path, part)


def test_a_pickle_that_would_run_code_is_refused(archive, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    path = archive(batches(False) | {"data_batch_1": pickle.dumps({b"data": Evil(), b"labels": []})})
    with pytest.raises(InputError, match="it asks for pathlib"):
        read_images(path, "train")
    assert not (tmp_path / "touched").exists()


def test_an_npz_is_read(tmp_path):
    train = read_images(npz(tmp_path / "a.npz"), "train")
    assert np.array_equal(train.pixels, PIXELS) and train.labels.tolist() == LABELS.tolist()
    assert len(train) == 40


@pytest.mark.parametrize("changes, message", [
    ({"x_train": None}, "lacks x_train or y_train"),
    ({"y_train": np.where(LABELS == 3, 4, LABELS)}, r"none of class 3 \(cat\)"),
    ({"y_train": LABELS + 1}, r"labels must be 0\.\.9, these are 1\.\.10"),
    ({"y_train": LABELS[:39]}, "each of the 40 images"),
    ({"y_train": LABELS.astype(float)}, "one whole number a label"),
    ({"x_train": PIXELS / 255}, r"uint8 \[N, 32, 32, 3\], these are float64"),
    ({"x_train": PIXELS[:, :28]}, r"these are uint8 \[40, 28, 32, 3\]"),
    ({"x_train": np.array([None] * 40)}, "damaged or no .npz of plain arrays"),
], ids=["absent", "class", "range", "length", "kind", "dtype", "shape", "objects"])
def test_faults_of_an_npz(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_images(npz(tmp_path / "a.npz", **changes), "train")


def test_a_cut_npz_and_one_that_is_not_there(tmp_path):
    whole = npz(tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:5000])
    with pytest.raises(InputError, match="damaged"):
        read_images(tmp_path / "a.npz", "train")
    with pytest.raises(InputError, match="no such file"):
        read_images(tmp_path / "b.npz", "train")
    with pytest.raises(InputError, match="no CIFAR-10 here: python -m spaces.download cifar10"):
        read_images(tmp_path, "train")


def test_the_other_part_is_not_opened(tmp_path):
    path = npz(tmp_path / "a.npz", x_test=np.array([None]), y_test=None)
    assert len(read_images(path, "train")) == 40
    with pytest.raises(InputError):
        read_images(path, "test")


def test_halves_are_disjoint_seeded_and_whole(tmp_path):
    whole = Images(torch.from_numpy(PIXELS).repeat(10, 1, 1, 1), torch.from_numpy(LABELS).repeat(10))
    whole.pixels[:, 0, 0, 0], whole.pixels[:, 0, 0, 1] = torch.arange(400) % 256, torch.arange(400) // 256
    def numbers(part):
        return (part.pixels[:, 0, 0, 0].int() + 256 * part.pixels[:, 0, 0, 1].int()).tolist()

    train, validation = random_halves(whole, seed=1)
    assert sorted(numbers(train) + numbers(validation)) == list(range(400))
    assert len(train) == len(validation) == 200
    again, other = random_halves(whole, seed=1)[0], random_halves(whole, seed=2)[0]
    assert numbers(train) == numbers(again) != numbers(other)
    fewer = random_halves(whole, seed=1, subset=300)
    assert [len(part) for part in fewer] == [150, 150]


def test_halves_without_a_class_or_larger_than_the_set_are_refused():
    few = Images(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    with pytest.raises(InputError, match="images to (train|validate) on: there is none of class"):
        random_halves(few, seed=0, subset=12)
    with pytest.raises(InputError, match="subset 41: there are only 40"):
        random_halves(few, seed=0, subset=41)
