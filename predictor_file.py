"""predictor.pt: a fine-tuned predictor with all it takes to score cells. finetune.py writes it."""
from __future__ import annotations

from pathlib import Path

import runtime
from models import build_encoder
from models.blend import Blend
from models.ensemble import Ensemble
from models.kernel import KernelRidge
from models.predictor import Predictor
from spaces import InputError


def save_predictor(path: Path, blend: Blend, checkpoint: dict | None, **about) -> None:
    """about: space, cell_marks, ops and the encoder's config; checkpoint: what the predictor started from."""
    kernel = None if blend.kernel is None else {
        "share": blend.share, "sizes": blend.kernel.sizes, "n": blend.kernel.weight.shape[1], "level": blend.level.cpu(),
        "state": {name: value.cpu() for name, value in blend.kernel.state_dict().items()},
        "encoder": checkpoint and checkpoint["weights"]}
    runtime.save_checkpoint(path, **about, kernel=kernel, seeds=blend.seeds,
                            weights=[blend.ensemble.member(i) for i in range(blend.ensemble.size)])


def load_predictor(path: str) -> tuple[dict, Blend]:
    """The content of a predictor.pt and what it predicts with, on the CPU."""
    content = runtime.load_checkpoint(path, ("space", "ops", "encoder", "weights"))
    if not isinstance(content["weights"], list):
        raise InputError(f"{path} holds an encoder, not a predictor: give a predictor.pt of finetune.py")
    operations, predictors = len(content["ops"]), []
    for weights in content["weights"]:
        predictor = Predictor(build_encoder(content["encoder"], operations))
        predictor.load_state_dict(weights)
        predictors.append(predictor)
    ensemble, stored = Ensemble(predictors).eval(), content.get("kernel")
    if stored is None:
        return content, Blend(ensemble, content.get("seeds", 1))
    kernel = KernelRidge(stored["sizes"], content["seeds"], stored["n"])
    kernel.load_state_dict(stored["state"])
    encoder = frozen_encoder(content, stored["encoder"])
    blend = Blend(ensemble, content["seeds"], kernel, stored["share"], encoder, content["ops"])
    blend.level = stored["level"]
    return content, blend


def frozen_encoder(content: dict, weights: dict | None):
    """The pre-trained encoder in eval mode; None where there was none. content has its config `encoder` and the `ops`."""
    if weights is None:
        return None
    encoder = build_encoder(content["encoder"], len(content["ops"]), 0.0)
    encoder.load_state_dict(weights)
    return encoder.eval()
