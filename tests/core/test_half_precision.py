"""GC on the update of half-precision weights, which is computed on float32 copies."""

import copy
import operator

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from classy_gc import core

from .cases import bits
from .test_centralize_optimizer import build


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def step(optimizer, gradient=torch.randn_like, count=1):
    torch.manual_seed(0)
    for _ in range(count):
        for p in parameters(optimizer):
            p.grad = gradient(p)
        optimizer.step()


# Interrupted steps.

INTERRUPTED = {
    "foreach": lambda params: core.Adam(params, use_gc=True, foreach=True),
    "fused": lambda params: core.Adam(params, use_gc=True, fused=True),
    "momentum": lambda params: core.RMSprop(params, momentum=0.9, use_gc=True, foreach=False),
    "any class": lambda params: core.centralize_optimizer(torch.optim.NAdam(params)),
}


class RaiseAt(TorchFunctionMode):
    """Makes one of torch's calls run out of memory."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.left -= 1
        if self.left == 0:
            raise MemoryError
        return function(*args, **(kwargs or {}))


def contents(optimizer):
    """The weight and the state of each parameter."""
    state = optimizer.state_dict()["state"]
    params = optimizer.param_groups[0]["params"]
    return [{"weight": p.detach(), **state.get(i, {})} for i, p in enumerate(params)]


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_step_loses_nothing(name, steps, monkeypatch):
    monkeypatch.setenv("CLASSY_GC_KERNELS", "0")
    torch.manual_seed(1)
    shapes = {(4, 3): torch.bfloat16, (3, 5): torch.float32, (2, 2, 1): torch.float16}
    start = INTERRUPTED[name]([Parameter(torch.randn(x, dtype=y)) for x, y in shapes.items()])
    step(start, count=steps)
    done = copy.deepcopy(start)
    step(done, torch.ones_like)
    call, finished = 0, False
    while not finished:
        call += 1
        optimizer = copy.deepcopy(start)
        params = list(optimizer.param_groups[0]["params"])
        try:
            with torch.enable_grad(), RaiseAt(call):  # a step that fails late leaves them off
                step(optimizer, torch.ones_like)
            finished = True
        except MemoryError:
            assert all(map(operator.is_, optimizer.param_groups[0]["params"], params))
        three = zip(*map(contents, (optimizer, start, done)), strict=True)
        for shape, (now, before, after) in zip(shapes, three, strict=True):
            assert now.keys() in (before.keys(), after.keys())
            if shapes[shape].itemsize == 2:
                for key, x in now.items():
                    known = [bits([state[key]]) for state in (before, after) if key in state]
                    assert bits([x]) in known
    assert call > 50


# State of any type.


class MasterWeights(torch.optim.Optimizer):
    """SGD that keeps weights in float32."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["master"] = p.clone().float()
                state["master"].sub_(p.grad.float(), alpha=group["lr"])
                p.copy_(state["master"])


@pytest.mark.parametrize("gradient", [[-1.0, 1.0], [0.0, 2.0]])
def test_master_weights_are_centralized_and_stay_float32(gradient):
    p = Parameter(torch.ones(1, 2, dtype=torch.bfloat16))
    optimizer = core.centralize_optimizer(MasterWeights([p], lr=1e-3))
    step(optimizer, lambda p: torch.tensor([gradient], dtype=p.dtype), 200)
    assert optimizer.state[p]["master"].tolist() == [pytest.approx([1.2, 0.8], abs=1e-4)]
    assert optimizer.state[p]["master"].dtype is torch.float32
    assert p.tolist() == [[1.203125, 0.80078125]]


PYTORCH_OPTIMIZER = ["AdaFactor", "AdamMini", "CAME", "FAdam", "Lion", "SM3", "SPAM", "Shampoo"]


def classes():
    for name in PYTORCH_OPTIMIZER:
        yield pytest.param(lambda weights, name=name: build(name, weights)[1], id=name)
    for name in ("Adafactor", "Adagrad", "NAdam", "SGD"):
        cls = getattr(torch.optim, name)
        yield pytest.param(lambda weights, cls=cls: cls(map(Parameter, weights)), id=name)
    for name in ("adafactorbv", "adopt", "lamb"):
        yield pytest.param(
            lambda weights, name=name: create_optimizer_v2(
                map(Parameter, weights), opt=name, lr=0.01
            ),
            id=f"timm {name}",
        )


def types(optimizer):
    return [
        {k: x.dtype for k, x in state.items() if torch.is_tensor(x)}
        for state in optimizer.state_dict()["state"].values()
        if isinstance(state, dict)
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [*classes()])
def test_state_has_the_types_that_the_class_gives_it(make):
    torch.manual_seed(0)
    weights = [torch.randn(x, dtype=torch.bfloat16) for x in ((5, 6), (3, 5), (5,))]
    plain, optimizer = make(weights), core.centralize_optimizer(make(weights))
    step(plain, count=2)
    step(optimizer, count=2)
    assert types(optimizer) == types(plain)
    # A loaded state has been rounded to the type of the weights.
    resumed = core.centralize_optimizer(make([p.detach() for p in parameters(optimizer)]))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    plain.load_state_dict(copy.deepcopy(plain.state_dict()))
    step(plain)
    step(resumed)
    assert types(resumed) == types(plain)
