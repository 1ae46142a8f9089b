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
import copy
import difflib
import importlib
import importlib.util
import inspect
import json
import logging
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from classy_vision.generic.distributed_util import set_cpu_device, set_cuda_device_index
from classy_vision.models import MODEL_REGISTRY, build_model
from classy_vision.tasks import ClassificationTask, build_task
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from classy_gc import core
from classy_gc.commands.checks import check_least, check_output_folder, show_progress
from classy_gc.commands.config import load_config
from classy_gc.commands.flags import MIN_WARMUP, PEERS, command_parser
from classy_gc.commands.refusals import refusal
from classy_gc.options import check_known


class _Algorithm(NamedTuple):
    core: type[torch.optim.Optimizer]
    moments: int
    options: dict[str, Any]
    torch: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]]  # the first: ratio 1
    peers: tuple[tuple[str, str, dict[str, Any]], ...] = ()  # package, class, its own options


def _torch(cls: type[torch.optim.Optimizer], *switches: str) -> dict[str, Any]:
    return {f"torch {name}": (cls, {name: True} if name != "default" else {}) for name in switches}


_SPEEDS = ("fused", "foreach", "default")
_FUSED_ADAM = {"torch Adam fused": (torch.optim.Adam, {"fused": True})}
_L2 = {"weight_decay": 1e-4}

ALGORITHMS = {
    "sgd": _Algorithm(
        core.SGD,
        1,
        {"momentum": 0.9, **_L2},
        _torch(torch.optim.SGD, *_SPEEDS),
        (("optimi", "SGD", {}),),
    ),
    "adam": _Algorithm(
        core.Adam,
        2,
        _L2,
        _torch(torch.optim.Adam, *_SPEEDS),
        (
            ("optimi", "Adam", {}),
            ("pytorch_optimizer", "AdamP", {"use_gc": True, "weight_decouple": False}),
        ),
    ),
    "adamw": _Algorithm(
        core.AdamW,
        2,
        {"weight_decay": 1e-2},
        _torch(torch.optim.AdamW, *_SPEEDS),
        (("optimi", "AdamW", {}), ("pytorch_optimizer", "AdamP", {"use_gc": True})),
    ),
    "radam": _Algorithm(
        core.RAdam,
        2,
        {},
        {**_FUSED_ADAM, **_torch(torch.optim.RAdam, "foreach", "default")},
        (("optimi", "RAdam", {}), ("pytorch_optimizer", "Ranger", {"use_gc": True})),
    ),
    "plain_radam": _Algorithm(core.PlainRAdam, 2, {}, _FUSED_ADAM),
    "rmsprop": _Algorithm(core.RMSprop, 1, {}, _torch(torch.optim.RMSprop, "default", "foreach")),
    "rmsprop_tf": _Algorithm(
        core.RMSpropTF, 1, {}, {"torch RMSprop default": (torch.optim.RMSprop, {})}
    ),
}


