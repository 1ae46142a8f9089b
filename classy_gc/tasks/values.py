"""Checks values that Classy Vision does not check: in Python, ``"false"`` is true."""

import enum
import inspect
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from classy_vision import dataset, heads, hooks, losses, models, optim, tasks
from classy_vision.tasks.classification_task import BatchNormSyncMode, BroadcastBuffersMode
from torch.nn.modules import loss
from torchvision import transforms

from classy_gc import options
from classy_gc.options import OptionError, Rule, dotted, or_null

_DATA = (dataset.DATASET_REGISTRY, dataset.transforms.TRANSFORM_REGISTRY, vars(transforms))
_MODELS = (models.MODEL_REGISTRY, heads.HEAD_REGISTRY, losses.LOSS_REGISTRY, vars(loss))
_TRAINING = (optim.OPTIMIZER_REGISTRY, hooks.HOOK_REGISTRY, tasks.TASK_REGISTRY)
_CLASSES = ChainMap(*_DATA, *_MODELS, *_TRAINING)
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


def _member(mode: type[enum.Enum]) -> Rule:
    names = [name.lower() for name in mode.__members__]
    return Rule(f"one of {', '.join(names)}", lambda v: str(v).lower() in names)


# By key, or by section and key.
_RULES = {
    **dict.fromkeys(_boolean_arguments().union(_BOOLEANS), options.BOOL),
    **dict.fromkeys(_OR_NULL, options.SWITCH),
    **dict.fromkeys(_SHARES, options.SHARE),
    "smoothing_param": or_null(options.SHARE),
    "num_epochs": options.POSITIVE,
    "clip_grad_norm": or_null(options.POSITIVE),
    **dict.fromkeys(("test_phase_period", "batchsize_per_replica", "log_period"), options.COUNT),
    **dict.fromkeys(("simulated_global_batchsize", "log_freq"), or_null(options.COUNT)),
    **dict.fromkeys(("distributed", "summary_writer"), options.MAPPING),
    **dict.fromkeys(("amp_args", "mixup"), or_null(options.MAPPING)),
    "hooks": Rule("a list or null", lambda v: v is None or isinstance(v, list)),
    "broadcast_buffers": _member(BroadcastBuffersMode),
    "batch_norm_sync_mode": _member(BatchNormSyncMode),
    **dict.fromkeys(("mixup.alpha", "mixup.cutmix_alpha"), options.NON_NEGATIVE),
    "mixup.num_classes": or_null(options.COUNT),
    # Anything else, such as "Pair", would be the first.
    "mixup.mode": Rule("one of batch, pair, elem", lambda v: v in ("batch", "pair", "elem")),
}


def check_values(section: Any, path: tuple[Any, ...] = (), known: bool = True) -> None:
    """Refuses values that Classy Vision would misread, or fail on later.

    Args:
        section: a config of a task, or a section of one. Your own classes may use the same keys
            differently, so they are not checked.
        path: the keys that lead to the section, for messages (default: none)
        known: whether a section without a name is read by a class that is known here (default:
            True)

    Raises:
        ValueError: with the key, its value, and what is allowed.

    Example:
        >>> check_values({"name": "fine_tuning", "freeze_trunk": "false"})
        Traceback (most recent call last):
        classy_gc.options.OptionError: freeze_trunk must be true or false, not 'false'
    """
    if isinstance(section, list):
        for i, entry in enumerate(section):
            check_values(entry, (*path, i), known)
    if not isinstance(section, Mapping):
        return
    name = section.get("name")
    if isinstance(name, str) and name in _CLASSES:
        known = _CLASSES[name].__module__.startswith((*_THEIRS, "classy_gc."))
    for key, value in section.items():
        here = (*path, key)
        rule = _RULES.get(key, _RULES.get(f"{path[-1]}.{key}" if path else key))
        if known and rule and not rule.accepts(value):
            raise OptionError(f"{dotted(here)} must be {rule.allowed}, not {value!r}", *here)
        if key not in ("param_groups", "param_schedulers"):  # checked by their readers
            check_values(value, here, known)
