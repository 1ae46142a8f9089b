"""``--sweep``: trains every arm at every value of a key, and finds the best by validation."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from classy_gc.commands.compare import results, runs
from classy_gc.commands.compare.arms import Arm, check_arm, families, short_name
from classy_gc.commands.compare.statistics import more_than_noise, spread
from classy_gc.commands.flags import Target
from classy_gc.configuration.load import with_settings
from classy_gc.plots import COLORS, new_figure, plain, tidy
from classy_gc.table import aligned

_MAX_EXTENSIONS = 6

# Names of the numbers of a schedule that are values of the option, not epochs or shares.
_VALUES = ("value", "values", "start_value", "peak_value", "end_value", "base_value")


class Sweep(NamedTuple):
    """A key, and the values at which every arm is trained."""

    key: str
    values: list[float]


def checked_sweep(text: str, arms: Sequence[Arm], target: Target | None = None) -> Sweep:
    """The values of ``KEY=LOW:HIGH:COUNT``, with equal ratios; builds every arm at the first one.

    Args:
        text: of ``--sweep``.
        arms: of the comparison.
        target: every arm must have its meter (default: None).

    Raises:
        ValueError: something else, values that are not positive and rising, a key that varies too,
            or an arm, by its name, that cannot be trained or has no validation data.

    Example:
        >>> checked_sweep("optimizer.lr=0.1:0.8:4", [])
        Sweep(key='optimizer.lr', values=[0.1, 0.2, 0.4, 0.8])
    """
    key, _, values = text.partition("=")
    try:
        low, high, count = values.split(":")
        ends, number = (float(low), float(high)), int(count)
        if not (key and 0 < ends[0] < ends[1] < math.inf and 2 <= number <= 1000):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--sweep must be KEY=LOW:HIGH:COUNT with 0 < LOW < HIGH and COUNT >= 2, such as "
            f"optimizer.lr=0.0125:0.8:7, not {text!r}"
        ) from None
    if any(key in arm.settings for arm in arms):
        raise ValueError(f"--sweep: {key} is varied too")
    sweep = Sweep(key, [float(f"{x:.6g}") for x in np.geomspace(*ends, number)])
    for arm in arms:
        check_arm(on_validation(arm, key, sweep.values[0]), target)
    return sweep


def at(arm: Arm, key: str, value: float) -> Arm:
    """The arm with the swept key at a value; for a schedule, with the whole curve scaled.

    Args:
        arm: of the comparison.
        key: the swept one.
        value: of it; for a schedule, its largest value.

    Raises:
        ValueError: the arm cannot have the key, or its schedule has no positive value.
    """
    settings = {key: value}
    path, _, option = key.rpartition(".")
    name = f"{path}.param_schedulers.{option}"
    schedule = arm.config.get("optimizer", {}).get("param_schedulers", {}).get(option)
    if path == "optimizer" and schedule is not None:
        values = [0.0]
        _changed(schedule, values.append)
        if not max(values) > 0:
            raise ValueError(f"--sweep: {name} has no value > 0 to scale")
        settings = {name: _changed(schedule, lambda x: x / max(values) * value)}
    label = f"{short_name(key, [key, *arm.settings])}={value:g}"
    return arm._replace(
        name=f"{arm.name}, {label}",
        folder=f"{arm.folder}/{label}",
        settings={**arm.settings, key: value},
        config=with_settings(arm.config, settings),
    )


def _changed(schedule: Any, change: Callable[[float], Any], key: str = "") -> Any:
    """A schedule with changed values; epochs and shares stay."""
    if isinstance(schedule, Mapping):
        return {k: _changed(x, change, k) for k, x in schedule.items()}
    if isinstance(schedule, list):
        return [_changed(x, change, key) for x in schedule]
    return change(schedule) if key in _VALUES else schedule


def on_validation(arm: Arm, key: str, value: float) -> Arm:
    """The arm :func:`at` a value, tested on the validation split of its training data.

    Raises:
        ValueError: its training data have no such split, or its test data are other data.
    """
    arm = at(arm, key, value)
    dataset = arm.config["dataset"]
    train, test = dataset["train"], dataset.get("test", {})
    number = train.get("num_validation", 0)
    if not number or test.get("name") != train["name"]:
        raise ValueError(
            "--sweep chooses by images that are neither trained on nor tested: dataset.train must "
            "say how many of its last images those are (num_validation), and dataset.test must "
            "be of the same name"
        )
    split = {**test, "split": "validation", "num_validation": number}
    return arm._replace(config={**arm.config, "dataset": {**dataset, "test": split}})


def train_sweep(
    args: argparse.Namespace, arms: Sequence[Arm], sweep: Sweep, engine: runs.Engine
) -> tuple[dict[str, Any], dict[runs.Run, str]]:
    """Trains each arm at each value, and beyond if the best is the smallest or largest.

    Args:
        args: the flags.
        arms: of the comparison.
        sweep: the key and its values.
        engine: where to train.

    Returns:
        The entry of ``results.json``, and the runs that diverged or failed, with the reason.
    """
    folder, seeds, target = args.output_folder / "sweep", args.seeds, args.target
    values = {arm.name: [*sweep.values] for arm in arms}
    for _ in range(_MAX_EXTENSIONS + 1):
        swept = {
            (arm.name, value): runs.runs_in(folder, [on_validation(arm, sweep.key, value)], seeds)
            for arm in arms
            for value in sorted(values[arm.name])
        }
        trained = [run for of_value in swept.values() for run in of_value]
        failed = runs.train_runs(trained, engine)
        logs = {run: run.log("phase") for run in trained if run not in failed}
        metrics = {run: results.run_metrics(log, target) for run, log in logs.items()}
        headline = results.headline_of(metrics.values(), target)
        points = {arm.name: [] for arm in arms}
        for (name, value), of_value in swept.items():
            found = {run.seed: metrics.get(run, {}).get(headline) for run in of_value}
            by_seed = [{"seed": seed, "result": x} for seed, x in found.items()]
            points[name].append({"value": value, "spread": spread(found.values()), "runs": by_seed})
        lower = results.lower_is_better(headline, target)
        best = {name: best_value(of_arm, lower) for name, of_arm in points.items()}
        beyond = {name: beyond_edge(points[name], value) for name, value in best.items()}
        if not any(beyond.values()) or any(run.ending() is None for run in failed):
            break
        for name, value in beyond.items():
            if value:
                values[name].append(value)
    metric = headline.replace("test", "validation")
    entries = [{"name": name, "points": points[name], "best": best[name]} for name in points]
    return {"key": sweep.key, "metric": metric, "arms": entries}, failed


def best_value(points: Sequence[Mapping[str, Any]], lower: bool) -> float | None:
    """The value with the best mean; None if a run failed at every value.

    A value at which any run failed is not chosen: its mean would be over survivors.

    Args:
        points: with ``value``, ``spread`` and ``runs``, by rising values.
        lower: whether lower is better.
    """
    whole = [point for point in points if point["spread"]["n"] == len(point["runs"])]
    best = (min if lower else max)(whole, key=lambda point: point["spread"]["mean"], default=None)
    return best and best["value"]


def beyond_edge(points: Sequence[Mapping[str, Any]], best: float | None) -> float | None:
    """The value to try next, if the best one is the smallest or the largest of all."""
    smallest, largest = points[0]["value"], points[-1]["value"]
    if best is None or best == smallest:
        return smallest / 2
    return 2 * largest if best == largest else None


def confirmed_arms(arms: Sequence[Arm], response: Mapping[str, Any]) -> list[Arm]:
    """Each family's baseline at its best value, and every other arm at its own best and at that.

    Args:
        arms: of the comparison.
        response: from :func:`train_sweep`, with a best value of each arm.
    """
    best = {entry["name"]: entry["best"] for entry in response["arms"]}
    confirmed = []
    for family in families(arms).values():
        for arm in family:
            values = dict.fromkeys((best[arm.name], best[family[0].name]))
            confirmed += [at(arm, response["key"], value) for value in values]
    return confirmed


def sweep_text(response: Mapping[str, Any]) -> str:
    """A table with one line per arm and value, which marks the best of each arm."""
    form = _scale(response)
    lines = [["arm", response["key"], response["metric"], ""]]
    for arm in response["arms"]:
        for point in arm["points"]:
            results = [run["result"] for run in point["runs"]]
            best = "best" if point["value"] == arm["best"] else ""
            lines.append([arm["name"], f"{point['value']:g}", form.spread(results), best])
    return (
        f"{aligned(lines)}\nmean ± standard deviation over seeds; (… of …): so many runs have a "
        "number, and all others diverged or failed"
    )


def _scale(response: Mapping[str, Any]) -> results.Scale:
    points = [point for arm in response["arms"] for point in arm["points"]]
    found = [run["result"] for point in points for run in point["runs"]]
    return results.scale(response["metric"], found)


def response_picture(response: Mapping[str, Any]) -> Any:
    """Draws one line per arm over the values: mean and standard deviation; the best is named.

    Values at which runs failed have the number of failures at the lower edge.

    Returns:
        A ``matplotlib`` Figure.
    """
    figure, form = new_figure(8, 5), _scale(response)
    axes = figure.subplots()
    axes.set_xscale("log")
    for i, arm in enumerate(response["arms"]):
        color = COLORS[i % len(COLORS)]
        shown = [point for point in arm["points"] if point["spread"]["n"]]
        values = [point["value"] for point in shown]
        means = [form.factor * point["spread"]["mean"] for point in shown]
        stds = [form.factor * (point["spread"]["std"] or 0) for point in shown]
        best = "none" if arm["best"] is None else f"{arm['best']:g}"
        style = {"color": color, "marker": "o", "fillstyle": "none", "capsize": 3}
        axes.errorbar(values, means, stds, label=plain(f"{arm['name']}: best at {best}"), **style)
        for point in arm["points"]:
            failed = len(point["runs"]) - point["spread"]["n"]
            if failed:
                at_edge = {"transform": axes.get_xaxis_transform(), "color": color}
                axes.text(point["value"], 0.03 + 0.06 * i, f" {failed} failed", **at_edge)
    ticks = sorted({point["value"] for arm in response["arms"] for point in arm["points"]})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel(plain(response["key"]))
    axes.set_ylabel(plain(response["metric"] + form.unit))
    tidy(axes)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def advice(report: Mapping[str, Any]) -> str:
    """What to do, one sentence per baseline.

    Args:
        report: of the confirmation, as in ``results.json``.
    """
    sign, sentences = -1 if report["lower_is_better"] else 1, []
    for baseline in (arm["name"] for arm in report["arms"] if not arm["baseline"]):
        gains = {
            arm["name"]: sign * arm["difference"]["mean"]
            for arm in report["arms"]
            if arm["baseline"] == baseline and more_than_noise(arm["holm_p"])
        }
        best = max(gains, key=gains.__getitem__, default=None)
        if best and gains[best] > 0:
            sentences.append(f"Take {best}: it is better than {baseline}.")
        else:
            sentences.append(f"Stay with {baseline}: no other arm can be told to be better.")
    return "\n".join(sentences)
