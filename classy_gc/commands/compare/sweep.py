"""``--sweep``: trains every arm at every value of a key, and finds the best by validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classy_gc.commands.compare.arms import Arm, check_arm, families
from classy_gc.commands.compare.axes import short_name
from classy_gc.commands.compare.folder import runs_in
from classy_gc.commands.compare.results import headline_of, lower_is_better, run_metrics
from classy_gc.commands.compare.runs import Run, Train
from classy_gc.commands.compare.statistics import Spread, spread
from classy_gc.commands.compare.words import Scale, scale
from classy_gc.commands.flag_types import Target
from classy_gc.configuration.override import with_settings

_MAX_EXTENSIONS = 6

# Names of the numbers of a schedule that are values of the option, not epochs or shares.
_VALUES = ("value", "values", "start_value", "peak_value", "end_value", "base_value")


class Sweep(NamedTuple):
    """A key, and the values at which every arm is trained."""

    key: str
    short: str  #: the key's name in names of arms
    values: list[float]


class Point(NamedTuple):
    """One arm at one value."""

    results: dict[int, float]  #: result on the validation data, by seed
    failed: dict[int, str]  #: reason of a failure, by seed

    @property
    def spread(self) -> Spread:
        """Mean and spread of the seeds that have a result."""
        return spread(list(self.results.values()))

    def text(self, form: Scale) -> str:
        """Mean and standard deviation, and how many runs diverged or failed."""
        count = f"{len(self.failed)} of {len(self.results) + len(self.failed)} failed"
        cells = [form.spread(self.spread)] * bool(self.results) + [count] * bool(self.failed)
        return ", ".join(cells)


class Response(NamedTuple):
    """The results of a sweep."""

    sweep: Sweep
    headline: str
    lower: bool  #: whether lower is better
    curves: dict[str, dict[float, Point]]  #: results by arm and value

    @property
    def metric(self) -> str:
        """The headline, on the validation images."""
        return self.headline.replace("final test", "validation")

    @property
    def form(self) -> Scale:
        """How results are printed."""
        points = [point for curve in self.curves.values() for point in curve.values()]
        return scale(self.headline, [x for point in points for x in point.results.values()])

    def best(self, arm: str) -> float | None:
        """The value with the best mean; None if a run failed at every value.

        A value at which any run failed is not chosen: its mean would be over survivors.

        Example:
            >>> curve = {0.1: Point({0: 0.8, 1: 0.9}, {}), 0.2: Point({0: 0.99}, {1: "diverged"})}
            >>> response = Response(Sweep("lr", "lr", []), "final test loss", False, {"on": curve})
            >>> response.best("on")
            0.1
        """
        whole = {v: p.spread.mean for v, p in sorted(self.curves[arm].items()) if not p.failed}
        choose = min if self.lower else max
        return choose(whole, key=whole.__getitem__) if whole else None

    def beyond(self, arm: str) -> float | None:
        """The value to try next, if the best one is the smallest or the largest of all."""
        best, tried = self.best(arm), self.curves[arm]
        if best is None or best == min(tried):
            return min(tried) / 2
        return 2 * best if best == max(tried) else None


def parse_sweep(flag: str, other_keys: Sequence[str]) -> Sweep:
    """The values of ``KEY=LOW:HIGH:COUNT``, with equal ratios.

    Args:
        flag: the text of ``--sweep``.
        other_keys: keys that vary too.

    Raises:
        ValueError: something else, or values that are not positive and rising.

    Example:
        >>> parse_sweep("optimizer.lr=0.1:0.8:4", [])
        Sweep(key='optimizer.lr', short='lr', values=[0.1, 0.2, 0.4, 0.8])
    """
    key, _, values = flag.partition("=")
    try:
        low, high, count = values.split(":")
        ends, number = (float(low), float(high)), int(count)
        if not (key and 0 < ends[0] < ends[1] < math.inf and 2 <= number <= 1000):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--sweep must be KEY=LOW:HIGH:COUNT with 0 < LOW < HIGH and COUNT >= 2, such as "
            f"optimizer.lr=0.0125:0.8:7, not {flag!r}"
        ) from None
    if key in other_keys:
        raise ValueError(f"--sweep: {key} is varied too")
    grid = [float(f"{x:.6g}") for x in np.geomspace(*ends, number)]
    return Sweep(key, short_name(key, [key, *other_keys]), grid)


def at(arm: Arm, sweep: Sweep, value: float) -> Arm:
    """The arm with the swept key at a value; for a schedule, with the whole curve scaled.

    Args:
        arm: of the comparison.
        sweep: the sweep with the key.
        value: of the key; for a schedule, its largest value.

    Raises:
        ValueError: the arm cannot have the key, or its schedule has no positive value.
    """
    path, _, option = sweep.key.rpartition(".")
    name = f"{path}.param_schedulers.{option}"
    schedule = arm.config.get("optimizer", {}).get("param_schedulers", {}).get(option)
    if path == "optimizer" and schedule is not None:
        values = [0.0]
        _changed(schedule, values.append)
        if not max(values) > 0:
            raise ValueError(f"--sweep: {name} has no value > 0 to scale")
        settings = {name: _changed(schedule, lambda x: x / max(values) * value)}
    else:
        settings = {sweep.key: value}
    label = f"{sweep.short}={value:g}"
    return arm._replace(
        name=f"{arm.name}, {label}",
        label=f"{arm.label}, {label}",
        folder=f"{arm.folder}/{label}",
        settings={**arm.settings, sweep.key: value},
        config=with_settings(arm.config, settings),
    )


def _changed(schedule: Any, change: Callable[[float], Any], key: str = "") -> Any:
    """A schedule with changed values; epochs and shares stay."""
    if isinstance(schedule, Mapping):
        return {k: _changed(x, change, k) for k, x in schedule.items()}
    if isinstance(schedule, list):
        return [_changed(x, change, key) for x in schedule]
    return change(schedule) if key in _VALUES else schedule


def on_validation(arm: Arm) -> Arm:
    """The arm, tested on the validation split of its training data.

    Raises:
        ValueError: its training data have no such split, or its test data are other data.
    """
    train, test = (arm.config["dataset"].get(split, {}) for split in ("train", "test"))
    number = train.get("num_validation", 0)
    if not number or test.get("name") != train["name"]:
        raise ValueError(
            "--sweep chooses by images that are neither trained on nor tested: dataset.train must "
            "say how many of its last images those are (num_validation), and dataset.test must "
            "be of the same name"
        )
    split = {**test, "split": "validation", "num_validation": number}
    return arm._replace(config={**arm.config, "dataset": {**arm.config["dataset"], "test": split}})


def check_sweep(arms: Sequence[Arm], sweep: Sweep, target: Target | None) -> None:
    """Builds every arm at the first value, with its validation data.

    Raises:
        ValueError: naming the arm and what is wrong with it.
    """
    for arm in arms:  # its own settings are already checked
        first = at(arm._replace(settings={}), sweep, sweep.values[0])
        check_arm(on_validation(first)._replace(settings={}), target)


def train_sweep(
    arms: Sequence[Arm],
    sweep: Sweep,
    seeds: Sequence[int],
    folder: Path,
    train: Train,
    target: Target | None,
) -> tuple[Response, dict[Run, str]]:
    """Trains each arm at each value, and beyond if the best is the smallest or largest.

    Args:
        arms: of the comparison.
        sweep: the key and its values.
        seeds: of each.
        folder: of the runs.
        train: see :data:`Train`.
        target: (default: None)

    Returns:
        The results, and the runs that failed for other reasons than divergence.
    """
    tried = {(arm.name, v): at(arm, sweep, v) for arm in arms for v in sweep.values}
    for _ in range(_MAX_EXTENSIONS + 1):
        runs = runs_in(folder, [on_validation(arm) for arm in tried.values()], seeds)
        failed = train(runs)
        crashed = {run: why for run, why in failed.items() if not run.diverged}
        metrics = {run: run_metrics(run.phases(), target) for run in runs if run not in failed}
        headline = headline_of([m for found in metrics.values() for m in found], target)
        lower = lower_is_better(headline, target)
        response = Response(sweep, headline, lower, {arm.name: {} for arm in arms})
        by_name = {arm.name: key for key, arm in tried.items()}
        for run in runs:
            name, value = by_name[run.arm]
            point = response.curves[name].setdefault(value, Point({}, {}))
            result = metrics.get(run, {}).get(headline, math.nan)
            if math.isfinite(result):
                point.results[run.seed] = result
            else:
                point.failed[run.seed] = failed.get(run, f"{headline} is no number")
        more = [(arm, v) for arm in arms if (v := response.beyond(arm.name)) is not None]
        if not more or crashed:
            break
        tried |= {(arm.name, value): at(arm, sweep, value) for arm, value in more}
    return response, crashed


def confirmed_arms(arms: Sequence[Arm], response: Response) -> list[Arm]:
    """Each family's baseline at its best value, and every other arm at its own best and at that.

    Args:
        arms: of the comparison.
        response: with a best value of each arm.
    """
    confirmed = []
    for family in families(arms).values():
        base = response.best(family[0].name)
        for arm in family:
            values = dict.fromkeys((response.best(arm.name), base))
            confirmed += [at(arm, response.sweep, value) for value in values]
    return confirmed
