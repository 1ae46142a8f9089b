"""``gc_monitor``: what gradient centralization removes from each gradient during training."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import TensorboardPlotHook, register_hook
from torch import Tensor, nn

from classy_gc.core.centralization import ineligible_reason
from classy_gc.core.measures import gradient_norms, ratios, row_mean_norms, row_sums
from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.hooks.json_log import write_line
from classy_gc.hooks.run_log import RunLogHook
from classy_gc.options import COUNT


def named_parameters(task: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a task's model, and those of its loss as ``loss.…``."""
    yield from task.base_model.named_parameters()
    yield from task.base_loss.named_parameters(prefix="loss")


@register_hook("gc_monitor")
class GCMonitorHook(CheckedHook):
    """``gc_monitor``: the share of the gradient that GC removes, and how far row means drift.

    It measures every weight that has rows, whether or not GC is on and whatever ``gc_conv_only``
    says, so for a run without GC it shows what GC would do. Let ``C(x)`` be the centralized ``x``
    (each row minus its mean). At the first step and every ``interval`` steps after it, the hook
    measures for each weight ``p``

    * ``removed``: ``‖g − C(g)‖² / ‖g‖²``, in [0, 1], of the gradient ``g`` that the optimizer gets:
      accumulated, clipped, and without the weight decay that an optimizer may add;
    * ``drift``: ``‖M(p) − M(p₀)‖ / ‖p‖`` after the step, where ``M(p) = p − C(p)`` holds the row
      means, ``n`` times in a row of ``n`` elements, and ``p₀`` is the weight when this hook
      first saw it. Where GC acts last (``sgd_gc``, or ``gc_loc`` false) it stays 0.

    and both for all weights taken as one vector. A ratio is None where it does not exist: without a
    gradient, or with a zero, sparse or overflown one. Tensors without rows (biases and norm
    weights) and frozen parameters are left out.

    The measures go to the ``json_log`` of the run, if there is one::

        {"kind": "gc_monitor", "epoch": 1.5, "step": 51, "removed": 0.02, "drift": 0.0,
         "parameters": {"blocks.0.weight": {"removed": 0.03, "drift": 0.0}}}

    where ``epoch`` is how much has been trained, and ``step`` the number of updates, resumed ones
    included. They go to TensorBoard, if ``tensorboard_plot`` has a writer, as ``GC Removed/total``,
    ``GC Removed/<name>`` and ``GC Drift/…``, and likewise to ``wandb_log`` and ``mlflow_log``.
    Training stays the same bit for bit. The row means at the start are part of every checkpoint.

    A measurement reads each gradient and each weight twice, and waits for the device once; any
    other step only costs a counter. A hook on the optimizer's ``step`` reads the gradients as they
    are before GC. A process that holds the gradients of only some weights (``use_sharded_ddp``)
    measures those.

    Args:
        interval (int): optimizer steps from one measurement to the next, > 0 (default: 50)

    Raises:
        ValueError: an unknown key, or an interval that is not an integer > 0.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020, https://arxiv.org/abs/2004.01461,
    section 4.1: the projection of the gradient and of the weight space.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "gc_monitor", "interval": 10}).interval
        10
    """

    OPTIONS: ClassVar = {"interval": (50, COUNT)}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.state.step = 0
        self.state.row_sums = {}
        self._gradients: dict[str, Tensor] | None = None

    def on_start(self, task: Any) -> None:
        """Watches the optimizer's steps; a test-only task has no optimizer."""
        if task.optimizer is not None:
            task.optimizer.optimizer.register_step_pre_hook(self._before_step)

    def on_phase_start(self, task: Any) -> None:
        """Keeps the row means of weights not seen before."""
        trained = {name: p for name, p in named_parameters(task) if p.requires_grad}
        self._parameters = {n: p for n, p in trained.items() if ineligible_reason(p) is None}
        for name, p in self._parameters.items():
            sums = self.state.row_sums.get(name)
            self.state.row_sums[name] = row_sums(p) if sums is None else sums.to(p.device)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self.state.step % self.interval == 0:
            self._gradients = gradient_norms(self._parameters)
        self.state.step += 1

    def on_step(self, task: Any) -> None:
        """Writes a measurement, once the weights are updated."""
        if self._gradients is None:
            return
        removed, total_removed = ratios(self._gradients, power=2)
        self._gradients = None
        sums = self.state.row_sums
        norms = {name: row_mean_norms(p, sums[name]) for name, p in self._parameters.items()}
        drift, total_drift = ratios(norms)
        if not is_primary():
            return
        total = {"removed": total_removed, "drift": total_drift}
        parameters = {n: {"removed": removed.get(n), "drift": drift[n]} for n in drift}
        step = self.state.step
        epoch = task.where * task.get_total_training_phases() / (task.train_phases_per_epoch or 1)
        write_line(task, "gc_monitor", epoch=epoch, step=step, **total, parameters=parameters)
        scalars = {
            f"GC {kind.capitalize()}/{name}": value
            for name, values in {"total": total, **parameters}.items()
            for kind, value in values.items()
            if value is not None
        }
        for hook in task.hooks:
            if isinstance(hook, RunLogHook):
                hook.log(scalars, epoch, step)
            elif isinstance(hook, TensorboardPlotHook) and hook.tb_writer is not None:
                for tag, value in scalars.items():
                    hook.tb_writer.add_scalar(tag, value, global_step=step)
