"""The arms of a comparison: configs with some keys set, all checked before any is trained."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classy_gc.commands.compare.axes import Choice
from classy_gc.commands.flag_types import Target
from classy_gc.commands.train.checkpoints import loading
from classy_gc.configuration.build import build_task
from classy_gc.configuration.errors import user_error
from classy_gc.configuration.load import load_config
from classy_gc.configuration.override import with_settings
from classy_gc.configuration.schema import check_config
from classy_gc.configuration.settings import Setting
from classy_gc.configuration.trial import try_batches
from classy_gc.hooks.phase_record import flat_meters, meter_values
from classy_gc.options import check_known

# Meters of Classy Vision that lie in [0, 1].
_SHARES = ("accuracy", "precision_at_k", "recall_at_k", "video_accuracy")

# With these hooks all runs would write into the one folder that the config names.
_HOOKS_WITH_A_FOLDER = ("json_log", "training_curves", "tensorboard_plot", "model_tensorboard")


class Arm(NamedTuple):
    """One arm of a comparison."""

    name: str
    family: str  #: the settings shared by all arms that it is compared with; "" for all arms
    label: str  #: its name in the family
    file: str  #: name of the config, without .json
    settings: dict[str, Any]  #: dotted key: value
    config: dict[str, Any]
    folder: str = ""  #: of its runs


def build_arms(
    files: Sequence[str],
    axes: Sequence[Sequence[Choice]],
    effect_of: str | None = None,
    target: Target | None = None,
    overrides: Sequence[Setting] = (),
) -> list[Arm]:
    """Every config with every combination, each checked and built.

    Args:
        files: of configs.
        axes: the choices that vary, the last axis fastest.
        effect_of: a varied key. Then only arms that differ in this key alone are compared (default:
            None, all arms of a config file).
        target: every arm must have its meter (default: None).
        overrides: settings of --set for every config (default: none).

    Raises:
        ValueError: naming the arm and what is wrong with it.
    """
    configs = {file: load_config(file, overrides) for file in files}
    if len(configs) < len(files):
        raise ValueError("--config_file: a file occurs twice")
    stems = [Path(file).stem for file in files]
    arms: list[Arm] = []
    for file, config in configs.items():
        stem = Path(file).stem if stems.count(Path(file).stem) == 1 else file
        for choices in itertools.product(*axes):
            arm = _arm(stem, config, choices, effect_of)
            if len(files) > 1 or not axes:
                arm = arm._replace(name=", ".join([stem, *(c.label for c in choices)]))
            for other in arms:
                if arm.name == other.name or arm.config == other.config:
                    raise ValueError(f"arms {other.name!r} and {arm.name!r} are the same")
            arms.append(arm)
    if len(arms) < 2:
        raise ValueError("there is only one arm; give --vary, --arm or another config")
    if len(families(arms)) == len(arms):
        arms = [arm._replace(family="") for arm in arms]
    folders = folder_names([arm.name for arm in arms])
    arms = [arm._replace(folder=name) for arm, name in zip(arms, folders, strict=True)]
    for arm in arms:
        check_arm(arm, target)
    return arms


def _arm(
    file: str, config: Mapping[str, Any], choices: Sequence[Choice], effect_of: str | None
) -> Arm:
    """A config with some settings; choices other than ``effect_of`` name the family."""
    settings = {key: value for choice in choices for key, value in choice.settings.items()}
    shared = [c.label for c in choices if effect_of and effect_of not in c.settings]
    own = [c.label for c in choices if not effect_of or effect_of in c.settings]
    return Arm(
        name=", ".join(choice.label for choice in choices),
        family=", ".join([file, *shared]),
        label=", ".join(own) or file,
        file=file,
        settings=settings,
        config=with_settings(config, settings),
    )


def check_arm(arm: Arm, target: Target | None) -> None:
    """Builds an arm and tries a batch.

    Raises:
        ValueError: with the arm and its fault.
    """
    try:
        _check(arm, target)
    except Exception as error:
        raise ValueError(f"arm {arm.name!r}: {user_error(error, arm.config)}") from error


def _check(arm: Arm, target: Target | None) -> None:
    """Refuses an arm that cannot be trained, or whose settings have no effect."""
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
                f"{key} does nothing, because the schedule {root} drives {option}; vary a key of "
                f"it: {', '.join(schedules[option])}"
            )
    task = build_task(config)
    if not task.use_gpu:  # it would take GPU memory from the runs
        with loading(task, arm.file):
            task.prepare()
        try_batches(task)
    if target:
        check_known([target.meter], flat_meters(meter_values(task)), "--target", "meter")
        if target.meter.partition("/")[0] in _SHARES and not 0 <= target.value <= 1:
            raise ValueError(f"--target: {target.meter} is a share in [0, 1], not {target.value:g}")
        if "test" not in config["dataset"]:
            raise ValueError("--target needs dataset.test")


def families(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Groups the arms that are compared with each other; the first of each family is its baseline.

    Args:
        arms: all of them.

    Returns:
        The arms by ``family``.
    """
    by_family: dict[str, list[Arm]] = {}
    for arm in arms:
        by_family.setdefault(arm.family, []).append(arm)
    return by_family


def folder_names(names: Sequence[str]) -> list[str]:
    """Folder names for any names: all in one folder, none hidden.

    Args:
        names: all different.

    Returns:
        Distinct names, even if a file system ignores case.

    Example:
        >>> folder_names(["use_gc=true", "..", "a/b", "a b", "A b"])
        ['use_gc=true', '_', 'a_b', 'a_b_2', 'A_b_3']
    """
    slugs = [re.sub(r"^\.+|[^\w.=+-]+", "_", name) for name in names]
    # Most file systems allow 255 bytes.
    slugs = [slug.encode()[:100].decode(errors="ignore") for slug in slugs]
    result: list[str] = []
    taken = set()
    for slug in slugs:
        name, n = slug, 1
        while name.casefold() in taken:
            n += 1
            name = f"{slug}_{n}"
        taken.add(name.casefold())
        result.append(name)
    return result
