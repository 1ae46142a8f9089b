"""``classy-gc bench``: the cost of the optimizers beside torch's own, in time and memory.

Every algorithm has its own round robin: each round times one step of every variant, in a new random
order, so that other load on the machine hits all of them alike. All variants step the same weights
with the same gradients; each has its own moments. Gradients are rewritten before each step, outside
the timing, because GC and some other optimizers change them in place, and moments that get zeros
decay into subnormal numbers, which slow a CPU down many times.
"""

import argparse
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torchvision
from classy_vision.models import MODEL_REGISTRY

from classy_gc.commands.bench import measure
from classy_gc.commands.bench.algorithms import ALGORITHMS, build_parameters, build_variants
from classy_gc.commands.bench.training import measure_training, training_table
from classy_gc.commands.progress import show_progress
from classy_gc.configuration.errors import section
from classy_gc.configuration.load import load_config
from classy_gc.hooks.provenance import provenance
from classy_gc.options import check_installed, check_known
from classy_gc.plots import save


def _check_args(args: argparse.Namespace) -> None:
    """Checks the flags, and fills in defaults."""
    check_installed("matplotlib", "bench.png")
    defaults = {"model": "resnet50", "device": "cpu", "dtype": "float32"}
    for flag, default in {**defaults, "optimizers": [*ALGORITHMS]}.items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
        elif args.config_file is not None:
            raise ValueError(f"--{flag} cannot be combined with --config_file, which sets it")
    models = ["tiny", *torchvision.models.list_models(), *MODEL_REGISTRY]
    check_known([args.model], models, "--model", "model")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device")
    for name in args.optimizers:
        build_variants(name, [torch.nn.Parameter(torch.ones(2, 2))])


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table, and writes ``bench.json``, and ``bench.png`` of single steps.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    # Otherwise Kineto's log lines would mix with the progress.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    torch.manual_seed(0)
    _check_args(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        if args.config_file is None:
            report, table, what = _measure_optimizers(args)
        else:
            args.config = load_config(args.config_file)
            with section():
                report = measure_training(args)
            table, what = training_table(report), args.config_file
    finally:
        show_progress("")
    machine = {**provenance(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    report = {"steps": args.steps, "warmup": args.warmup, "machine": machine, **report}
    title = (
        f"{what}\n{machine['gpu' if args.device == 'cuda' else 'processor']}, "
        f"{machine['threads']} threads, torch {machine['torch']}, medians of {args.steps} rounds, "
        f"load {machine['load']:.1f}"
    )
    print(f"{title}\n{table}")
    folder = args.output_folder or Path(f"output_bench_{datetime.now().isoformat()}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    if "results" in report:
        save(measure.plot_steps(report["results"], title), folder / "bench.png")
    print(f"written to {folder}")
    return 0


def _measure_optimizers(args: argparse.Namespace) -> tuple[dict[str, Any], str, str]:
    parameters = build_parameters(args.model, torch.device(args.device), getattr(torch, args.dtype))
    gradients = [torch.randn_like(p) for p in parameters]
    results = []
    for name in dict.fromkeys(args.optimizers):
        results += measure.measure_steps(name, build_variants(name, parameters), gradients, args)
    count = sum(p.numel() for p in parameters)
    report = {option: getattr(args, option) for option in ("model", "device", "dtype")}
    report |= {"tensors": len(parameters), "parameters": count, "results": results}
    what = f"{args.model}: {len(parameters)} tensors, {count / 1e6:.1f} M {args.dtype} parameters"
    return report, measure.steps_table(results), what
