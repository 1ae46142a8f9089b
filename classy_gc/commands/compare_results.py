"""What ``classy-gc compare`` makes of the logs of its runs: statistics, a table, sentences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from classy_gc.hooks.json_log import plain
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.options import check_known
from classy_gc.table import aligned

#: of the intervals; a difference is told from noise where p, after Holm, is below 1 - this
CONFIDENCE = 0.95

EPOCHS = "epochs to target"

Phase = Mapping[str, Any]  #: a line of ``log.jsonl``


class Target(NamedTuple):
    """Value of a test meter whose first epoch is wanted."""

    meter: str
    value: float


class Spread(NamedTuple):
    """Mean and standard deviation of a metric over seeds."""

    n: int
    mean: float | None  #: None where n is 0
    std: float | None  #: with n - 1 in the denominator; None where n is below 2


class Difference(NamedTuple):
    """Another arm minus the first, seed by seed."""

    pairs: int
    mean: float | None = None  #: None where there is no pair
    low: float | None = None  #: of the confidence interval; None where there is none
    high: float | None = None
    p: float | None = None  #: of the paired t-test, two-sided


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation.

    Args:
        values: one a seed.

    Example:
        >>> spread([1.0, 3.0])
        Spread(n=2, mean=2.0, std=1.4142135623730951)
        >>> spread([1.0])
        Spread(n=1, mean=1.0, std=None)
    """
    n = len(values)
    mean = float(np.mean(values)) if n else None
    return Spread(n, mean, float(np.std(values, ddof=1)) if n > 1 else None)


def paired_difference(first: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Mean difference with the confidence interval of the paired t-test.

    Seeds that one of the two lacks, or where a value is not finite, drop out. One pair has no
    interval, and neither have differences that are all the same: their spread is not zero, it
    is too small for these data to show.

    Args:
        first: seed: value.
        other: seed: value.

    Source: Student, *The Probable Error of a Mean*, Biometrika 6 (1908);
    ``scipy.stats.ttest_rel``.

    Example:
        >>> difference = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 4.0, 2: 6.0})
        >>> [round(x, 3) for x in difference]
        [3, 2.0, -0.484, 4.484, 0.074]
        >>> paired_difference({0: 1.0, 1: 2.0}, {1: 2.5, 2: 7.0})
        Difference(pairs=1, mean=0.5, low=None, high=None, p=None)
    """
    pairs = [(other[seed], first[seed]) for seed in sorted({*first} & {*other})]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if not pairs:
        return Difference(0)
    differences = [b - a for b, a in pairs]
    mean = float(np.mean(differences))
    rounding = 1e-12 * max(abs(x) for pair in pairs for x in pair)
    if max(differences) - min(differences) <= rounding:
        return Difference(len(pairs), 0.0 if abs(mean) <= rounding else mean)
    from scipy.stats import ttest_rel

    test = ttest_rel(*zip(*pairs, strict=True))
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(
        len(pairs), mean, float(interval.low), float(interval.high), float(test.pvalue)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that stay honest when several comparisons are made at once.

    Args:
        p_values: one a comparison.

    Returns:
        Those after Holm's correction, in the same order.

    Source: Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian
    Journal of Statistics 6 (1979).

    Example:
        >>> holm([0.04, 0.01])
        [0.04, 0.02]
    """
    result, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        result[i] = largest
    return result


def run_metrics(phases: Sequence[Phase], target: Target | None = None) -> dict[str, float]:
    """What one run has reached.

    Args:
        phases: of its log, see :mod:`classy_gc.hooks.json_log`.
        target: (default: None)

    Returns:
        ``final test METER`` and ``best test METER`` (the highest), ``final test loss``,
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
        best = float(np.fmax.reduce(values))  # not NaN where there is a number
        metrics |= {f"final test {meter}": values[-1], f"best test {meter}": best}
    if target:
        check_known([target.meter], tests[-1][1] if tests else (), "--target", "meter")
        reached = (epoch for epoch, meters in tests if meters[target.meter] >= target.value)
        metrics[EPOCHS] = next(reached, math.inf)
    return metrics


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
        >>> sentence(Difference(5, 0.0012, -0.0005, 0.0029, 0.12), 0.12, 5, form)
        '+0.12 points [−0.05, +0.29] over 5 seeds: cannot be told from noise'
    """
    n, mean, low, high, p = difference
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
    text += f" [{form.signed(low)}, {form.signed(high)}] over {pairs}: "
    if adjusted_p < 1 - CONFIDENCE:
        return f"{text}more than noise (p = {adjusted_p:.2g})"
    if p < 1 - CONFIDENCE:
        return f"{text}cannot be told from noise among so many comparisons (p = {adjusted_p:.2g})"
    return f"{text}cannot be told from noise"


