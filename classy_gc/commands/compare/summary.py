"""``classy-gc compare-summary``: prints and draws the differences of several comparisons."""

import argparse
import collections
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classy_gc.commands.compare import results
from classy_gc.commands.compare.statistics import CONFIDENCE, more_than_noise
from classy_gc.commands.flags import utf8
from classy_gc.plots import COLORS, new_figure, plain, save, tidy


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
            found = json.loads(file.read_text(encoding="utf-8"))
            arms = [_arm(name, arm, found["seeds"]) for arm in found["arms"]]
            results.tell(arms, found["headline"], [])  # refuses results that are not numbers
            by_headline.setdefault(found["headline"], []).extend(arms)
        except FileNotFoundError:
            raise ValueError(f"{folder} has no results.json of classy-gc compare") from None
        except Exception as error:  # JSON can be damaged in many ways
            raise ValueError(f"{file} is not from classy-gc compare: {error!r}") from error
        content = json.dumps(found["arms"])
        if content in names:
            raise ValueError(f"{names[content]} and {name} hold the same results, and count twice")
        names[content] = name
    return by_headline


def _arm(comparison: str, arm: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """An arm of ``results.json`` with the gap of each run."""
    runs = []
    for run in arm["runs"]:
        test, train = run.get("final test loss"), run.get("final train loss")
        gap = {} if None in (test, train) else {"gap": test - train}
        runs.append({**run, **gap})
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
    results.check_contrasts(contrasts, headlines)
    for names in contrasts:
        if len({headlines[name] for name in names}) > 1:
            raise ValueError(f"--contrast: {', '.join(names)} are compared by different metrics")
    summaries = []
    for headline, arms in by_headline.items():
        own = [tuple(names) for names in contrasts if headlines[names[0]] == headline]
        told = results.tell(arms, headline, own)
        summary = results.evaluate(arms, headline)
        summaries.append(summary | {"contrasts": [{"arms": x, **told[x]} for x in told]})
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
        form = results.scale(headline, runs)
        axes.axvline(0, color="black", linewidth=1)
        for y, (_, compared) in enumerate(lines):
            difference, told = compared["difference"], more_than_noise(compared["holm_p"])
            style = {"color": COLORS[told], "linewidth": 2, "markersize": 6}
            interval = "low" in difference
            if interval:
                ends = [form.factor * difference[end] for end in ("low", "high")]
                axes.plot(ends, [y, y], **style)
            mean, fill = form.factor * difference["mean"], "full" if interval else "none"
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


def _drawn(summary: Mapping[str, Any]) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """The differences to draw, each with its label; the labels of those without a pair."""
    lines = []
    for arm in summary["arms"]:
        if arm["baseline"]:
            n = arm["spread"][summary["headline"]]["n"]
            label = f"{arm['name']} against {arm['baseline'].partition(': ')[2]}"
            if n < arm["seeds"]:
                label += f" ({n} of {arm['seeds']} runs)"
            lines.append((label, arm))
    lines += [(results.contrast_name(x["arms"]), x) for x in summary["contrasts"]]
    below = [f"without results: {label}" for label, x in lines if not x["difference"]["pairs"]]
    return [line for line in lines if line[1]["difference"]["pairs"]], below


def run(args: argparse.Namespace) -> int:
    """Prints the results and the differences, and draws the differences.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    summaries = summarize(read(args.folders), args.contrast)
    save(picture(summaries), args.output)
    for summary in summaries:
        print(results.text(summary))
        if summary["contrasts"]:
            print("differences named by --contrast are corrected on their own")
    print(f"written to {args.output}")
    return 0
