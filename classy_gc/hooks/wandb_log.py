"""``wandb_log``: logs a run to Weights & Biases."""

from collections.abc import Mapping
from typing import Any, ClassVar

from classy_vision.hooks import register_hook

from classy_gc.hooks.run_log import RunLogHook
from classy_gc.options import MAPPING


@register_hook("wandb_log")
class WandbLogHook(RunLogHook):
    """``wandb_log``: logs config, learning rates, losses, meters, GC's measures and the curves.

    The x-axis is the epoch. Logged are ``train/loss``, ``test/accuracy/top_1``, ``train/lr`` and
    the other scheduled options at the end of each phase; with ``gc_monitor``, ``GC Removed/…`` and
    ``GC Drift/…``; with ``training_curves``, ``curves`` at the end. A resumed training continues
    the W&B run of its checkpoint.

    Args:
        init (dict): arguments of ``wandb.init``, such as ``project``, ``mode`` (``offline`` writes
            files that ``wandb sync`` sends) or ``dir`` (default: {})

    Raises:
        ValueError: an unknown key, or wandb is not installed.
        TypeError: at the start, an argument that ``wandb.init`` does not take.

    Source: https://docs.wandb.ai/ref/python/init.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "wandb_log", "init": {"mode": "offline"}}).init
        {'mode': 'offline'}
    """

    LIBRARY = "wandb"
    OPTIONS: ClassVar = {"init": ({}, MAPPING)}

    _run: Any = None

    def start(self, config: Mapping[str, Any], run_id: str | None) -> str:
        given = {"config": dict(config), "id": run_id, "resume": "allow", **self.init}
        self._run = self.library.init(**given)
        self._run.define_metric("*", step_metric="epoch")
        return self._run.id

    def log(self, values: Mapping[str, float], epoch: float, step: int) -> None:
        self._run.log({**values, "epoch": epoch, "step": step})

    def finish(self, curves: Any) -> None:
        if curves is not None:
            import matplotlib.pyplot  # noqa: F401  wandb looks it up, imported or not

            self._run.log({"curves": self.library.Image(curves)})
        self._run.finish()
