"""The arms of a comparison: configs with some keys set, checked and built before any is trained."""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from classy_vision.dataset import DATASET_REGISTRY
from classy_vision.heads import HEAD_REGISTRY
from classy_vision.hooks import HOOK_REGISTRY
from classy_vision.losses import LOSS_REGISTRY
from classy_vision.models import MODEL_REGISTRY
from classy_vision.optim import OPTIMIZER_REGISTRY
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY

from classy_gc.commands.compare.axes import Choice
from classy_gc.commands.flags import Target
from classy_gc.commands.train.checkpoints import loading
from classy_gc.configuration.build import build_checked_task
from classy_gc.configuration.errors import user_error
from classy_gc.configuration.load import load_config
from classy_gc.configuration.schema import check_config
from classy_gc.configuration.trial import try_batches
from classy_gc.hooks.phase_record import flat_meters, meter_values
from classy_gc.optim.stock import is_stock
from classy_gc.options import check_known
from classy_gc.param_groups import PARAM_GROUP_BUILDER_REGISTRY

# Where the class of a section is registered, by the last key on the way to it that is here.
_REGISTRIES = {
    "optimizer": OPTIMIZER_REGISTRY,
    "base_optimizer": OPTIMIZER_REGISTRY,
    "param_schedulers": PARAM_SCHEDULER_REGISTRY,
    "param_groups": PARAM_GROUP_BUILDER_REGISTRY,
    "model": MODEL_REGISTRY,
    "heads": HEAD_REGISTRY,
    "loss": ChainMap(LOSS_REGISTRY, vars(torch.nn)),
    "train": DATASET_REGISTRY,
    "test": DATASET_REGISTRY,
    "hooks": HOOK_REGISTRY,
}

# Arguments that `from_config` reads under another name, or (None) from elsewhere.
_IN_CONFIGS = {
    "shuffle": "use_shuffle",
    "transform": "transforms",
    "metadata_filepath": "metadata_file",
    "num_updates": None,
}

# All runs would write into the one folder that the config names.
_HOOKS_WITH_A_FOLDER = ("json_log", "training_curves", "tensorboard_plot", "model_tensorboard")


class Arm(NamedTuple):
    """One of the things to compare."""

    name: str
    family: str  #: what it has in common with those that it is compared with
    label: str  #: its name among those
    file: str  #: the config's, without .json
    settings: dict[str, Any]  #: dotted key: value
    config: dict[str, Any]
    folder: str = ""  #: of its runs


def build_arms(
    files: Sequence[str],
    axes: Sequence[Sequence[Choice]],
    effect_of: str | None = None,
    target: Target | None = None,
) -> list[Arm]:
    """Every config with every combination, each checked and built.

    Args:
        files: of configs.
        axes: what varies; the last one fastest.
        effect_of: a varied key. Only arms that differ in it alone are then compared (default:
            None, all arms of a config file).
        target: of which every arm must have the meter (default: None).

    Raises:
        ValueError: naming the arm and what is wrong with it.
    """
    configs = {file: load_config(file) for file in files}
    if len(configs) < len(files):
        raise ValueError("--config_file: a file is there twice")
    stems = [Path(file).stem for file in files]
    arms = []
    for file, config in configs.items():
        stem = Path(file).stem if stems.count(Path(file).stem) == 1 else file
        for choices in itertools.product(*axes):
            settings = {k: v for choice in choices for k, v in choice.settings.items()}
            labels = [choice.label for choice in choices]
            shared, own = [stem], labels
            if effect_of:
                shared += [c.label for c in choices if effect_of not in c.settings]
                own = [c.label for c in choices if effect_of in c.settings]
            arm = Arm(
                name=", ".join([stem] * (len(files) > 1 or not axes) + labels),
                family=", ".join(shared),
                label=", ".join(own) or stem,
                file=stem,
                settings=settings,
                config=with_settings(config, settings),
            )
            for other in arms:
                if arm.name == other.name or arm.config == other.config:
                    raise ValueError(f"arms {other.name!r} and {arm.name!r} are the same")
            arms.append(arm)
    folders = folder_names([arm.name for arm in arms])
    arms = [arm._replace(folder=name) for arm, name in zip(arms, folders, strict=True)]
    if len(arms) < 2:
        raise ValueError("there is one arm only; give --vary, --arm or another config")
    for arm in arms:
        check_arm(arm, target)
    return arms


def check_arm(arm: Arm, target: Target | None) -> None:
    """Builds an arm and tries a batch.

    Raises:
        ValueError: naming the arm and what is wrong with it.
    """
    try:
        _check(arm, target)
    except Exception as error:
        raise ValueError(f"arm {arm.name!r}: {user_error(error)}") from error


