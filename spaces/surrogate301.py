"""NAS-Bench-301's own surrogate (Zela et al., ICLR 2022): an ensemble of XGBoost models, read without its package.

    python -m spaces.download nasbench301
    python gen_json_301.py --n 1000 --out cells.jsonl --oracle ~/datasets/nasbench301_models_v1.0/nb_models/xgb_v1.0

The folder holds a folder for each member, with a pickled Booster in surrogate_model.model and model_config.json beside
it. The accuracy of a cell is the mean over the members; their standard deviation is the package's noise, which is
added only where a user asks for it. A pickle may run code: of these, nothing but the bytes of a model is taken. XGBoost
parses them and finds a cut, but not every changed byte; the checksum of the downloaded archive does.

A member reads 56 numbers, ConfigSpace's array of one training configuration: hyper-parameters without a condition by
name, then those with one by name; an option as its place, a number scaled by its range. In NAS-Bench-301's queries 22 of
them never change. Checked against the package nasbench301 0.3: its own code, run with ConfigSpace 0.6.1 on its
configspace.json, gives for 20,000 random cells the vectors that this module gives, all 56 numbers equal in float32.
(It was written for ConfigSpace 0.4.12; the source of 0.4.15 sorts and scales the same way.) Boosters pickled by xgboost
1.2.1 predict under 2.1.4 exactly what they predicted there.
"""
from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from spaces.base import InputError
from spaces.nasbench301 import CATEGORIES, CELLS, Answers, Surrogate, categories

try:
    import xgboost
except ImportError:
    raise InputError("NAS-Bench-301's ensemble needs xgboost: pip install xgboost-cpu==2.1.4 (3.x cannot read it)") from None

PREFIX = "NetworkSelectorDatasetInfo:darts:"
CONSTANTS = {  # the training of every cell, as ConfigSpace scales it; 0 where there is one option, or the first is taken
    "CreateImageDataLoader:batch_size": 0.5863451791322553,  # 96 of 64..128, logarithmic
    "ImageAugmentation:augment": 0,
    "ImageAugmentation:autoaugment": 0,
    "ImageAugmentation:cutout": 0,
    "ImageAugmentation:cutout_holes": 0.16666444442962952,  # 1 of 1..3
    "ImageAugmentation:cutout_length": 0.3099999239999697,  # 16 of 1..50
    "ImageAugmentation:fastautoaugment": 0,
    "LossModuleSelectorIndices:loss_module": 0,
    f"{PREFIX}auxiliary": 0,
    f"{PREFIX}drop_path_prob": 0,
    f"{PREFIX}init_channels": 0.003149999006299998,  # 32 of 1..10000
    f"{PREFIX}layers": 0.000749999001499998,  # 8 of 1..10000
    "NetworkSelectorDatasetInfo:network": 0,
    "OptimizerSelector:optimizer": 0,
    "OptimizerSelector:sgd:learning_rate": -3.6888794541139363,  # log 0.025
    "OptimizerSelector:sgd:momentum": 0.8988764044943821,  # 0.9 of 0.1..0.99
    "OptimizerSelector:sgd:weight_decay": -8.111728083308073,  # log 0.0003
    "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": 0.009949999019899998,  # 100 of 1..10000
    "SimpleLearningrateSchedulerSelector:cosine_annealing:eta_min": 1e-12,  # 1e-8 of 0..10000
    "SimpleLearningrateSchedulerSelector:lr_scheduler": 0,
    "SimpleTrainNode:batch_loss_computation_technique": 0,
    "SimpleTrainNode:mixup:alpha": 0.7051278400653053,  # 0.2 of 0.01..0.7, logarithmic
}
CONDITIONAL = {f"edge_{cell}_{edge}" for cell in CELLS for edge in range(2, 14)}  # only some cells have these
COLUMNS = (sorted([*CONSTANTS, *(PREFIX + name for name in CATEGORIES.keys() - CONDITIONAL)])
           + sorted(PREFIX + name for name in CONDITIONAL))

_CONSTANT = np.array([CONSTANTS.get(name, 0) for name in COLUMNS], np.float32)  # [56]
_PLACE = np.array([COLUMNS.index(PREFIX + name) for name in CATEGORIES])  # [34]


def vectors(numbers: np.ndarray) -> np.ndarray:
    """float32[N, 56]: what the members read of `darts` numbers int64[N]; an edge that a cell lacks is -1."""
    rows = np.tile(_CONSTANT, (len(numbers), 1))  # [N, 56]
    rows[:, _PLACE] = categories(numbers)
    return rows


class EnsembleOracle(Surrogate):
    """Validation accuracy of any DARTS cell, without noise, and the members' spread; no test accuracy and no cost."""

    spread = "the members' standard deviation"

    def __init__(self, folder: str | Path):
        """folder: one ensemble, such as xgb_v1.0. InputError for a missing, damaged, foreign or dangerous file."""
        folder = Path(folder).expanduser().resolve()
        files = sorted(folder.rglob("*surrogate_model.model"))
        if not files:
            raise InputError(f"no surrogate_model.model below {folder}: give the folder xgb_v1.0 of NAS-Bench-301, which "
                             f"python -m spaces.download nasbench301 fetches")
        ensembles = sorted({file.parent.parent for file in files})
        if len(ensembles) > 1:
            raise InputError(f"{folder} holds several ensembles: give one, {' or '.join(map(str, ensembles))}")
        for file in files:
            check_config(file.with_name("model_config.json"))
        self._boosters = [read_booster(file) for file in files]
        self.name = f"NAS-Bench-301 {ensembles[0].name} (mean of {len(files)} boosters)"

    def query_many(self, numbers: np.ndarray) -> Answers:
        rows = xgboost.DMatrix(vectors(numbers))
        members = np.stack([booster.predict(rows) for booster in self._boosters]).astype(np.float64)  # [M, N]
        return Answers(members.mean(axis=0), None, members.std(axis=0))


def check_config(file: Path) -> None:
    """InputError unless a member's model_config.json says that it is an XGBoost model of accuracies."""
    try:
        model = json.loads(file.read_text())["model"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{file} is missing or damaged ({type(error).__name__}): unpack the archive again") from None
    if model != "xgb":
        raise InputError(f"{file}: this is a model of type {model!r}, and only xgb is read: give the folder xgb_v1.0")


class _BoosterPickle(pickle.Unpickler):
    """Loads the attributes of a Booster into a plain namespace; a pickle that asks for more could run code."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = {"xgboost.core.Booster": SimpleNamespace, "builtins.bytearray": bytearray}
        if f"{module}.{name}" not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no Booster needs")
        return admitted[f"{module}.{name}"]


def read_booster(file: Path) -> xgboost.Booster:
    """A member of the ensemble. InputError where the file is anything but a Booster of 56 features."""
    try:
        with open(file, "rb") as stream:
            stored = _BoosterPickle(stream).load()
        booster = xgboost.Booster()
        with xgboost.config_context(verbosity=0):  # it would warn that an older version wrote the pickle
            booster.__setstate__({"handle": stored.handle})
        features = booster.num_features()
    except Exception as error:  # pickle and xgboost have a type of their own for each fault
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{file} is damaged or no pickled Booster ({reason}): unpack the archive again") from None
    if features != len(COLUMNS):
        raise InputError(f"{file} reads {features} features instead of {len(COLUMNS)}: it is no model of NAS-Bench-301")
    return booster
