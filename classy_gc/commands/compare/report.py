"""The text that ``classy-gc compare`` prints, and the rows of ``results.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classy_gc.commands.compare.results import EPOCHS, Phase
from classy_gc.commands.compare.statistics import CONFIDENCE, POWER, spread
from classy_gc.commands.compare.words import Scale, scale
from classy_gc.configuration.settings import value_text
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.table import aligned


def text(results: Mapping[str, Any]) -> str:
    """The table and sentences to print.

    Args:
        results: from :func:`evaluate`, with ``failed``.
    """
    arms, headline = results["arms"], results["headline"]
    lines = [*_table(results), "", f"{headline}, paired by seed"]
    for baseline in dict.fromkeys(arm["baseline"] for arm in arms if arm["baseline"]):
        lines.append(f"against {baseline}:")
        for arm in (a for a in arms if a["baseline"] == baseline):
            lines += [f"  {arm['name']}: {arm['verdict']}", *details(arm, headline)]
    for contrast in results.get("contrasts", []):
        lines += [f"{contrast_name(contrast['arms'])}: {contrast['verdict']}", *details(contrast)]
    lines += _notes(results)
    for failure in results["failed"]:
        lines.append(f"failed: {failure['arm']}, seed {failure['seed']}: {failure['reason']}")
        lines.append(f"  see {failure['folder']}/output.log")
    return "\n".join(lines)


def _table(results: Mapping[str, Any]) -> list[str]:
    """A table with one row per arm, and what its columns mean."""
    arms, headline, target = results["arms"], results["headline"], results["target"]
    best, loss = headline.replace("final", "best"), "final train loss"
    columns = {headline: "final", best: "best", loss: "train loss", "seconds": "seconds"}
    forms = {
        metric: scale(metric, [run.get(metric) for arm in arms for run in arm["runs"]])
        for metric in columns
        if any(metric in arm["spread"] for arm in arms)
    }
    epochs = ["epochs to target"] if target else []
    header = [headline.removeprefix("final "), *(columns[m] for m in forms), *epochs, "runs"]
    table = [header]
    for arm in arms:
        cells = [cell(arm, metric, form) for metric, form in forms.items()]
        cells += [epochs_text(arm)] if target else []
        table.append([arm["name"], *cells, f"{len(arm['runs'])} of {results['seeds']}"])
    best, sign = ("lowest", "≤") if results["lower_is_better"] else ("highest", "≥")
    lines = [
        aligned(table, numbers=True),
        f"mean ± standard deviation over seeds; best: the {best} of all epochs; (… of …): so many "
        "runs have a number",
    ]
    if target:
        lines.append(
            f"epochs to target: median until {target['meter']} {sign} {target['value']:g} (how "
            "many runs get there); those that never do count as later than all others"
        )
    return lines


def _notes(results: Mapping[str, Any]) -> list[str]:
    """How to read the intervals, and what weakens them."""
    comparisons, lines = results["comparisons"], []
    if comparisons:
        lines.append(
            f"(…) is the smallest difference that so many seeds find in {POWER:.0%} of all cases, "
            "if they spread as here, and if they spread as much as they may"
        )
        lines.append(f"[…] is the {CONFIDENCE:.0%} confidence interval of the paired t-test")
    if comparisons > 1:
        lines[-1] += (
            f", for one comparison alone; (…) and “more than noise” hold for all {comparisons} "
            "together (Holm)"
        )
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


def cell(arm: Mapping[str, Any], metric: str, form: Scale) -> str:
    """A metric of an arm in ``results.json``, as text for a table."""
    return form.spread(spread(run.get(metric) for run in arm["runs"]), len(arm["runs"]))


def epochs_text(arm: Mapping[str, Any]) -> str:
    """When an arm in ``results.json`` reaches the target, and how many of its runs do."""
    if EPOCHS not in arm:
        return "no target"
    if not arm["runs"]:
        return "–"
    median, reached = arm[EPOCHS]["median"], arm[EPOCHS]["reached"]
    return f"{'never' if median is None else format(median, 'g')} ({reached})"


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


def details(compared: Mapping[str, Any], headline: str = "") -> list[str]:
    """The lines below a verdict; ``headline`` names the metric of the verdict."""
    difference = compared["difference"]
    correlation = difference.get(headline, difference).get("correlation")
    lines = []
    if compared.get("sign_flip_p") is not None:
        lines.append(f"sign-flip test: p = {compared['sign_flip_p']:.2g}")
        if correlation is not None:
            lines[-1] += f"; correlation of the pairs: {correlation:.2f}".replace("-", "−")
    if both := compared.get("mcnemar"):
        lines.append(
            f"right where the other is wrong: {both['only_other']} test samples, the baseline: "
            f"{both['only_first']}, of {both['seeds']} seed{'s' * (both['seeds'] > 1)} (McNemar's "
            f"exact test: p = {both['p']:.2g})"
        )
    lines += [compared["power"]] if compared.get("power") else []
    return [f"    {line}" for line in lines]


def rows(
    settings: Mapping[str, Mapping[str, Any]], logs: Mapping[str, Mapping[int, Sequence[Phase]]]
) -> list[dict[str, Any]]:
    """The rows of ``results.csv``, one for each phase of each finished run.

    A setting with the name of a phase's column, such as ``loss``, becomes ``config.loss``.

    Args:
        settings: values by arm and dotted key.
        logs: the phases of a run by arm and seed.
    """
    return [
        {
            "arm": arm,
            **{
                f"config.{key}" if key in phase else key: value_text(value)
                for key, value in settings[arm].items()
            },
            "seed": seed,
            **{key: phase[key] for key in ("phase", "epoch", "loss", "seconds")},
            **flat_meters(phase["meters"]),
            **phase["options"],
        }
        for arm, runs in logs.items()
        for seed, log in runs.items()
        for phase in log
    ]
