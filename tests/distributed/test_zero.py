"""``zero`` around GC optimizers: two processes that share the state train like one."""

import importlib.util
import sys

import pytest
import torch
import torch.distributed as dist
from classy_vision.optim import build_optimizer
from classy_vision.optim.param_scheduler import build_param_scheduler
from torch.nn import Flatten, Linear, ReLU, Sequential
from torch.nn.parallel import DistributedDataParallel

import classy_gc  # noqa: F401  registers the optimizers

from .processes import gathered, process_group, results_of

pytest.importorskip("fairscale")

STEPS, STEPS_PER_EPOCH = 8, 4
CASES = {
    "adam_gc": {"weight_decay": 0.3, "use_gc": True},
    "adam_gc before": {"weight_decay": 0.3, "use_gc": True, "gc_loc": True},
    "adamw_gc": {"weight_decay": 0.3, "use_gc": True, "fused": False},
    "radam_gc": {"weight_decay": 0.3, "use_gc": True},
    "rmsprop_gc": {"weight_decay": 0.3, "use_gc": True},
    "sgd_gc": {"weight_decay": 0.3, "momentum": 0.9, "use_gc": True},
    "sgd_gc larc": {"use_larc": True, "momentum": 0.9, "use_gc": True},
    "gc": {"use_gc": True, "base_optimizer": {"name": "adam", "weight_decay": 0.3}},
    "sgd_gc scheduled": {"weight_decay": 0.3, "momentum": 0.9},
    "adam_gc momentum": {"weight_decay": 0.3, "use_gc": True},
}
if importlib.util.find_spec("pytorch_optimizer"):
    CASES["torch_gc"] = {"optimizer": "pytorch_optimizer.Lion", "use_gc": True}
SCHEDULES = {
    "lr": {"name": "linear", "start_value": 0.05, "end_value": 0.01},
    "use_gc": {"name": "step", "values": [0, 1], "num_epochs": 2},
    "momentum": {"name": "linear", "start_value": 0.95, "end_value": 0.5},
}


def model():
    torch.manual_seed(0)
    return Sequential(Flatten(), Linear(12, 8), ReLU(), Linear(8, 7), ReLU(), Linear(7, 3)).double()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, 6, 12, generator=generator, dtype=torch.float64) + 0.5


def prepared(name, net, wrap, **changes):
    base = {"name": name.split()[0], **CASES[name]}
    optimizer = build_optimizer(wrap(base))
    names = {"scheduled": ["lr", "use_gc"], "momentum": ["lr", "momentum"]}
    names = names.get(name.split()[-1], ["lr"])
    schedules = {n: build_param_scheduler((SCHEDULES | changes)[n]) for n in names}
    optimizer.set_param_groups(list(net.parameters()), **schedules)
    return optimizer


def train(net, optimizer, steps, rank=0, ranks=1):
    for step in steps:
        optimizer.zero_grad()
        net(inputs()[step].chunk(ranks)[rank]).square().mean().backward()
        optimizer.step(where=step / STEPS)
        if (step + 1) % STEPS_PER_EPOCH == 0:
            optimizer.on_epoch(where=(step + 1) / STEPS)


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def zero(base):
    return {"name": "zero", "base_optimizer": base}


def main(path):
    with process_group(path) as results:
        rank = dist.get_rank()
        for name in CASES:
            net = model()
            optimizer = prepared(name, net, zero)
            replica = DistributedDataParallel(net)
            train(replica, optimizer, range(STEPS_PER_EPOCH), rank, 2)
            if rank == 0:
                state = {"net": net.state_dict(), "optimizer": optimizer.get_classy_state()}
                torch.save(state, f"{path}.state")
            train(replica, optimizer, range(STEPS_PER_EPOCH, STEPS), rank, 2)
            results[name] = gathered(weights(net))
            results["owned", name] = gathered(len(optimizer.base_optimizer.optimizer.state))
            if rank == 0:
                results["state", name] = optimizer.get_classy_state()["optim"]

            state = torch.load(f"{path}.state")
            net = model()
            net.load_state_dict(state["net"])
            optimizer = prepared(name, net, zero)
            optimizer.set_classy_state(state["optimizer"])
            train(DistributedDataParallel(net), optimizer, range(STEPS_PER_EPOCH, STEPS), rank, 2)
            results["resumed", name] = gathered(weights(net))

            changed = {"name": "step", "values": [0.2, 0.1], "num_epochs": 2}
            optimizer = prepared(name, net, zero, lr=changed)
            optimizer.set_classy_state(state["optimizer"])
            optimizer.step(where=0.5)
            results["lr", name] = optimizer.options_view.lr
            dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return results_of(__name__, tmp_path_factory)


def one_process(name):
    net = model()
    optimizer = prepared(name, net, lambda base: base)
    train(net, optimizer, range(STEPS))
    return weights(net), optimizer.optimizer.state_dict()


def assert_close(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_trains_as_one_process(results, name):
    replica, other = results[name]
    torch.testing.assert_close(replica, other, rtol=0, atol=0)
    assert_close(replica, one_process(name)[0])


@pytest.mark.parametrize("name", CASES)
def test_primary_rank_has_the_whole_state(results, name):
    assert min(results["owned", name]) > 0
    ours, wanted = results["state", name], one_process(name)[1]
    assert ours["state"].keys() == wanted["state"].keys()
    for i, state in wanted["state"].items():
        assert_close(ours["state"][i], state)
    assert ours["param_groups"] == wanted["param_groups"]


@pytest.mark.parametrize("name", CASES)
def test_resumes(results, name):
    torch.testing.assert_close(results["resumed", name], results[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_a_changed_schedule_of_epochs_counts_from_the_first_step(results, name):
    assert results["lr", name] == 0.1


def test_gc_around_zero_is_refused():
    # The other way round, zero around gc, is right: see CASES.
    with pytest.raises(ValueError, match="zero"):
        build_optimizer({"name": "gc", "use_gc": True, "base_optimizer": zero({"name": "sgd"})})
