"""The YAHPO Gym surrogate of NAS-Bench-301 (Pfisterer et al. 2022): accuracy and training time of a cell.

Its accuracies lie about 1.3 points above NAS-Bench-301's own predictions, so results name this oracle.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtime.errors import InputError
from runtime.files import path_of, sha256_of
from runtime.guarded import need_file, read_json
from spaces.nasbench301 import CATEGORIES, INACTIVE, Answers, Surrogate, categories

EPOCH = 98  # the surrogate predicts any epoch of a training run; this is the end of one
PREFIX = "NetworkSelectorDatasetInfo_COLON_darts_COLON_"
INACTIVE_NAME = "#na#"
LARGEST = 2**30  # bytes of an .onnx file; YAHPO's has 2^20.6


class YahpoOracle(Surrogate):
    """Answers for any DARTS cell: validation accuracy and training time, no test accuracy."""

    name = "YAHPO surrogate of NAS-Bench-301"

    def __init__(self, path: str | Path):
        """Reads an .onnx file and the category codes beside it, `<stem>_encoding.json` or `encoding.json`."""
        path = path_of(path)
        mend = "give nb301's .onnx file from github.com/slds-lmu/yahpo_data"
        if path.suffix != ".onnx" or not path.exists():
            raise InputError(f"no surrogate at {path}: {mend}")
        if need_file(path, mend) > LARGEST:
            raise InputError(f"{path} is too large for a surrogate: {mend}")
        self.digest = sha256_of(path)
        self._codes = read_encoding(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"])
            self.query_many(np.zeros(1, np.int64))
        except Exception as error:  # onnxruntime has a type of its own for each fault
            raise InputError(f"{path} is damaged or no surrogate of NAS-Bench-301 ({type(error).__name__}): "
                             "fetch it again from github.com/slds-lmu/yahpo_data") from None

    def query_many(self, numbers: np.ndarray) -> Answers:
        codes = self.encode(numbers)  # [N, 34]
        out = [self._session.run(None, self._feed(codes[i:i + 1]))[0][0]  # one row per call
               for i in range(len(codes))]
        val, cost = np.array(out, np.float32).reshape(-1, 2).T  # [N] each
        if not (np.isfinite(val).all() and np.isfinite(cost).all()):
            raise InputError(f"{self.name}: a prediction is not finite: the file is damaged, fetch it again")
        return Answers(val, cost, None)

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """int32[N, 34]: the category codes in the order of CATEGORIES."""
        return self._codes[np.arange(len(CATEGORIES)), categories(numbers)]

    @staticmethod
    def _feed(codes: np.ndarray) -> dict[str, Any]:
        return {"x_cat": codes, "x_cont": np.full((1, 1), EPOCH, np.float32)}


def read_encoding(path: Path) -> np.ndarray:
    """int32[34, 11]: the code of each category of each column, the last INACTIVE's, from the JSON file."""
    found = [
        name for name in (f"{path.stem}_encoding.json", "encoding.json") if path.with_name(name).is_file()]
    if not found:
        raise InputError(f"{path} lacks its codes: put {path.stem}_encoding.json or encoding.json beside it")
    table = np.zeros((len(CATEGORIES), 1 + max(map(len, CATEGORIES.values()))), np.int32)  # [34, 11]
    stored = read_json(path.with_name(found[0]), "fetch it again from github.com/slds-lmu/yahpo_data", 2**20)
    try:
        for codes, (name, options) in zip(table, CATEGORIES.items()):
            column = stored[PREFIX + name]
            codes[:len(options)] = [column[option] for option in options]
            codes[INACTIVE] = column[INACTIVE_NAME]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{path.with_name(found[0])} is no YAHPO encoding of NAS-Bench-301: "
                         f"{type(error).__name__} {error}") from None
    return table
