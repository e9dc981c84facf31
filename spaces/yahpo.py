"""The YAHPO Gym surrogate of NAS-Bench-301 (Pfisterer et al. 2022): from a DARTS cell to accuracy and training time.

Its accuracies lie about 1.3 points above NAS-Bench-301's own predictions, so results carry this oracle's name.
"""
from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from spaces import darts
from spaces.base import InputError
from spaces.oracles import Record

EPOCH = 98  # the surrogate predicts any epoch of a training run; this is the end of one
CELLS = ("normal", "reduce")
FIRST_EDGE = np.repeat([0, 2, 5, 9], 2)  # [8] edges count up by node, within a node by predecessor
COLUMNS = [f"edge_{cell}_{edge}" for cell in CELLS for edge in range(14)] + [
    f"inputs_node_{cell}_{node}" for cell in CELLS for node in (3, 4, 5)]  # node 2's inputs are always 0 and 1
PREFIX = "NetworkSelectorDatasetInfo_COLON_darts_COLON_"
INACTIVE = "#na#"


class YahpoOracle:
    """Answers for any DARTS cell: validation accuracy and training time, no test accuracy."""

    name = "YAHPO surrogate of NAS-Bench-301"

    def __init__(self, path: str | Path):
        """path: the .onnx file; the category codes lie beside it as `<stem>_encoding.json` or `encoding.json`."""
        path = Path(path).expanduser()
        if path.suffix != ".onnx" or not path.is_file():
            raise InputError(f"no surrogate at {path}: give nb301's .onnx file from github.com/slds-lmu/yahpo_data")
        self._read_encoding(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.query_many(np.zeros(1, np.int64))
        except Exception as error:  # onnxruntime has a type of its own for each fault
            raise InputError(f"{path} is damaged or no surrogate of NAS-Bench-301 ({type(error).__name__}): "
                             f"fetch it again from github.com/slds-lmu/yahpo_data") from None

    def covers(self, key: str) -> bool:
        return True

    def query(self, arch: darts.Genotype) -> Record:
        (val,), (cost,) = self.query_many(darts.numbers_of([arch]))
        return Record(float(val), None, float(cost))

    def query_many(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Validation accuracy in percent and training time in seconds, float32[N] each, of `darts` numbers int64[N]."""
        codes = self.encode(numbers)  # [N, 34]
        out = [self._session.run(None, self._feed(codes[i:i + 1]))[0][0] for i in range(len(codes))]  # one row a call
        return tuple(np.array(out, np.float32).reshape(-1, 2).T)  # [N] each

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """int32[N, 34]: the category codes in the order of COLUMNS."""
        gene = darts.genes(numbers)  # [N, 2, 8, 2]
        predecessor, operation = gene[..., 0].astype(np.intp), gene[..., 1].reshape(-1, 16)  # [N, 2, 8], [N, 16]
        edges = (predecessor + FIRST_EDGE + [[0], [14]]).reshape(-1, 16)  # [N, 16]
        codes = np.tile(self._inactive, (len(numbers), 1))  # [N, 34]
        np.put_along_axis(codes, edges, self._operation[edges, operation], axis=1)
        p, q = (predecessor[:, :, first::2].reshape(-1, 6) for first in (2, 3))  # [N, 6] each
        codes[:, 28:] = self._inputs[np.arange(6), p, q]
        return codes

    @staticmethod
    def _feed(codes: np.ndarray) -> dict[str, Any]:
        return {"x_cat": codes, "x_cont": np.full((1, 1), EPOCH, np.float32)}

    def _read_encoding(self, path: Path) -> None:
        """The codes of operations, input pairs and inactive columns from the JSON beside the graph."""
        found = [name for name in (f"{path.stem}_encoding.json", "encoding.json") if path.with_name(name).is_file()]
        if not found:
            raise InputError(f"{path} lacks its codes: put {path.stem}_encoding.json or encoding.json beside it")
        try:
            table = json.loads(path.with_name(found[0]).read_text())
            columns = [table[PREFIX + name] for name in COLUMNS]
            self._inactive = np.array([column[INACTIVE] for column in columns], np.int32)  # [34]
            self._operation = np.array([[c[op] for op in darts.OPERATIONS] for c in columns[:28]], np.int32)  # [28, 7]
            self._inputs = np.zeros((6, 5, 5), np.int32)  # [column, p, q]
            for codes, column, node in zip(self._inputs, columns[28:], (3, 4, 5) * 2):
                for p, q in combinations(range(node), 2):
                    codes[p, q] = column[f"{p}_{q}"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path.with_name(found[0])} is no YAHPO encoding of NAS-Bench-301: "
                             f"{type(error).__name__} {error}") from None
