"""GC for an existing optimizer of any class."""

import copy
import inspect
import io
import pickle
import warnings
from abc import ABC
from typing import Generic, TypeVar

import numpy as np
import pytest
import pytorch_optimizer
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import StepLR

from classy_gc import core
from classy_gc.core import CentralizedOptimizer, centralize_optimizer

from .cases import advance, assert_close, assert_same, problem, train
from .reference import centralizer

SHAPES = [(5, 6), (5,), (3, 5), (3,)]
# What these need closures for is in their names or papers: gradients at other points, the loss, or
# a Hessian; LOMO and AdaLOMO step while gradients are computed.
CLOSURE = {"AdaHessian", "AliG", "BSAM", "LBFGS", "SophiaH", "LOMO", "AdaLOMO"}
CLOSURE |= {"SAM", "GSAM", "WSAM", "LookSAM", "FriendlySAM"}
WRAPPERS = ["Lookahead", "Magma", "OrthoGrad", "PCGrad", "SafeFP16Optimizer"]
WRAPPERS += ["ScheduleFreeWrapper", "TRAC"]
# These need several processes, or packages that pytorch_optimizer does not require.
ELSEWHERE = {"DistributedMuon", "DeMo"}
CLASSES = {
    name: cls
    for name, cls in vars(pytorch_optimizer).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)
}
NAMES = sorted(CLASSES.keys() - CLOSURE - ELSEWHERE - set(WRAPPERS))


def clip(step):
    return step**0.25


OPTIONS = {"Ranger21": {"num_iterations": 100}, "ADOPT": {"clip_lambda": clip}}


