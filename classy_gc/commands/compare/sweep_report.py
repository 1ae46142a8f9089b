"""What a sweep prints, draws and advises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classy_gc.commands.compare.arms import Arm
from classy_gc.commands.compare.results import lower_is_better
from classy_gc.commands.compare.statistics import CONFIDENCE
from classy_gc.commands.compare.sweep import Curves, Sweep, best_value, value_beyond
from classy_gc.commands.compare.words import Scale
from classy_gc.commands.flag_types import Target
from classy_gc.plots import COLORS, new_figure, plain, tidy
from classy_gc.table import aligned


def sweep_entry(
    sweep: Sweep, headline: str, curves: Curves, target: Target | None
) -> dict[str, Any]:
    """As ``results.json`` has it."""
    return {
        "key": sweep.key,
        "metric": headline.replace("final test", "final validation"),
        "arms": [
            {
                "name": name,
                "best": best_value(curve, headline, target),
                "at_edge": value_beyond(curve, headline, target) is not None,
                "points": [
                    {
                        "value": value,
                        "spread": point.spread._asdict(),
                        "runs": [{"seed": k, "result": x} for k, x in point.results.items()],
                        "failed": [{"seed": k, "reason": x} for k, x in point.failed.items()],
                    }
                    for value, point in sorted(curve.items())
                ],
            }
            for name, curve in curves.items()
        ],
    }


def sweep_text(
    sweep: Sweep, headline: str, curves: Curves, form: Scale, target: Target | None
) -> str:
    """A line for each value, a column for each arm, and the best of each."""
    values = sorted({value for curve in curves.values() for value in curve})
    metric = headline.replace("final test", "validation")
    lines = [[metric, *curves]]
    for value in values:
        cells = [curve[value].text(form) if value in curve else "" for curve in curves.values()]
        lines.append([f"{sweep.short}={value:g}", *cells])
    best = [best_value(curve, headline, target) for curve in curves.values()]
    lines.append(["best", *("none" if b is None else f"{b:g}" for b in best)])
    return aligned(lines, numbers=True)


def response_picture(
    sweep: Sweep, headline: str, curves: Curves, form: Scale, target: Target | None
) -> Any:
    """A line an arm over the values: mean, standard deviation, each seed; the best is filled.

    Values at which runs failed are crosses at the lower edge, with how many did.

    Returns:
        A ``matplotlib`` Figure.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    for i, (name, curve) in enumerate(curves.items()):
        best = best_value(curve, headline, target)
        shown = {v: p for v, p in sorted(curve.items()) if p.results}
        means = [form.factor * p.spread.mean for p in shown.values()]
        stds = [form.factor * (p.spread.std or 0) for p in shown.values()]
        color = COLORS[i % len(COLORS)]
        label = plain(f"{name}: best at {'none' if best is None else format(best, 'g')}")
        style = {"color": color, "marker": "o", "fillstyle": "none", "capsize": 3}
        axes.errorbar([*shown], means, stds, label=label, **style)
        for value, point in curve.items():
            for result in point.results.values():
                axes.plot(value, form.factor * result, ".", color=color, alpha=0.4)
            if point.failed:
                at_edge = {"transform": axes.get_xaxis_transform(), "color": color}
                axes.plot(value, 0.03 + 0.06 * i, "x", **at_edge)
                axes.text(value, 0.04 + 0.06 * i, f" {len(point.failed)} failed", **at_edge)
        if best in shown:
            axes.plot(best, form.factor * shown[best].spread.mean, "o", color=color)
    values = sorted({value for curve in curves.values() for value in curve})
    axes.set_xticks(values, [f"{value:g}" for value in values], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel(plain(sweep.key))
    axes.set_ylabel(plain(headline.replace("final test", "validation") + form.unit))
    tidy(axes)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def advice(results: Mapping[str, Any], families: Mapping[str, Sequence[Arm]]) -> str:
    """What a person should do, a sentence a family.

    Args:
        results: of the confirmation.
        families: family: its arms at the values that were confirmed, the baseline first.
    """
    target = results["target"] and Target(**results["target"])
    headline = results["headline"]
    sign = -1 if lower_is_better(headline, target) else 1
    entries = {arm["name"]: arm for arm in results["arms"]}
    sentences = []
    for baseline, *others in families.values():
        found = {arm.name: entries[arm.name] for arm in others}
        real = {
            name: sign * entry["difference"][headline]["mean"]
            for name, entry in found.items()
            if (entry["holm_p"] or 1) < 1 - CONFIDENCE
        }
        name = max(real, key=real.__getitem__, default=None)
        if name and real[name] > 0:
            chosen = f"Take {name}: it is better than {baseline.name}, the best value of that arm."
        elif real and len(real) == len(found):
            chosen = f"Stay with {baseline.name}: the others are worse."
        else:
            chosen = (
                f"Stay with {baseline.name}: with its best value no other arm can be told to be "
                "better."
            )
        sentences.append(chosen)
    return "\n".join(sentences)
