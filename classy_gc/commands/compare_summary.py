"""``classy-gc compare-summary``: the differences of several comparisons as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classy_gc.commands import Parser, check_picture
from classy_gc.commands.compare.results import Scale, scale
from classy_gc.commands.compare.statistics import CONFIDENCE, Difference
from classy_gc.table import aligned


class Row(NamedTuple):
    """An arm against its baseline."""

    comparison: str  #: name of the folder
    arm: str
    difference: Difference
    holm_p: float | None
    verdict: str


def read_rows(folders: Sequence[Path]) -> tuple[str, Scale, list[Row]]:
    """What was compared, how it is printed, and every arm but the baselines.

    Args:
        folders: of ``classy-gc compare``, or what has its ``results.json``.

    Raises:
        ValueError: a folder has no results, or they are of another meter than the others'.
    """
    headlines, values, rows = {}, [], []
    for folder in folders:
        file = folder / "results.json"
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            headline = headlines[folder] = results["headline"]
            values += [run[headline] for arm in results["arms"] for run in arm["runs"]]
            for arm in (arm for arm in results["arms"] if arm["baseline"]):
                difference = Difference(**arm["difference"][headline])
                rows.append(
                    Row(folder.name, arm["name"], difference, arm["holm_p"], arm["verdict"])
                )
        except FileNotFoundError:
            raise ValueError(f"{folder} has no results.json of classy-gc compare") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not of classy-gc compare: {error}") from error
    if len(set(headlines.values())) > 1:
        texts = ", ".join(f"{folder}: {headline}" for folder, headline in headlines.items())
        raise ValueError(f"the comparisons are of different meters ({texts})")
    headline = next(iter(headlines.values()))
    return headline, scale(headline, values), rows


def picture(headline: str, form: Scale, rows: Sequence[Row]) -> Any:
    """A line an arm: the paired difference with its interval, zero marked.

    Args:
        headline: what was compared.
        form: how it is printed.
        rows: from top to bottom.

    Returns:
        A ``matplotlib`` Figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for y, row in enumerate(rows):
        mean, low, high = (form.factor * (x or 0) for x in row.difference[1:4])
        told = row.holm_p is not None and row.holm_p < 1 - CONFIDENCE
        style = {"color": "#D55E00" if told else "#0072B2", "linewidth": 2, "markersize": 6}
        axes.plot([low, high], [y, y], **style)
        axes.plot(mean, y, "o" if told else "D", **style)
    axes.set_yticks(range(len(rows)), [f"{row.comparison}: {row.arm}" for row in rows])
    axes.invert_yaxis()
    unit = f" in{form.difference_unit}" if form.difference_unit else ""
    interval = f"{CONFIDENCE:.0%} interval (orange: more than noise)"
    axes.set_xlabel(f"{headline}: difference{unit}, {interval}")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line an arm, and draws them.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    parser = Parser(prog="classy-gc compare-summary", description=__doc__.split(": ", 1)[1])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a comparison")
    parser.add_argument(
        "--output", default="summary.png", metavar="FILE", help="the picture (default summary.png)"
    )
    args = parser.parse_args(argv)
    try:
        check_picture(args.output)
        headline, form, rows = read_rows(args.folders)
    except ValueError as error:
        parser.error(str(error))
    print(aligned([(row.comparison, row.arm, row.verdict) for row in rows]))
    picture(headline, form, rows).savefig(args.output, dpi=150)
    print(f"written to {args.output}")
    return 0