def evaluate(
    baselines: Mapping[str, str],
    phases: Mapping[str, Mapping[int, Sequence[Phase]]],
    seeds: int,
    target: Target | None = None,
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

    Returns:
        As ``results.json`` has it.
    """
    runs = {
        arm: {seed: run_metrics(log, target) for seed, log in phases[arm].items()}
        for arm in baselines
    }
    metrics = list(dict.fromkeys(m for logs in runs.values() for run in logs.values() for m in run))
    candidates = [
        *([f"final test {target.meter}"] if target else []),
        *(m for m in metrics if m.startswith("final ") and "/" in m),
        *(m for m in ("final test loss", "final train loss") if m in metrics),
    ]
    headline = next(iter(candidates), "final train loss")

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
    for arm in baselines:
        entry = {
            "name": arm,
            "baseline": baselines[arm] if arm in arms else None,
            "runs": [{"seed": seed, **run} for seed, run in runs[arm].items()],
            "spread": {m: spread(list(values(arm, m).values()))._asdict() for m in averaged},
        }
        if target:
            epochs = list(values(arm, EPOCHS).values())
            entry[EPOCHS] = {
                "reached": sum(map(math.isfinite, epochs)),
                "median": statistics.median(epochs) if epochs else None,
            }
        if arm in arms:
            entry["difference"] = {m: difference(arm, m)._asdict() for m in averaged}
            entry["holm_p"] = adjusted.get(arm)
            entry["verdict"] = sentence(headlines[arm], adjusted.get(arm), seeds, form)
        entries.append(entry)
    return plain(
        {
            "seeds": seeds,
            "headline": headline,
            "target": target and target._asdict(),
            "comparisons": len(tested),
            "arms": entries,
        }
    )


def text(results: Mapping[str, Any]) -> str:
    """The table and the sentences that are printed.

    Args:
        results: of :func:`evaluate`, with ``failed``.
    """
    arms, headline, target = results["arms"], results["headline"], results["target"]
    columns = {
        headline: "final",
        headline.replace("final", "best"): "best",
        "final train loss": "train loss",
        "seconds": "seconds",
    }
    columns = {m: c for m, c in columns.items() if any(m in arm["spread"] for arm in arms)}
    header = [*columns.values(), *(["epochs to target"] if target else []), "runs"]
    table = [[headline.removeprefix("final "), *header]]
    for arm in arms:
        cells = [arm["name"]]
        for metric in columns:
            values = [run[metric] for a in arms for run in a["runs"] if run.get(metric) is not None]
            cells.append(scale(metric, values).spread(Spread(**arm["spread"][metric])))
        if target:
            median, reached = arm[EPOCHS]["median"], arm[EPOCHS]["reached"]
            never = "never" if arm["runs"] else "–"
            cells.append(f"{never if median is None else format(median, 'g')} ({reached})")
        table.append([*cells, f"{len(arm['runs'])} of {results['seeds']}"])
    lines = [aligned(table, numbers=True)]
    lines.append("mean ± standard deviation over seeds; best: the highest of all epochs")
    if target:
        lines.append(
            f"epochs to target: median until {target['meter']} ≥ {target['value']:g} (how many "
            "runs get there); those that never do count as later than all others"
        )
    lines += ["", f"{headline}, paired by seed"]
    for baseline in dict.fromkeys(arm["baseline"] for arm in arms if arm["baseline"]):
        lines.append(f"against {baseline}:")
        lines += [f"  {a['name']}: {a['verdict']}" for a in arms if a["baseline"] == baseline]
    if results["comparisons"]:
        lines.append(f"[…] is the {CONFIDENCE:.0%} confidence interval of the paired t-test")
    if results["comparisons"] > 1:
        lines[-1] += (
            f", for one comparison alone; “more than noise” holds for all {results['comparisons']} "
            "together (Holm)"
        )
    for failure in results["failed"]:
        lines.append(f"failed: {failure['arm']}, seed {failure['seed']}: {failure['reason']}")
        lines.append(f"  see {failure['folder']}/output.log")
    return "\n".join(lines)


def rows(
    settings: Mapping[str, Mapping[str, Any]],
    phases: Mapping[str, Mapping[int, Sequence[Phase]]],
) -> list[dict[str, Any]]:
    """A row for each phase of each finished run, as ``results.csv`` has it.

    A setting that is called as what a phase has, ``loss``, is ``config.loss``.

    Args:
        settings: arm: dotted key: value.
        phases: arm: seed: the log of a run.
    """
    return [
        {
            "arm": arm,
            **{f"config.{k}" if k in phase else k: v for k, v in settings[arm].items()},
            "seed": seed,
            **{key: phase[key] for key in ("phase", "epoch", "loss", "seconds")},
            **flat_meters(phase["meters"]),
            **phase["options"],
        }
        for arm, runs in phases.items()
        for seed, log in runs.items()
        for phase in log
    ]
