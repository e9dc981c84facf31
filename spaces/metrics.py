"""The quantity that labels measure and a search optimises: accuracy, or any other column of numbers."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runtime.errors import InputError

ACCURACY = "accuracy"


class Metric(NamedTuple):
    """A name and a direction. Labels, histories and results keep raw values; choices are made by utility."""

    name: str = ACCURACY
    lower_is_better: bool = False

    @property
    def sign(self) -> float:
        """The factor that turns a raw value into its utility, of which more is better."""
        return -1.0 if self.lower_is_better else 1.0

    @property
    def is_accuracy(self) -> bool:
        return self.name == ACCURACY

    def entries(self) -> dict[str, Any]:
        """The entries of a result that `metric_in` reads."""
        return {"metric": self.name, "lower_is_better": self.lower_is_better}

    def said(self, which: str) -> str:
        """The value in words; which: "validation" or "test"."""
        if self.is_accuracy:
            return f"{which} accuracy"
        return self.name if which == "validation" else f"{which} {self.name}"

    def axis(self, which: str) -> str:
        """The best value so far, as the label of an axis."""
        return f"best {self.said(which)} so far{' (%)' if self.is_accuracy else ''}"

    def title(self, dataset: str) -> str:
        """What was measured, for titles; a metric other than accuracy says it by its name."""
        return dataset if self.is_accuracy else f"{self.name}{', lower is better' * self.lower_is_better}"


def metric_of(settings) -> Metric:
    """The metric of a script's settings; raises InputError for accuracy that would be minimised."""
    name = settings.metric.strip().lower() or ACCURACY
    if name == ACCURACY and settings.lower_is_better:
        raise InputError("--lower_is_better: higher accuracy is better: name the column by --metric")
    return Metric(name, settings.lower_is_better)


def metric_in(result: Mapping[str, Any]) -> Metric:
    """The metric of a result that a script wrote; accuracy in those of earlier versions, which name none."""
    return Metric(result.get("metric", ACCURACY), result.get("lower_is_better", False))