def with_settings(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with values at dotted keys, which it has or could have."""
    config = copy.deepcopy(config)
    for dotted, value in settings.items():
        section, (*path, last) = config, dotted.split(".")
        owner = section
        if path == ["optimizer", "param_schedulers"] and "optimizer" in config:
            config["optimizer"].setdefault("param_schedulers", {})
        for i, key in enumerate(path):
            owner, section = section, section[_key(section, key, path[:i])]
        new: Sequence[str] | None = ()
        if isinstance(section, Mapping):
            # Whatever the optimizer takes can have a schedule.
            scheduled = path[-1:] == ["param_schedulers"]
            new = _new_keys(owner, path[:-1]) if scheduled else _new_keys(section, path)
        section[_key(section, last, path, new)] = copy.deepcopy(value)
    return config


def _key(section: Any, key: str, path: Sequence[str], new: Sequence[str] | None = ()) -> str | int:
    """The key as its section has it, or could have it: any where ``new`` is None."""
    label = ".".join(path) or "the config"
    if isinstance(section, list):
        check_known([key], map(str, range(len(section))), label, "index")
        return int(key)
    if not isinstance(section, Mapping):
        raise ValueError(f"{label} is {section!r}, so it has no key {key!r}")
    if new is not None:
        check_known([key], [*section, *new], label)
    return key


def _new_keys(section: Mapping[str, Any], path: Sequence[str]) -> list[str] | None:
    """What a section may have though its author did not write it: arguments of its class.

    None where they are checked later: check_config refuses what the config cannot have, and our
    own classes do so too.
    """
    registry = next((_REGISTRIES[key] for key in reversed(path) if key in _REGISTRIES), {})
    cls = registry.get(section.get("name"), object)
    checked = registry is OPTIMIZER_REGISTRY and is_stock(cls)
    if not path or checked or cls.__module__.startswith("classy_gc."):
        return None
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [key for name in names if (key := _IN_CONFIGS.get(name, name))]
    if hasattr(cls, "update_interval"):
        names.append("update_interval")
    return [*names, *(["param_schedulers", "param_groups"] if path == ["optimizer"] else [])]


def _check(arm: Arm, target: Target | None) -> None:
    """Refuses what could not be trained, or would not show that its settings differ."""
    config = arm.config
    check_config(config)
    if config.get("test_only"):
        raise ValueError("test_only trains nothing")
    for i, hook in enumerate(config.get("hooks") or []):
        if hook["name"] in _HOOKS_WITH_A_FOLDER:
            raise ValueError(
                f"hooks.{i} {hook['name']!r} would write every run into the same folder; leave it "
                "out of the config"
            )
    schedules = config.get("optimizer", {}).get("param_schedulers") or {}
    for key in arm.settings:
        section, _, option = key.rpartition(".")
        if section in ("optimizer", "optimizer.base_optimizer") and option in schedules:
            root = f"optimizer.param_schedulers.{option}"
            raise ValueError(
                f"{key} does nothing, because the schedule {root} drives {option}; vary "
                + " or ".join(_numbers(schedules[option], root))
            )
    task = build_checked_task(config)
    if not task.use_gpu:  # or it would take memory of the GPU from the runs
        with loading(task, arm.file):
            task.prepare()
        try_batches(task)
    if target:
        check_known([target.meter], flat_meters(meter_values(task)), "--target", "meter")
        if "test" not in config["dataset"]:
            raise ValueError("--target needs dataset.test")


def _numbers(value: Any, path: str) -> list[str]:
    """Paths to the numbers in a section."""
    if isinstance(value, (list, Mapping)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        return [found for key, x in items for found in _numbers(x, f"{path}.{key}")]
    return [path] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def families(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Arms that are compared with each other; the first of each family is its baseline.

    Args:
        arms: all of them.

    Returns:
        Them by their ``family``; or all, as "", where no family has two.
    """
    by_family: dict[str, list[Arm]] = {}
    for arm in arms:
        by_family.setdefault(arm.family, []).append(arm)
    return by_family if len(by_family) < len(arms) else {"": list(arms)}


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder name for each of several names, whatever they are: all in one folder, none hidden.

    Args:
        names: all different.

    Returns:
        Different ones, also where a file system does not tell capitals from small letters.

    Example:
        >>> folder_names(["use_gc=true", "..", "a/b", "a b", "A b"])
        ['use_gc=true', '_', 'a_b_2', 'a_b_3', 'A_b_4']
    """
    slugs = [re.sub(r"^\.+|[^\w.=+-]+", "_", name) for name in names]
    # Most file systems allow 255 bytes.
    slugs = [slug.encode()[:100].decode(errors="ignore") for slug in slugs]
    folded = [slug.casefold() for slug in slugs]
    result: list[str] = []
    for i, slug in enumerate(slugs):
        if folded.count(folded[i]) > 1:
            slug += f"_{i}"
            while slug.casefold() in [*folded, *map(str.casefold, result)]:
                slug += "_"
        result.append(slug)
    return result
