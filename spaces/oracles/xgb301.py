"""NAS-Bench-301's own surrogate (Zela et al., ICLR 2022), an XGBoost ensemble, read without its package.

    python -m spaces.download nasbench301
    python gen_json_301.py --n 1000 --out cells.jsonl \\
        --oracle ~/datasets/nasbench301_models_v1.0/nb_models/xgb_v1.0

The folder has one folder per member, with a pickled Booster in surrogate_model.model and model_config.json
beside it. The accuracy of a cell is the mean over the members; their standard deviation is the package's
noise, which is added only if a user asks for it. A pickle may run code: of these, nothing but the bytes of a
model is taken. XGBoost notices if these are cut, but not every changed byte; the checksum of the downloaded
archive does.

A member reads 56 numbers, ConfigSpace's array of one training configuration: first the hyper-parameters
without a condition, by name, then those with one, by name; an option is its index, a number is scaled by its
range. In NAS-Bench-301's queries 22 of them never change. Checked against the package nasbench301 0.3: its
own code, run with ConfigSpace 0.6.1 on its configspace.json, gives the same vectors as this module for 20,000
random cells, all 56 numbers equal in float32. (It was written for ConfigSpace 0.4.12; the source of 0.4.15
sorts and scales the same way.) Boosters pickled by xgboost 1.2.1 predict exactly the same under 2.1.4.
"""
from __future__ import annotations

import hashlib
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from runtime.errors import InputError
from runtime.files import path_of, sha256_of
from runtime.guarded import load_plain_pickle, read_json
from spaces.nasbench301 import CATEGORIES, CELLS, Answers, Surrogate, categories

try:
    import xgboost
except ImportError:
    raise InputError("NAS-Bench-301's ensemble needs xgboost: pip install xgboost-cpu==2.1.4 (3.x cannot "
                     "read it)") from None

# the classes in a pickled Booster
ADMITTED = {"xgboost.core.Booster": SimpleNamespace, "builtins.bytearray": bytearray}
PREFIX = "NetworkSelectorDatasetInfo:darts:"
# the training of every cell, as ConfigSpace scales it; 0 for the only or the first option
CONSTANTS = {
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
    """float32[N, 56]: the members' input for `darts` numbers int64[N]; an edge that a cell lacks is -1."""
    rows = np.tile(_CONSTANT, (len(numbers), 1))  # [N, 56]
    rows[:, _PLACE] = categories(numbers)
    return rows


class EnsembleOracle(Surrogate):
    """Answers for any DARTS cell: validation accuracy without noise, and the members' standard deviation.

    It knows no test accuracy and no cost.
    """

    std_source = "the members' standard deviation"

    def __init__(self, folder: str | Path):
        """Reads the folder of one ensemble, such as xgb_v1.0.

        Raises InputError for a missing, damaged, foreign or dangerous file.
        """
        folder = path_of(folder).resolve()
        files = sorted(folder.rglob("*surrogate_model.model"))
        if not files:
            raise InputError(f"no surrogate_model.model below {folder}: give the folder xgb_v1.0 of "
                             "NAS-Bench-301, which python -m spaces.download nasbench301 fetches")
        ensembles = sorted({file.parent.parent for file in files})
        if len(ensembles) > 1:
            raise InputError(
                f"{folder} holds several ensembles: give one, {' or '.join(map(str, ensembles))}")
        for file in files:
            check_config(file.with_name("model_config.json"))
        self._boosters = [read_booster(file) for file in files]
        self.digest = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
        weakref.finalize(self, self._boosters.clear)  # also at exit: later XGBoost can free none
        self.name = f"NAS-Bench-301 {ensembles[0].name} (mean of {len(files)} boosters)"

    def query_many(self, numbers: np.ndarray) -> Answers:
        rows = xgboost.DMatrix(vectors(numbers))
        members = np.stack([booster.predict(rows) for booster in self._boosters]).astype(np.float64)  # [M, N]
        return Answers(members.mean(axis=0), None, members.std(axis=0))


def check_config(file: Path) -> None:
    """Raises InputError unless a member's model_config.json describes an XGBoost model of accuracies."""
    mend = "unpack the archive again"
    content = read_json(file, mend, largest=2**20)
    model = content.get("model") if isinstance(content, dict) else None
    if model is None:
        raise InputError(f"{file} names no model: {mend}")
    if model != "xgb":
        raise InputError(
            f"{file}: this is a model of type {model!r:.40}, and only xgb is read: give the folder xgb_v1.0")


def read_booster(file: Path) -> xgboost.Booster:
    """Reads a member of the ensemble; raises InputError for anything but a Booster of 56 features."""
    try:
        stored = load_plain_pickle(file, ADMITTED)
        booster = xgboost.Booster.__new__(xgboost.Booster)  # without a model, as pickle makes it
        with xgboost.config_context(verbosity=0):  # no warning that an older version wrote the pickle
            booster.__setstate__({"handle": stored.handle})
        features = booster.num_features()
    except Exception as error:  # pickle and xgboost have a type of their own for each fault
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(
            f"{file} is damaged or no pickled Booster ({reason}): unpack the archive again") from None
    if features != len(COLUMNS):
        raise InputError(
            f"{file} reads {features} features instead of {len(COLUMNS)}: it is no model of NAS-Bench-301")
    return booster
