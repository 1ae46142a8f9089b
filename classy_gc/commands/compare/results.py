"""Evaluates the logs of a comparison's runs: metrics, statistics, verdicts."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from classy_gc.commands.compare.report import (
    EPOCHS,
    Phase,
    Scale,
    power_sentence,
    scale,
    sentence,
)
from classy_gc.commands.compare.statistics import (
    disagreement,
    holm,
    paired_difference,
    sign_flip,
    spread,
)
from classy_gc.commands.flags import Target
from classy_gc.hooks.json_log import as_json
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.options import check_known

Runs = Mapping[str, Mapping[int, Mapping[str, float]]]  #: metrics of finished runs by arm and seed


def run_metrics(phases: Sequence[Phase], target: Target | None = None) -> dict[str, float]:
    """The metrics of one run.

    Args:
        phases: of its log, see :mod:`classy_gc.hooks.json_log`.
        target: (default: None)

    Returns:
        ``final test METER`` and ``best test METER`` of all epochs, ``final test loss``,
        ``final train loss``, ``seconds``, and with a target ``epochs to target``,
        infinite if the run never gets there. Metrics that the log lacks are left out.

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
        best = (np.fmin if lower else np.fmax).reduce(values)  # ignores NaN if there is a number
        metrics |= {f"final test {meter}": values[-1], f"best test {meter}": float(best)}
    if target:
        check_known([target.meter], tests[-1][1] if tests else (), "--target", "meter")
        there = operator.le if target.lower else operator.ge
        reached = (epoch for epoch, m in tests if there(m[target.meter], target.value))
        metrics[EPOCHS] = next(reached, math.inf)
    return metrics


def lower_is_better(metric: str, target: Target | None = None) -> bool:
    """Whether lower is better: for losses, and for the meter of a target ``METER<=VALUE``.

    Example:
        >>> lower_is_better("final test loss"), lower_is_better("final test accuracy/top_1")
        (True, False)
    """
    return "/" not in metric or bool(
        target and target.lower and metric.endswith(f" test {target.meter}")
    )


