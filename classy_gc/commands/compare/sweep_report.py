"""The text, picture and advice of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classy_gc.commands.compare.arms import Arm, families
from classy_gc.commands.compare.results import lower_is_better
from classy_gc.commands.compare.statistics import CONFIDENCE
from classy_gc.commands.compare.sweep import Response
from classy_gc.commands.flag_types import Target
from classy_gc.plots import COLORS, new_figure, plain, tidy
from classy_gc.table import aligned


def sweep_entry(response: Response) -> dict[str, Any]:
    """The entry of ``results.json``."""
    arms = [
        {
            "name": name,
            "best": response.best(name),
            "at_edge": response.beyond(name) is not None,
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
        for name, curve in response.curves.items()
    ]
    metric = response.headline.replace("final test", "final validation")
    return {"key": response.sweep.key, "metric": metric, "arms": arms}


def _best_text(response: Response, arm: str) -> str:
    best = response.best(arm)
    return "none" if best is None else f"{best:g}"


def _values(response: Response) -> list[float]:
    return sorted({value for curve in response.curves.values() for value in curve})


def sweep_text(response: Response) -> str:
    """A table with one line per value and one column per arm, and the best of each."""
    form, curves = response.form, response.curves
    lines = [[response.metric, *curves]]
    for value in _values(response):
        cells = [curve[value].text(form) if value in curve else "" for curve in curves.values()]
        lines.append([f"{response.sweep.short}={value:g}", *cells])
    lines.append(["best", *(_best_text(response, arm) for arm in curves)])
    return aligned(lines, numbers=True)


def response_picture(response: Response) -> Any:
    """Draws one line per arm over the values: mean, standard deviation, each seed; the best is
    filled.

    Values at which runs failed are crosses at the lower edge, with the number of failures.

    Returns:
        A ``matplotlib`` Figure.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    form = response.form
    for i, (name, curve) in enumerate(response.curves.items()):
        shown = {v: p for v, p in sorted(curve.items()) if p.results}
        means = [form.factor * p.spread.mean for p in shown.values()]
        stds = [form.factor * (p.spread.std or 0) for p in shown.values()]
        color = COLORS[i % len(COLORS)]
        label = plain(f"{name}: best at {_best_text(response, name)}")
        style = {"color": color, "marker": "o", "fillstyle": "none", "capsize": 3}
        axes.errorbar([*shown], means, stds, label=label, **style)
        best = response.best(name)
        if best is not None:
            axes.plot(best, form.factor * shown[best].spread.mean, "o", color=color)
        for value, point in curve.items():
            results = [form.factor * x for x in point.results.values()]
            axes.plot([value] * len(results), results, ".", color=color, alpha=0.4)
            if point.failed:
                at_edge = {"transform": axes.get_xaxis_transform(), "color": color}
                axes.plot(value, 0.03 + 0.06 * i, "x", **at_edge)
                axes.text(value, 0.04 + 0.06 * i, f" {len(point.failed)} failed", **at_edge)
    values = _values(response)
    axes.set_xticks(values, [f"{value:g}" for value in values], rotation=45)
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
    headline, target = results["headline"], results["target"]
    sign = -1 if lower_is_better(headline, target and Target(**target)) else 1
    entries = {arm["name"]: arm for arm in results["arms"]}
    sentences = []
    for baseline, *others in families(arms).values():
        found = [entries[arm.name] for arm in others]
        told = [x for x in found if x["holm_p"] is not None and x["holm_p"] < 1 - CONFIDENCE]
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
