"""``classy-gc compare``: does an option help on these data, beyond noise?

Every arm (a config with some keys set) is trained with every seed. The same seed gives the same
initial weights and the same order of the data in all arms, so the arms are compared seed by
seed. An arm is compared with the first arm of its config file, its baseline; if every file has only
one arm, with the first file.
"""

import argparse
import collections
import json
import math
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from classy_gc.commands.compare.arms import Arm, build_arms, families, parse_axes
from classy_gc.commands.compare.plot import picture
from classy_gc.commands.compare.results import (
    check_contrasts,
    evaluate,
    failure_lines,
    headline_of,
    lower_is_better,
    phase_table,
    run_metrics,
    text,
)
from classy_gc.commands.compare.runs import (
    Local,
    Run,
    Slurm,
    opened,
    read_json,
    runs_in,
    train_runs,
)
from classy_gc.commands.compare.sweep import (
    Sweep,
    advice,
    check_sweep,
    confirmed_arms,
    parse_sweep,
    response_picture,
    sweep_text,
    train_sweep,
)
from classy_gc.files import atomic_write
from classy_gc.options import check_installed, check_known


def _check_args(args: argparse.Namespace) -> None:
    for package in ("matplotlib", "scipy", "statsmodels"):
        check_installed(package, "compare")
    if args.confirm and not args.sweep:
        raise ValueError("--confirm needs --sweep, which finds what it confirms")
    if args.power is not None and args.sweep and not args.confirm:
        raise ValueError("--power with --sweep needs --confirm, whose spread over seeds it reads")
    if args.slurm and args.cluster != "slurm":
        raise ValueError(f"--slurm {args.slurm[0][0]} needs --cluster slurm")
    if args.confirm and {*args.confirm} & {*args.seeds}:
        raise ValueError("--confirm must be fresh seeds, but some of them are in --seeds")
    if args.power is not None and not 0 < args.power < math.inf:
        raise ValueError(f"--power must be a number > 0, not {args.power:g}")
    if args.power is not None and len(args.confirm or args.seeds) < 2:
        raise ValueError("--power needs the spread over seeds, so give two or more of them")
    if args.contrast and args.sweep:
        raise ValueError("--contrast names arms, but with --sweep these are only known later")


def run(args: argparse.Namespace) -> int:
    """Trains, prints the results, and writes them to files.

    Args:
        args: the flags.

    Returns:
        0, or 1 if a run has failed, or 130 after Ctrl-C. Bad input exits with code 2 and one
        line on stderr, before anything is trained or written.
    """
    _check_args(args)
    # In a fork: after torch has computed in a process, forking it can hang.
    quiet = signal.signal, (signal.SIGINT, signal.SIG_DFL)  # Ctrl-C prints no traceback there
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), *quiet) as pool:
        arms, sweep, cores = pool.submit(_checked, args).result()
    folder = args.output_folder
    seeds = {"sweep": args.seeds, "runs": args.confirm or ()} if sweep else {"runs": args.seeds}
    with opened(folder, arms, seeds):
        if args.cluster == "slurm":
            engine = Slurm(folder / "slurm", args.jobs, dict(args.slurm))
        else:
            engine = Local(args.jobs or cores)
        try:
            return _compare(args, arms, sweep, engine)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command continues from here") from None


def _checked(args: argparse.Namespace) -> tuple[list[Arm], Sweep | None, int]:
    """The arms and the sweep, built and tried, and how many runs fit on this machine."""
    axes = parse_axes(args.arm, args.vary)
    if args.effect_of:
        varied = [flag.partition("=")[0] for flag in args.vary]
        check_known([args.effect_of], varied, "--effect_of", "key of --vary")
    arms = build_arms(args.config_file, axes, args.effect_of, args.target, args.set)
    check_contrasts(args.contrast, [arm.name for arm in arms])
    sweep = None
    if args.sweep:
        keys = [key for axis in axes for choice in axis for key in choice.settings]
        sweep = parse_sweep(args.sweep, keys)
        check_sweep(arms, sweep, args.target)
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return arms, sweep, 1 if torch.cuda.is_available() else len(cores(0))


