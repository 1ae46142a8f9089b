"""``classy-gc compare``: does an option help, on these data, beyond noise?

Every arm (a config with some keys set) is trained with every seed. The same seed gives the same
initial weights and the same order of the data in all arms, so the arms are compared seed by
seed. An arm is measured against the first arm of its config file, its baseline; where every
file has one arm only, against the first file.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import functools
import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from classy_gc.commands.checks import check_least
from classy_gc.commands.compare.arms import Arm, build_arms, families
from classy_gc.commands.compare.axes import parse_axes, value_text
from classy_gc.commands.compare.folder import opened, runs_in
from classy_gc.commands.compare.plot import picture
from classy_gc.commands.compare.report import rows, text
from classy_gc.commands.compare.results import evaluate, scale
from classy_gc.commands.compare.runs import Progress, Run, train_runs
from classy_gc.commands.compare.sweep import (
    Sweep,
    best_value,
    check_sweep,
    confirmed_arms,
    parse_sweep,
    response_curves,
    sweep_entry,
    sweep_text,
)
from classy_gc.commands.parser import command_parser
from classy_gc.custom_imports import import_from_current_folder
from classy_gc.files import atomic_write
from classy_gc.options import check_known


def _check_args(args: argparse.Namespace) -> None:
    for package in ("matplotlib", "scipy"):
        if not importlib.util.find_spec(package):
            raise ValueError(f"compare needs {package}: pip install 'classy-gc[examples]'")
    if args.jobs is None:
        cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        args.jobs = 1 if torch.cuda.is_available() else len(cores(0))
    check_least(args, jobs=1)
    if args.confirm and not args.sweep:
        raise ValueError("--confirm needs --sweep, which finds what it confirms")
    if args.confirm and {*args.confirm} & {*args.seeds}:
        raise ValueError("--confirm must be fresh seeds, and some of them are those of --seeds")
    if args.power is not None and not 0 < args.power < math.inf:
        raise ValueError(f"--power must be a number > 0, not {args.power:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, prints what came out, and writes it to files.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0, or 1 if a run has failed, or 130 after Ctrl-C. Bad input exits with code 2 and one
        line on stderr, before anything is trained or written.
    """
    parser = command_parser("compare")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    import_from_current_folder()
    with contextlib.ExitStack() as stack:
        try:
            _check_args(args)
            axes = parse_axes(args.arm, args.vary)
            varied = [flag.partition("=")[0] for flag in args.vary]
            if args.effect_of:
                check_known([args.effect_of], varied, "--effect_of", "key of --vary")
            arms = build_arms(args.config_file, axes, args.effect_of, args.target, args.set)
            groups, sweep = families(arms), None
            if args.sweep:
                keys = [key for axis in axes for choice in axis for key in choice.settings]
                sweep = parse_sweep(args.sweep, keys)
                check_sweep(arms, sweep, args.target)
            stack.enter_context(opened(args.output_folder, arms))
        except ValueError as error:
            parser.error(str(error))
        try:
            return _compare(args, groups, sweep)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 130


def _compare(
    args: argparse.Namespace, groups: Mapping[str, Sequence[Arm]], sweep: Sweep | None
) -> int:
    """Sweeps where that is wanted, trains, reports; returns the exit code."""
    arms = [arm for group in groups.values() for arm in group]
    seeds, extra = args.seeds, {}
    train = functools.partial(_train, jobs=args.jobs)
    if sweep:
        folder, target = args.output_folder / "sweep", args.target
        headline, curves, crashed = response_curves(arms, sweep, seeds, folder, train, target)
        points = [point for curve in curves.values() for point in curve.values()]
        form = scale(headline, [x for point in points for x in point.results.values()])
        print(sweep_text(sweep, headline, curves, form, target))
        extra = {"sweep": sweep_entry(sweep, headline, curves, target)}
        best = {name: best_value(curve, headline, target) for name, curve in curves.items()}
        lines = [f"failed: {r.arm}, seed {r.seed}: {why}" for r, why in crashed.items()]
        lines += [f"{arm}: failed at every value" for arm, value in best.items() if value is None]
        if lines or not args.confirm:
            _write_json(args.output_folder, extra)
            print(*lines, f"written to {args.output_folder}: results.json", sep="\n")
            return 1 if lines else 0
        groups, seeds = confirmed_arms(groups, sweep, best), args.confirm
        arms = [arm for group in groups.values() for arm in group]
    runs = runs_in(args.output_folder / "runs", arms, seeds)
    failed = train(runs)
    _report(args, groups, runs, failed, extra)
    return 1 if failed else 0


def _train(runs: Sequence[Run], jobs: int) -> dict[Run, str]:
    """Trains what is not finished; returns why runs have failed or diverged."""
    todo = [run for run in runs if not run.finished]
    progress = Progress(todo, len(runs))
    try:
        train_runs(todo, jobs, progress.on_end, progress.on_poll)
    finally:
        progress.finish()
    return {run: run.diverged for run in runs if run.diverged} | progress.failed


def _report(
    args: argparse.Namespace,
    groups: Mapping[str, Sequence[Arm]],
    runs: Sequence[Run],
    failed: Mapping[Run, str],
    extra: Mapping[str, Any],
) -> None:
    arms = [arm for group in groups.values() for arm in group]
    seeds = len({run.seed for run in runs})
    phases: dict[str, dict[int, list[dict[str, Any]]]] = {arm.name: {} for arm in arms}
    correct: dict[str, dict[int, str]] = {}
    for run in runs:
        if run not in failed:
            phases[run.arm][run.seed] = run.phases()
            if right := run.correct():
                correct.setdefault(run.arm, {})[run.seed] = right
    baselines = {arm.name: group[0].name for group in groups.values() for arm in group}
    results = evaluate(baselines, phases, seeds, args.target, correct, args.power)
    for arm, entry in zip(arms, results["arms"], strict=True):
        entry |= {"config_file": arm.file, "settings": arm.settings}
    results["failed"] = [
        {"arm": run.arm, "seed": run.seed, "reason": reason, "folder": str(run.folder)}
        for run, reason in failed.items()
    ]
    results["provenance"] = _machines(runs)
    results |= extra
    print(text(results))
    folder = args.output_folder
    _write_json(folder, results)
    with (folder / "results.csv").open("w", newline="") as file:
        settings = {arm.name: {k: value_text(v) for k, v in arm.settings.items()} for arm in arms}
        table = rows(settings, phases)
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in table for key in row)))
        writer.writeheader()
        writer.writerows(table)
    meter = results["headline"].removeprefix("final test ")
    figure = picture(
        {
            family: {arm.label: list(phases[arm.name].values()) for arm in group}
            for family, group in groups.items()
        },
        meter if "/" in meter else None,
        f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed",
    )
    figure.savefig(folder / "comparison.png", dpi=150)
    print(f"written to {folder}: results.json, results.csv, comparison.png")


def _machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the runs were computed with, each once, and how many runs."""
    found = collections.Counter(json.dumps(x) for run in runs for x in run.provenance())
    return [{**json.loads(text), "runs": count} for text, count in found.items()]


def _write_json(folder: Path, results: Mapping[str, Any]) -> None:
    with atomic_write(folder / "results.json") as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())