def evaluate(
    baselines: Mapping[str, str],
    runs: Runs,
    seeds: int,
    target: Target | None = None,
    correct: Mapping[str, Mapping[int, str]] = MappingProxyType({}),
    wanted: float | None = None,
    contrasts: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Statistics of every metric, and one sentence per arm on the headline.

    The headline is the final value of the target's meter, else of the first test meter, else
    the test loss, else the train loss. All other metrics are only for information: whoever searches
    them for a difference will find one.

    Args:
        baselines: the baseline of each arm; a baseline is its own.
        runs: :func:`run_metrics` of finished runs by arm and seed.
        seeds: how many there should be.
        target: (default: None)
        correct: which test samples are right, by arm and seed, see
            :class:`classy_gc.hooks.predictions.PredictionsHook`; for arms tested on the same
            samples (default: none)
        wanted: size of a difference, to report how many seeds it needs (default: None)
        contrasts: of two arms, the second against the first; of four, the gain of the fourth over
            the third minus that of the second over the first (default: none)

    Returns:
        What ``results.json`` holds: ``seeds``, ``headline``, ``lower_is_better``, ``target``,
        ``comparisons`` (the number of p-values in Holm's correction), ``arms`` and ``contrasts``.
        Numbers that are not finite become None.
    """
    metrics = dict.fromkeys(
        metric for own in runs.values() for run in own.values() for metric in run
    )
    metrics.pop(EPOCHS, None)
    headline = headline_of(list(metrics), target)
    compared = [(baseline, arm) for arm, baseline in baselines.items() if arm != baseline]
    contrasts = list(map(tuple, contrasts))
    results = {arm: values(runs[arm], headline) for arm in baselines}
    form = scale(headline, [x for by_seed in results.values() for x in by_seed.values()])
    told = tell(results, [*compared, *contrasts], seeds, form, wanted)
    arms = []
    for arm, baseline in baselines.items():
        entry = {
            "name": arm,
            "baseline": None if arm == baseline else baseline,
            "runs": [{"seed": seed, **run} for seed, run in runs[arm].items()],
            "spread": {m: spread(values(runs[arm], m).values())._asdict() for m in metrics},
        }
        if target:
            epochs = values(runs[arm], EPOCHS).values()
            reached = sum(map(math.isfinite, epochs))
            entry[EPOCHS] = {"reached": reached, "median": median(epochs) if epochs else None}
        if arm != baseline:
            entry |= told[baseline, arm]
            entry["difference"] = {
                m: paired_difference(values(runs[baseline], m), values(runs[arm], m))._asdict()
                for m in metrics
            } | {headline: entry["difference"]}
            both = disagreement(correct.get(baseline, {}), correct.get(arm, {}))
            entry["mcnemar"] = both and both._asdict()
        arms.append(entry)
    return as_json(
        {
            "seeds": seeds,
            "headline": headline,
            "lower_is_better": lower_is_better(headline, target),
            "target": target and target._asdict(),
            "comparisons": len({sides(x) for x, one in told.items() if one["holm_p"] is not None}),
            "arms": arms,
            "contrasts": [{"arms": names, **told[names]} for names in contrasts],
        }
    )


def values(runs: Mapping[int, Mapping[str, float]], metric: str) -> dict[int, float]:
    """The values of a metric by seed, for the runs of an arm that have it."""
    return {seed: run[metric] for seed, run in runs.items() if metric in run}


def check_contrasts(contrasts: Iterable[Sequence[str]], arms: Iterable[str]) -> None:
    """Refuses a --contrast of unknown arms, or of neither two nor four.

    Raises:
        ValueError: with the fault.
    """
    for names in contrasts:
        check_known(names, arms, "--contrast", "arm")
        if len(names) not in (2, 4):
            raise ValueError(f"--contrast must have two arms or four, not {len(names)}")


def sides(names: Sequence[str]) -> frozenset[frozenset[str]]:
    """The arms that a comparison of two or four adds, and those that it subtracts.

    Example:
        >>> sides(["off", "on"]) == sides(["on", "off"])
        True
    """
    first, other, *rest = names
    return frozenset({frozenset({first, *rest[1:]}), frozenset({other, *rest[:1]})})


def tell(
    results: Mapping[str, Mapping[int, float]],
    compared: Iterable[tuple[str, ...]],
    seeds: int,
    form: Scale,
    wanted: float | None = None,
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Tests several differences at once.

    Args:
        results: values by arm and seed.
        compared: two arms each, or four, as in the contrasts of :func:`evaluate`. Duplicates count
            once.
        seeds: how many pairs there should be.
        form: of the values.
        wanted: size of a difference (default: None)

    Returns:
        For each, its ``difference``, ``holm_p``, ``sign_flip_p``, ``verdict`` and ``power``.
    """
    pairs = {}
    for names in compared:
        first, other, *rest = (results[name] for name in names)
        pairs[names] = (_minus(other, first), _minus(rest[1], rest[0])) if rest else (first, other)
    adjusted = holm({sides(names): paired_difference(*pair).p for names, pair in pairs.items()})
    comparisons = max(1, len(adjusted))
    told = {}
    for names, pair in pairs.items():
        difference = paired_difference(*pair, comparisons)
        holm_p = adjusted.get(sides(names))
        told[names] = {
            "difference": difference._asdict(),
            "holm_p": holm_p,
            "sign_flip_p": None if holm_p is None else sign_flip(*pair),
            "verdict": sentence(difference, holm_p, seeds, form),
        }
        if wanted is not None:
            told[names]["power"] = power_sentence(difference, wanted, form, comparisons)
    return told


def _minus(other: Mapping[int, float], first: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - first[seed] for seed, value in other.items() if seed in first}


def headline_of(metrics: Sequence[str], target: Target | None) -> str:
    """The metric to compare: the target's meter, else the first test meter, else a loss."""
    if target:
        return f"final test {target.meter}"
    meters = [m for m in metrics if m.startswith("final ") and "/" in m]
    losses = [m for m in ("final test loss", "final train loss") if m in metrics]
    return [*meters, *losses, "final train loss"][0]
