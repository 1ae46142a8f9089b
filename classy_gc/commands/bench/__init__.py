"""``classy-gc bench``: the cost of the optimizers beside torch's own, in time and memory.

Every algorithm has its own round robin: each round times one step of every variant, in a new random
order, so that other load on the machine hits all of them alike. All variants step the same weights
with the same gradients; each has its own moments. Gradients are rewritten before each step, outside
the timing, because GC and some other optimizers change them in place, and moments that get zeros
decay into subnormal numbers, which slow a CPU down many times.
"""

import argparse
import importlib
import inspect
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torchvision
from classy_vision.models import MODEL_REGISTRY, build_model

from classy_gc import core
from classy_gc.commands.bench import measure
from classy_gc.commands.progress import show_progress
from classy_gc.configuration.errors import section, user_error
from classy_gc.configuration.load import load_config
from classy_gc.hooks.provenance import provenance
from classy_gc.options import check_installed, check_known

#: the class of the core, the torch class that it is timed beside first, and options of all
ALGORITHMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (core.SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 1e-4}),
    "adam": (core.Adam, torch.optim.Adam, {"weight_decay": 1e-4}),
    "adamw": (core.AdamW, torch.optim.AdamW, {"weight_decay": 1e-2}),
    "radam": (core.RAdam, torch.optim.Adam, {}),
    "plain_radam": (core.PlainRAdam, torch.optim.Adam, {}),
    "rmsprop": (core.RMSprop, torch.optim.RMSprop, {}),
    "rmsprop_tf": (core.RMSpropTF, torch.optim.RMSprop, {}),
}


def build_parameters(model: str, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """The weights that all variants step.

    Args:
        model: of torchvision.models or of Classy Vision, or ``tiny``.
        device: of the weights.
        dtype: of the weights.

    Raises:
        ValueError: Classy Vision cannot build the model from its name alone.

    Example:
        >>> weights = build_parameters("tiny", torch.device("cpu"), torch.float32)
        >>> len(weights), weights[0].shape
        (1000, torch.Size([8, 8]))
    """
    if model == "tiny":
        tensors = [torch.randn(8, 8) for _ in range(1000)]
    elif model in torchvision.models.list_models():
        builder = inspect.signature(torchvision.models.get_model_builder(model)).parameters
        backbone = {"weights_backbone": None} if "weights_backbone" in builder else {}
        tensors = torchvision.models.get_model(model, weights=None, **backbone).parameters()
    else:
        try:
            tensors = build_model({"name": model}).parameters()
        except Exception as error:
            reason = f"its name alone does not build it: {user_error(error)}"
            raise ValueError(f"--model {model}: {reason}") from error
    return [torch.nn.Parameter(x.detach().to(device, dtype, copy=True)) for x in tensors]


def build_variants(name: str, parameters: list[torch.Tensor]) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of one round robin; the others are compared with the first.

    Args:
        name: in ``ALGORITHMS``, or the path of a class, such as ``torch.optim.NAdam``.
        parameters: all variants step them.

    Raises:
        ValueError: the class does not exist, needs options, or cannot be centralized.

    Example:
        >>> weights = [torch.nn.Parameter(torch.ones(2, 2))]
        >>> list(build_variants("rmsprop", weights))
        ['torch RMSprop default', 'torch RMSprop foreach', 'GC off', 'GC before', 'GC after']
        >>> list(build_variants("torch.optim.Adagrad", weights))
        ['fused', 'GC before', 'GC after']
    """
    if name not in ALGORITHMS:
        return _variants_of_class(name, parameters)
    cls, first, options = ALGORITHMS[name]
    options = {"lr": 1e-3, **options}
    variants = {}
    own = next(base for base in cls.__mro__ if base.__module__.startswith("torch.optim."))
    peers = [(first, "fused"), *((own, switch) for switch in ("fused", "default", "foreach"))]
    for theirs, switch in dict.fromkeys(peers):
        if switch == "default" or _accepts(theirs, switch):
            switches = {} if switch == "default" else {switch: True}
            label = f"torch {theirs.__name__} {switch}"
            variants[label] = theirs(parameters, **options, **switches)
    variants["GC off"] = cls(parameters, **options, fused=True)
    places = {"before": {"gc_loc": True}, "after": {"gc_loc": False}}
    for label, place in (places if "gc_loc" in cls.added_defaults else {"on": {}}).items():
        variants[f"GC {label}"] = cls(parameters, **options, fused=True, use_gc=True, **place)
    return variants


def _variants_of_class(path: str, parameters: list[torch.Tensor]) -> dict[str, Any]:
    module, _, name = path.rpartition(".")
    if not module:
        check_known([path], ALGORITHMS, "--optimizers", "optimizer")
    try:
        cls = getattr(importlib.import_module(module), name)
        options = {"lr": 1e-3, "weight_decay": 0, "fused": True}
        options = {option: x for option, x in options.items() if _accepts(cls, option)}
        return {
            "fused" if "fused" in options else "default": cls(parameters, **options),
            "GC before": core.centralize_optimizer(cls(parameters, **options), gc_loc=True),
            "GC after": core.centralize_optimizer(cls(parameters, **options)),
        }
    except Exception as error:  # a module may raise anything
        raise ValueError(f"--optimizers {path}: {user_error(error)}") from error


def _accepts(cls: type[torch.optim.Optimizer], option: str) -> bool:
    return option in inspect.signature(cls).parameters


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
                report = measure.measure_training(args)
            table, what = measure.training_table(report), args.config_file
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
        measure.plot_steps(report["results"], title).savefig(folder / "bench.png", dpi=150)
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
