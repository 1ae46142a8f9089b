"""``mlflow_log``: logs a run to MLflow."""

from collections.abc import Mapping
from typing import Any, ClassVar

from classy_vision.hooks import register_hook

from classy_gc.hooks.run_log import RunLogHook
from classy_gc.options import TEXT, or_null


@register_hook("mlflow_log")
class MlflowLogHook(RunLogHook):
    """``mlflow_log``: logs config, learning rates, losses, meters, GC's measures and the curves.

    The step is the number of trained batches. Logged are ``train/loss``, ``test/accuracy/top_1``,
    ``train/lr`` and the other scheduled options at the end of each phase, and, with ``gc_monitor``,
    ``GC Removed/…`` and ``GC Drift/…``. ``config.json`` and, with ``training_curves``,
    ``curves.png`` are artifacts. A resumed training continues the MLflow run of its checkpoint.

    Args:
        tracking_uri (str, optional): of a server, a folder or a database (default: None, that of
            the environment)
        experiment (str, optional): the one the run belongs to (default: None, MLflow's default)
        run_name (str, optional): of a new run (default: None, MLflow chooses one)

    Raises:
        ValueError: an unknown key, a value that is not a string, or mlflow is not installed.

    Source: https://mlflow.org/docs/latest/ml/tracking.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "mlflow_log", "experiment": "digits"}).experiment
        'digits'
    """

    LIBRARY = "mlflow"
    OPTIONS: ClassVar = dict.fromkeys(
        ["tracking_uri", "experiment", "run_name"], (None, or_null(TEXT))
    )

    def start(self, config: Mapping[str, Any], run_id: str | None) -> str:
        if self.tracking_uri:
            self.library.set_tracking_uri(self.tracking_uri)
        if self.experiment:
            self.library.set_experiment(self.experiment)
        run = self.library.start_run(run_id=run_id, run_name=None if run_id else self.run_name)
        self.library.log_dict(dict(config), "config.json")
        return run.info.run_id

    def log(self, values: Mapping[str, float], epoch: float, step: int) -> None:
        self.library.log_metrics({**values, "epoch": epoch}, step=step)

    def finish(self, curves: Any) -> None:
        if curves is not None:
            self.library.log_figure(curves, "curves.png")
        self.library.end_run()
