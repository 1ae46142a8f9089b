"""Evaluates the logs of a comparison's runs: metrics, statistics, verdicts."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from classy_gc.commands.compare.report import (
    EPOCHS,
    Phase,
    power_sentence,
    scale,
    sentence,
)
from classy_gc.commands.compare.statistics import (
    detectable,
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


def run_metrics(phases: Sequence[Phase], target: Target | None = None) -> dict[str, Any]:
    """The metrics of one run.

    Args:
        phases: of its log, see :mod:`classy_gc.hooks.json_log`.
        target: (default: None)

    Returns:
        ``final test METER`` and ``best test METER`` of all epochs, ``final test loss``,
        ``final train loss``, ``seconds``, and with a target ``epochs to target``, None if the run
        never gets there. Numbers that are not finite are None; metrics that the log lacks are left
        out.

    Raises:
        ValueError: the target names a meter that the run does not have.

    Example:
        >>> train = {"phase": "train", "epoch": 1.0, "loss": 0.5, "meters": {}, "seconds": 2.0}
        >>> test = {"phase": "test", "epoch": 1.0, "loss": 0.6, "seconds": 1.0}
        >>> test["meters"] = {"accuracy": {"top_1": 0.9}}
        >>> run_metrics([train, test], Target("accuracy/top_1", 0.8))["epochs to target"]
        1.0
    """
    metrics: dict[str, Any] = {"seconds": sum(phase["seconds"] for phase in phases)}
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
        metrics[EPOCHS] = next(reached, None)
    return as_json(metrics)


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
    arms: Sequence[Mapping[str, Any]],
    headline: str,
    wanted: float | None = None,
    contrasts: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Statistics of every metric, and one sentence per arm on the headline.

    All metrics but the headline are only for information: whoever searches them for a difference
    will find one.

    Args:
        arms: dicts with the ``name``, the name of the ``baseline`` (None for a baseline),
            ``seeds``, how many there should be, and ``runs``, for each finished one its ``seed``
            and :func:`run_metrics`. Arms that are tested on the same samples as their baseline
            may have ``correct``, which samples are right by seed, see
            :class:`classy_gc.hooks.predictions.PredictionsHook`; it is left out of the result.
        headline: the metric to compare.
        wanted: size of a difference, to report how many seeds it needs (default: None)
        contrasts: of two arms, the second against the first; of four, the gain of the fourth over
            the third minus that of the second over the first (default: none)

    Returns:
        For ``results.json``: ``headline``, ``comparisons`` (the number of p-values in Holm's
        correction), ``contrasts``, and ``arms`` with more entries.
    """
    measured = (metric for arm in arms for run in arm["runs"] for metric in run)
    metrics = dict.fromkeys([headline, *measured])
    by_name = {arm["name"]: arm for arm in arms}
    compared = [(arm["baseline"], arm["name"]) for arm in arms if arm["baseline"]]
    told = tell(arms, headline, [*compared, *map(tuple, contrasts)], wanted)
    entries = []
    for arm in arms:
        own = {m: values(arm, m) for m in metrics if m not in ("seed", EPOCHS)}
        entry = {**arm, "spread": {m: spread(x.values()) for m, x in own.items()}}
        epochs = [run[EPOCHS] for run in arm["runs"] if EPOCHS in run]
        if epochs:
            middle = median(math.inf if x is None else x for x in epochs)
            entry[EPOCHS] = {"reached": len(epochs) - epochs.count(None), "median": middle}
        if arm["baseline"]:
            baseline = by_name[arm["baseline"]]
            entry |= told[arm["baseline"], arm["name"]]
            entry["difference"] = {
                m: paired_difference(values(baseline, m), x) for m, x in own.items()
            } | {headline: entry["difference"]}
            both = (one.get("correct", {}) for one in (baseline, arm))
            entry["mcnemar"] = disagreement(*both)
        entry.pop("correct", None)
        entries.append(entry)
    return as_json(
        {
            "headline": headline,
            "comparisons": sum(one["holm_p"] is not None for one in told.values()),
            "arms": entries,
            "contrasts": [{"arms": names, **told[tuple(names)]} for names in contrasts],
        }
    )


def values(arm: Mapping[str, Any], metric: str) -> dict[int, float]:
    """The values of a metric by seed, for the runs of an arm that have it."""
    runs = arm["runs"]
    return {run["seed"]: run[metric] for run in runs if run.get(metric) is not None}


def check_contrasts(contrasts: Iterable[Sequence[str]], arms: Iterable[str]) -> None:
    """Refuses a --contrast of unknown arms, or of neither two nor four.

    Raises:
        ValueError: with the fault.
    """
    for names in contrasts:
        check_known(names, arms, "--contrast", "arm")
        if len(names) not in (2, 4):
            raise ValueError(f"--contrast must have two arms or four, not {len(names)}")


def tell(
    arms: Sequence[Mapping[str, Any]],
    headline: str,
    compared: Iterable[tuple[str, ...]],
    wanted: float | None = None,
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Tests several differences at once.

    Args:
        arms: as in :func:`evaluate`.
        headline: the metric.
        compared: names of two arms each, or of four, as in its contrasts.
        wanted: size of a difference (default: None)

    Returns:
        For each, its ``difference``, with what is ``detectable`` among so many and, at the upper
        end of the standard deviation, ``detectable_high``; ``holm_p``, ``sign_flip_p``,
        ``verdict`` and ``power``.
    """
    results = {arm["name"]: values(arm, headline) for arm in arms}
    seeds = {arm["name"]: arm["seeds"] for arm in arms}
    form = scale(headline, [x for by_seed in results.values() for x in by_seed.values()])
    pairs = {}
    for names in compared:
        first, other, *rest = (results[name] for name in names)
        pairs[names] = (_minus(other, first), _minus(rest[1], rest[0])) if rest else (first, other)
    differences = {names: paired_difference(*pair) for names, pair in pairs.items()}
    adjusted = holm({names: difference.get("p") for names, difference in differences.items()})
    told = {}
    for names, difference in differences.items():
        if names in adjusted:
            for key, std in (("detectable", "std"), ("detectable_high", "std_high")):
                n = difference["pairs"]
                difference[key] = detectable(difference[std], n, len(adjusted))
        holm_p = adjusted.get(names)
        told[names] = {
            "difference": difference,
            "holm_p": holm_p,
            "sign_flip_p": None if holm_p is None else sign_flip(*pairs[names]),
            "verdict": sentence(difference, holm_p, max(seeds[name] for name in names), form),
        }
        if wanted is not None:
            told[names]["power"] = power_sentence(difference, wanted, form, len(adjusted))
    return told


def _minus(other: Mapping[int, float], first: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - first[seed] for seed, value in other.items() if seed in first}


def headline_of(metrics: Iterable[str], target: Target | None) -> str:
    """The metric to compare: the target's meter, else the first test meter, else a loss."""
    if target:
        return f"final test {target.meter}"
    metrics = list(metrics)
    meters = [m for m in metrics if m.startswith("final ") and "/" in m]
    losses = [m for m in ("final test loss", "final train loss") if m in metrics]
    return [*meters, *losses, "final train loss"][0]
