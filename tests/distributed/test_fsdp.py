"""Sharded weights: FSDP2, tensor parallelism and DTensor train as one process does.

Two processes train everything once and save the weights; the tests train the same in this
process and compare.
"""

import sys
from itertools import product

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import Conv2d, Flatten, Linear, Parameter, ReLU, Sequential

from classy_gc import core

from .processes import gathered, process_group, results_of

L2 = {"lr": 0.05, "weight_decay": 0.3}
OPTIMIZERS = {
    core.SGD: L2 | {"momentum": 0.9},
    core.LARC: L2 | {"momentum": 0.9, "trust_coefficient": 0.5},
    core.Adam: L2,
    core.AdamW: L2,
    core.RAdam: L2 | {"betas": (0.9, 0.9)},  # rectified at the sixth step
    core.RMSprop: L2 | {"momentum": 0.9},
    core.RMSpropTF: L2 | {"momentum": 0.9},
}
RESUMED = (core.SGD, core.AdamW, core.RMSpropTF)
FSDP1 = {core.SGD: torch.optim.SGD, core.Adam: torch.optim.Adam}
# torch's fused SGD does not take DTensors.
FUSED = (core.Adam, core.AdamW, core.RAdam, core.RMSprop, core.RMSpropTF)


def _cases():
    for cls, options in OPTIMIZERS.items():
        places = [{"gc_loc": x} for x in (True, False)] if "gc_loc" in cls.added_defaults else [{}]
        if cls in FUSED:
            places.append({"gc_loc": False, "fused": True})
        for added in places:
            name = "-".join([cls.__name__, *(f"{k}={v}" for k, v in added.items())])
            yield name, (cls, options | added)


CASES = dict(_cases())
STEPS = 6


def convolutional():
    """One weight has an odd number of rows, one a single row, one rows of one element."""
    torch.manual_seed(0)
    layers = [Conv2d(2, 5, 3), ReLU(), Flatten(), Linear(20, 7), ReLU(), Linear(7, 1), Linear(1, 3)]
    return Sequential(*layers).double()


def perceptron():
    torch.manual_seed(0)
    return Sequential(Linear(32, 8), ReLU(), Linear(8, 6)).double()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, 4, 2, 4, 4, generator=generator, dtype=torch.float64) + 0.5


def train(net, optimizer, batches, rank=0, ranks=1):
    for x in batches:
        optimizer.zero_grad()
        net(x.chunk(ranks)[rank]).square().mean().backward()
        optimizer.step()


def full(tensors):
    """The whole tensors, from the shards of all ranks."""
    return [(x.full_tensor() if isinstance(x, DTensor) else x).detach() for x in tensors]


def fsdp2(net, **kwargs):
    for layer in net:
        if list(layer.parameters()):
            fully_shard(layer, **kwargs)
    return fully_shard(net, **kwargs)