def _compare(
    args: argparse.Namespace, arms: list[Arm], sweep: Sweep | None, engine: Local | Slurm
) -> int:
    """Sweeps if asked to, trains, and reports; returns the exit code."""
    folder, seeds, extra = args.output_folder, args.seeds, {}
    if sweep:
        response, failed = train_sweep(arms, sweep, seeds, folder / "sweep", engine, args.target)
        extra = {"sweep": {**response, "failed": _failures(failed)}}
        response_picture(response).savefig(folder / "sweep.png", dpi=150)
        crashed = {run: reason for run, reason in failed.items() if not run.diverged}
        print(sweep_text(response), *failure_lines(_failures(crashed)), sep="\n")
        ready = not crashed and all(arm["best"] for arm in response["arms"])
        if not (args.confirm and ready):
            _write_json(folder, extra)
            print(f"written to {folder}: results.json, sweep.png")
            return 1 if crashed or args.confirm else 0
        arms, seeds = confirmed_arms(arms, response), args.confirm
    runs = runs_in(folder / "runs", arms, seeds)
    failed = train_runs(runs, engine)
    _report(args, arms, runs, failed, extra)
    return 1 if failed else 0


def _report(
    args: argparse.Namespace,
    arms: Sequence[Arm],
    runs: Sequence[Run],
    failed: Mapping[Run, str],
    extra: Mapping[str, Any],
) -> None:
    folder, target, seeds = args.output_folder, args.target, len({run.seed for run in runs})
    groups = families(arms)
    entries, logs = [], {}
    for arm in arms:
        baseline = groups[arm.family][0]
        finished = [run for run in runs if run.arm == arm.name and run not in failed]
        phases = {run.seed: run.phases() for run in finished}
        own = [{"seed": seed, **run_metrics(log, target)} for seed, log in phases.items()]
        entry = {"name": arm.name, "baseline": None if arm is baseline else baseline.name}
        entry |= {"config_file": arm.file, "settings": arm.settings, "seeds": seeds, "runs": own}
        # Only the same images can be compared one by one.
        if arm.config["dataset"].get("test") == baseline.config["dataset"].get("test"):
            entry["correct"] = {run.seed: run.correct() for run in finished}
        entries.append(entry)
        logs[arm.name] = phases
    headline = headline_of((m for arm in entries for run in arm["runs"] for m in run), target)
    results = evaluate(entries, headline, args.power, args.contrast)
    results |= {"seeds": seeds, "target": target and target._asdict(), "failed": _failures(failed)}
    results |= {"lower_is_better": lower_is_better(headline, target), **extra}
    results |= {"provenance": _machines(runs), "looks": _looks(folder, seeds)}
    _write_json(folder, results)
    table = phase_table({arm.name: arm.settings for arm in arms}, logs)
    table.to_csv(folder / "results.csv", index=False)
    names = {family: [arm.name for arm in group] for family, group in groups.items()}
    picture(table, names, headline, seeds).savefig(folder / "comparison.png", dpi=150)
    print(text(results))
    if extra:
        print(advice(results, arms))
    files = ["results.json", "results.csv", "comparison.png", *["sweep.png"] * bool(extra)]
    print(f"written to {folder}: {', '.join(files)}")


def _failures(failed: Mapping[Run, str]) -> list[dict[str, Any]]:
    """The entries of ``results.json``."""
    return [
        {"arm": run.arm, "seed": run.seed, "reason": reason, "folder": str(run.folder)}
        for run, reason in failed.items()
    ]


def _looks(folder: Path, seeds: int) -> list[int]:
    """The numbers of seeds with which this folder's results were looked at, so far and now."""
    old = read_json(folder / "results.json")
    old = old if isinstance(old, dict) else {}
    looks = old.get("looks", [old.get("seeds")])
    return sorted({seeds, *(x for x in looks if isinstance(x, int))})


def _machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The distinct environments of the runs, each with its number of runs."""
    counts = collections.Counter(json.dumps(x) for run in runs for x in run.provenance())
    return [{**json.loads(text), "runs": count} for text, count in counts.items()]


def _write_json(folder: Path, results: Mapping[str, Any]) -> None:
    with atomic_write(folder / "results.json") as file:
        file.write((json.dumps(results, indent=2) + "\n").encode())
