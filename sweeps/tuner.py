"""NNI's TPE for trials that run side by side; loaded by NNI's own process, see sweeps/experiment.py."""
from __future__ import annotations

from nni.algorithms.hpo.tpe_tuner import TpeTuner

from sweeps.experiment import number_in


class TPE(TpeTuner):
    """Tree-structured Parzen estimator (Bergstra et al. 2011).

    NNI 3.0 gives a trial the next parameters in the queue when it asks for them, but reports its end under
    those that it was started for. Two trials that start together often ask in the other order; NNI's TPE then
    forgets parameters that are still being tried, fails at their result, and the sweep hangs. This one
    forgets at the result alone. While a trial runs, its parameters count as bad as the worst so far: new ones
    keep away from them, and from those that failed.
    """

    def __init__(
        self, optimize_mode: str = "maximize", seed: int | None = None, tpe_args: dict | None = None,
        earlier: list[dict] | None = None
    ):
        """earlier: {"parameter", "value"} of the trials of a sweep that this one continues."""
        super().__init__(optimize_mode, seed, {"constant_liar_type": "worst"} | (tpe_args or {}))
        self.earlier = earlier or []

    def update_search_space(self, space):
        super().update_search_space(space)
        self.import_data(self.earlier)

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        """Learns from finite results only; others are those of failed trials."""
        value = number_in(value)
        if value is None:
            self._running_params.pop(parameter_id, None)
        else:
            super().receive_trial_result(parameter_id, parameters, value, **kwargs)

    def trial_end(self, parameter_id, success, **kwargs):
        """Ignores the report, which may be of another trial's end."""
