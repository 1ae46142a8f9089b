"""Gradient centralization for Classy Vision.

``import classy_gc`` registers every optimizer, dataset, hook and task of this package with Classy
Vision, under the names of their files. Where Classy Vision is not installed nothing is registered:
``classy_gc.core`` works, and what needs Classy Vision raises a ``ModuleNotFoundError`` that names
it once it is imported.
"""

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

__all__ = ["dataset", "hooks", "optim", "param_groups", "tasks"]


def _ignore_warnings() -> None:
    """Of what Classy Vision imports, and nobody who uses it can act upon."""
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", message="The 'torchvision.transforms._")


if Path(*sys.argv[:1]).name == "classy-gc":
    # Its --help does not wait for torch: what the commands need, they import themselves.
    _ignore_warnings()
elif importlib.util.find_spec("classy_vision"):
    with warnings.catch_warnings():
        _ignore_warnings()
        from classy_gc import dataset, hooks, optim, param_groups, tasks


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
