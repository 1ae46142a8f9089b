"""``classy-gc compare-summary``: the differences of several comparisons, and a picture of them."""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classy_gc.commands.compare.report import details, epochs_text
from classy_gc.commands.compare.results import tell
from classy_gc.commands.compare.statistics import CONFIDENCE, Difference, finite, holm, spread
from classy_gc.commands.compare.words import Scale, scale
from classy_gc.options import check_known
from classy_gc.plots import COLORS, new_figure, plain, tidy
from classy_gc.table import aligned


class Row(NamedTuple):
    """An arm of a comparison, or a contrast."""

    label: str
    told: Mapping[str, Any] | None  #: of :func:`tell`; None for a baseline
    cells: Sequence[str] = ()  #: of the table; none for a contrast

    @property
    def difference(self) -> Difference:
        """To the baseline; without a pair for a baseline."""
        return Difference(**self.told["difference"]) if self.told else Difference(0)


def read(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Their ``results.json`` by names that tell them apart.

    Args:
        folders: of ``classy-gc compare``, or what has its ``results.json``, or that file.

    Raises:
        ValueError: two hold the same results, or one has none.
    """
    folders = [x.parent if x.name == "results.json" else x for x in folders]
    counts = collections.Counter(folder.name for folder in folders)
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        name = folder.name if counts[folder.name] == 1 else str(folder)
        file = folder / "results.json"
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            runs = [[arm["name"], arm["runs"], arm["baseline"]] for arm in results["arms"]]
            results["headline"], results["seeds"]
        except FileNotFoundError:
            raise ValueError(f"{folder} has no results.json of classy-gc compare") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} is not of classy-gc compare: {error!r}") from error
        for other, theirs in found.items():
            if [[arm["name"], arm["runs"], arm["baseline"]] for arm in theirs["arms"]] == runs:
                raise ValueError(f"{other} and {name} hold the same results, and would count twice")
        found[name] = results
    return found


def values(results: Mapping[str, Any], metric: str) -> dict[str, dict[int, float]]:
    """Arm: seed: value of the runs that have a number."""
    return {
        arm["name"]: finite({run["seed"]: run.get(metric) for run in arm["runs"]})
        for arm in results["arms"]
    }


def summarize(
    comparisons: Mapping[str, Mapping[str, Any]], contrasts: Sequence[Sequence[str]]
) -> dict[str, tuple[Scale, list[Row]]]:
    """What is printed and drawn of each headline.

    Args:
        comparisons: name: its results.
        contrasts: of arms by their names, ``COMPARISON: ARM``, two or four each.

    Raises:
        ValueError: an arm that is not there, or contrasts of different headlines.
    """
    summary = {}
    for headline in dict.fromkeys(results["headline"] for results in comparisons.values()):
        chosen = {n: r for n, r in comparisons.items() if r["headline"] == headline}
        every = {
            f"{name}: {arm}": found
            for name, results in chosen.items()
            for arm, found in values(results, headline).items()
        }
        form = scale(headline, [x for found in every.values() for x in found.values()])
        rows = [row for name, results in chosen.items() for row in _rows(name, results, form)]
        for names in contrasts:
            check_known(names, every, "--contrast", "arm")
        told = tell(every, map(tuple, contrasts), max(r["seeds"] for r in chosen.values()), form)
        for (first, other, *rest), entry in told.items():
            label = f"{other} against {first}"
            if rest:
                label = f"gain of {rest[1]} over {rest[0]}, less that of {other} over {first}"
            rows.append(Row(label, entry))
        summary[headline] = form, rows
    return summary


def _rows(name: str, results: Mapping[str, Any], form: Scale) -> list[Row]:
    headline, seeds = results["headline"], results["seeds"]
    found, losses = values(results, headline), values(results, "final train loss")
    tests = values(results, "final test loss")
    baselines = {arm["name"]: arm["baseline"] for arm in results["arms"]}
    compared = [(baseline, arm) for arm, baseline in baselines.items() if baseline]
    told = tell(found, compared, seeds, form)
    rows = []
    for arm in results["arms"]:
        key, runs = arm["name"], len(arm["runs"])
        gaps = [tests[key][seed] - loss for seed, loss in losses[key].items() if seed in tests[key]]
        entry = told.get((arm["baseline"], key))
        cells = (
            name,
            key,
            form.spread(spread(list(found[key].values())), runs),
            scale("loss", []).spread(spread(list(losses[key].values())), runs),
            scale("loss", []).spread(spread(gaps), runs),
            epochs_text(arm),
            f"{len(found[key])} of {seeds}",
            entry["verdict"] if entry else "the baseline",
        )
        lack = f" ({len(found[key])} of {seeds} runs)" if len(found[key]) < seeds else ""
        rows.append(Row(f"{name}: {key} against {arm['baseline']}{lack}", entry, cells))
    return rows


def adjusted(rows: Sequence[Row]) -> list[float | None]:
    """The p of each row where all of them count as made at once."""
    tested = [row.difference.p for row in rows if row.difference.p is not None]
    after = iter(holm(tested))
    return [None if row.difference.p is None else next(after) for row in rows]


def picture(summary: Mapping[str, tuple[Scale, Sequence[Row]]]) -> Any:
    """A line a difference with its interval, zero marked; a panel a headline.

    An open point has no interval. Arms without a pair are named below and not drawn.

    Args:
        summary: of :func:`summarize`.

    Returns:
        A ``matplotlib`` Figure.
    """
    shown = {
        headline: [
            (row, p)
            for row, p in zip(rows, adjusted(rows), strict=True)
            if row.difference.mean is not None
        ]
        for headline, (_, rows) in summary.items()
    }
    heights = [1.3 + 0.32 * len(rows) for rows in shown.values()]
    figure = new_figure(12, sum(heights))
    panels = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (headline, rows) in zip(panels, shown.items(), strict=True):
        form, every = summary[headline]
        axes.axvline(0, color="black", linewidth=1)
        for y, (row, p) in enumerate(rows):
            _, mean, low, high, *_ = row.difference
            told = p is not None and p < 1 - CONFIDENCE
            style = {"color": COLORS[told], "linewidth": 2, "markersize": 6}
            if low is not None:
                axes.plot([form.factor * low, form.factor * high], [y, y], **style)
            fill = "none" if low is None else "full"
            axes.plot(form.factor * mean, y, "o" if told else "D", fillstyle=fill, **style)
        axes.set_yticks(range(len(rows)), [plain(row.label) for row, _ in rows])
        axes.invert_yaxis()
        unit = f" in{form.difference_unit}" if form.difference_unit else ""
        lines = [f"{headline}: difference{unit}"]
        lines.append(f"{CONFIDENCE:.0%} interval; orange: stands after Holm among all of them")
        lines += [f"without results: {x.label}" for x in every if x.told and not x.difference.pairs]
        axes.set_xlabel(plain("\n".join(lines)))
        tidy(axes, grid="x")
    return figure


def run(args: argparse.Namespace) -> int:
    """Prints a line an arm, and draws how they differ.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    summary = summarize(read(args.folders), args.contrast)
    picture(summary).savefig(args.output, dpi=150)
    for headline, (_, rows) in summary.items():
        header = (
            "comparison",
            "arm",
            headline,
            "train loss",
            "gap",
            "epochs",
            "runs",
            "difference",
        )
        print(aligned([header, *(row.cells for row in rows if row.cells)]))
        print("gap: test loss less train loss; epochs: median until the target of the comparison")
        for row in rows:
            if not row.cells:
                print(f"{row.label}: {row.told['verdict']}", *details(row.told), sep="\n")
        after = adjusted(rows)
        told = [
            f"{row.label} {p:.2g}"
            for row, p in zip(rows, after, strict=True)
            if p is not None and p < 1 - CONFIDENCE
        ]
        number = len(after) - after.count(None)
        print(f"more than noise among all {number} differences together, p after Holm:")
        print(*(told or ["none"]), sep="\n")
    print(f"written to {args.output}")
    return 0
