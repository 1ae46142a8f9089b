"""What ``classy-gc bench`` times: the algorithms, their peers, and the weights."""

import importlib
import inspect
from typing import Any

import torch
import torchvision
from classy_vision.models import build_model

from classy_gc import core
from classy_gc.configuration.errors import user_error
from classy_gc.options import check_known

#: the class of the core, the torch class that it is timed beside first, and options of all
ALGORITHMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (core.SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 1e-4}),
    "adam": (core.Adam, torch.optim.Adam, {"weight_decay": 1e-4}),
    "adamw": (core.AdamW, torch.optim.AdamW, {"weight_decay": 1e-2}),
    "radam": (core.RAdam, torch.optim.Adam, {}),
    "plain_radam": (core.PlainRAdam, torch.optim.Adam, {}),
    "rmsprop": (core.RMSprop, torch.optim.RMSprop, {}),
    "rmsprop_tf": (core.RMSpropTF, torch.optim.RMSprop, {}),
}


def build_parameters(model: str, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """The weights that all variants step.

    Args:
        model: of torchvision.models or of Classy Vision, or ``tiny``.
        device: of the weights.
        dtype: of the weights.

    Raises:
        ValueError: Classy Vision cannot build the model from its name alone.

    Example:
        >>> weights = build_parameters("tiny", torch.device("cpu"), torch.float32)
        >>> len(weights), weights[0].shape
        (1000, torch.Size([8, 8]))
    """
    if model == "tiny":
        tensors = [torch.randn(8, 8) for _ in range(1000)]
    elif model in torchvision.models.list_models():
        builder = inspect.signature(torchvision.models.get_model_builder(model)).parameters
        backbone = {"weights_backbone": None} if "weights_backbone" in builder else {}
        tensors = torchvision.models.get_model(model, weights=None, **backbone).parameters()
    else:
        try:
            tensors = build_model({"name": model}).parameters()
        except Exception as error:
            reason = f"Classy Vision cannot build it from its name alone: {user_error(error)}"
            raise ValueError(f"--model {model}: {reason}") from error
    return [torch.nn.Parameter(x.detach().to(device, dtype, copy=True)) for x in tensors]


def build_variants(name: str, parameters: list[torch.Tensor]) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of one round robin; the others are compared with the first.

    Args:
        name: in ``ALGORITHMS``, or the path of a class, such as ``torch.optim.NAdam``.
        parameters: all variants step them.

    Raises:
        ValueError: the class does not exist, needs options, or cannot be centralized.

    Example:
        >>> weights = [torch.nn.Parameter(torch.ones(2, 2))]
        >>> list(build_variants("rmsprop", weights))
        ['torch RMSprop default', 'torch RMSprop foreach', 'GC off', 'GC before', 'GC after']
        >>> list(build_variants("torch.optim.Adagrad", weights))
        ['fused', 'GC before', 'GC after']
    """
    if name not in ALGORITHMS:
        return _variants_of_class(name, parameters)
    cls, first, options = ALGORITHMS[name]
    options = {"lr": 1e-3, **options}
    variants = {}
    own = next(base for base in cls.__mro__ if base.__module__.startswith("torch.optim."))
    peers = [(first, "fused"), *((own, switch) for switch in ("fused", "default", "foreach"))]
    for theirs, switch in dict.fromkeys(peers):
        if switch == "default" or _accepts(theirs, switch):
            switches = {} if switch == "default" else {switch: True}
            label = f"torch {theirs.__name__} {switch}"
            variants[label] = theirs(parameters, **options, **switches)
    variants["GC off"] = cls(parameters, **options, fused=True)
    places = {"before": {"gc_loc": True}, "after": {"gc_loc": False}}
    for label, place in (places if "gc_loc" in cls.added_defaults else {"on": {}}).items():
        variants[f"GC {label}"] = cls(parameters, **options, fused=True, use_gc=True, **place)
    return variants


def _variants_of_class(path: str, parameters: list[torch.Tensor]) -> dict[str, Any]:
    module, _, name = path.rpartition(".")
    if not module:
        check_known([path], ALGORITHMS, "--optimizers", "optimizer")
    try:
        cls = getattr(importlib.import_module(module), name)
        options = {"lr": 1e-3, "weight_decay": 0, "fused": True}
        options = {option: x for option, x in options.items() if _accepts(cls, option)}
        return {
            "fused" if "fused" in options else "default": cls(parameters, **options),
            "GC before": core.centralize_optimizer(cls(parameters, **options), gc_loc=True),
            "GC after": core.centralize_optimizer(cls(parameters, **options)),
        }
    except Exception as error:  # a module may raise anything
        raise ValueError(f"--optimizers {path}: {user_error(error)}") from error


def _accepts(cls: type[torch.optim.Optimizer], option: str) -> bool:
    return option in inspect.signature(cls).parameters
