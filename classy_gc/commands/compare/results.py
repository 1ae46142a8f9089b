"""Evaluates the logs of a comparison's runs, and tells its numbers and differences."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from classy_gc.commands.compare import statistics
from classy_gc.commands.compare.runs import Run
from classy_gc.commands.compare.statistics import CONFIDENCE, POWER, more_than_noise
from classy_gc.commands.flags import Target
from classy_gc.configuration.load import value_text
from classy_gc.hooks.json_log import as_json
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.options import check_known
from classy_gc.table import aligned, counted

EPOCHS = "epochs to target"

Phase = Mapping[str, Any]  #: a line of ``log.jsonl``


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

    Example:
        >>> train = {"phase": "train", "epoch": 1.0, "loss": 0.5, "meters": {}, "seconds": 2.0}
        >>> test = {"phase": "test", "epoch": 1.0, "loss": 0.6, "seconds": 1.0}
        >>> test["meters"] = {"accuracy": {"top_1": 0.9}}
        >>> run_metrics([train, test], Target("accuracy/top_1", 0.8))["epochs to target"]
        1.0
    """
    metrics: dict[str, Any] = {"seconds": sum(phase["seconds"] for phase in phases)}
    metrics |= {f"final {phase['phase']} loss": phase["loss"] for phase in phases}  # the last one
    tests = [(p["epoch"], flat_meters(p["meters"])) for p in phases if p["phase"] == "test"]
    last = tests[-1][1] if tests else {}
    for meter in last:
        values = np.array([meters[meter] for _, meters in tests], dtype=float)  # None is NaN
        lower = lower_is_better(f"best test {meter}", target)
        best = (np.fmin if lower else np.fmax).reduce(values)  # ignores NaN if there is a number
        metrics |= {f"final test {meter}": values[-1], f"best test {meter}": float(best)}
    if target:
        values = np.array([meters.get(target.meter) for _, meters in tests], dtype=float)
        reached = values <= target.value if target.lower else values >= target.value
        metrics[EPOCHS] = next((tests[i][0] for i in np.flatnonzero(reached)), None)
    return as_json(metrics)


def lower_is_better(metric: str, target: Target | None = None) -> bool:
    """Whether lower is better: for losses, and for the meter of a target ``METER<=VALUE``.

    Example:
        >>> lower_is_better("final test loss"), lower_is_better("final test accuracy/top_1")
        (True, False)
    """
    of_target = target is not None and metric.endswith(f" test {target.meter}")
    return target.lower if of_target else "/" not in metric


