"""``classy-gc compare``: does an option help, on these data, beyond noise?

Every arm (a config with some keys set) is trained with every seed. The same seed gives the same
initial weights and the same order of the data in all arms, so the arms are compared seed by
seed. An arm is measured against the first arm of its config file, its baseline; where every
file has one arm only, against the first file.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from classy_gc.commands.checks import check_least
from classy_gc.commands.compare.arms import Arm, build_arms, families
from classy_gc.commands.compare.axes import parse_axes, value_text
from classy_gc.commands.compare.folder import opened, runs_in
from classy_gc.commands.compare.plot import picture
from classy_gc.commands.compare.report import rows, text
from classy_gc.commands.compare.results import evaluate
from classy_gc.commands.compare.runs import Progress, Run, train_runs
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
    check_least(args, seeds=1, jobs=1)
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
            if args.effect_of:
                varied = [flag.partition("=")[0] for flag in args.vary]
                check_known([args.effect_of], varied, "--effect_of", "key of --vary")
            arms = build_arms(args.config_file, axes, args.effect_of, args.target)
            stack.enter_context(opened(args.output_folder, arms))
        except ValueError as error:
            parser.error(str(error))
        runs = runs_in(args.output_folder, arms, args.seeds)
        try:
            failed = _train(runs, arms, args.jobs)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 130
        _report(args, arms, runs, failed)
    return 1 if failed else 0


def _train(runs: Sequence[Run], arms: Sequence[Arm], jobs: int) -> dict[Run, str]:
    """Trains what is not finished; returns why runs have failed."""
    todo = [run for run in runs if not run.finished]
    progress = Progress(
        todo, len(runs), {arm.name: arm.config.get("num_epochs", 1) for arm in arms}
    )
    configs = {arm.name: arm.config for arm in arms}
    try:
        train_runs(todo, configs, jobs, progress.on_end, progress.on_poll)
    finally:
        progress.finish()
    return progress.failed


def _report(
    args: argparse.Namespace, arms: Sequence[Arm], runs: Sequence[Run], failed: Mapping[Run, str]
) -> None:
    phases: dict[str, dict[int, list[dict[str, Any]]]] = {arm.name: {} for arm in arms}
    correct: dict[str, dict[int, str]] = {}
    for run in runs:
        if run not in failed:
            phases[run.arm][run.seed] = run.phases()
            if right := run.correct():
                correct.setdefault(run.arm, {})[run.seed] = right
    groups = families(arms)
    baselines = {arm.name: group[0].name for group in groups.values() for arm in group}
    results = evaluate(baselines, phases, args.seeds, args.target, correct, args.power)
    for arm, entry in zip(arms, results["arms"], strict=True):
        entry |= {"config_file": arm.file, "settings": arm.settings}
    results["failed"] = [
        {"arm": run.arm, "seed": run.seed, "reason": reason, "folder": str(run.folder)}
        for run, reason in failed.items()
    ]
    print(text(results))
    folder = args.output_folder
    with atomic_write(folder / "results.json") as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())
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
        f"mean ± standard deviation over {args.seeds} seeds" if args.seeds > 1 else "one seed",
    )
    figure.savefig(folder / "comparison.png", dpi=150)
    print(f"written to {folder}: results.json, results.csv, comparison.png")
