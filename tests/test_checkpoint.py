"""Checkpoints: they come back, and whatever else a file may hold is refused in one line that names it."""
from __future__ import annotations

import os
import zipfile
from types import SimpleNamespace

import pytest
import torch

import spaces
from models.checkpoint import load_encoder
from models.encoders import build_encoder
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import InputError

SPACE = spaces.get("nasbench201")
SIZES = {"base_model": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
WEIGHTS = build_encoder(SIZES, len(SPACE.ops)).state_dict()
ENCODER = {"space": "nasbench201", "ops": list(SPACE.ops), "encoder": SIZES, "weights": WEIGHTS}
FIRST = next(iter(WEIGHTS))


@pytest.fixture
def checkpoint(tmp_path):
    def write(**changes):
        save_checkpoint(tmp_path / "c.pt", **{**ENCODER, **changes})
        return tmp_path / "c.pt"
    return write


def test_a_checkpoint_comes_back(checkpoint):
    content = load_checkpoint(str(checkpoint()))
    assert torch.equal(content["weights"][FIRST], WEIGHTS[FIRST]) and content["encoder"] == SIZES
    assert load_encoder(str(checkpoint()), SPACE)["ops"] == list(SPACE.ops)


def no_checkpoint(path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        load_encoder(str(path), SPACE)
    text = str(error.value)
    assert "\n" not in text and len(text) < 310 and all(word in text for word in (path.name, *words)), text


def test_no_file_is_no_checkpoint(tmp_path):
    no_checkpoint(tmp_path / "absent.pt", "no checkpoint at")
    no_checkpoint(tmp_path, "a folder")
    os.mkfifo(tmp_path / "pipe")
    no_checkpoint(tmp_path / "pipe", "a pipe or a device")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint(checkpoint, share):
    path = checkpoint()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    no_checkpoint(path, "damaged")


@pytest.mark.parametrize("content", [b"hello", b'{"space": "darts"}', bytes(range(256))],
                         ids=["text", "json", "bytes"])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    no_checkpoint(tmp_path / "c.pt", "no checkpoint of this project")


@pytest.mark.parametrize("content", [torch.ones(3), [1], {"weights": {}, "ops": [], "encoder": {}}], ids=str)
def test_a_torch_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    no_checkpoint(tmp_path / "c.pt", "lacks space" if isinstance(content, dict) else "it holds a ")


def test_a_checkpoint_that_would_run_code(tmp_path):
    torch.save({**ENCODER, "extra": SimpleNamespace()}, tmp_path / "c.pt")
    no_checkpoint(tmp_path / "c.pt", "damaged or no checkpoint")


def test_a_checkpoint_of_a_space_that_has_nothing_in_common(checkpoint):
    other = build_encoder(SIZES, 3).state_dict()
    path = checkpoint(space="language", ops=["input", "lstm", "output"], weights=other)
    no_checkpoint(path, "language", "nasbench201")


def test_a_predictor_is_no_encoder(checkpoint):
    no_checkpoint(checkpoint(weights=[{"w": torch.ones(1)}]), "predictor", "last.pt")


# Files that are believed only after a look ------------------------------------------------------------------

@pytest.mark.parametrize("changes, words", [
    ({"encoder": SIZES | {"width": 10**9}}, "encoder.width"),
    ({"encoder": SIZES | {"width": 4096, "layers": 100}}, "not [4096"),
    ({"encoder": SIZES | {"heads": 3}}, "no encoder has the sizes"),
    ({"encoder": SIZES | {"base_model": "lstm"}}, "lstm"),
    ({"encoder": {}}, "encoder lacks base_model"),
    ({"encoder": SIZES | {"layers": None}}, "encoder.layers must be int, not null"),
    ({"ops": "input"}, "ops must be array"), ({"ops": []}, "ops"), ({"space": 3}, "space must be str"),
    ({"weights": {}}, f"weight {FIRST} is missing"),
    ({"weights": WEIGHTS | {"more": torch.ones(1)}}, "weight more is unknown"),
    ({"weights": WEIGHTS | {FIRST: [1.0]}}, "weights"),
    ({"weights": WEIGHTS | {FIRST: torch.full_like(WEIGHTS[FIRST], torch.nan)}}, "not finite (NaN"),
    ({"cell_marks": "yes"}, "cell_marks must be bool"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_key_that_makes_no_sense_is_named_before_anything_is_built(checkpoint, changes, words):
    no_checkpoint(checkpoint(**changes), words)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_weights_of_a_wrapped_network_load(checkpoint, prefix):
    wrapped = {prefix + name: value for name, value in WEIGHTS.items()}
    content = load_encoder(str(checkpoint(weights=wrapped)), SPACE)
    assert list(content["weights"]) == list(WEIGHTS)


def test_an_archive_that_unfolds_is_refused(checkpoint, tmp_path):
    with zipfile.ZipFile(checkpoint()) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value + (b"\0" * 10**7 if name.endswith("data/0") else b""))
    no_checkpoint(tmp_path / "c.pt", "compressed or too large")
