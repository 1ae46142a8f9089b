"""``classy-gc compare-summary``: the differences of several comparisons as one picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classy_gc.commands.checks import check_picture
from classy_gc.commands.compare.results import EPOCHS
from classy_gc.commands.compare.statistics import CONFIDENCE, Difference, Spread, holm, spread
from classy_gc.commands.compare.words import Scale, scale
from classy_gc.commands.parser import command_parser
from classy_gc.plots import COLORS, new_figure, tidy
from classy_gc.table import aligned


class Row(NamedTuple):
    """An arm, and how it differs from its baseline where it is none."""

    comparison: str  #: name of the folder
    arm: str
    final: str  #: what was compared, mean ± standard deviation
    train_loss: str  #: the last
    gap: str  #: the last test loss less that, which generalization adds
    epochs: str  #: to the target, where there was one
    verdict: str
    difference: Difference | None = None
    holm_p: float | None = None


def read_rows(folders: Sequence[Path]) -> tuple[str, Scale, list[Row]]:
    """What was compared, how it is printed, and every arm.

    Args:
        folders: of ``classy-gc compare``, or what has its ``results.json``.

    Raises:
        ValueError: a folder is given twice or has no results, or they are of another meter than
            the others'.
    """
    headlines, values, rows = {}, [], []
    for folder in folders:
        if sum(folder.resolve() == other.resolve() for other in folders) > 1:
            raise ValueError(f"{folder} is given twice: its differences would count twice")
    for folder in folders:
        file = folder / "results.json"
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            headline = headlines[folder] = results["headline"]
            values += [run[headline] for arm in results["arms"] for run in arm["runs"]]
            rows += [_row(folder.name, arm, headline, values) for arm in results["arms"]]
        except FileNotFoundError:
            raise ValueError(f"{folder} has no results.json of classy-gc compare") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not of classy-gc compare: {error}") from error
    if len(set(headlines.values())) > 1:
        texts = ", ".join(f"{folder}: {headline}" for folder, headline in headlines.items())
        raise ValueError(f"the comparisons are of different meters ({texts})")
    headline = next(iter(headlines.values()))
    return headline, scale(headline, values), rows


def _row(comparison: str, arm: Mapping[str, Any], headline: str, values: Sequence[float]) -> Row:
    metrics = ("final train loss", "final test loss")
    pairs = [[run.get(metric) for metric in metrics] for run in arm["runs"]]
    pairs = [pair for pair in pairs if None not in pair]  # which a run that diverged has
    epochs = arm.get(EPOCHS, {}).get("median")
    cells = (
        scale(headline, values).spread(Spread(**arm["spread"][headline])),
        scale("loss", []).spread(spread([train for train, _ in pairs])),
        scale("loss", []).spread(spread([test - train for train, test in pairs])),
        "–" if epochs is None else f"{epochs:g}",
    )
    if not arm["baseline"]:
        return Row(comparison, arm["name"], *cells, "the baseline")
    difference = Difference(**arm["difference"][headline])
    return Row(comparison, arm["name"], *cells, arm["verdict"], difference, arm["holm_p"])


def _together(rows: Sequence[Row]) -> str:
    """What is left where the comparisons of all commands count as made at once."""
    tested = [row for row in rows if row.difference and row.difference.p is not None]
    adjusted = holm([row.difference.p for row in tested])
    told = [
        f"{row.comparison} ({row.arm}) {p:.2g}"
        for row, p in zip(tested, adjusted, strict=True)
        if p < 1 - CONFIDENCE
    ]
    found = ", ".join(told) or "none"
    return f"more than noise among all {len(tested)} differences together, p after Holm: {found}"


def picture(headline: str, form: Scale, rows: Sequence[Row]) -> Any:
    """A line an arm: the paired difference with its interval, zero marked.

    Args:
        headline: what was compared.
        form: how it is printed.
        rows: from top to bottom; baselines are left out.

    Returns:
        A ``matplotlib`` Figure.
    """
    rows = [row for row in rows if row.difference]
    figure = new_figure(8, 0.9 + 0.32 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for y, row in enumerate(rows):
        mean, low, high = (form.factor * (x or 0) for x in row.difference[1:4])
        told = row.holm_p is not None and row.holm_p < 1 - CONFIDENCE
        style = {"color": COLORS[told], "linewidth": 2, "markersize": 6}
        axes.plot([low, high], [y, y], **style)
        axes.plot(mean, y, "o" if told else "D", **style)
    axes.set_yticks(range(len(rows)), [f"{row.comparison}: {row.arm}" for row in rows])
    axes.invert_yaxis()
    unit = f" in{form.difference_unit}" if form.difference_unit else ""
    interval = f"{CONFIDENCE:.0%} interval; orange: more than noise"
    figure.supxlabel(f"{headline}: difference{unit}\n{interval}", fontsize="medium")
    tidy(axes, grid="x")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line an arm, and draws how they differ.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    parser = command_parser("compare-summary")
    args = parser.parse_args(argv)
    try:
        check_picture(args.output)
        headline, form, rows = read_rows(args.folders)
    except ValueError as error:
        parser.error(str(error))
    header = ("comparison", "arm", headline, "train loss", "gap", "epochs", "difference")
    print(aligned([header, *(row[:7] for row in rows)]))
    print("gap: test loss less train loss; epochs: median until the target of the comparison")
    print(_together(rows))
    picture(headline, form, rows).savefig(args.output, dpi=150)
    print(f"written to {args.output}")
    return 0
