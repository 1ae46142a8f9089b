"""Gradient centralization for Classy Vision.

``import classy_gc`` registers every optimizer, dataset, hook and task of this package with Classy
Vision, under the names of their files: at once, or as soon as Classy Vision is imported.
:mod:`classy_gc.core` needs and imports only torch. Without Classy Vision, importing a module that
needs it raises a ``ModuleNotFoundError`` that names it.
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
    """Ignores warnings from Classy Vision's imports that its users cannot act on."""
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", message="The 'torchvision.transforms._")


def _register() -> None:
    try:
        with warnings.catch_warnings():
            _ignore_warnings()
            for name in __all__:
                importlib.import_module(f"{__name__}.{name}")
    except Exception as error:  # of any kind: the core works without Classy Vision
        text = "classy_gc registers nothing with Classy Vision, which cannot be imported"
        warnings.warn(f"{text}: {type(error).__name__}: {error}", stacklevel=2)


class _RegisterAfterClassyVision:
    """An import hook that waits for ``import classy_vision``, which takes seconds."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "classy_vision":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec


if Path(*sys.argv[:1]).name == "classy-gc":
    _ignore_warnings()
if "classy_vision" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _RegisterAfterClassyVision)


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
