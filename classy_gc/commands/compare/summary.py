"""``classy-gc compare-summary``: prints and draws the differences of several comparisons."""

import argparse
import collections
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classy_gc.commands.compare.results import (
    check_contrasts,
    contrast_name,
    evaluate,
    scale,
    tell,
    text,
)
from classy_gc.commands.compare.statistics import CONFIDENCE
from classy_gc.commands.flags import utf8
from classy_gc.plots import COLORS, new_figure, plain, tidy


def read(folders: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Reads the arms of their ``results.json``, each as ``COMPARISON: ARM``.

    Args:
        folders: of ``classy-gc compare``, any folder with its ``results.json``, or that file.

    Returns:
        For each headline its arms, as :func:`evaluate` takes them, with the gap of each run.

    Raises:
        ValueError: two hold the same results, or one has none.
    """
    folders = [x.parent if x.name == "results.json" else x for x in folders]
    counts = collections.Counter(folder.name for folder in folders)
    by_headline: dict[str, list[dict[str, Any]]] = {}
    names: dict[str, str] = {}
    for folder in folders:
        name = utf8(folder.name if counts[folder.name] == 1 else str(folder))
        file = folder / "results.json"
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            arms = [_arm(name, arm, results["seeds"]) for arm in results["arms"]]
            headline = results["headline"]
        except FileNotFoundError:
            raise ValueError(f"{folder} has no results.json of classy-gc compare") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is not from classy-gc compare: {error!r}") from error
        content = json.dumps(results["arms"])
        if content in names:
            raise ValueError(f"{names[content]} and {name} hold the same results, and count twice")
        names[content] = name
        by_headline.setdefault(headline, []).extend(arms)
    return by_headline


def _arm(comparison: str, arm: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """An arm of ``results.json`` with the gap of each run."""
    runs = [{**run} for run in arm["runs"]]
    for run in runs:
        test, train = run.get("final test loss"), run.get("final train loss")
        if None not in (test, train):
            run["gap"] = test - train
    baseline = arm["baseline"] and f"{comparison}: {arm['baseline']}"
    name = f"{comparison}: {arm['name']}"
    return {"name": name, "baseline": baseline, "seeds": seeds, "runs": runs}


def summarize(
    by_headline: Mapping[str, Sequence[Mapping[str, Any]]], contrasts: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Evaluates all comparisons by one metric together; the contrasts are corrected on their own.

    Args:
        by_headline: from :func:`read`.
        contrasts: two or four arms each, named ``COMPARISON: ARM``.

    Returns:
        :func:`evaluate` of each headline.

    Raises:
        ValueError: an unknown arm, or a contrast of different headlines.
    """
    headlines = {arm["name"]: x for x, arms in by_headline.items() for arm in arms}
    check_contrasts(contrasts, headlines)
    for names in contrasts:
        if len({headlines[name] for name in names}) > 1:
            raise ValueError(f"--contrast: {', '.join(names)} are compared by different metrics")
    summaries = []
    for headline, arms in by_headline.items():
        own = [tuple(names) for names in contrasts if headlines[names[0]] == headline]
        told = tell(arms, headline, own)
        summaries.append(evaluate(arms, headline))
        summaries[-1]["contrasts"] = [{"arms": names, **told[names]} for names in told]
    return summaries


def picture(summaries: Sequence[Mapping[str, Any]]) -> Any:
    """Draws one line per difference with its interval, and zero; one panel per headline.

    An open point has no interval. Arms without a pair are named below and not drawn.

    Args:
        summaries: from :func:`summarize`.

    Returns:
        A ``matplotlib`` Figure.
    """
    drawn = [_drawn(summary) for summary in summaries]
    heights = [1.3 + 0.32 * len(lines) for lines, _ in drawn]
    figure = new_figure(12, sum(heights))
    panels = figure.subplots(len(drawn), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (lines, below), summary in zip(panels, drawn, summaries, strict=True):
        headline = summary["headline"]
        runs = [run.get(headline) for arm in summary["arms"] for run in arm["runs"]]
        form = scale(headline, runs)
        axes.axvline(0, color="black", linewidth=1)
        for y, (_, difference, p) in enumerate(lines):
            told = p is not None and p < 1 - CONFIDENCE
            style = {"color": COLORS[told], "linewidth": 2, "markersize": 6}
            fill = "none"
            if "low" in difference:
                ends = [form.factor * difference[end] for end in ("low", "high")]
                axes.plot(ends, [y, y], **style)
                fill = "full"
            mean = form.factor * difference["mean"]
            axes.plot(mean, y, "o" if told else "D", fillstyle=fill, **style)
        labels = [plain(textwrap.fill(label, 70)) for label, *_ in lines]
        axes.set_yticks(range(len(lines)), labels)
        axes.invert_yaxis()
        unit = f" in{form.difference_unit}" if form.difference_unit else ""
        notes = [f"{headline}: difference{unit}"]
        notes.append(f"{CONFIDENCE:.0%} interval; orange: stands after Holm among all of them")
        axes.set_xlabel(plain("\n".join([*notes, *below])))
        tidy(axes, grid="x")
    return figure


def _drawn(summary: Mapping[str, Any]) -> tuple[list[tuple[str, dict[str, Any], Any]], list[str]]:
    """Label, difference and p of each line to draw; the arms that have none."""
    headline, lines = summary["headline"], []
    for arm in summary["arms"]:
        if arm["baseline"]:
            label = f"{arm['name']} against {arm['baseline'].partition(': ')[2]}"
            n = arm["spread"][headline]["n"]
            label += f" ({n} of {arm['seeds']} runs)" * (n < arm["seeds"])
            lines.append((label, arm["difference"], arm["holm_p"]))
    for contrast in summary["contrasts"]:
        lines.append((contrast_name(contrast["arms"]), contrast["difference"], contrast["holm_p"]))
    below = [f"without results: {label}" for label, x, _ in lines if not x["pairs"]]
    return [line for line in lines if line[1]["pairs"]], below


def run(args: argparse.Namespace) -> int:
    """Prints the results and the differences, and draws the differences.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    summaries = summarize(read(args.folders), args.contrast)
    picture(summaries).savefig(args.output, dpi=150)
    for summary in summaries:
        print(text(summary))
        if summary["contrasts"]:
            print("differences named by --contrast are corrected on their own")
    print(f"written to {args.output}")
    return 0
