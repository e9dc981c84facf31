"""Checkpoints: tensors and plain values only, so that they load with weights_only=True."""
from __future__ import annotations

from pathlib import Path

import torch

from runtime.errors import InputError
from runtime.files import atomic_write


def save_checkpoint(path: Path, **content) -> None:
    """Writes the content, tensors and plain values by name, atomically."""
    atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(path: str | Path,
                    needs: tuple[str, ...] = ("space", "ops", "encoder", "weights")) -> dict:
    """Reads a checkpoint, to the CPU. Raises InputError if the file is missing, damaged or foreign.

    needs: keys that the content must have.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: write one with pretrain.py or finetune.py --save DIR")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types on damaged files
        raise InputError(f"{path} is damaged or no checkpoint of this project ({type(error).__name__}): "
                         "make it anew") from None
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"{path} is no checkpoint of this project: it lacks {', '.join(missing)}")
    return content
