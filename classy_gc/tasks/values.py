"""Checks values that Classy Vision does not check: in Python, ``"false"`` is true."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from classy_vision.dataset import DATASET_REGISTRY
from classy_vision.dataset.transforms import TRANSFORM_REGISTRY
from classy_vision.heads import HEAD_REGISTRY
from classy_vision.hooks import HOOK_REGISTRY
from classy_vision.losses import LOSS_REGISTRY
from classy_vision.models import MODEL_REGISTRY
from classy_vision.optim import OPTIMIZER_REGISTRY
from classy_vision.tasks import TASK_REGISTRY
from torch.nn.modules import loss
from torchvision import transforms

from classy_gc.options import BOOL, SHARE, SWITCH, OptionError, dotted, or_null

_DATA = (DATASET_REGISTRY, TRANSFORM_REGISTRY, vars(transforms))
_MODELS = (MODEL_REGISTRY, HEAD_REGISTRY, LOSS_REGISTRY, vars(loss))
_CLASSES = ChainMap(*_DATA, *_MODELS, OPTIMIZER_REGISTRY, HOOK_REGISTRY, TASK_REGISTRY)
_THEIRS = ("classy_vision.", "torch.", "torchvision.")


def _boolean_arguments() -> set[str]:
    """Arguments that constructors mark as booleans by a default or an annotation."""
    classes = [c for c in _CLASSES.values() if inspect.isclass(c)]
    classes = [c for c in classes if c.__module__.startswith(_THEIRS)]
    bases = {base for c in classes for base in c.__mro__ if "__init__" in vars(base)} - {object}
    arguments = [x for base in bases for x in inspect.signature(base.__init__).parameters.values()]
    return {x.name for x in arguments if isinstance(x.default, bool) or x.annotation is bool}


# Booleans that only a ``from_config`` reads.
_OF_TASKS = ("test_only", "bn_weight_decay", "use_sharded_ddp", "freeze_trunk", "reset_heads")
_OF_SECTIONS = ("find_unused_parameters", "fp16_grad_compress", "use_shuffle")
_OF_MODELS = ("first_dropout", "use_batchnorm", "first_batchnorm", "final_bn_relu", "stem_maxpool")
_LONG = ("pretrained_checkpoint_load_strict", "zero_init_residual_transform")
_BOOLEANS = (*_OF_TASKS, *_OF_SECTIONS, *_OF_MODELS, *_LONG)
_DROPOUT = ("dropout", "dropout_rate", "attention_dropout_rate", "dropout_ratio")
_SHARES = (*_DROPOUT, "drop_connect_rate", "label_smoothing", "mix_prob", "switch_prob")
_OR_NULL = ("use_gpu", "use_dropout", "download", "antialias", "size_average", "reduce")
_RULES = {
    **dict.fromkeys(_boolean_arguments().union(_BOOLEANS), BOOL),
    **dict.fromkeys(_OR_NULL, SWITCH),
    **dict.fromkeys(_SHARES, SHARE),
    "smoothing_param": or_null(SHARE),
}


def check_values(section: Any, path: tuple[Any, ...] = ()) -> None:
    """Refuses values that Classy Vision would take for true, or for a share.

    Args:
        section: a config of a task, or a section of one. Your own classes may use the same keys
            differently, so they are not checked.
        path: the keys that lead to the section, for messages (default: none)

    Raises:
        ValueError: with the key, its value, and what is allowed.

    Example:
        >>> check_values({"name": "fine_tuning", "freeze_trunk": "false"})
        Traceback (most recent call last):
        classy_gc.options.OptionError: freeze_trunk must be true or false, not 'false'
    """
    if isinstance(section, list):
        for i, entry in enumerate(section):
            check_values(entry, (*path, i))
    if not isinstance(section, Mapping):
        return
    name = section.get("name")
    cls = _CLASSES.get(name) if isinstance(name, str) else None
    known = cls is None or cls.__module__.startswith((*_THEIRS, "classy_gc."))
    for key, value in section.items():
        here = (*path, key)
        rule = _RULES.get(key)
        if known and rule and not rule.accepts(value):
            raise OptionError(f"{dotted(here)} must be {rule.allowed}, not {value!r}", *here)
        if key not in ("param_groups", "param_schedulers"):  # checked by their readers
            check_values(value, here)
