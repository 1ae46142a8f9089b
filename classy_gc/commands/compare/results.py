"""What ``classy-gc compare`` makes of the logs of its runs: numbers, a table, sentences."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from classy_gc.commands.compare.statistics import (
    CONFIDENCE,
    Difference,
    Spread,
    disagreement,
    holm,
    paired_difference,
    pairs_needed,
    spread,
)
from classy_gc.commands.flags import Target
from classy_gc.hooks.json_log import as_json
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.options import check_known

EPOCHS = "epochs to target"

Phase = Mapping[str, Any]  #: a line of ``log.jsonl``
Runs = Mapping[str, Mapping[int, Sequence[Phase]]]  #: arm: seed: the log of a finished run


def run_metrics(phases: Sequence[Phase], target: Target | None = None) -> dict[str, float]:
    """What one run has reached.

    Args:
        phases: of its log, see :mod:`classy_gc.hooks.json_log`.
        target: (default: None)

    Returns:
        ``final test METER`` and ``best test METER`` of all epochs, ``final test loss``,
        ``final train loss``, ``seconds``, and with a target ``epochs to target``,
        infinite where the run never gets there. What the log does not have is left out.

    Raises:
        ValueError: the target names a meter that the run does not have.

    Example:
        >>> train = {"phase": "train", "epoch": 1.0, "loss": 0.5, "meters": {}, "seconds": 2.0}
        >>> test = {"phase": "test", "epoch": 1.0, "loss": 0.6, "seconds": 1.0}
        >>> test["meters"] = {"accuracy": {"top_1": 0.9}}
        >>> run_metrics([train, test], Target("accuracy/top_1", 0.8))["epochs to target"]
        1.0
    """
    metrics = {"seconds": sum(phase["seconds"] for phase in phases)}
    for kind in ("train", "test"):
        losses = [phase["loss"] for phase in phases if phase["phase"] == kind]
        if losses:
            metrics[f"final {kind} loss"] = losses[-1]
    tests = [(p["epoch"], flat_meters(p["meters"])) for p in phases if p["phase"] == "test"]
    for meter in tests[-1][1] if tests else ():
        values = [meters[meter] for _, meters in tests]
        lower = lower_is_better(f"best test {meter}", target)
        best = (np.fmin if lower else np.fmax).reduce(values)  # not NaN where there is a number
        metrics |= {f"final test {meter}": values[-1], f"best test {meter}": float(best)}
    if target:
        check_known([target.meter], tests[-1][1] if tests else (), "--target", "meter")
        there = operator.le if target.lower else operator.ge
        reached = (epoch for epoch, m in tests if there(m[target.meter], target.value))
        metrics[EPOCHS] = next(reached, math.inf)
    return metrics


def lower_is_better(metric: str, target: Target | None = None) -> bool:
    """Whether less of a metric is more: of losses, and of the meter of a target ``METER<=VALUE``.

    Example:
        >>> lower_is_better("final test loss"), lower_is_better("final test accuracy/top_1")
        (True, False)
    """
    return "/" not in metric or bool(
        target and target.lower and metric.endswith(f" test {target.meter}")
    )


class Scale(NamedTuple):
    """How a metric is printed: as it is, or in per cent where it is a share."""

    factor: float
    digits: str
    unit: str
    difference_unit: str

    def value(self, x: float | None) -> str:
        """A number, or a dash for None."""
        return "–" if x is None else format(self.factor * x, self.digits)

    def spread(self, x: Spread) -> str:
        """Mean ± standard deviation, with the unit."""
        if x.mean is None:
            return self.value(None)
        std = "" if x.std is None else f" ± {self.value(x.std)}"
        return f"{self.value(x.mean)}{std}{self.unit}"

    def signed(self, x: float) -> str:
        """A difference, without the unit."""
        # The minus sign of the interval's ends would read as a range.
        return format(self.factor * x, "+" + self.digits).replace("-", "−")


def scale(metric: str, values: Sequence[float]) -> Scale:
    """Meters that lie in [0, 1] are shares; everything else is printed as it is.

    Example:
        >>> scale("final test accuracy/top_1", [0.5, 0.75]).spread(spread([0.5, 0.75]))
        '62.50 ± 17.68 %'
    """
    if "/" in metric and all(0 <= value <= 1 for value in values):
        return Scale(100, ".2f", " %", " points")
    return Scale(1, ".1f", "", "") if metric == "seconds" else Scale(1, ".4g", "", "")


def sentence(difference: Difference, adjusted_p: float | None, seeds: int, form: Scale) -> str:
    """Whether a difference can be told from noise, in words.

    Args:
        difference: against the first arm.
        adjusted_p: its p after :func:`holm`; None where it has none.
        seeds: how many pairs there would be, had every run finished.
        form: of the metric.

    Example:
        >>> form = scale("final test accuracy/top_1", [0.9])
        >>> sentence(Difference(5, 0.0012, -0.0005, 0.0029, 0.12, 0.0014, 0.0024), 0.12, 5, form)
        '+0.12 points [−0.05, +0.29] (0.24) over 5 seeds: cannot be told from noise'
    """
    n, mean, low, high, p, _, least = difference
    if mean is None:
        return "no seed has a value in both arms, so there is nothing to compare"
    pairs = f"{n} seed" + "s" * (n > 1)
    if n < seeds:
        lack = "lack" if seeds - n > 1 else "lacks"
        pairs += f" ({seeds - n} of {seeds} pairs {lack} a value)"
    text = f"{form.signed(mean)}{form.difference_unit}"
    if n == 1:
        return f"{text} over {pairs}: one pair has no interval; give more --seeds"
    if low is None and not mean:
        return f"no difference in any of {pairs}"
    if low is None:
        return f"{text} in each of {pairs}: without any spread there is no interval"
    text += f" [{form.signed(low)}, {form.signed(high)}] ({form.value(least)}) over {pairs}: "
    if adjusted_p < 1 - CONFIDENCE:
        return f"{text}more than noise (p = {adjusted_p:.2g})"
    if p < 1 - CONFIDENCE:
        return f"{text}cannot be told from noise among so many comparisons (p = {adjusted_p:.2g})"
    return f"{text}cannot be told from noise"


def power_sentence(difference: Difference, wanted: float, form: Scale) -> str | None:
    """How many seeds a difference of a size would need; None where there is no spread to go by.

    Args:
        difference: that was found, with its spread.
        wanted: size, in the unit that is printed.
        form: of the metric.

    Example:
        >>> form = scale("final test accuracy/top_1", [0.9])
        >>> found = Difference(5, 0.0012, -0.0005, 0.0029, 0.12, 0.0014, 0.0024)
        >>> power_sentence(found, 0.1, form)
        'a difference of 0.1 points needs 18 seeds'
    """
    if difference.std is None:
        return None
    seeds = pairs_needed(wanted / form.factor, difference.std)
    return f"a difference of {wanted:g}{form.difference_unit} needs {seeds} seeds"


def evaluate(
    baselines: Mapping[str, str],
    phases: Runs,
    seeds: int,
    target: Target | None = None,
    correct: Mapping[str, Mapping[int, str]] = MappingProxyType({}),
    wanted: float | None = None,
) -> dict[str, Any]:
    """Statistics of every metric, and one sentence an arm on the headline.

    The headline is the final value of the target's meter, else of the first test meter, else
    the test loss, else the train loss. All other metrics are there to look at: whoever searches
    them for a difference will find one.

    Args:
        baselines: arm: its baseline, which is an arm too; that of a baseline is itself.
        phases: arm: seed: the log of a finished run.
        seeds: how many there should be.
        target: (default: None)
        correct: arm: seed: which test samples are right, see
            :class:`classy_gc.hooks.predictions.PredictionsHook` (default: none is known)
        wanted: size of a difference, to be told how many seeds it needs (default: None)

    Returns:
        As ``results.json`` has it.
    """
    runs = {
        arm: {seed: run_metrics(log, target) for seed, log in phases[arm].items()}
        for arm in baselines
    }
    metrics = list(dict.fromkeys(m for logs in runs.values() for run in logs.values() for m in run))
    headline = headline_of(metrics, target)

    def values(arm: str, metric: str) -> dict[int, float]:
        return {seed: run[metric] for seed, run in runs[arm].items() if metric in run}

    def difference(arm: str, metric: str) -> Difference:
        return paired_difference(values(baselines[arm], metric), values(arm, metric))

    arms = [arm for arm, baseline in baselines.items() if arm != baseline]
    headlines = {arm: difference(arm, headline) for arm in arms}
    tested = [arm for arm in arms if headlines[arm].p is not None]
    adjusted = dict(zip(tested, holm([headlines[arm].p for arm in tested]), strict=True))
    form = scale(headline, [v for arm in runs for v in values(arm, headline).values()])
    averaged = [m for m in metrics if m != EPOCHS]
    entries = []
    for arm, baseline in baselines.items():
        entry = {
            "name": arm,
            "baseline": baseline if arm in arms else None,
            "runs": [{"seed": seed, **run} for seed, run in runs[arm].items()],
            "spread": {m: spread(list(values(arm, m).values()))._asdict() for m in averaged},
        }
        if target:
            entry[EPOCHS] = _reached(list(values(arm, EPOCHS).values()))
        if arm in arms:
            entry["difference"] = {m: difference(arm, m)._asdict() for m in averaged}
            entry["holm_p"] = adjusted.get(arm)
            entry["verdict"] = sentence(headlines[arm], adjusted.get(arm), seeds, form)
            if wanted is not None:
                entry["power"] = power_sentence(headlines[arm], wanted, form)
            both = disagreement(correct.get(baseline, {}), correct.get(arm, {}))
            entry["mcnemar"] = both and both._asdict()
        entries.append(entry)
    return as_json(
        {
            "seeds": seeds,
            "headline": headline,
            "target": target and target._asdict(),
            "comparisons": len(tested),
            "arms": entries,
        }
    )


def headline_of(metrics: Sequence[str], target: Target | None) -> str:
    """What is compared: the target's meter, else the first test meter, else a loss."""
    if target:
        return f"final test {target.meter}"
    meters = [m for m in metrics if m.startswith("final ") and "/" in m]
    losses = [m for m in ("final test loss", "final train loss") if m in metrics]
    return next(iter([*meters, *losses]), "final train loss")


def _reached(epochs: Sequence[float]) -> dict[str, Any]:
    """How many runs have got to the target, and when."""
    reached = sum(map(math.isfinite, epochs))
    return {"reached": reached, "median": median(epochs) if epochs else None}