def evaluate(
    arms: Sequence[Mapping[str, Any]],
    headline: str,
    wanted: float | None = None,
    contrasts: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """The spread of every metric, and the differences of the headline with one sentence each.

    Of other metrics no difference is tested: whoever searches them for one will find it.

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
    metrics = [m for m in dict.fromkeys([headline, *measured]) if m not in ("seed", EPOCHS)]
    compared = [(arm["baseline"], arm["name"]) for arm in arms if arm["baseline"]]
    told = tell(arms, headline, [*compared, *map(tuple, contrasts)], wanted)
    correct = {arm["name"]: arm.get("correct", {}) for arm in arms}
    entries = []
    for arm in arms:
        entry = {key: value for key, value in arm.items() if key != "correct"}
        spreads = {m: [run.get(m) for run in arm["runs"]] for m in metrics}
        entry["spread"] = {m: statistics.spread(values) for m, values in spreads.items()}
        epochs = [run[EPOCHS] for run in arm["runs"] if EPOCHS in run]
        if epochs:
            middle = np.median([math.inf if x is None else x for x in epochs])
            entry[EPOCHS] = {"reached": len(epochs) - epochs.count(None), "median": middle}
        if arm["baseline"]:
            entry |= told[arm["baseline"], arm["name"]]
            both = correct[arm["baseline"]], correct[arm["name"]]
            entry["mcnemar"] = statistics.disagreement(*both)
        entries.append(entry)
    evaluated = {
        "headline": headline,
        "comparisons": sum(one["holm_p"] is not None for one in told.values()),
        "arms": entries,
        "contrasts": [{"arms": names, **told[tuple(names)]} for names in contrasts],
    }
    return as_json(evaluated)


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
    seeds = sorted({run["seed"] for arm in arms for run in arm["runs"]})
    results, planned = {}, {}
    for arm in arms:
        by_seed = {run["seed"]: run.get(headline) for run in arm["runs"]}
        results[arm["name"]] = np.array([by_seed.get(seed) for seed in seeds], dtype=float)
        planned[arm["name"]] = arm["seeds"]
    form = scale(headline, np.concatenate([*results.values()]))
    pairs = {}
    for names in compared:
        first, other, *rest = (results[name] for name in names)
        pairs[names] = (other - first, rest[1] - rest[0]) if rest else (first, other)
    differences = {names: statistics.paired_difference(*pair) for names, pair in pairs.items()}
    adjusted = statistics.holm({names: x.get("p") for names, x in differences.items()})
    told = {}
    for names, difference in differences.items():
        holm_p, flip_p = adjusted.get(names), None
        if holm_p is not None:
            for key, std in (("detectable", "std"), ("detectable_high", "std_high")):
                spread = difference[std]
                difference[key] = statistics.detectable(spread, difference["pairs"], len(adjusted))
            first, other = pairs[names]
            flip_p = statistics.sign_flip(other - first)
        verdict = sentence(difference, holm_p, max(planned[name] for name in names), form)
        told[names] = {
            "difference": difference,
            "holm_p": holm_p,
            "sign_flip_p": flip_p,
            "verdict": verdict,
        }
        if wanted is not None:
            told[names]["power"] = power_sentence(difference, wanted, form, len(adjusted))
    return told


def headline_of(runs: Iterable[Mapping[str, Any]], target: Target | None) -> str:
    """The metric to compare: the target's meter, else the first test meter, else a loss.

    Args:
        runs: metrics of each, see :func:`run_metrics`.
        target: None if there is none.
    """
    if target:
        return f"final test {target.meter}"
    metrics = [metric for run in runs for metric in run]
    meters = [m for m in metrics if m.startswith("final ") and "/" in m]
    losses = [m for m in ("final test loss", "final train loss") if m in metrics]
    return [*meters, *losses, "final train loss"][0]


class Scale(NamedTuple):
    """How a metric is printed: unchanged, or as a percentage if it is a share."""

    factor: float
    digits: str
    unit: str
    difference_unit: str

    def value(self, x: float | None, sign: str = "") -> str:
        """A number, or a dash for None."""
        # A hyphen before the end of an interval would read as a range.
        return "–" if x is None else format(self.factor * x, sign + self.digits).replace("-", "−")

    def spread(self, values: Sequence[float | None]) -> str:
        """Mean ± standard deviation with the unit, and how many are numbers if not all are."""
        x = statistics.spread(values)
        std = "" if x["std"] is None else f" ± {self.value(x['std'])}"
        unit = self.unit if x["n"] else ""
        lack = f" ({x['n']} of {len(values)})" if x["n"] < len(values) else ""
        return f"{self.value(x['mean'])}{std}{unit}{lack}"


def scale(metric: str, values: Iterable[float | None]) -> Scale:
    """The scale of a metric: meters in [0, 1] are shares; everything else is printed unchanged.

    Args:
        metric: its name.
        values: of all runs; those that are not finite do not count.

    Example:
        >>> scale("final test accuracy/top_1", [0.5, 0.75]).spread([0.5, 0.75])
        '62.50 ± 17.68 %'
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if "/" in metric and all(0 <= value <= 1 for value in finite):
        return Scale(100, ".2f", " %", " points")
    return Scale(1, ".1f", "", "") if metric == "seconds" else Scale(1, ".4g", "", "")


def sentence(difference: Mapping[str, Any], holm_p: float | None, seeds: int, form: Scale) -> str:
    """Whether a difference can be told from noise, in words.

    Args:
        difference: from :func:`paired_difference`.
        holm_p: its p after :func:`holm`; None if it has none.
        seeds: how many pairs there would be if every run had finished.
        form: of the metric.

    Example:
        >>> form = scale("final test accuracy/top_1", [0.9])
        >>> difference = {"pairs": 5, "mean": 0.0012, "low": -0.0005, "high": 0.0029, "p": 0.12}
        >>> difference |= {"detectable": 0.0024, "detectable_high": 0.0071}
        >>> sentence(difference, 0.12, 5, form)
        '+0.12 points [−0.05, +0.29] (0.24 to 0.71) over 5 seeds: cannot be told from noise'
    """
    n = difference["pairs"]
    if not n:
        return "no seed has a value in both arms, so there is nothing to compare"
    pairs = f"over {counted(n, 'seed')}"
    if n < seeds:
        pairs += f" ({n} of {seeds} pairs)"
    text = f"{form.value(difference['mean'], '+')}{form.difference_unit}"
    if holm_p is None:
        return f"{text} {pairs}: without a spread over seeds there is no test"
    low, high = (form.value(difference[key], "+") for key in ("low", "high"))
    least, most = (form.value(difference[key]) for key in ("detectable", "detectable_high"))
    text += f" [{low}, {high}] ({least} to {most}) {pairs}: "
    if more_than_noise(holm_p):
        return f"{text}more than noise (p = {holm_p:.2g})"
    if more_than_noise(difference["p"]):
        return f"{text}cannot be told from noise among so many comparisons (p = {holm_p:.2g})"
    return f"{text}cannot be told from noise"


def power_sentence(
    difference: Mapping[str, Any], wanted: float, form: Scale, comparisons: int = 1
) -> str | None:
    """How many seeds a difference of a size would need; None without a spread.

    Args:
        difference: the one that was found, with its spread.
        wanted: size, in the printed unit.
        form: of the metric.
        comparisons: how many are made at once (default: 1).

    Example:
        >>> form = scale("final test accuracy/top_1", [0.9])
        >>> power_sentence({"std": 0.0014, "std_high": 0.0041}, 0.1, form)
        'a difference of 0.1 points needs 18 seeds, or 134 if they spread as much as they may'
    """
    if "std" not in difference:
        return None
    size, stds = wanted / form.factor, (difference["std"], difference["std_high"])
    needed = [statistics.pairs_needed(size, std, comparisons) for std in stds]
    few, many = (f"{n:,}" if n else "more than a million" for n in needed)
    text = f"a difference of {wanted:g}{form.difference_unit} needs {few} seeds"
    return f"{text}, or {many} if they spread as much as they may"


def text(results: Mapping[str, Any]) -> str:
    """The table and sentences to print.

    Args:
        results: from :func:`evaluate`; ``failed``, ``looks`` and ``provenance`` may be added.
    """
    arms, headline = results["arms"], results["headline"]
    lines = [*_table(arms, headline), "", f"{headline}, paired by seed"]
    for baseline in dict.fromkeys(arm["baseline"] for arm in arms if arm["baseline"]):
        lines.append(f"against {baseline}:")
        for arm in (a for a in arms if a["baseline"] == baseline):
            lines += [f"  {arm['name']}: {arm['verdict']}", *_details(arm)]
    for contrast in results["contrasts"]:
        name = contrast_name(contrast["arms"])
        lines += [f"{name}: {contrast['verdict']}", *_details(contrast)]
    lines += [*_notes(results), *failure_lines(results.get("failed", []))]
    return "\n".join(lines)


def failure_lines(failed: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each run that failed: why, and where to read more.

    Args:
        failed: entries of ``failed`` in ``results.json``.

    Example:
        >>> failure_lines([{"arm": "a", "seed": 0, "reason": "exit code 1", "folder": "runs/a"}])
        ['failed: a, seed 0: exit code 1, see runs/a/output.log']
    """
    line = "failed: {arm}, seed {seed}: {reason}, see {folder}/output.log"
    return [line.format(**run) for run in failed]


def _table(arms: Sequence[Mapping[str, Any]], headline: str) -> list[str]:
    """A table with one row per arm, and what its columns mean."""
    metrics = (headline, headline.replace("final", "best"), "final train loss", "gap", "seconds")
    columns = dict(zip(metrics, ("final", "best", "train loss", "gap", "seconds"), strict=True))
    forms = {
        metric: scale(metric, [run.get(metric) for arm in arms for run in arm["runs"]])
        for metric in columns
        if any(metric in arm["spread"] for arm in arms)
    }
    header = [headline.removeprefix("final "), *(columns[metric] for metric in forms)]
    table = [[*header, EPOCHS, "runs"]]
    for arm in arms:
        runs = arm["runs"]
        cells = [form.spread([run.get(m) for run in runs]) for m, form in forms.items()]
        table.append([arm["name"], *cells, _epochs(arm), f"{len(runs)} of {arm['seeds']}"])
    gap = "; gap: test loss minus train loss" if "gap" in forms else ""
    return [
        aligned(table, numbers=True),
        "mean ± standard deviation over seeds, (… of …) where runs have no number; best: of all "
        f"epochs{gap}",
        "epochs to target: median (how many runs get there), where never is later than all others",
    ]


def _epochs(arm: Mapping[str, Any]) -> str:
    if EPOCHS not in arm:
        return "–"
    median, reached = arm[EPOCHS]["median"], arm[EPOCHS]["reached"]
    return f"{'never' if median is None else format(median, 'g')} ({reached})"


def _notes(results: Mapping[str, Any]) -> list[str]:
    """How to read the intervals, and what weakens them."""
    comparisons, lines = results["comparisons"], []
    if comparisons:
        lines += [
            f"[…] is the {CONFIDENCE:.0%} confidence interval of the paired t-test, for one "
            "comparison alone",
            f"(…) is the smallest difference that so many seeds find in {POWER:.0%} of all cases, "
            "if they spread as here, and if they spread as much as they may",
            "(…) and “more than noise” are corrected for "
            f"{counted(comparisons, 'comparison')} (Holm)",
        ]
    if len(results.get("looks", [])) > 1:
        looks = ", ".join(map(str, results["looks"]))
        lines.append(
            f"looked at with {looks} seeds: p and intervals hold for a number that was chosen "
            "beforehand, and noise passes for real more often than in 5% of all cases"
        )
    if len(results.get("provenance", [])) > 1:
        lines.append("not all runs were computed alike, and other bits may be other results:")
        lines += [f"  {', '.join(f'{k} {v}' for k, v in x.items())}" for x in results["provenance"]]
    return lines


def contrast_name(names: Sequence[str]) -> str:
    """The name of a comparison of two or four arms.

    Example:
        >>> contrast_name(["off", "on"])
        'on against off'
    """
    first, other, *rest = names
    if not rest:
        return f"{other} against {first}"
    return f"gain of {rest[1]} over {rest[0]}, less that of {other} over {first}"


def _details(compared: Mapping[str, Any]) -> list[str]:
    """The lines below a verdict."""
    difference, lines = compared["difference"], []
    if compared["sign_flip_p"] is not None:
        lines.append(f"sign-flip test: p = {compared['sign_flip_p']:.2g}")
        if difference["correlation"] is not None:
            correlation = f"{difference['correlation']:.2f}".replace("-", "−")
            lines[-1] += f"; correlation of the pairs: {correlation}"
    both = compared.get("mcnemar")
    if both:
        lines.append(
            f"right where the other is wrong: {both['only_other']} test samples, the baseline: "
            f"{both['only_first']}, of {counted(both['seeds'], 'seed')} (McNemar's exact test: "
            f"p = {both['p']:.2g})"
        )
    if compared.get("power"):
        lines.append(compared["power"])
    return [f"    {line}" for line in lines]


def phase_table(
    settings: Mapping[str, Mapping[str, Any]], logs: Mapping[Run, Sequence[Phase]]
) -> Any:
    """The table of ``results.csv``, with a row for each phase of each finished run.

    Args:
        settings: values by arm and dotted key; their columns begin with ``config.``.
        logs: the phases of each run.

    Returns:
        A ``pandas`` DataFrame.
    """
    import pandas as pd

    columns = ["arm", "seed", "phase", "epoch", "loss", "seconds"]
    table = [
        {
            "arm": arm,
            **{f"config.{key}": value_text(value) for key, value in own.items()},
            "seed": run.seed,
            **{key: phase[key] for key in columns[2:]},
            **flat_meters(phase["meters"]),
            **phase["options"],
        }
        for arm, own in settings.items()
        for run, log in logs.items()
        if run.arm == arm
        for phase in log
    ]
    return pd.DataFrame(table) if table else pd.DataFrame(columns=columns)
