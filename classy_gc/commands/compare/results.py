"""What ``classy-gc compare`` makes of the logs of its runs: numbers, a table, sentences."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from types import MappingProxyType
from typing import Any

import numpy as np

from classy_gc.commands.compare.statistics import (
    disagreement,
    finite,
    holm,
    paired_difference,
    sign_flip,
    spread,
)
from classy_gc.commands.compare.words import Scale, power_sentence, scale, sentence
from classy_gc.commands.flag_types import Target
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


def evaluate(
    baselines: Mapping[str, str],
    phases: Runs,
    seeds: int,
    target: Target | None = None,
    correct: Mapping[str, Mapping[int, str]] = MappingProxyType({}),
    wanted: float | None = None,
    contrasts: Sequence[Sequence[str]] = (),
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
            :class:`classy_gc.hooks.predictions.PredictionsHook`; of arms that were tested on
            the same samples (default: none is known)
        wanted: size of a difference, to be told how many seeds it needs (default: None)
        contrasts: two arms each, to compare the second with the first; or four: how much more
            the fourth gains over the third than the second over the first (default: none)

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
        return {k: run[metric] for k, run in runs[arm].items() if metric in run}

    results = {arm: values(arm, headline) for arm in baselines}
    form = scale(headline, [v for of_arm in results.values() for v in of_arm.values()])
    arms = [arm for arm, baseline in baselines.items() if arm != baseline]
    compared = [*((baselines[arm], arm) for arm in arms), *map(tuple, contrasts)]
    told = tell(results, compared, seeds, form, wanted)
    averaged = [m for m in metrics if m != EPOCHS]
    entries = []
    for arm, baseline in baselines.items():
        entry = {
            "name": arm,
            "baseline": baseline if arm in arms else None,
            "runs": [{"seed": seed, **run} for seed, run in runs[arm].items()],
            "spread": {
                m: spread(list(finite(values(arm, m)).values()))._asdict() for m in averaged
            },
        }
        if target:
            entry[EPOCHS] = _reached(list(values(arm, EPOCHS).values()))
        if arm in arms:
            entry |= told[baseline, arm]
            entry["difference"] = {
                m: paired_difference(values(baseline, m), values(arm, m))._asdict()
                for m in averaged
            } | {headline: entry["difference"]}
            both = disagreement(correct.get(baseline, {}), correct.get(arm, {}))
            entry["mcnemar"] = both and both._asdict()
        entries.append(entry)
    return as_json(
        {
            "seeds": seeds,
            "headline": headline,
            "target": target and target._asdict(),
            "comparisons": sum(entry["holm_p"] is not None for entry in told.values()),
            "arms": entries,
            "contrasts": [{"arms": names, **told[names]} for names in compared[len(arms) :]],
        }
    )


def tell(
    results: Mapping[str, Mapping[int, float]],
    compared: Iterable[tuple[str, ...]],
    seeds: int,
    form: Scale,
    wanted: float | None = None,
) -> dict[tuple[str, ...], dict[str, Any]]:
    """What can be said of several differences at once.

    Args:
        results: arm: seed: value.
        compared: two arms each, or four, as the contrasts of :func:`evaluate`.
        seeds: how many pairs there should be.
        form: of the values.
        wanted: size of a difference (default: None)

    Returns:
        Of each its ``difference``, ``holm_p``, ``sign_flip_p``, ``verdict`` and ``power``.
    """
    pairs = {}
    for names in compared:
        first, other, *rest = (results[name] for name in names)
        pairs[names] = (_minus(other, first), _minus(rest[1], rest[0])) if rest else (first, other)
    found = {names: paired_difference(*pair) for names, pair in pairs.items()}
    tested = [names for names, difference in found.items() if difference.p is not None]
    adjusted = dict(zip(tested, holm([found[names].p for names in tested]), strict=True))
    told = {}
    for names, pair in pairs.items():
        difference = paired_difference(*pair, comparisons=max(1, len(tested)))
        told[names] = {
            "difference": difference._asdict(),
            "holm_p": adjusted.get(names),
            "sign_flip_p": sign_flip(*pair) if names in adjusted else None,
            "verdict": sentence(difference, adjusted.get(names), seeds, form),
        }
        if wanted is not None:
            told[names]["power"] = power_sentence(difference, wanted, form, max(1, len(tested)))
    return told


def _minus(other: Mapping[int, float], first: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - first[seed] for seed, value in other.items() if seed in first}


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