def fewest_passes(moments: int) -> int:
    """How often a step must at least read or write all weights.

    Args:
        moments: tensors that the optimizer keeps for each weight, of its size.

    Returns:
        ``3 + 2·moments``: weights, gradients and moments read, weights and moments written.

    Example:
        >>> fewest_passes(2)  # Adam
        7
    """
    return 3 + 2 * moments


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write in tensors.

    A tensor counts once as read and once as written in each operator, whatever caches do.

    Example:
        >>> x, y = torch.ones(100), torch.ones(100)
        >>> with Traffic() as traffic:
        ...     x.add_(y)  # reads both, writes one
        tensor([2., 2., ...
        >>> traffic.bytes
        1200
    """

    #: operators that write their first argument without reading it
    _OVERWRITES = ("copy_", "_foreach_copy_", "fill_", "zero_", "_foreach_zero_")

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        schema = func._schema
        name = schema.name.removeprefix("aten::")
        if func.is_view or name.startswith(("empty", "new_empty")):
            return result
        read, written = [], []
        for i, argument in enumerate(schema.arguments):
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            # Fused kernels write the gradients only where they unscale them.
            unwritten = argument.name == "grads" and kwargs.get("grad_scale") is None
            if argument.is_write and not unwritten:
                written.append(value)
            if not (argument.is_write and name in self._OVERWRITES):
                read.append(value)
        self.bytes += _size(read) + _size(written)
        if not any(returned.alias_info for returned in schema.returns):
            self.bytes += _size(result)
        return result


def _size(tensors: Any) -> int:
    """Bytes of all different tensors in nested lists."""
    found = {id(x): x for x in tree_leaves(tensors) if isinstance(x, Tensor)}
    return sum(x.numel() * x.element_size() for x in found.values())


def _peak_memory(step: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a step has allocated at its worst moment, beyond what it found."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    current = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


def _stopwatch(device: torch.device) -> Callable[[Callable[[], Any]], float]:
    """A function that returns the milliseconds of a step."""
    if device.type == "cpu":

        def wall(step: Callable[[], Any]) -> float:
            start = time.perf_counter()
            step()
            return 1e3 * (time.perf_counter() - start)

        return wall

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Larger than any L2 cache: after a forward and backward pass nothing of the last step
    # is left there either.
    scratch = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)

    def events(step: Callable[[], Any]) -> float:
        scratch.zero_()
        torch.cuda.synchronize()
        begin.record()
        step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    return events


def _build_parameters(model: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
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
            raise ValueError(
                f"--model {model}: Classy Vision cannot build it from its name alone: "
                f"{refusal(error)}"
            ) from error
    return [torch.nn.Parameter(x.detach().to(device, dtype, copy=True)) for x in tensors]


def _variants(
    name: str, parameters: list[Tensor], peers: Sequence[str]
) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of one round robin; the first is what the others are compared with."""
    algorithm = ALGORITHMS[name]
    options = {"lr": 1e-3, **algorithm.options}
    variants = {
        label: cls(parameters, **options, **switches)
        for label, (cls, switches) in algorithm.torch.items()
    }
    if "gc_loc" in algorithm.core.added_defaults:
        gc = {"before": {"gc_loc": True}, "after": {"gc_loc": False}}
    else:
        gc = {"on": {}}
    fused = {"fused": True} if "fused" in inspect.signature(algorithm.core).parameters else {}
    variants["GC off"] = algorithm.core(parameters, **options, **fused)
    for label, location in gc.items():
        variants[f"GC {label}"] = algorithm.core(
            parameters, **options, **fused, use_gc=True, **location
        )
    for package, cls, own in algorithm.peers:
        if package in peers:
            label = f"{package} {cls}" + " GC" * ("use_gc" in own)
            peer = getattr(importlib.import_module(package), cls)
            variants[label] = peer(parameters, **{**options, **own})
    return variants


def _path(optimizer: torch.optim.Optimizer) -> str:
    if not isinstance(optimizer, core.CentralizedOptimizer):
        return ""
    return ", ".join(dict.fromkeys(optimizer.step_paths()))


def _measure(
    name: str,
    parameters: list[Tensor],
    gradients: list[Tensor],
    args: argparse.Namespace,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    device = parameters[0].device
    variants = _variants(name, parameters, args.peers)
    stopwatch = _stopwatch(device)
    grads = [torch.empty_like(p) for p in parameters]

    def refill() -> None:
        torch._foreach_copy_(grads, gradients)
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad

    for i in range(args.warmup):
        progress(f"{name}: warm-up {i + 1}/{args.warmup}")
        for optimizer in variants.values():
            refill()
            optimizer.step()

    passes, memory = {}, {}
    for label, optimizer in variants.items():
        progress(f"{name}: memory of {label}")
        refill()
        with Traffic() as traffic:
            optimizer.step()
        passes[label] = traffic.bytes / _size(parameters)
        refill()
        memory[label] = _peak_memory(optimizer.step, device)

    times: dict[str, list[float]] = {label: [] for label in variants}
    order, shuffle = list(variants), random.Random(0).shuffle
    for i in range(args.steps):
        progress(f"{name}: round {i + 1}/{args.steps}")
        shuffle(order)
        for label in order:
            refill()
            times[label].append(stopwatch(variants[label].step))

    baseline = next(iter(variants))
    fewest = fewest_passes(ALGORITHMS[name].moments)
    return [
        {
            "optimizer": name,
            "variant": label,
            "baseline": baseline,
            "ms": statistics.median(times[label]),
            "ms_min": min(times[label]),
            "ratio": statistics.median(times[label]) / statistics.median(times[baseline]),
            # Kernels that bypass torch's dispatcher cannot be counted.
            "bytes_over_fewest": passes[label] / fewest if passes[label] >= fewest else None,
            "extra_mb": memory[label] / 1e6,
            "path": _path(variants[label]),
        }
        for label in variants
    ]


def _measure_training(
    config: dict[str, Any], args: argparse.Namespace, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Times whole training steps and the optimizer's part, GC off and on in turns."""
    config = copy.deepcopy(config)
    # An epoch has at least one step, so these will do, whatever the size of the dataset.
    config |= {"hooks": [], "num_epochs": args.warmup + 2 * args.steps}
    if config.get("test_only"):
        raise ValueError("--training needs a config that trains, and test_only is true")
    config["dataset"].pop("test", None)
    task = build_task(config)
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"--training needs a classification task, not {config['name']!r}")
    if task.use_gpu:
        set_cuda_device_index(0)
    else:
        set_cpu_device()
    task.prepare()
    groups = task.optimizer.optimizer.param_groups
    if not all("use_gc" in group for group in groups):
        raise ValueError(
            f"--training needs an optimizer with GC, not {config['optimizer']['name']!r}"
        )
    where_on = [bool(group["use_gc"]) for group in groups]
    if not any(where_on):
        where_on = [True] * len(groups)

    def now() -> float:
        if task.use_gpu:
            torch.cuda.synchronize()
        return 1e3 * time.perf_counter()

    use_gc, started, spent = False, 0.0, []

    # The hooks run after the schedules, which may want to set use_gc themselves.
    def before(*_: Any) -> None:
        nonlocal started
        for group, on in zip(groups, where_on, strict=True):
            group["use_gc"] = use_gc and on
        started = now()

    def after(*_: Any) -> None:
        spent.append(now() - started)

    task.optimizer.optimizer.register_step_pre_hook(before)
    task.optimizer.optimizer.register_step_post_hook(after)

    def train_step() -> float:
        while True:
            start = now()
            try:
                task.train_step()
            except StopIteration:
                task.on_phase_end()
                task.on_phase_start()
                continue
            return now() - start

    steps: dict[bool, list[float]] = {False: [], True: []}
    rest = []
    task.on_phase_start()
    for i in range(args.warmup + 2 * args.steps):
        use_gc = i % 2 == 1
        progress(f"training: step {i + 1}/{args.warmup + 2 * args.steps}")
        spent.clear()
        whole = 0.0
        while not spent:  # several, where gradients are accumulated
            whole += train_step()
        if i >= args.warmup:
            steps[use_gc].append(spent[0])
            rest.append(whole - spent[0])
    others, off, on = map(statistics.median, (rest, steps[False], steps[True]))
    return {
        "config_file": str(args.config_file),
        "optimizer": config["optimizer"]["name"],
        "other_ms": others,
        "optimizer_ms": {"off": off, "on": on},
        "optimizer_share": {"off": off / (others + off), "on": on / (others + on)},
        "gc_share": (on - off) / (others + on),
    }


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


def _table(results: list[dict[str, Any]]) -> str:
    width = max(len(row["variant"]) for row in results)
    lines = [
        f"{'':13}{'':{width}}  {'ms':>9}  {'least':>9}  {'ratio':>6}  {'bytes':>6}  "
        f"{'extra MB':>9}  path"
    ]
    name = None
    for row in results:
        first, name = row["optimizer"] != name, row["optimizer"]
        moved = row["bytes_over_fewest"]
        moved = "-" if moved is None else f"{moved:.2f}"
        line = (
            f"{name if first else '':13}{row['variant']:{width}}  {row['ms']:9.3f}  "
            f"{row['ms_min']:9.3f}  {row['ratio']:6.2f}  {moved:>6}  {row['extra_mb']:9.2f}"
        )
        lines.append(f"{line}  {row['path']}".rstrip())
    lines.append(
        "ms: median, far above the least where the machine is busy; ratio: of the medians, to\n"
        "the first row of the optimizer; bytes: read and written, over the fewest possible;\n"
        "extra MB: what torch allocates in a step beyond weights, gradients and moments"
    )
    return "\n".join(lines)


def _training_table(training: dict[str, Any]) -> str:
    lines = [f"{'':8}{'optimizer ms':>14}{'step ms':>12}{'share of step':>15}"]
    for gc, ms in training["optimizer_ms"].items():
        lines.append(
            f"GC {gc:5}{ms:14.3f}{training['other_ms'] + ms:12.3f}"
            f"{training['optimizer_share'][gc]:15.2%}"
        )
    return "\n".join([*lines, f"GC costs {training['gc_share']:.2%} of a training step"])


def _axes(rows: float, title: str) -> tuple[Any, Any]:
    # A Figure of its own, not pyplot: nothing global, and no display is needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.26 * rows), layout="constrained")
    axes = figure.subplots()
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    return figure, axes


def _plot(results: list[dict[str, Any]], title: str) -> Any:
    # Slow loops of many small kernels would squeeze what is worth comparing into a corner.
    limit = min(4.0, 1.25 * max(row["ratio"] for row in results))
    names = list(dict.fromkeys(row["optimizer"] for row in results))
    figure, axes = _axes(len(results) + 1.5 * len(names), title)
    colors = {"torch": "#9a9a9a", "GC off": "#9ecae1", "GC": "#2171b5"}
    ticks, y, name = {}, -1.5, None
    for row in results:
        if row["optimizer"] != name:
            name, y = row["optimizer"], y + 1.5
            ticks[y] = name
        y += 1
        variant, ratio = row["variant"], row["ratio"]
        ticks[y] = variant
        color = next((c for kind, c in colors.items() if variant.startswith(kind)), "#74a57f")
        axes.barh(y, min(ratio, limit), color=color, height=0.8)
        cut = ratio > limit
        axes.text(
            limit if cut else max(ratio, 1),  # clear of the line at 1
            y,
            f" {ratio:.2f}  ({row['ms']:.3g} ms)" + " → " * cut,
            ha="right" if cut else "left",
            va="center",
            fontsize=7.5,
            color="white" if cut else "black",
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(list(ticks), ticks.values(), fontsize=8)
    for label in axes.get_yticklabels():
        if label.get_text() in names:
            label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y + 0.7, -0.7)
    axes.set_xlim(0, max(limit, 1.25))
    axes.set_xlabel("time of a step, relative to the first row of each optimizer")
    return figure


def _plot_training(training: dict[str, Any], title: str) -> Any:
    figure, axes = _axes(6, title)
    rest = training["other_ms"]
    for i, (gc, ms) in enumerate(training["optimizer_ms"].items()):
        axes.barh(i, rest, color="#9a9a9a", label="everything else" if i == 0 else None)
        axes.barh(i, ms, left=rest, color="#2171b5", label="optimizer step" if i == 0 else None)
        share = training["optimizer_share"][gc]
        axes.text(rest + ms, i, f" {share:.2%}", va="center", fontsize=9)
    axes.set_yticks([0, 1], ["GC off", "GC on"])
    axes.set_xlim(0, 1.15 * (rest + ms))
    axes.set_xlabel("milliseconds of a training step; share of the optimizer")
    figure.legend(frameon=False, ncols=2, loc="outside lower center")
    return figure


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
        nearest = difflib.get_close_matches(args.model, models, n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join(dict.fromkeys(nearest))}" if nearest else ""
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
            parameters = _build_parameters(args.model, device, getattr(torch, args.dtype))
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
            report["training"] = _measure_training(config, args, show_progress)
        except Exception as error:
            show_progress("")
            parser.error(f"{args.config_file}: {refusal(error)}")
        if torch.cuda.is_available() and config.get("use_gpu", True):
            device = torch.device("cuda")
        what = f"{args.config_file}"
        table, figure = _training_table(report["training"]), _plot_training
        data = report["training"]
    else:
        report |= {
            "model": args.model,
            "device": args.device,
            "dtype": args.dtype,
            "tensors": len(parameters),
            "parameters": sum(p.numel() for p in parameters),
        }
        gradients = [torch.randn_like(p) for p in parameters]
        data = report["results"] = []
        for name in dict.fromkeys(args.optimizers):
            data += _measure(name, parameters, gradients, args, show_progress)
        what = (
            f"{args.model}: {len(parameters)} tensors, {report['parameters'] / 1e6:.1f} M "
            f"{args.dtype} parameters"
        )
        table, figure = _table(data), _plot
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
