"""``--sweep``: trains every arm at every value of a key, and finds the best by validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classy_gc.commands.compare.arms import Arm, check_arm, families, short_name
from classy_gc.commands.compare.engines import Local, Slurm, train_runs
from classy_gc.commands.compare.report import Scale, scale
from classy_gc.commands.compare.results import headline_of, lower_is_better, run_metrics
from classy_gc.commands.compare.runs import Run, runs_in
from classy_gc.commands.compare.statistics import CONFIDENCE, spread
from classy_gc.commands.flags import Target
from classy_gc.configuration.load import with_settings
from classy_gc.hooks.json_log import as_json
from classy_gc.plots import COLORS, new_figure, plain, tidy
from classy_gc.table import aligned

_MAX_EXTENSIONS = 6

# Names of the numbers of a schedule that are values of the option, not epochs or shares.
_VALUES = ("value", "values", "start_value", "peak_value", "end_value", "base_value")


class Sweep(NamedTuple):
    """A key, and the values at which every arm is trained."""

    key: str
    short: str  #: the key's name in names of arms
    values: list[float]


class Response(NamedTuple):
    """The results of a sweep."""

    sweep: Sweep
    headline: str
    lower: bool  #: whether lower is better
    #: result on the validation data by arm, value and seed; NaN if the run diverged or failed
    curves: dict[str, dict[float, dict[int, float]]]

    @property
    def metric(self) -> str:
        """The headline, on the validation images."""
        return self.headline.replace("test", "validation")

    @property
    def form(self) -> Scale:
        """How results are printed."""
        points = [point for curve in self.curves.values() for point in curve.values()]
        return scale(self.headline, [x for point in points for x in point.values()])

    @property
    def values(self) -> list[float]:
        """All values of the key."""
        return sorted({value for curve in self.curves.values() for value in curve})

    def best(self, arm: str) -> float | None:
        """The value with the best mean; None if a run failed at every value.

        A value at which any run failed is not chosen: its mean would be over survivors.

        Example:
            >>> curve = {0.1: {0: 0.8, 1: 0.9}, 0.2: {0: 0.99, 1: math.nan}}
            >>> response = Response(Sweep("lr", "lr", []), "final test loss", False, {"on": curve})
            >>> response.best("on")
            0.1
        """
        means = {v: np.mean(list(x.values())) for v, x in sorted(self.curves[arm].items())}
        whole = [value for value, mean in means.items() if math.isfinite(mean)]
        return (min if self.lower else max)(whole, key=means.__getitem__, default=None)

    def best_text(self, arm: str) -> str:
        """The best value, as text."""
        best = self.best(arm)
        return "none" if best is None else f"{best:g}"

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
    for arm in arms:
        first = on_validation(at(arm, sweep, sweep.values[0]))
        check_arm(first._replace(settings={}), target)  # those of the arm are already checked


def train_sweep(
    arms: Sequence[Arm],
    sweep: Sweep,
    seeds: Sequence[int],
    folder: Path,
    engine: Local | Slurm,
    target: Target | None,
) -> tuple[Response, dict[Run, str]]:
    """Trains each arm at each value, and beyond if the best is the smallest or largest.

    Args:
        arms: of the comparison.
        sweep: the key and its values.
        seeds: of each.
        folder: of the runs.
        engine: where to train.
        target: (default: None)

    Returns:
        The results, and the runs that diverged or failed, with the reason.
    """
    values = {arm.name: [*sweep.values] for arm in arms}
    for _ in range(_MAX_EXTENSIONS + 1):
        swept = {
            (arm.name, value): runs_in(folder, [on_validation(at(arm, sweep, value))], seeds)
            for arm in arms
            for value in values[arm.name]
        }
        runs = [run for of_value in swept.values() for run in of_value]
        failed = train_runs(runs, engine)
        metrics = {run: run_metrics(run.phases(), target) for run in runs if run not in failed}
        headline = headline_of([m for by_meter in metrics.values() for m in by_meter], target)
        curves: dict[str, dict[float, dict[int, float]]] = {arm.name: {} for arm in arms}
        for (name, value), of_value in swept.items():
            results = {run.seed: metrics.get(run, {}).get(headline, math.nan) for run in of_value}
            curves[name][value] = results
        response = Response(sweep, headline, lower_is_better(headline, target), curves)
        more = {name: v for name in curves if (v := response.beyond(name)) is not None}
        if not more or any(not run.diverged for run in failed):
            break
        for name, value in more.items():
            values[name].append(value)
    return response, failed


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


def sweep_entry(response: Response) -> dict[str, Any]:
    """The entry of ``results.json``."""
    arms = [
        {
            "name": name,
            "best": response.best(name),
            "points": [
                {
                    "value": value,
                    "spread": spread(results.values()),
                    "runs": [{"seed": seed, "result": x} for seed, x in results.items()],
                }
                for value, results in sorted(curve.items())
            ],
        }
        for name, curve in response.curves.items()
    ]
    return as_json({"key": response.sweep.key, "metric": response.metric, "arms": arms})


def sweep_text(response: Response) -> str:
    """A table with one line per value and one column per arm, and the best of each."""
    form, curves = response.form, response.curves
    lines = [[response.metric, *curves]]
    for value in response.values:
        per_curve = [curve.get(value, {}) for curve in curves.values()]
        cells = [form.spread([*x.values()]) if x else "" for x in per_curve]
        lines.append([f"{response.sweep.short}={value:g}", *cells])
    lines.append(["best", *map(response.best_text, curves)])
    return (
        f"{aligned(lines, numbers=True)}\nmean ± standard deviation over seeds; (… of …): so many "
        "runs have a number, and all others diverged or failed"
    )


def response_picture(response: Response) -> Any:
    """Draws one line per arm over the values: mean and standard deviation; the best is filled.

    Values at which runs failed have the number of failures at the lower edge.

    Returns:
        A ``matplotlib`` Figure.
    """
    figure, form = new_figure(8, 5), response.form
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    for i, (name, curve) in enumerate(response.curves.items()):
        shown = {value: spread(results.values()) for value, results in sorted(curve.items())}
        means = {v: form.factor * x["mean"] for v, x in shown.items() if x["n"]}
        stds = [form.factor * (x["std"] or 0) for x in shown.values() if x["n"]]
        color, best = COLORS[i % len(COLORS)], response.best(name)
        label = plain(f"{name}: best at {response.best_text(name)}")
        style = {"color": color, "marker": "o", "fillstyle": "none", "capsize": 3}
        axes.errorbar([*means], [*means.values()], stds, label=label, **style)
        if best is not None:
            axes.plot(best, means[best], "o", color=color)
        for value, x in shown.items():
            if failed := len(curve[value]) - x["n"]:
                at_edge = {"transform": axes.get_xaxis_transform(), "color": color}
                axes.text(value, 0.03 + 0.06 * i, f" {failed} failed", **at_edge)
    axes.set_xticks(response.values, [f"{x:g}" for x in response.values], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel(plain(response.sweep.key))
    axes.set_ylabel(plain(response.metric + form.unit))
    tidy(axes)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def advice(results: Mapping[str, Any], arms: Sequence[Arm]) -> str:
    """What to do, one sentence per family.

    Args:
        results: of the confirmation.
        arms: at the confirmed values.
    """
    headline, sign = results["headline"], -1 if results["lower_is_better"] else 1
    entries = {arm["name"]: arm for arm in results["arms"]}
    sentences = []
    for baseline, *others in families(arms).values():
        contrasts = [entries[arm.name] for arm in others]
        told = [x for x in contrasts if x["holm_p"] is not None and x["holm_p"] < 1 - CONFIDENCE]
        gains = {x["name"]: sign * x["difference"][headline]["mean"] for x in told}
        name = max(gains, key=gains.__getitem__, default="")
        if gains.get(name, 0) > 0:
            chosen = f"Take {name}: it is better than {baseline.name}, the best value of that arm."
        elif gains and len(gains) == len(others):
            chosen = f"Stay with {baseline.name}: the others are worse."
        else:
            chosen = (
                f"Stay with {baseline.name}: with its best value no other arm can be told to be "
                "better."
            )
        sentences.append(chosen)
    return "\n".join(sentences)
