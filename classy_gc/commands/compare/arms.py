"""The arms of a comparison: configs with some keys set, all checked before any is trained."""

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classy_gc.commands.flags import Target, parse_setting, utf8
from classy_gc.commands.train.checkpoints import loading
from classy_gc.configuration.build import build_task
from classy_gc.configuration.errors import user_error
from classy_gc.configuration.load import load_config, value_text, with_settings
from classy_gc.configuration.schema import check_config
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
    file: str  #: name of the config, without .json
    settings: dict[str, Any]  #: dotted key: value
    config: dict[str, Any]
    folder: str = ""  #: of its runs


class Choice(NamedTuple):
    """One value of --vary, or one --arm."""

    label: str
    settings: dict[str, Any]


def parse_axes(
    named_arms: Sequence[Sequence[str]], varied: Sequence[tuple[str, list[Any]]]
) -> list[list[Choice]]:
    """The axes of a comparison: the named arms, then a list of choices for each --vary.

    Args:
        named_arms: for each --arm, its name and then ``KEY=VALUE`` settings.
        varied: key and values of each --vary.

    Raises:
        ValueError: with the flag and its fault.

    Example:
        >>> axes = parse_axes([], [("optimizer.use_gc", [False, True])])
        >>> [choice.label for choice in axes[0]]
        ['use_gc=false', 'use_gc=true']
    """
    arms = []
    for name, *texts in named_arms:
        try:
            settings = dict(map(parse_setting, texts))
        except ValueError as error:
            raise ValueError(f"--arm {name}: {error}") from error
        if len(settings) < len(texts):
            raise ValueError(f"--arm {name}: a key occurs twice")
        arms.append(Choice(name, settings))
    keys = [*{key for arm in arms for key in arm.settings}, *(key for key, _ in varied)]
    if len(set(keys)) < len(keys):
        raise ValueError("--vary: a key occurs twice")
    axes = [arms] if arms else []
    for key, values in varied:
        short = short_name(key, keys)
        axes.append([Choice(f"{short}={value_text(value)}", {key: value}) for value in values])
    return axes


def short_name(key: str, keys: Iterable[str]) -> str:
    """The last part of a dotted key, or all of it if that is an index or another key's too."""
    last = key.rpartition(".")[2]
    others = [other for other in keys if other.rpartition(".")[2] == last and other != key]
    return key if others or last.isdecimal() else last


def build_arms(
    files: Sequence[str],
    axes: Sequence[Sequence[Choice]],
    effect_of: str | None = None,
    target: Target | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
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
        stem = utf8(Path(file).stem if stems.count(Path(file).stem) == 1 else file)
        for choices in itertools.product(*axes):
            settings = {key: value for choice in choices for key, value in choice.settings.items()}
            shared = [x.label for x in choices if effect_of and effect_of not in x.settings]
            names = [choice.label for choice in choices]
            arm = Arm(
                name=", ".join([stem, *names] if len(files) > 1 or not axes else names),
                family=", ".join([stem, *shared]),
                file=stem,
                settings=settings,
                config=with_settings(config, settings),
            )
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


def check_arm(arm: Arm, target: Target | None) -> None:
    """Builds an arm and tries a batch.

    Raises:
        ValueError: with the arm and its fault.
    """
    try:
        check_config(arm.config)
        if arm.config.get("test_only"):
            raise ValueError("test_only trains nothing")
        for i, hook in enumerate(arm.config.get("hooks") or []):
            if hook["name"] in _HOOKS_WITH_A_FOLDER:
                fault = f"hooks.{i} {hook['name']!r} would write every run into the same folder"
                raise ValueError(f"{fault}; leave it out of the config")
        task = build_task(arm.config)
        if not task.use_gpu:  # it would take GPU memory from the runs
            with loading(task, arm.file):
                task.prepare()
            try_batches(task)
        if target:
            meter, value = target.meter, target.value
            check_known([meter], flat_meters(meter_values(task)), "--target", "meter")
            if meter.partition("/")[0] in _SHARES and not 0 <= value <= 1:
                raise ValueError(f"--target: {meter} is a share in [0, 1], not {value:g}")
            if "test" not in arm.config["dataset"]:
                raise ValueError("--target needs dataset.test")
    except Exception as error:
        raise ValueError(f"arm {arm.name!r}: {user_error(error, arm.config)}") from error


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
        Distinct names of ASCII characters, even if a file system ignores case.

    Example:
        >>> folder_names(["use_gc=true", "..", "a/b", "a b", "A b"])
        ['use_gc=true', '_', 'a_b', 'a_b_2', 'A_b_3']
    """
    result: dict[str, str] = {}
    for arm in names:
        # Not every locale has all letters, and most file systems allow 255 bytes.
        slug = re.sub(r"^\.+|[^\w.=+-]+", "_", arm, flags=re.ASCII)[:100]
        folder, n = slug, 1
        while folder.casefold() in result:
            n += 1
            folder = f"{slug}_{n}"
        result[folder.casefold()] = folder
    return [*result.values()]
