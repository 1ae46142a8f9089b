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
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from classy_gc.commands.compare import plot, results, runs, sweep
from classy_gc.commands.compare.arms import Arm, build_arms, families, parse_axes
from classy_gc.commands.flags import Target
from classy_gc.options import check_installed, check_known
from classy_gc.plots import save


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
        arms, swept, cores = pool.submit(_checked, args).result()
    folder = args.output_folder
    seeds = {"sweep": args.seeds, "runs": args.confirm or ()} if swept else {"runs": args.seeds}
    with runs.opened(folder, arms, seeds):
        if args.cluster == "slurm":
            engine = runs.Slurm(folder / "slurm", args.jobs, dict(args.slurm))
        else:
            engine = runs.Local(args.jobs or cores)
        try:
            return _compare(args, arms, swept, engine)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command continues from here") from None


def _checked(args: argparse.Namespace) -> tuple[list[Arm], sweep.Sweep | None, int]:
    """The arms and the sweep, built and tried, and how many runs fit on this machine."""
    axes = parse_axes(args.arm, args.vary)
    if args.effect_of is not None:
        check_known([args.effect_of], dict(args.vary), "--effect_of", "key of --vary")
    arms = build_arms(args.config_file, axes, args.effect_of, args.target, args.set)
    results.check_contrasts(args.contrast, [arm.name for arm in arms])
    swept = sweep.checked_sweep(args.sweep, arms, args.target) if args.sweep is not None else None
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return arms, swept, 1 if torch.cuda.is_available() else len(cores(0))


def _compare(
    args: argparse.Namespace, arms: list[Arm], swept: sweep.Sweep | None, engine: runs.Engine
) -> int:
    """Sweeps if asked to, trains, and reports; returns the exit code."""
    if not swept:
        return _train(args, arms, engine, {})
    folder = args.output_folder
    response, failed = sweep.train_sweep(args, arms, swept, engine)
    extra = {"sweep": {**response, "failed": _failures(failed)}}
    save(sweep.response_picture(response), folder / "sweep.png")
    crashed = {run: reason for run, reason in failed.items() if run.ending() is None}
    print(sweep.sweep_text(response), *results.failure_lines(_failures(crashed)), sep="\n")
    if args.confirm and not crashed and all(arm["best"] for arm in response["arms"]):
        return _train(args, sweep.confirmed_arms(arms, response), engine, extra)
    runs.write_json(folder / "results.json", extra)
    print(f"written to {folder}: results.json, sweep.png")
    return 1 if crashed or args.confirm else 0


def _train(
    args: argparse.Namespace, arms: list[Arm], engine: runs.Engine, extra: Mapping[str, Any]
) -> int:
    """Trains the arms that are compared, and reports; returns the exit code."""
    folder, target, seeds = args.output_folder, args.target, args.confirm or args.seeds
    trained = runs.runs_in(folder / "runs", arms, seeds)
    failed = runs.train_runs(trained, engine)
    logs = {run: run.log("phase") for run in trained if run not in failed}
    entries = _entries(arms, logs, target, len(seeds))
    headline = results.headline_of([run for arm in entries for run in arm["runs"]], target)
    report = results.evaluate(entries, headline, args.power, args.contrast)
    report |= {"seeds": len(seeds), "target": target and target._asdict()}
    report |= {"failed": _failures(failed)}
    report |= {"lower_is_better": results.lower_is_better(headline, target), **extra}
    report |= {"provenance": _machines(trained), "looks": _looks(folder, len(seeds))}
    runs.write_json(folder / "results.json", report)
    table = results.phase_table({arm.name: arm.settings for arm in arms}, logs)
    table.to_csv(folder / "results.csv", index=False)
    names = {family: [arm.name for arm in group] for family, group in families(arms).items()}
    save(plot.picture(table, names, headline, len(seeds)), folder / "comparison.png")
    print(results.text(report))
    if extra:
        print(sweep.advice(report))
    files = ["results.json", "results.csv", "comparison.png"]
    if extra:
        files.append("sweep.png")
    print(f"written to {folder}: {', '.join(files)}")
    return 1 if failed else 0


def _entries(
    arms: list[Arm], logs: Mapping[runs.Run, Any], target: Target | None, seeds: int
) -> list[dict[str, Any]]:
    """The arms as :func:`results.evaluate` takes them, and what was set for each."""
    entries, by_family = [], families(arms)
    for arm in arms:
        baseline = by_family[arm.family][0]
        finished = [run for run in logs if run.arm == arm.name]
        own = [{"seed": run.seed, **results.run_metrics(logs[run], target)} for run in finished]
        entry = {"name": arm.name, "baseline": None if arm is baseline else baseline.name}
        entry |= {"config_file": arm.file, "settings": arm.settings, "seeds": seeds, "runs": own}
        # Only the same images can be compared one by one.
        if arm.config["dataset"].get("test") == baseline.config["dataset"].get("test"):
            lines = [(run.seed, line) for run in finished for line in run.log("predictions")]
            entry["correct"] = {seed: line["correct"] for seed, line in lines}  # the last one
        entries.append(entry)
    return entries


def _failures(failed: Mapping[runs.Run, str]) -> list[dict[str, Any]]:
    """The entries of ``results.json``."""
    return [
        {"arm": run.arm, "seed": run.seed, "reason": reason, "folder": str(run.folder)}
        for run, reason in failed.items()
    ]


def _looks(folder: Path, seeds: int) -> list[int]:
    """The numbers of seeds with which this folder's results were looked at, so far and now."""
    old = runs.read_json(folder / "results.json")
    old = old if isinstance(old, dict) else {}
    looks = old.get("looks") or [old.get("seeds")]  # older folders have no looks
    return sorted({seeds, *(x for x in looks if isinstance(x, int))})


def _machines(trained: Iterable[runs.Run]) -> list[dict[str, Any]]:
    """The distinct environments of the runs, each with its number of runs."""
    logged = [line for run in trained for line in run.log("provenance")]
    counts = collections.Counter(json.dumps({k: x[k] for k in x if k != "kind"}) for x in logged)
    return [{**json.loads(text), "runs": count} for text, count in counts.items()]
