"""``classy-gc compare``: does an option help, on these data, beyond noise?

Every arm (a config with some keys set) is trained with every seed. The same seed gives the same
initial weights and the same order of the data in all arms, so the arms are compared seed by
seed. An arm is measured against the first arm of its config file, its baseline; where every
file has one arm only, against the first file.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import fcntl
import importlib.util
import inspect
import itertools
import json
import logging
import math
import os
import re
import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
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
from classy_vision.tasks import build_task

from classy_gc.commands import Parser, check_least, check_output_folder
from classy_gc.commands.compare_picture import picture
from classy_gc.commands.compare_results import Target, evaluate, rows, text
from classy_gc.commands.compare_runs import Progress, Run, train_runs
from classy_gc.commands.config import check_config, load_config
from classy_gc.commands.refusals import refusal
from classy_gc.commands.train_checkpoints import loading
from classy_gc.commands.trial import try_batches
from classy_gc.custom_imports import import_from_current_folder
from classy_gc.files import replaced, temporary
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

# Ours, in a folder in which nothing has been planned yet.
_LOCK = ".lock"


class Arm(NamedTuple):
    """One of the things to compare."""

    name: str
    family: str  #: what it has in common with those that it is compared with
    label: str  #: its name among those
    file: str  #: the config's, without .json
    settings: dict[str, Any]  #: dotted key: value
    config: dict[str, Any]


class Choice(NamedTuple):
    """A value of --vary, or an --arm."""

    label: str
    settings: dict[str, Any]


# ------------------------------------------------------------------ what is compared


def parse_values(text: str) -> list[Any]:
    """JSON values between commas; what is not JSON is a string.

    Args:
        text: of the flag.

    Raises:
        ValueError: a value is empty, or a list, an object or a string is not JSON.

    Example:
        >>> parse_values("false,0.1,cosine,[0.9,0.99]")
        [False, 0.1, 'cosine', [0.9, 0.99]]
    """
    decoder, values, at = json.JSONDecoder(), [], 0
    while at <= len(text):
        try:
            value, end = decoder.raw_decode(text, at)
            if text[end : end + 1] not in ("", ","):
                raise ValueError
        except ValueError:
            end = text.find(",", at) if "," in text[at:] else len(text)
            value = text[at:end]
            if not value or value[0] in '[{"':
                raise ValueError(f"{text[at:]!r} is neither JSON nor a word") from None
        values.append(value)
        at = end + 1
    return values


def _settings(text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} must be KEY=VALUE")
    try:
        return key, parse_values(values)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _axes(args: argparse.Namespace) -> list[list[Choice]]:
    """What varies: the named arms, then a list of choices for each --vary."""
    named = []
    for name, *settings in args.arm:
        if not name:
            raise ValueError("--arm must have a name, not ''")
        parsed = dict(map(_settings, settings))
        if len(parsed) < len(settings):
            raise ValueError(f"--arm {name}: a key is there twice")
        for key, values in parsed.items():
            if len(values) > 1:
                raise ValueError(f"--arm {name}: {key} must have one value, not {len(values)}")
        named.append(Choice(name, {key: values[0] for key, values in parsed.items()}))
    varied = dict(map(_settings, args.vary))
    keys = [*varied, *{key for choice in named for key in choice.settings}]
    if len(varied) < len(args.vary) or len(set(keys)) < len(keys):
        raise ValueError("--vary: a key is there twice")
    axes = [named] if named else []
    for key, values in varied.items():
        short = _short(key, keys)
        labels = [_text(value) for value in values]
        names = [_text(v.get("name", v)) if isinstance(v, Mapping) else _text(v) for v in values]
        if len(set(names)) == len(labels):
            labels = names  # of schedulers, which are long
        axes.append(
            [Choice(f"{short}={label}", {key: v}) for label, v in zip(labels, values, strict=True)]
        )
    return axes


def _short(key: str, keys: Sequence[str]) -> str:
    """The end of a dotted key that no other one has."""
    parts = key.split(".")
    for n in range(1, len(parts)):
        short = ".".join(parts[-n:])
        if (
            not short[:1].isdigit()
            and sum(f".{other}".endswith(f".{short}") for other in keys) == 1
        ):
            return short
    return key


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


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
                config=_with(config, settings),
            )
            for other in arms:
                if arm.name == other.name or arm.config == other.config:
                    raise ValueError(f"arms {other.name!r} and {arm.name!r} are the same")
            arms.append(arm)
    if len(arms) < 2:
        raise ValueError("there is one arm only; give --vary, --arm or another config")
    for arm in arms:
        try:
            _check(arm, target)
        except Exception as error:
            raise ValueError(f"arm {arm.name!r}: {refusal(error)}") from error
    return arms


def _with(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
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
    where = ".".join(path) or "the config"
    if isinstance(section, list):
        check_known([key], map(str, range(len(section))), where, "index")
        return int(key)
    if not isinstance(section, Mapping):
        raise ValueError(f"{where} is {section!r}, so it has no key {key!r}")
    if new is not None:
        check_known([key], [*section, *new], where)
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
    task = build_task(copy.deepcopy(config))
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


# ------------------------------------------------------------------ the folder and the runs


@contextlib.contextmanager
def _opened(folder: Path, arms: Sequence[Arm]) -> Iterator[None]:
    """The output folder, once it is found to be empty or to hold the same comparison."""
    plan = {"arms": [{"name": arm.name, "config": arm.config} for arm in arms]}
    file = folder / "comparison.json"
    check_output_folder(folder)
    if file.is_file():
        old = json.loads(file.read_text(encoding="utf-8"))
        if old != plan:
            theirs, ours = ([arm["name"] for arm in p["arms"]] for p in (old, plan))
            what = f"of the arms {theirs}, not {ours}"
            if theirs == ours:
                pairs = zip(old["arms"], plan["arms"], strict=True)
                what = f"with another config of {next(a['name'] for a, b in pairs if a != b)!r}"
            raise ValueError(f"--output_folder {folder} holds a comparison {what}; name another")
    elif folder.exists() and {path.name for path in folder.iterdir()} - {
        _LOCK,
        temporary(file).name,
    }:
        raise ValueError(f"--output_folder {folder} holds something else than a comparison")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"--output_folder {folder}: this comparison is running") from None
        if not file.is_file():
            with replaced(file) as new:
                new.write(json.dumps(plan, indent=2).encode())
        yield


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


def _runs(folder: Path, arms: Sequence[Arm], seeds: int) -> list[Run]:
    """In an order in which every pair is complete early."""
    names = folder_names([arm.name for arm in arms])
    return [
        Run(arm.name, seed, folder / "runs" / name / f"seed_{seed}")
        for seed in range(seeds)
        for arm, name in zip(arms, names, strict=True)
    ]


# ------------------------------------------------------------------ the command


def _parser() -> Parser:
    parser = Parser(
        prog="classy-gc compare",
        description="Trains every config with every combination of --arm and --vary, and with "
        "every seed, and says which differences can be told from noise. Seeds are paired: the "
        "same one gives the same initial weights and order of the data in all arms. Arms are "
        "compared with the first arm of their config file; the first values are the baseline. "
        "Given again after it was interrupted, the same command goes on.",
    )
    add = parser.add_argument
    add("--config_file", nargs="+", required=True, metavar="FILE", help="Classy Vision configs")
    add(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=VALUE,…",
        help="a dotted key (optimizer.use_gc, model.heads.0.num_classes) and its values, JSON "
        "or words; can be repeated",
    )
    add(
        "--arm",
        action="append",
        nargs="+",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="a name and the keys that are set together for it; can be repeated",
    )
    add(
        "--effect_of",
        metavar="KEY",
        help="a key of --vary: compare only arms that differ in it alone, not all with "
        "the first of their config file",
    )
    add("--seeds", type=int, default=5, metavar="N", help="train with 0 … N-1 (default 5)")
    add("--output_folder", type=Path, required=True, help="of the runs and the results")
    add(
        "--target",
        type=_target,
        metavar="METER=VALUE",
        help="also count the epochs until a test meter has this value, such as "
        "accuracy/top_1=0.97; the meter is then the one that is compared",
    )
    add(
        "--jobs",
        type=int,
        help="runs at a time, each with one torch thread if there are several (default: one a "
        "core; 1 where torch finds CUDA)",
    )
    return parser


def _target(flag: str) -> Target:
    meter, _, value = flag.rpartition("=")
    try:
        if not meter or not math.isfinite(float(value)):
            raise ValueError
        return Target(meter, float(value))
    except ValueError:
        message = f"{flag!r} must be METER=NUMBER, such as accuracy/top_1=0.97"
        raise argparse.ArgumentTypeError(message) from None


def _check_args(args: argparse.Namespace) -> None:
    for package in ("matplotlib", "scipy"):
        if not importlib.util.find_spec(package):
            raise ValueError(f"compare needs {package}: pip install 'classy-gc[examples]'")
    if args.jobs is None:
        cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        args.jobs = 1 if torch.cuda.is_available() else len(cores(0))
    check_least(args, seeds=1, jobs=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, prints what came out, and writes it to files.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0, or 1 if a run has failed, or 130 after Ctrl-C. Bad input exits with code 2 and one
        line on stderr, before anything is trained or written.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    import_from_current_folder()
    with contextlib.ExitStack() as stack:
        try:
            _check_args(args)
            axes = _axes(args)
            if args.effect_of:
                varied = [flag.partition("=")[0] for flag in args.vary]
                check_known([args.effect_of], varied, "--effect_of", "key of --vary")
            arms = build_arms(args.config_file, axes, args.effect_of, args.target)
            stack.enter_context(_opened(args.output_folder, arms))
        except ValueError as error:
            parser.error(str(error))
        runs = _runs(args.output_folder, arms, args.seeds)
        try:
            failed = _train(runs, arms, args.jobs)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 130
        _report(args, arms, runs, failed)
    return 1 if failed else 0


def _train(runs: Sequence[Run], arms: Sequence[Arm], jobs: int) -> dict[Run, str]:
    """Trains what is not finished; returns why runs have failed."""
    todo = [run for run in runs if not run.finished]
    progress = Progress(
        todo, len(runs), {arm.name: arm.config.get("num_epochs", 1) for arm in arms}
    )
    configs = {arm.name: arm.config for arm in arms}
    try:
        train_runs(todo, configs, jobs, progress.on_end, progress.on_poll)
    finally:
        progress.finish()
    return progress.failed


def _report(
    args: argparse.Namespace, arms: Sequence[Arm], runs: Sequence[Run], failed: Mapping[Run, str]
) -> None:
    phases: dict[str, dict[int, list[dict[str, Any]]]] = {arm.name: {} for arm in arms}
    for run in runs:
        if run not in failed:
            phases[run.arm][run.seed] = run.phases()
    groups = families(arms)
    baselines = {arm.name: group[0].name for group in groups.values() for arm in group}
    results = evaluate(baselines, phases, args.seeds, args.target)
    for arm, entry in zip(arms, results["arms"], strict=True):
        entry |= {"config_file": arm.file, "settings": arm.settings}
    results["failed"] = [
        {"arm": run.arm, "seed": run.seed, "reason": reason, "folder": str(run.folder)}
        for run, reason in failed.items()
    ]
    print(text(results))
    folder = args.output_folder
    with replaced(folder / "results.json") as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())
    with (folder / "results.csv").open("w", newline="") as file:
        settings = {arm.name: {k: _text(v) for k, v in arm.settings.items()} for arm in arms}
        table = rows(settings, phases)
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in table for key in row)))
        writer.writeheader()
        writer.writerows(table)
    meter = results["headline"].removeprefix("final test ")
    figure = picture(
        {
            family: {arm.label: list(phases[arm.name].values()) for arm in group}
            for family, group in groups.items()
        },
        meter if "/" in meter else None,
        f"mean ± standard deviation over {args.seeds} seeds" if args.seeds > 1 else "one seed",
    )
    figure.savefig(folder / "comparison.png", dpi=150)
    print(f"written to {folder}: results.json, results.csv, comparison.png")


if __name__ == "__main__":
    sys.exit(main())
