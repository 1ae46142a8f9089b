"""``zero``: Classy Vision's, extended to work around a GC optimizer.

Classy Vision's class runs the schedules and loads the checkpoints itself, and never asks the
optimizer that it wraps. So its name is registered again, for a class that asks. Around any other
optimizer it acts like Classy Vision's.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer, zero

from classy_gc.optim.resume import first_steps
from classy_gc.optim.scheduled_gc import ScheduledGC
from classy_gc.optim.stock import with_outer_schedules


class ZeRO(zero.ZeRO):
    """``zero``: shares the state of ``base_optimizer`` between the processes of a training.

    Args:
        base_optimizer (ClassyOptimizer): one of this package; in a config any optimizer, and for
            the others the result is Classy Vision's own ``ZeRO``.

    Source: https://arxiv.org/abs/1910.02054

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> config = {"name": "zero", "base_optimizer": {"name": "sgd_gc", "lr": 0.1}}
        >>> build_optimizer(config).base_optimizer.label()
        "optimizer 'sgd_gc'"
    """

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> zero.ZeRO:
        """Instantiates the optimizer from a configuration, which is not changed.

        Args:
            config: ``name``, ``base_optimizer`` (an optimizer config), and optionally
                ``param_schedulers`` and ``num_epochs``, which the task adds.

        Raises:
            ValueError: a base optimizer that does not train or resume the same when its weights are
                shared out, a value that it refuses, or schedules that it would not read.
        """
        base = build_optimizer(copy.deepcopy(with_outer_schedules(config)))
        if not isinstance(base, ScheduledGC):
            return zero.ZeRO(base)
        reason = _unfit_reason(base)
        if reason:
            raise ValueError(f"{base.label()} cannot be the base_optimizer of 'zero': it {reason}")
        return cls(base)

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        groups = self.base_optimizer.scheduled_groups(param_groups, kwargs)
        for group in groups:
            group.pop("param_names", None)
        super().set_param_groups(groups)

    def step(self, *args: Any, where: float | None = None, **kwargs: Any) -> None:
        self.base_optimizer.catch_up(where, self)
        super().step(*args, where=where, **kwargs)

    def set_classy_state(self, state: dict[str, Any]) -> None:
        super().set_classy_state(self.base_optimizer.resumed(state, self))


@torch.random.fork_rng(devices=[])
def _unfit_reason(base: ScheduledGC) -> str | None:
    """Why each process cannot step and save its own share of the weights; None if it can."""
    before = torch.get_rng_state()
    together = first_steps(base)
    saved = together.state_dict()
    others = [key for key in saved["state"] if not isinstance(key, int)]
    others += saved.keys() - {"state", "param_groups"}
    if others:
        return f"keeps {others[0]!r} beside the state of its weights, which 'zero' does not save"
    if not torch.equal(torch.get_rng_state(), before):
        return "draws random numbers, which differ between the processes"
    for which in (slice(2), slice(2, None)):
        if _text(first_steps(base, which=which), slice(None)) != _text(together, which):
            return "steps each weight by all weights, while each process has only a share of them"
    return None


def _text(optimizer: torch.optim.Optimizer, which: slice) -> str:
    """The options and some weights of the only group; unlike tensors, text compares NaN too."""
    group = dict(optimizer.param_groups[0])
    group.pop("lr", None)  # timm's Adafactor leaves the lr of the last weight there
    weights = [p.tolist() for p in group.pop("params")[which]]
    return f"{group} {weights}"


OPTIMIZER_REGISTRY["zero"] = ZeRO
