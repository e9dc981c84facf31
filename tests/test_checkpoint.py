"""Checkpoints: they come back, and whatever else a file may hold is refused in one line that names it."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import spaces
from models.checkpoint import load_encoder
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import InputError

SPACE = spaces.get("nasbench201")
ENCODER = {"space": "nasbench201", "ops": list(SPACE.ops), "encoder": {"width": 8},
           "weights": {"w": torch.arange(3.0)}}


@pytest.fixture
def checkpoint(tmp_path):
    def write(**changes):
        save_checkpoint(tmp_path / "c.pt", **{**ENCODER, **changes})
        return tmp_path / "c.pt"
    return write


def test_a_checkpoint_comes_back(checkpoint):
    content = load_checkpoint(str(checkpoint()))
    assert torch.equal(content["weights"]["w"], torch.arange(3.0)) and content["encoder"] == {"width": 8}
    assert load_encoder(str(checkpoint()), SPACE)["ops"] == list(SPACE.ops)


def no_checkpoint(path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        load_encoder(str(path), SPACE)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in (str(path), *words))


def test_no_file_is_no_checkpoint(tmp_path):
    no_checkpoint(tmp_path / "absent.pt", "no checkpoint at")
    no_checkpoint(tmp_path, "no checkpoint at")


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
    no_checkpoint(tmp_path / "c.pt", "lacks space")


def test_a_checkpoint_that_would_run_code(tmp_path):
    torch.save({**ENCODER, "extra": SimpleNamespace()}, tmp_path / "c.pt")
    no_checkpoint(tmp_path / "c.pt", "damaged or no checkpoint")


def test_a_checkpoint_of_a_space_that_has_nothing_in_common(checkpoint):
    no_checkpoint(checkpoint(space="language", ops=["input", "lstm", "output"]), "language", "nasbench201")


def test_a_predictor_is_no_encoder(checkpoint):
    no_checkpoint(checkpoint(weights=[{"w": torch.ones(1)}]), "predictor", "last.pt")
