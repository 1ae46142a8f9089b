"""What ``classy-gc bench`` times: the algorithms, beside which others, on which weights."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torchvision
from classy_vision.models import build_model
from torch import Tensor

from classy_gc import core
from classy_gc.configuration.errors import user_error


class Algorithm(NamedTuple):
    """The class of the core that is timed, and what it is timed beside."""

    core: type[torch.optim.Optimizer]
    moments: int
    options: dict[str, Any]
    torch: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]]  # the first: ratio 1
    peers: tuple[tuple[str, str, dict[str, Any]], ...] = ()  # package, class, its own options


def _torch(cls: type[torch.optim.Optimizer], *switches: str) -> dict[str, Any]:
    return {f"torch {name}": (cls, {name: True} if name != "default" else {}) for name in switches}


_SPEEDS = ("fused", "foreach", "default")
_FUSED_ADAM = {"torch Adam fused": (torch.optim.Adam, {"fused": True})}
_L2 = {"weight_decay": 1e-4}

ALGORITHMS = {
    "sgd": Algorithm(
        core.SGD,
        1,
        {"momentum": 0.9, **_L2},
        _torch(torch.optim.SGD, *_SPEEDS),
        (("optimi", "SGD", {}),),
    ),
    "adam": Algorithm(
        core.Adam,
        2,
        _L2,
        _torch(torch.optim.Adam, *_SPEEDS),
        (
            ("optimi", "Adam", {}),
            ("pytorch_optimizer", "AdamP", {"use_gc": True, "weight_decouple": False}),
        ),
    ),
    "adamw": Algorithm(
        core.AdamW,
        2,
        {"weight_decay": 1e-2},
        _torch(torch.optim.AdamW, *_SPEEDS),
        (("optimi", "AdamW", {}), ("pytorch_optimizer", "AdamP", {"use_gc": True})),
    ),
    "radam": Algorithm(
        core.RAdam,
        2,
        {},
        {**_FUSED_ADAM, **_torch(torch.optim.RAdam, "foreach", "default")},
        (("optimi", "RAdam", {}), ("pytorch_optimizer", "Ranger", {"use_gc": True})),
    ),
    "plain_radam": Algorithm(core.PlainRAdam, 2, {}, _FUSED_ADAM),
    "rmsprop": Algorithm(core.RMSprop, 1, {}, _torch(torch.optim.RMSprop, "default", "foreach")),
    "rmsprop_tf": Algorithm(
        core.RMSpropTF, 1, {}, {"torch RMSprop default": (torch.optim.RMSprop, {})}
    ),
}


def build_parameters(model: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """The weights that all variants step.

    Args:
        model: of torchvision.models or of Classy Vision, or ``tiny``.
        device: where they are.
        dtype: of them.

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
            raise ValueError(
                f"--model {model}: Classy Vision cannot build it from its name alone: "
                f"{user_error(error)}"
            ) from error
    return [torch.nn.Parameter(x.detach().to(device, dtype, copy=True)) for x in tensors]


def build_variants(
    name: str, parameters: list[Tensor], peers: Sequence[str]
) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of one round robin; the first is what the others are compared with.

    Args:
        name: of ``ALGORITHMS``.
        parameters: that all of them step.
        peers: packages that are installed, of ``PEERS``.

    Example:
        >>> list(build_variants("plain_radam", [torch.nn.Parameter(torch.ones(2, 2))], ()))
        ['torch Adam fused', 'GC off', 'GC before', 'GC after']
    """
    algorithm = ALGORITHMS[name]
    options = {"lr": 1e-3, **algorithm.options}
    variants = {
        label: cls(parameters, **options, **switches)
        for label, (cls, switches) in algorithm.torch.items()
    }
    if "gc_loc" in algorithm.core.added_defaults:
        gc = {"before": {"gc_loc": True}, "after": {"gc_loc": False}}
    else:
        gc = {"on": {}}
    fused = {"fused": True} if "fused" in inspect.signature(algorithm.core).parameters else {}
    variants["GC off"] = algorithm.core(parameters, **options, **fused)
    for label, location in gc.items():
        variants[f"GC {label}"] = algorithm.core(
            parameters, **options, **fused, use_gc=True, **location
        )
    for package, cls, own in algorithm.peers:
        if package in peers:
            label = f"{package} {cls}" + " GC" * ("use_gc" in own)
            peer = getattr(importlib.import_module(package), cls)
            variants[label] = peer(parameters, **{**options, **own})
    return variants
