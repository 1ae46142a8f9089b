"""What torch's learning-rate schedulers give, step by step."""

import torch
from classy_vision.optim.param_scheduler import build_param_scheduler

import classy_gc  # noqa: F401  registers the names


def of_torch(scheduler, steps, lr, momentum=None, **options):
    """The rates, and the momenta if there are any, of ``steps`` steps."""
    momentum = {} if momentum is None else {"momentum": momentum}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, **momentum)
    theirs = scheduler(optimizer, **options)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        momenta.append(float(optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        theirs.step()
    return (rates, momenta) if momentum else rates


def of_classy(config, steps):
    """The values that a ParamScheduler config gives as Classy Vision's tasks take steps."""
    scheduler = build_param_scheduler({"num_epochs": 10, **config})
    return [scheduler(step / steps) for step in range(steps)]