def tensor_parallel(net, dp, tp):
    mesh = init_device_mesh("cpu", (dp, tp), mesh_dim_names=("dp", "tp"))
    parallelize_module(net, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return fsdp2(net, mesh=mesh["dp"])


def on_model(make, shard=lambda net: net, ranks=1, rank=0):
    def run(cls, options):
        net = shard(make())
        batches = inputs() if make is convolutional else inputs().flatten(2)
        train(net, cls(net.parameters(), **options), batches, rank, ranks)
        return full(net.parameters())

    return run


NARROW = [(4, 1, 3)]  # two processes cannot share a second dimension of 1
SHAPES = [(3, 5), (1, 4), (5, 3, 3, 3), (6, 1), (7,)]


def on_tensors(place=lambda x: x, place_grad=None, shapes=SHAPES):

    def run(cls, options):
        generator = torch.Generator().manual_seed(3)

        def random():
            tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
            return [x + 0.5 for x in tensors]

        params = [Parameter(place(x)) for x in random()]
        optimizer = cls(params, **options)
        for _ in range(STEPS):
            for p, g in zip(params, random(), strict=True):
                p.grad = (place_grad or place)(g)
            optimizer.step()
        return full(params)

    return run


ONE_PROCESS = {
    "fsdp2": on_model(convolutional),
    "fsdp2_tp": on_model(perceptron),
    "fsdp2_dp": on_model(perceptron),
    "columns": on_tensors(),
}
RUNS = [
    (where, name)
    for where, name in product(ONE_PROCESS, CASES)
    if where == "fsdp2" or not ("fused" in name or "gc_loc=True" in name)
]
CORNERS = {"partial": on_tensors(), "narrow": on_tensors(shapes=NARROW)}


def two_processes():
    """The same weights, sharded."""
    mesh = init_device_mesh("cpu", (2,))
    rank = dist.get_rank()

    def columns(x):
        return distribute_tensor(x, mesh, [Shard(1) if x.dim() > 1 else Replicate()])

    def replicated(x):
        return distribute_tensor(x, mesh, [Replicate()])

    def partial(x):
        return DTensor.from_local(x / 2 + (rank - 0.5), mesh, [Partial()], run_check=False)

    return {
        "fsdp2": on_model(convolutional, fsdp2, 2, rank),
        "fsdp2_tp": on_model(perceptron, lambda net: tensor_parallel(net, 1, 2)),
        "fsdp2_dp": on_model(perceptron, lambda net: tensor_parallel(net, 2, 1), 2, rank),
        "columns": on_tensors(columns),
        "partial": on_tensors(replicated, partial),
        "narrow": on_tensors(columns, shapes=NARROW),
    }


def attempt(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return repr(error)


def fsdp1(cls, use_orig_params, options):
    """The local weights of every rank, after training."""
    net = convolutional()
    net = FullyShardedDataParallel(
        net, use_orig_params=use_orig_params, device_id=torch.device("cpu")
    )
    optimizer = cls(net.parameters(), **L2, **options)
    train(net, optimizer, inputs(), dist.get_rank(), 2)
    return gathered([p.detach().clone() for p in net.parameters()])


def resumed(cls, options, folder):
    """Weights, moments and options where training went on from a checkpoint at half time."""

    def started(options):
        net = fsdp2(convolutional())
        return net, cls(net.parameters(), **options)

    def checkpoint(net, optimizer):
        return dict(zip(("model", "optimizer"), get_state_dict(net, optimizer), strict=True))

    net, optimizer = started(options)
    train(net, optimizer, inputs()[:3], dist.get_rank(), 2)
    dcp.save(checkpoint(net, optimizer), checkpoint_id=folder)

    # Started with the opposite values, which the checkpoint must replace.
    net, optimizer = started({k: not v if "gc" in k else v for k, v in options.items()})
    state = checkpoint(net, optimizer)
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(
        net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    train(net, optimizer, inputs()[3:], dist.get_rank(), 2)
    return full(net.parameters()), moments(optimizer, full), options_of(optimizer)


def moments(optimizer, read=list):
    return [read([s[k] for k in sorted(s)]) for s in optimizer.state.values()]


def options_of(optimizer):
    return {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}


def gc_options(cls):
    """GC on, and at the other place than the default if there is a choice."""
    place = {"gc_loc": not cls.added_defaults["gc_loc"]} if "gc_loc" in cls.added_defaults else {}
    return {"use_gc": True, "gc_conv_only": False, **place}


def main(path):
    with process_group(path) as results:
        places = two_processes()
        for where, name in RUNS:
            cls, options = CASES[name]
            results[where, name] = places[where](cls, options | {"use_gc": True})
            if where == "fsdp2" and not options.get("gc_loc"):
                results["without GC", name] = places[where](cls, options)
        for where in CORNERS:
            results[where] = attempt(places[where], core.SGD, L2 | {"use_gc": True})
        for cls in (core.SGD, torch.optim.SGD):
            results["fused", str(cls)] = attempt(places["fsdp2"], cls, {"fused": True})
        for orig in (True, False):
            for cls in FSDP1:
                results["refused", str(cls), orig] = attempt(fsdp1, cls, orig, {"use_gc": True})
            for cls in (*FSDP1, *FSDP1.values(), core.LARC):
                results["fsdp1", str(cls), orig] = attempt(fsdp1, cls, orig, {})
        for cls in RESUMED:
            folder = f"{path}.{cls.__name__}"
            options = OPTIMIZERS[cls] | gc_options(cls)
            results["resumed", str(cls)] = resumed(cls, options, folder)


if __name__ == "__main__":
    main(sys.argv[1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return results_of(__name__, tmp_path_factory)


def assert_close(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("where", "name"), RUNS)
def test_trains_as_one_process(results, where, name):
    cls, options = CASES[name]
    assert_close(results[where, name], ONE_PROCESS[where](cls, options | {"use_gc": True}))


@pytest.mark.parametrize("name", CASES)
def test_gc_acts_on_shards(results, name):
    cls, options = CASES[name]
    without = ONE_PROCESS["fsdp2"](cls, options)
    assert_close(results["without GC", name.replace("gc_loc=True", "gc_loc=False")], without)
    for start, on, off in zip(
        convolutional().parameters(), results["fsdp2", name], without, strict=True
    ):
        if start.numel() > start.shape[0]:
            drift = [(w - start).flatten(1).mean(1).abs().max() for w in (on, off)]
            assert (on - off).abs().max() > 1e-3
            assert drift[1] > 1e-3
            assert options.get("gc_loc") or drift[0] < 1e-9


@pytest.mark.parametrize("where", CORNERS)
def test_corners_of_dtensor(results, where):
    assert_close(results[where], CORNERS[where](core.SGD, L2 | {"use_gc": True}))


def test_fused_sgd_says_what_torch_says(results):
    # torch cannot shard its fused SGD yet.
    assert str(results["fused", str(core.SGD)]) == str(results["fused", str(torch.optim.SGD)])


@pytest.mark.parametrize("use_orig_params", [True, False])
@pytest.mark.parametrize("cls", FSDP1)
def test_fsdp1_is_refused(results, cls, use_orig_params):
    error = results["refused", str(cls), use_orig_params]
    assert f"RuntimeError('{cls.__name__} needs whole weights, which FSDP1 flattens" in error
    assert "fully_shard" in error


@pytest.mark.parametrize("use_orig_params", [True, False])
@pytest.mark.parametrize("cls", FSDP1)
def test_fsdp1_without_gc_is_torch(results, cls, use_orig_params):
    ours, torchs = (results["fsdp1", str(c), use_orig_params] for c in (cls, FSDP1[cls]))
    torch.testing.assert_close(ours, torchs, rtol=0, atol=0)


@pytest.mark.parametrize("use_orig_params", [True, False])
def test_fsdp1_larc_is_refused(results, use_orig_params):
    error = results["fsdp1", str(core.LARC), use_orig_params]
    assert isinstance(error, str)
    assert "fully_shard" in error


@pytest.mark.parametrize("cls", RESUMED)
def test_checkpoint_keeps_options_and_moments(results, cls):
    weights, state, group = results["resumed", str(cls)]
    options = OPTIMIZERS[cls] | gc_options(cls)
    net = convolutional()
    optimizer = cls(net.parameters(), **options)
    train(net, optimizer, inputs())
    assert_close(weights, full(net.parameters()))
    assert_close(state, moments(optimizer))
    assert options.items() <= group.items()
