"""Builds few parameter groups from the options of each parameter."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from classy_vision.models import ClassyModel
from classy_vision.optim import ClassyOptimizer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from classy_gc.optim.scheduled_gc import as_schedulers
from classy_gc.param_groups.builder import NamedParameter, OptimizerOptions, ParamGroupBuilder


def parameter_occurrences(root: nn.Module, prefix: str = "") -> Iterator[NamedParameter]:
    """Yields every parameter with the modules that hold it; shared ones more than once.

    Args:
        root: the module with the parameters.
        prefix: put before their names, with a dot between (default: none).

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2, bias=False)))
        >>> [(p.full_name, p.prefix, len(p.parents)) for p in parameter_occurrences(model)]
        [('0.0.weight', '0.0', 2)]
    """
    modules = dict(root.named_modules(prefix=prefix, remove_duplicate=False))
    for path, module in modules.items():
        above = [path[:i] for i, c in enumerate(path) if c == "."]
        above = [p for p in ["", *above] if p in modules and p != path]
        parents = tuple(modules[p] for p in above)
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield NamedParameter(path, name, parameter, module, parents)


def freeze_trunk(model: ClassyModel) -> None:
    """Trains only the heads, as the task ``fine_tuning`` does with its ``freeze_trunk``.

    Args:
        model: whose parameters get a new ``requires_grad``, in place.
    """
    heads = nn.ModuleList(head for heads in model.get_heads().values() for head in heads)
    trained = set(heads.parameters())
    for parameter in model.parameters():
        parameter.requires_grad = parameter in trained


def build_param_groups(
    builder: ParamGroupBuilder,
    model: nn.Module,
    optimizer: ClassyOptimizer,
    loss: nn.Module | None = None,
    schedules: Mapping[str, Any] | None = None,
    num_epochs: float = 1,
    bn_weight_decay: bool = False,
) -> list[dict[str, Any]]:
    """Groups for ``ClassyOptimizer.set_param_groups``, one for each set of equal options.

    The groups are in the order of their first parameters, so that a checkpoint resumes.

    Args:
        builder: says which options differ for which parameter.
        model: its parameters are trained; frozen ones are left out.
        optimizer: before it gets its parameters.
        loss: its parameters are trained too, named ``loss.…`` (default: None).
        schedules: of the task, option: ParamScheduler (default: None, none).
        num_epochs: of the training (default: 1).
        bn_weight_decay: whether BatchNorm decays if the builder does not say (default: False).

    Returns:
        One dict per group: ``params``, and the ParamScheduler of each option that differs from the
        optimizer's own. The parameters' names are ``param_names`` beside ``params``; remove them
        before ``set_param_groups``.

    Raises:
        ValueError: an option or value that the optimizer or the builder refuses, a shared parameter
            without ``bypass_duplicate``, or nothing to train.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> from classy_gc.param_groups import build_param_group_builder
        >>> builder = build_param_group_builder({"name": "paramwise", "bias_lr_mult": 2})
        >>> optimizer = build_optimizer({"name": "sgd_gc", "lr": 0.25})
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> for group in build_param_groups(builder, model, optimizer):
        ...     print(group["param_names"], {k: group[k](0) for k in group if k == "lr"})
        ['0.weight', '1.weight'] {}
        ['0.bias', '1.bias'] {'lr': 0.5}
    """
    options = OptimizerOptions(optimizer, schedules or {}, num_epochs)
    named = list(parameter_occurrences(model))
    if loss is not None:
        named += parameter_occurrences(loss, "loss")
    wanted = builder.options(model, named, options)
    groups: dict[frozenset[Any], dict[str, Any]] = {}
    seen: dict[int, str] = {}
    for parameter, own in zip(named, wanted, strict=True):
        if not parameter.parameter.requires_grad:
            continue
        name = parameter.full_name
        first = seen.setdefault(id(parameter.parameter), name)
        if first != name:
            if not builder.bypass_duplicate:
                raise ValueError(
                    f"some parameters appear in more than one parameter group: {name!r} is "
                    f"{first!r}; 'bypass_duplicate': true in param_groups leaves it out"
                )
            logging.warning(f"{builder.label()}: {name} is {first}, and is left out")
            continue
        label = f"options of {name!r} from {builder.label()}"
        decays = own.get("bn_weight_decay", bn_weight_decay) or "weight_decay" not in options.rules
        if isinstance(parameter.module, _BatchNorm) and not decays:
            own = {"weight_decay": 0.0, **own}
        resolved = options.resolve(own, label)
        key = frozenset((k, v) for k, v in resolved.items() if v != options.values.get(k))
        scheduled = as_schedulers(resolved, options.rules, label)
        group = groups.setdefault(key, {"params": [], "param_names": [], **scheduled})
        group["params"].append(parameter.parameter)
        group["param_names"].append(name)
    if not groups:
        raise ValueError("there is nothing to train: every parameter is frozen")
    return list(groups.values())
