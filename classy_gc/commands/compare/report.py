"""What ``classy-gc compare`` prints of its results, and the rows of ``results.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classy_gc.commands.compare.results import EPOCHS, Runs, scale
from classy_gc.commands.compare.statistics import CONFIDENCE, POWER, Disagreement, Spread
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.table import aligned


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
        for arm in (a for a in arms if a["baseline"] == baseline):
            lines.append(f"  {arm['name']}: {arm['verdict']}")
            lines += [f"    {line}" for line in (_mcnemar(arm), arm.get("power")) if line]
    if results["comparisons"]:
        lines.append(
            f"(…) is the smallest difference that so many seeds find in {POWER:.0%} of all cases, "
            "if they spread as here"
        )
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


def _mcnemar(arm: Mapping[str, Any]) -> str | None:
    if not arm.get("mcnemar"):
        return None
    seeds, first, other, p = Disagreement(**arm["mcnemar"])
    return (
        f"right here alone: {other} test samples, there alone: {first}, of {seeds} "
        f"seed{'s' * (seeds > 1)} (McNemar's exact test: p = {p:.2g})"
    )


def rows(settings: Mapping[str, Mapping[str, Any]], phases: Runs) -> list[dict[str, Any]]:
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