class Model(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.ParameterList(Parameter(w.clone()) for w in weights)


def build(name, weights):
    """An optimizer of copies of the weights, and these."""
    model, cls = Model(weights), CLASSES[name]
    params = list(model.parameters())
    if name == "AdamMini":
        return params, cls(model)
    if "use_muon" in inspect.getsource(cls):
        groups = {
            True: [p for p in params if p.dim() > 1],
            False: [p for p in params if p.dim() < 2],
        }
        return params, cls([{"params": ps, "use_muon": muon} for muon, ps in groups.items()])
    if name == "SpectralSphere":  # matrices only
        params = [p for p in params if p.dim() > 1]
    return params, cls(params, **OPTIONS.get(name, {}))


def steps(params, optimizer, seed, count=2):
    torch.manual_seed(seed)
    np.random.seed(seed)  # Kron's
    for _ in range(count):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_any_class(name):
    weights, _ = problem(SHAPES, steps=0)
    params, optimizer = build(name, weights)
    plain_params, plain = build(name, weights)
    scheduled = "lr" in optimizer.defaults
    if scheduled:
        StepLR(optimizer, 1000)
    assert centralize_optimizer(optimizer) is optimizer
    if scheduled:
        StepLR(optimizer, 1000)
    assert isinstance(optimizer, CLASSES[name])
    assert isinstance(optimizer, CentralizedOptimizer)
    calls = {optimizer: [], plain: []}
    for x in calls:
        x.register_step_pre_hook(lambda x, *_: calls[x].append("pre"))
        x.register_step_post_hook(lambda x, *_: calls[x].append("post"))

    before = [p.detach().clone() for p in params]
    steps(params, optimizer, 0, 12)
    steps(plain_params, plain, 0, 12)
    assert calls[optimizer] == calls[plain]
    assert len(calls[plain]) >= 24
    for p, q, w in zip(params, plain_params, before, strict=True):
        assert torch.equal(p, w) is torch.equal(q, w)  # some wait
        if p.dim() > 1:
            torch.testing.assert_close(p.mean(1), w.mean(1))

    file = io.BytesIO()
    torch.save((params, optimizer), file)
    file.seek(0)
    restored = [
        pickle.loads(pickle.dumps((params, optimizer))),
        copy.deepcopy((params, optimizer)),
        torch.load(file, weights_only=False),
    ]
    twin_params, twin = build(name, [p.detach() for p in before])
    centralize_optimizer(twin, use_gc=False)
    steps(twin_params, twin, 1, 1)  # some count steps outside of their state
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(group["use_gc"] is True for group in twin.param_groups)
    steps(params, optimizer, 1)
    for other_params, other in restored:
        steps(other_params, other, 1)
        assert type(other) is type(optimizer)
        assert_same(other_params, params)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_refused_and_go_around_the_centralized_optimizer(name):
    weights, _ = problem(SHAPES, steps=0)
    params = [Parameter(w.clone()) for w in weights]
    optimizer = torch.optim.SGD(params, lr=0.1)
    wrapper = CLASSES[name](optimizer)
    with pytest.raises(ValueError, match=f"{name} wraps another.*centralize that one, then wrap"):
        centralize_optimizer(wrapper)
    assert type(wrapper) is CLASSES[name]

    wrapper = CLASSES[name](centralize_optimizer(optimizer))
    for p in params:
        p.grad = torch.rand_like(p)
    if name == "ScheduleFreeWrapper":
        wrapper.train()
    if name != "OrthoGrad":  # it changes the gradients itself
        wrapper.step()
        torch.testing.assert_close(params[0].mean(1), weights[0].mean(1))


def test_accelerates_wrapper_is_refused_and_goes_around():
    from accelerate import Accelerator

    p = Parameter(torch.ones(4, 3))
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD([p], lr=0.1)
    with pytest.raises(ValueError, match="AcceleratedOptimizer wraps another optimizer"):
        centralize_optimizer(accelerator.prepare(optimizer))
    wrapped = accelerator.prepare(centralize_optimizer(torch.optim.SGD([p], lr=0.1)))
    p.grad = torch.rand(4, 3)
    wrapped.step()
    torch.testing.assert_close(p.mean(1), torch.ones(4))
    assert not torch.equal(p, torch.ones(4, 3))


@pytest.mark.parametrize("name", ["LBFGS", "SAM", "AliG"])
def test_closures_are_refused_at_once_or_at_the_step(name):
    p = Parameter(torch.ones(4, 3))
    base = (torch.optim.SGD,) if name == "SAM" else ()
    p.grad = torch.ones(4, 3)
    with pytest.raises(Exception, match=r"(?i)closure"):
        centralize_optimizer(CLASSES[name]([p], *base)).step()
    assert_same([p], [torch.ones(4, 3)])


T = TypeVar("T")


class Overriding(ABC, torch.optim.SGD, Generic[T]):
    """Bases that change the layout of objects, and overrides that torch allows."""

    def __init__(self, params):
        self.added = self.restored = 0
        super().__init__(params, lr=0.1)

    def add_param_group(self, group):
        super().add_param_group(group)
        self.added += 1

    def __setstate__(self, state):
        super().__setstate__(state)
        self.restored += 1


def test_what_a_class_overrides_runs_once():
    params = [Parameter(torch.ones(4, 3)), Parameter(torch.ones(4, 3))]
    optimizer = centralize_optimizer(Overriding(params[:1]), gc_conv_only=True)
    optimizer.add_param_group({"params": params[1:], "gc_conv_only": False})
    assert optimizer.added == 2
    assert [group["gc_conv_only"] for group in optimizer.param_groups] == [True, False]
    assert [group["use_gc"] for group in optimizer.param_groups] == [True, True]
    with pytest.raises(ValueError, match="use_gc"):
        optimizer.add_param_group({"params": [Parameter(torch.ones(4, 3))], "use_gc": "yes"})
    assert len(optimizer.param_groups) == 2
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.restored == 1
    assert pickle.loads(pickle.dumps(optimizer)).restored == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_scheduler_sees_the_steps(when):
    p = Parameter(torch.ones(4, 3))
    optimizer = torch.optim.SGD([p], lr=0.1)
    if when == "before":
        scheduler = StepLR(optimizer, 1)
    centralize_optimizer(optimizer)
    if when == "after":
        scheduler = StepLR(optimizer, 1)
    p.grad = torch.rand(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(p.mean(1), torch.ones(4))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    early = StepLR(centralize_optimizer(torch.optim.SGD([p], lr=0.1)), 1)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        early.step()


@pytest.mark.parametrize(
    ("was", "fits"),
    [((5, 3), False), ((6, 6), False), ((9, 5), False), ((3, 5), True), ((2, 5), True)],
    ids=str,
)
@pytest.mark.parametrize("name", ["Lion", "AdaBelief"])
def test_the_state_of_another_model_is_refused(name, was, fits):
    def stepped(shape):
        weight = Parameter(torch.ones(shape))
        optimizer = centralize_optimizer(CLASSES[name]([weight], lr=0.1))
        weight.grad = torch.ones(shape)
        optimizer.step()
        return optimizer

    optimizer, state = stepped((3, 5)), stepped(was).state_dict()
    if fits:  # two rows of three may be a projection
        optimizer.load_state_dict(state)
        return
    with pytest.raises(ValueError, match="the state of another model"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("gc_loc", [False, True])
def test_a_users_own_subclass(gc_loc):
    class NAdam(CentralizedOptimizer, torch.optim.NAdam): ...

    weights, grads = problem(dtype=torch.float64)
    options = {"decoupled_weight_decay": True, "momentum_decay": 1e-3}
    params, optimizer = train(NAdam, weights, grads, **options, use_gc=True, gc_loc=gc_loc)
    cs = [centralizer(w, use_gc=True) for w in weights]
    if gc_loc:
        grads = [[c(g) for c, g in zip(cs, gs, strict=True)] for gs in grads]
    plain, _ = train(torch.optim.NAdam, weights, grads, **options)
    # Without decay the update does not depend on the weights, so C may come last.
    wanted = [
        p.detach() if gc_loc else w + c(p.detach() - w)
        for c, p, w in zip(cs, plain, weights, strict=True)
    ]
    assert_close(params, wanted, 1e-12)
    assert optimizer.state_dict()["param_groups"][0]["gc_loc"] is gc_loc

    without, _ = train(NAdam, weights, grads, **options)
    assert_same(without, plain)


TORCHS = [
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.4, "weight_decay": 0.3}),
    (torch.optim.SGD, {"weight_decay": 0.3, "decoupled_weight_decay": True}),  # which it is not
    (torch.optim.Adam, {"weight_decay": 0.3, "amsgrad": True}),
    (torch.optim.AdamW, {"weight_decay": 0.3}),
    (torch.optim.RAdam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    (torch.optim.RMSprop, {"weight_decay": 0.3, "momentum": 0.9, "centered": True}),
]


@pytest.mark.parametrize("gc_loc", [False, True])
@pytest.mark.parametrize(("cls", "options"), TORCHS)
def test_the_kernel_of_torchs_own_classes(cls, options, gc_loc):
    weights, grads = problem(dtype=torch.float64)
    own = getattr(core, cls.__name__)
    same = {k: x for k, x in options.items() if k in inspect.signature(own).parameters}
    gc = {"gc_loc": gc_loc} if "gc_loc" in own.added_defaults else {}
    wanted, _ = train(own, weights, grads, **same, use_gc=True, **gc)

    params = [Parameter(w.clone()) for w in weights]
    known = {k: x for k, x in options.items() if k in inspect.signature(cls).parameters}
    added = {k: x for k, x in options.items() if k not in known}
    optimizer = centralize_optimizer(cls(params, **known, lr=0.1), gc_loc=gc_loc, **added)
    assert optimizer.step_paths() == ["one pass"]
    advance(optimizer, grads)
    if gc or gc_loc:
        assert_same(params, wanted)
    else:  # SGD is linear: the update is the same, the momentum is not
        assert_close(params, wanted, 1e-12)


class _Signs(CentralizedOptimizer, torch.optim.SGD):
    def update_without_gc(self, groups):
        for group in groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=group["lr"])


class _Halving(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.5)


@pytest.mark.parametrize("gc_loc", [False, True])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.3, "initial_accumulator_value": 0.5}])
def test_the_kernel_of_adagrad(options, gc_loc):
    weights, grads = problem(dtype=torch.float64)

    def trained(**more):
        params = [Parameter(w.clone()) for w in weights]
        adagrad = torch.optim.Adagrad(params, lr=0.1, **options, **more)
        optimizer = centralize_optimizer(adagrad, gc_loc=gc_loc)
        advance(optimizer, grads)
        sums = [optimizer.state[p]["sum"] for p in params]
        steps = [optimizer.state[p]["step"] for p in params]
        return [*params, *sums, *steps], optimizer.step_paths()

    ours, paths = trained()
    assert paths == ["one pass"]
    decayed, paths = trained(lr_decay=1e-300)
    assert paths == ["GC around torch's own step: lr_decay is on"]
    assert_close(ours, decayed, 1e-12)


def test_no_kernel_takes_the_place_of_another_update():
    p = Parameter(torch.tensor([[1.0, 2.0], [3.0, 3.0]]))
    p.grad = torch.tensor([[1.0, -2.0], [5.0, 1.0]])
    _Signs([p], lr=0.5, use_gc=True).step()
    assert p.tolist() == [[0.5, 2.5], [3.0, 3.0]]
    centralize_optimizer(_Halving([p], lr=0.1)).step()
    assert p.tolist() == [[1.0, 2.0], [3.0, 3.0]]
