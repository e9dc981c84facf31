"""Reads and writes predictor.pt: a fine-tuned predictor with all that it needs to score cells."""
from __future__ import annotations

from pathlib import Path

from models.encoders import build_encoder
from models.predictor.blend import BlendedPredictor
from models.predictor.ensemble import Ensemble
from models.predictor.fit import frozen_encoder
from models.predictor.gaussian_process import GaussianProcess
from models.predictor.network import PredictorNetwork
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import InputError


def save_predictor(path: Path, predictor: BlendedPredictor, checkpoint: dict | None, **about) -> None:
    """Writes predictor.pt, atomically.

    checkpoint: of the encoder that the predictor started from, if any. about: space, cell_marks, ops and the
    encoder's config.
    """
    process = predictor.process
    kernel = None if process is None else {
        "share": predictor.share,
        "sizes": process.sizes,
        "n": process.weight.shape[1],
        "level": predictor.scale.cpu(),
        "state": {name: value.cpu() for name, value in process.state_dict().items()},
        "encoder": checkpoint and checkpoint["weights"],
    }
    ensemble = predictor.ensemble
    save_checkpoint(path, **about, kernel=kernel, seeds=predictor.seeds,
                    weights=[ensemble.member(i) for i in range(ensemble.size)])


def load_predictor(path: str | Path) -> tuple[dict, BlendedPredictor]:
    """Reads predictor.pt: its content and the predictor, on the CPU. Raises InputError for any other file."""
    content = load_checkpoint(path, ("space", "ops", "encoder", "weights"))
    if not isinstance(content["weights"], list):
        raise InputError(f"{path} holds an encoder, not a predictor: give a predictor.pt of finetune.py")
    networks = []
    for weights in content["weights"]:
        network = PredictorNetwork(build_encoder(content["encoder"], len(content["ops"])))
        network.load_state_dict(weights)
        networks.append(network)
    ensemble, stored = Ensemble(networks).eval(), content.get("kernel")
    if stored is None:
        return content, BlendedPredictor(ensemble, content.get("seeds", 1))
    process = GaussianProcess(stored["sizes"], content["seeds"], stored["n"])
    process.load_state_dict(stored["state"])
    encoder = frozen_encoder(content, stored["encoder"])
    predictor = BlendedPredictor(
        ensemble, content["seeds"], process, stored["share"], encoder, content["ops"])
    predictor.scale = stored["level"]
    return content, predictor
