"""``classy-gc bench``: what the optimizers cost, beside torch's own, in time and in memory.

Every algorithm has a round robin of its own: each round times one step of every variant, in
an order drawn anew, so that whatever else the machine does hits all of them alike. All
variants step the same weights, and find the same gradients there; moments are their own.
Gradients are written anew before each step, outside the timing: GC and some peers change
them in place, and moments that are fed zeros decay into subnormal numbers, with which a CPU
is many times slower.

Memory traffic is counted in passes: one read, or one write, of all weights. An algorithm
with ``s`` moments must at least read weights, gradients and moments, and write weights and
moments: ``3 + 2s`` passes, which is what a fused step does, and the one pass of GC too. What is
printed is the count of what torch's operators read and write in a step, over ``3 + 2s``; the
kernels of this package are no operators of torch's, and show ``-``.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import logging
import os
import platform
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torchvision
from classy_vision.models import MODEL_REGISTRY
from torch import Tensor

from classy_gc.commands.bench.algorithms import ALGORITHMS, build_parameters, build_variants
from classy_gc.commands.bench.measure import measure_steps, steps_table
from classy_gc.commands.bench.plot import plot_steps, plot_training
from classy_gc.commands.bench.training import measure_training, training_table
from classy_gc.commands.checks import check_least, check_output_folder, show_progress
from classy_gc.commands.flags import MIN_WARMUP, PEERS
from classy_gc.commands.parser import command_parser
from classy_gc.configuration.errors import user_error
from classy_gc.configuration.load import load_config
from classy_gc.options import check_known


def _machine(device: torch.device) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
    }


def _check_args(args: argparse.Namespace) -> None:
    """Refuses what is wrong and fills in defaults."""
    check_least(args, steps=1, warmup=MIN_WARMUP, threads=1)
    if not importlib.util.find_spec("matplotlib"):
        raise ValueError("bench.png needs matplotlib: pip install 'classy-gc[examples]'")
    defaults = {"model": "resnet50", "device": "cpu", "dtype": "float32", "peers": False}
    defaults["optimizers"] = list(ALGORITHMS)
    if args.training:
        if args.config_file is None:
            raise ValueError("--training needs --config_file")
        for flag in defaults:
            if getattr(args, flag) is not None:
                raise ValueError(f"--{flag} cannot be combined with --training, see --config_file")
    elif args.config_file is not None:
        raise ValueError("--config_file is for --training only")
    for flag, default in defaults.items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
    check_known(args.optimizers, ALGORITHMS, "--optimizers", "optimizer")
    models = ["tiny", *torchvision.models.list_models(), *MODEL_REGISTRY]
    if args.model not in models:
        close = difflib.get_close_matches(args.model, models, n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join(dict.fromkeys(close))}" if close else ""
        raise ValueError(
            f"unknown --model {args.model!r}, it is neither of torchvision.models nor of Classy "
            f"Vision{hint}"
        )
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device")
    if args.output_folder is None:
        args.output_folder = Path(f"output_bench_{datetime.now().isoformat()}")
    check_output_folder(args.output_folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes ``bench.json`` and ``bench.png``.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    parser = command_parser("bench")
    args = parser.parse_args(argv)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        _check_args(args)
        device = torch.device(args.device)
        torch.manual_seed(0)
        if args.training:
            config = load_config(args.config_file)
        else:
            parameters = build_parameters(args.model, device, getattr(torch, args.dtype))
    except ValueError as error:
        parser.error(str(error))
    # What Kineto logs of each profile would end up between the rows of progress.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    args.peers, wanted = [], PEERS if args.peers else ()
    for package in wanted:
        if importlib.util.find_spec(package):
            args.peers.append(package)
        else:
            print(f"{package} is not installed: pip install {PEERS[package]}")

    report: dict[str, Any] = {"steps": args.steps, "warmup": args.warmup}
    if args.training:
        try:
            data = measure_training(config, args, show_progress)
        except Exception as error:
            show_progress("")
            parser.error(f"{args.config_file}: {user_error(error)}")
        report["training"] = data
        if torch.cuda.is_available() and config.get("use_gpu", True):
            device = torch.device("cuda")
        what, table, figure = f"{args.config_file}", training_table(data), plot_training
    else:
        report |= _measure_optimizers(args, parameters)
        data = report["results"]
        what = (
            f"{args.model}: {len(parameters)} tensors, {report['parameters'] / 1e6:.1f} M "
            f"{args.dtype} parameters"
        )
        table, figure = steps_table(data), plot_steps
    show_progress("")
    machine = report["machine"] = _machine(device)
    title = (
        f"{what}\n{machine['gpu'] or machine['cpu']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, medians of {args.steps} rounds, "
        f"load {machine['load']:.1f}"
    )
    print(f"{title}\n{table}")
    args.output_folder.mkdir(parents=True, exist_ok=True)
    (args.output_folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    figure(data, title).savefig(args.output_folder / "bench.png", dpi=150)
    print(f"written to {args.output_folder}")
    return 0


def _measure_optimizers(args: argparse.Namespace, parameters: list[Tensor]) -> dict[str, Any]:
    gradients = [torch.randn_like(p) for p in parameters]
    results = []
    for name in dict.fromkeys(args.optimizers):
        variants = build_variants(name, parameters, args.peers)
        results += measure_steps(name, variants, gradients, args, show_progress)
    return {
        "model": args.model,
        "device": args.device,
        "dtype": args.dtype,
        "tensors": len(parameters),
        "parameters": sum(p.numel() for p in parameters),
        "results": results,
    }
