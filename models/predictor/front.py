"""The Python API: a performance predictor of architectures, fitted, used, saved and loaded in a few lines.

    import spaces
    from models.predictor import Predictor

    space = spaces.get("nasbench201")
    predictor = Predictor.fit(space, cells, accuracy)          # cells: values of the space, or strings
    ranked = predictor.score(others).argsort()[::-1]           # best first
    mean, std = predictor.posterior(others)                    # for an acquisition function of your own
    predictor.save("predictor.pt"); predictor = Predictor.load("predictor.pt")

S seeds, n labelled architectures, B to score.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.batch import Batch
from models.checkpoint import about_space, load_encoder
from models.predictor.background import REFERENCE
from models.predictor.blend import BlendedPredictor
from models.predictor.file import load_predictor, save_predictor
from models.predictor.fit import Examples, PredictorRecipe, encoder_of, fit_predictor, score_cells
from runtime.errors import InputError
from runtime.files import path_of
from runtime.seeding import choose_device


class Predictor:
    """The predictor of finetune.py, for any space. Higher scores are better; their scale means nothing."""

    def __init__(self, space, blended: BlendedPredictor, about: dict):
        """Use `fit` or `load` instead. about: the content of predictor.pt beside the weights."""
        self.space, self.blended, self.about = space, blended, about

    @classmethod
    def fit(cls, space, architectures: Sequence[Any], accuracy: Sequence[float], encoder: str = "default",
            seeds: int = 1) -> Predictor:
        """Fits a predictor to n labelled architectures with the recipe of finetune.py.

        space          of `spaces.get`
        architectures  values of the space, or strings in any notation that it parses
        accuracy       float[n], finite, higher is better
        encoder        a last.pt of pretrain.py, "default" = the shipped one, "" = from scratch
        seeds          number of independent predictors, whose scores are averaged
        Raises InputError for bad input.
        """
        label = np.asarray(accuracy, dtype=float)  # [n]
        if label.shape != (len(architectures),) or len(label) < 2 or not np.isfinite(label).all():
            raise InputError(f"Predictor.fit: {len(architectures)} architectures need as many finite "
                             f"accuracies, at least 2; these are {label.shape}")
        return cls._fitted(space, architectures, label, encoder, seeds)

    @classmethod
    def prior(cls, space, encoder: str = "default") -> Predictor:
        """The ranking without any label of the space, learned on other spaces: `fit` with no architectures.

        `about["cards"]` says which tables it has seen; never one of this space.
        """
        return cls._fitted(space, [], np.zeros(0), encoder, 1)

    @classmethod
    def _fitted(cls, space, architectures: Sequence[Any], label: np.ndarray, encoder: str,
                seeds: int) -> Predictor:
        device, recipe = choose_device("auto", 0), PredictorRecipe()
        checkpoint = load_encoder(encoder, space) if encoder else None
        # Unlabelled cells of the space, behind the labelled ones: their scores and distances set the scales.
        anywhere = space.sample(REFERENCE, np.random.default_rng(0))
        table = Batch.of(space.encode([*values(space, architectures), *anywhere])).to(device)
        rows = np.tile(np.arange(len(label)), (seeds, 1))  # [S, n]
        examples = Examples(table, rows, label[rows], list(range(seeds)))
        blended = fit_predictor(recipe, space.vocabulary, checkpoint, examples).eval()
        about = about_space(space) | {
            "encoder": encoder_of(recipe, checkpoint), "start": checkpoint and checkpoint["weights"],
            "cards": blended.background.prior.cards}
        return cls(space, blended, about)

    def score(self, architectures: Sequence[Any]) -> np.ndarray:
        """The scores float[B] to rank by, averaged over the seeds."""
        return score_cells(self.blended, self.encode(architectures)).mean(0)

    @torch.no_grad()
    def posterior(self, architectures: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation float[B] of the Gaussian process, in normal scores of the labels.

        Both are those of the mixture of the seeds' posteriors.
        """
        if self.blended.process is None:
            raise InputError("this predictor was fitted with --kernel_share 0, "
                             "so it has no Gaussian process to ask")
        seen = self.blended.background(self.encode(architectures))  # [B, P] each
        mean, std = (x.cpu().double().numpy() for x in self.blended.process.posterior(seen))  # [S, B] each
        return mean.mean(0), np.sqrt((std**2).mean(0) + mean.var(0))  # of the mixture

    def save(self, path: str | Path) -> None:
        """Writes predictor.pt, for `load` or finetune.py --score."""
        entries = {name: value for name, value in self.about.items() if name not in ("start", "cards")}
        checkpoint = {"weights": self.about["start"]} if self.about["start"] is not None else None
        save_predictor(path_of(path), [self.blended], checkpoint, **entries)

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Reads the predictor that `save` or finetune.py wrote. Raises InputError for any other file."""
        import spaces  # the one place in models that knows spaces: a stored predictor parses strings

        content, space, blended = load_predictor(path, spaces.stored)
        kernel = content.get("kernel")
        entries = about_space(space) | {"encoder": content["encoder"], "start": kernel and kernel["encoder"]}
        return cls(space, blended.to(choose_device("auto", 0)), entries)

    def encode(self, architectures: Sequence[Any]) -> Batch:
        """Encodes values or strings as graphs, on the predictor's device."""
        graphs = self.space.encode(values(self.space, architectures))
        return Batch.of(graphs).to(self.blended.scale.device)


def values(space, architectures: Sequence[Any]) -> list:
    """Parses the strings among the architectures. Raises InputError for one that names no architecture."""
    return [space.parse(arch) if isinstance(arch, str) else arch for arch in architectures]
