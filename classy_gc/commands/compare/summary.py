"""``classy-gc compare-summary``: prints and draws the differences of several comparisons."""

from __future__ import annotations

import argparse
import collections
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classy_gc.commands.compare.report import (
    Scale,
    cell,
    contrast_name,
    details,
    epochs_text,
    scale,
)
from classy_gc.commands.compare.results import check_contrasts, sides, tell
from classy_gc.commands.compare.statistics import CONFIDENCE, Difference, holm
from classy_gc.commands.flags import utf8
from classy_gc.plots import COLORS, new_figure, plain, tidy
from classy_gc.table import aligned

_COLUMNS = ("train loss", "gap", "epochs", "runs", "difference")
_LOSS = "final train loss"
_PLAIN = scale(_LOSS, [])


class Row(NamedTuple):
    """An arm that is compared with its baseline, or a contrast."""

    label: str
    difference: Difference
    p: float | None  #: after Holm's correction for all comparisons by the same metric


class Summary(NamedTuple):
    """The results of all comparisons by one metric."""

    headline: str
    form: Scale
    table: list[tuple[str, ...]]
    contrasts: list[str]  #: lines
    rows: list[Row]


def read(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Reads their ``results.json``, by distinct names, and adds the gap of each run.

    Args:
        folders: of ``classy-gc compare``, any folder with its ``results.json``, or that file.

    Raises:
        ValueError: two hold the same results, or one has none.
    """
    folders = [x.parent if x.name == "results.json" else x for x in folders]
    counts = collections.Counter(folder.name for folder in folders)
    evaluated: dict[str, dict[str, Any]] = {}
    for folder in folders:
        name = utf8(folder.name if counts[folder.name] == 1 else str(folder))
        file = folder / "results.json"
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            own = [(arm["name"], arm["runs"], arm["baseline"]) for arm in results["arms"]]
            results["headline"], results["seeds"]
            for run in (run for arm in results["arms"] for run in arm["runs"]):
                losses = [run.get(f"final {kind} loss") for kind in ("test", "train")]
                run["gap"] = None if None in losses else losses[0] - losses[1]
        except FileNotFoundError:
            raise ValueError(f"{folder} has no results.json of classy-gc compare") from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ValueError(f"{file} is not from classy-gc compare: {error!r}") from error
        for other, theirs in evaluated.items():
            if [(arm["name"], arm["runs"], arm["baseline"]) for arm in theirs["arms"]] == own:
                raise ValueError(f"{other} and {name} hold the same results, and count twice")
        evaluated[name] = results
    return evaluated


def summarize(
    comparisons: Mapping[str, Mapping[str, Any]], contrasts: Sequence[Sequence[str]]
) -> list[Summary]:
    """The summaries to print and draw, one per headline.

    Args:
        comparisons: results by name.
        contrasts: two or four arms each, named ``COMPARISON: ARM``.

    Raises:
        ValueError: an unknown arm, or a contrast of different headlines.
    """
    headlines = {
        f"{name}: {arm['name']}": results["headline"]
        for name, results in comparisons.items()
        for arm in results["arms"]
    }
    check_contrasts(contrasts, headlines)
    for names in contrasts:
        if len({headlines[name] for name in names}) > 1:
            raise ValueError(f"--contrast: {', '.join(names)} are compared by different metrics")
    summaries = []
    for headline in dict.fromkeys(headlines.values()):
        chosen = {n: r for n, r in comparisons.items() if r["headline"] == headline}
        own = [tuple(names) for names in contrasts if headlines[names[0]] == headline]
        summaries.append(_summary(headline, chosen, own))
    return summaries


def _summary(
    headline: str,
    comparisons: Mapping[str, Mapping[str, Any]],
    contrasts: Sequence[tuple[str, ...]],
) -> Summary:
    every = {
        f"{name}: {arm['name']}": {
            run["seed"]: run[headline] for run in arm["runs"] if run.get(headline) is not None
        }
        for name, results in comparisons.items()
        for arm in results["arms"]
    }
    form = scale(headline, [x for of_arm in every.values() for x in of_arm.values()])
    table: list[tuple[str, ...]] = [("comparison", "arm", headline, *_COLUMNS)]
    differences: dict[frozenset[frozenset[str]], tuple[str, Difference]] = {}
    for name, results in comparisons.items():
        seeds, arms = results["seeds"], results["arms"]
        pairs = [tuple(f"{name}: {arm[x]}" for x in ("baseline", "name")) for arm in arms]
        compared = [pair for pair, arm in zip(pairs, arms, strict=True) if arm["baseline"]]
        told = tell(every, compared, seeds, form)
        for pair, arm in zip(pairs, arms, strict=True):
            n = len(every[pair[1]])
            verdict = told[pair]["verdict"] if arm["baseline"] else "the baseline"
            cells = [cell(arm, headline, form), cell(arm, _LOSS, _PLAIN), cell(arm, "gap", _PLAIN)]
            table.append((name, arm["name"], *cells, epochs_text(arm), f"{n} of {seeds}", verdict))
            if arm["baseline"]:
                label = f"{pair[1]} against {arm['baseline']}"
                label += f" ({n} of {seeds} runs)" * (n < seeds)
                differences[sides(pair)] = label, Difference(**told[pair]["difference"])
    lines, seeds = [], max(results["seeds"] for results in comparisons.values())
    for names, entry in tell(every, contrasts, seeds, form).items():
        label = contrast_name(names)
        lines += [f"{label}: {entry['verdict']}", *details(entry)]
        differences.setdefault(sides(names), (label, Difference(**entry["difference"])))
    p = holm({names: difference.p for names, (_, difference) in differences.items()})
    rows = [Row(*labelled, p.get(names)) for names, labelled in differences.items()]
    return Summary(headline, form, table, lines, rows)


def picture(summaries: Sequence[Summary]) -> Any:
    """Draws one line per difference with its interval, and zero; one panel per headline.

    An open point has no interval. Arms without a pair are named below and not drawn.

    Args:
        summaries: from :func:`summarize`.

    Returns:
        A ``matplotlib`` Figure.
    """
    shown = [[row for row in x.rows if row.difference.pairs] for x in summaries]
    heights = [1.3 + 0.32 * len(rows) for rows in shown]
    figure = new_figure(12, sum(heights))
    panels = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, rows, (headline, form, *_, every) in zip(panels, shown, summaries, strict=True):
        axes.axvline(0, color="black", linewidth=1)
        for y, (_, difference, p) in enumerate(rows):
            _, mean, low, high, *_ = difference
            told = p is not None and p < 1 - CONFIDENCE
            style = {"color": COLORS[told], "linewidth": 2, "markersize": 6}
            if low is not None:
                axes.plot([form.factor * low, form.factor * high], [y, y], **style)
            fill = "none" if low is None else "full"
            axes.plot(form.factor * mean, y, "o" if told else "D", fillstyle=fill, **style)
        labels = [plain(textwrap.fill(row.label, 70)) for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        unit = f" in{form.difference_unit}" if form.difference_unit else ""
        lines = [f"{headline}: difference{unit}"]
        lines.append(f"{CONFIDENCE:.0%} interval; orange: stands after Holm among all of them")
        lines += [f"without results: {x.label}" for x in every if not x.difference.pairs]
        axes.set_xlabel(plain("\n".join(lines)))
        tidy(axes, grid="x")
    return figure


def run(args: argparse.Namespace) -> int:
    """Prints one line per arm, and draws the differences.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    summaries = summarize(read(args.folders), args.contrast)
    picture(summaries).savefig(args.output, dpi=150)
    for summary in summaries:
        print(aligned(summary.table))
        print("gap: test loss minus train loss; epochs: median until the target of the comparison")
        print(*summary.contrasts, sep="\n", end="\n" * bool(summary.contrasts))
        tested = [row for row in summary.rows if row.p is not None]
        told = [f"{row.label} {row.p:.2g}" for row in tested if row.p < 1 - CONFIDENCE]
        print(f"more than noise among all {len(tested)} differences together, p after Holm:")
        print(*(told or ["none"]), sep="\n")
    print(f"written to {args.output}")
    return 0
