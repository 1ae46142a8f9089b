"""What every optimizer inherits: options, state, hooks, scaling, memory."""

import copy
import inspect
import io
import pickle
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import Parameter
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.profiler import ProfilerActivity, profile

from classy_gc import core
from tests import forked
from tests.devices import on_every_device

from .cases import (
    FUSED_HERE,
    IMPLEMENTATIONS,
    KERNELS,
    OPTIMIZERS,
    RADAMS,
    REFERENCE,
    TORCH_GRID,
    WITH_KERNELS,
    accepts,
    advance,
    assert_close,
    assert_same,
    expected,
    for_torch,
    moments,
    one_row_each,
    pairs,
    parent,
    problem,
    train,
)

WITH_GC_LOC = [p for p in OPTIMIZERS if p.values[0] is not core.SGD]


def one(shape=(4, 3)):
    return Parameter(torch.ones(shape))


# Options.


@pytest.mark.parametrize("name", ["use_gc", "gc_conv_only", "gc_loc"])
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_invalid_gc_options_are_refused(cls, name):
    for value in ("yes", "0", None, [], [True], {}, float("nan")):
        if name in cls.added_defaults:
            with pytest.raises(ValueError, match=name) as caught:
                cls([one()], **{name: value})
            assert repr(value) in str(caught.value)
        with pytest.raises(ValueError, match=name):
            cls([{"params": [one()], name: value}])
        optimizer = cls([one()])
        with pytest.raises(ValueError, match=name) as caught:
            optimizer.add_param_group({"params": [one()], name: value})
        assert repr(value) in str(caught.value)
        assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("value", [np.bool_(True), np.float32(1), np.int64(1)], ids=repr)
def test_options_may_be_numpys(value):
    cls = core.Adam
    optimizer = cls([one()], use_gc=value)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    assert torch.load(file)["param_groups"][0]["use_gc"] == 1
    optimizer.param_groups[0]["use_gc"] = value
    grads = [[torch.rand(4, 3)]]
    advance(optimizer, grads)
    plain = cls([one()], use_gc=True)
    advance(plain, grads)
    assert_same(*(x.param_groups[0]["params"] for x in (optimizer, plain)))


@pytest.mark.parametrize("name", ["use_gc", "gc_conv_only", "gc_loc"])
@pytest.mark.parametrize("cls", WITH_GC_LOC)
def test_a_gc_option_made_invalid_later_is_refused_at_the_step(cls, name):
    p = one()
    optimizer = cls([p], use_gc=True)
    optimizer.param_groups[0][name] = "yes"
    p.grad = torch.rand(4, 3)
    with pytest.raises(ValueError, match=f"{name}.*'yes'"):
        optimizer.step()
    assert_same([p], [one()])


@pytest.mark.parametrize("cls", RADAMS)
def test_degenerated_to_sgd_is_checked_too(cls):
    with pytest.raises(ValueError, match=r"degenerated_to_sgd.*'no'"):
        cls([one()], degenerated_to_sgd="no")


def test_sgd_has_no_gc_loc():
    with pytest.raises(TypeError, match="gc_loc"):
        core.SGD([one()], gc_loc=True)
    with pytest.raises(ValueError, match="gc_loc"):
        core.SGD([{"params": [one()], "gc_loc": False}])


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_differentiable_is_refused_with_gc(cls):
    message = "differentiable" if cls is core.RMSpropTF else "use_gc.*differentiable"
    with pytest.raises(ValueError, match=message):
        cls([one()], use_gc=True, differentiable=True)
    if cls is core.RMSpropTF:
        return  # it refuses differentiable at all
    optimizer = cls([one()], differentiable=True)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [one()], "use_gc": True})
    assert len(optimizer.param_groups) == 1

    (p,) = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["use_gc"] = True
    p.grad = grad = torch.rand(4, 3)
    before = grad.clone()
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert_same([p, grad], [one(), before])


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls in FUSED_HERE for name in ("foreach", "differentiable", "capturable")],
)
def test_own_fused_kernels_refuse_what_they_cannot_do(cls, name):
    with pytest.raises(ValueError, match=f"fused.*{name}"):
        cls([one()], fused=True, **{name: True})


@pytest.mark.parametrize("cls", RADAMS)
def test_capturable_radam_cannot_wait(cls):
    with pytest.raises(ValueError, match=r"capturable.*degenerated_to_sgd"):
        cls([one()], capturable=True, degenerated_to_sgd=False)


@pytest.mark.parametrize(
    "bad",
    [torch.ones(4, 6)[:, ::2], torch.ones(4, 3, dtype=torch.complex64)],
    ids=["strided", "complex"],
)
@pytest.mark.parametrize("cls", FUSED_HERE)
def test_a_refused_group_is_not_added(cls, bad):
    optimizer = cls([one()], fused=True)
    with pytest.raises((ValueError, RuntimeError), match="fused"):
        optimizer.add_param_group({"params": [Parameter(bad)]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_gc_options_are_per_group(cls, options):
    weights, grads = problem([(4, 3), (4, 3), (2, 3, 2, 2)])
    each = [{"use_gc": True}, {}, {"use_gc": 1, "gc_conv_only": True}]
    groups = [{"params": [Parameter(w.clone())]} | g for w, g in zip(weights, each, strict=True)]
    optimizer = cls(groups[:2], lr=0.1, **options)
    optimizer.add_param_group(groups[2])
    advance(optimizer, grads)
    for i, extra in enumerate(each):
        wanted = expected(cls, [weights[i]], [[g[i]] for g in grads], **options, **extra)
        assert_close(groups[i]["params"], wanted, 1e-5)


@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_a_later_group_inherits_the_constructors_options(cls, options):
    weights, grads = problem([(4, 3), (4, 3)])
    params = [Parameter(w.clone()) for w in weights]
    optimizer = cls(params[:1], lr=0.1, **options, use_gc=True)
    optimizer.add_param_group({"params": params[1:]})
    advance(optimizer, grads)
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_named_parameters(cls):
    weights, grads = problem()
    params = [Parameter(w.clone()) for w in weights]
    optimizer = cls([(f"w{i}", p) for i, p in enumerate(params)], lr=0.1, use_gc=True)
    advance(optimizer, grads)
    assert optimizer.param_groups[0]["param_names"] == [f"w{i}" for i in range(len(params))]
    assert_close(params, expected(cls, weights, grads, use_gc=True), 1e-5)


def continued(optimizer, **overrides):
    """An optimizer at the same point that was constructed with other options."""
    options = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    known = inspect.signature(type(optimizer)).parameters
    options = {k: v for k, v in options.items() if k in known} | overrides
    params = [Parameter(p.detach().clone()) for p in optimizer.param_groups[0]["params"]]
    other = type(optimizer)(params, **options)
    state = copy.deepcopy(optimizer.state_dict())
    other.load_state_dict(state | {"param_groups": other.state_dict()["param_groups"]})
    return params, other


@on_every_device
@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (cls, name)
        for cls in REFERENCE
        for name in ("use_gc", "gc_loc", "gc_conv_only")
        if accepts(cls, name)
    ],
)
@pytest.mark.parametrize(("was", "becomes"), [(True, False), (0.0, 1.0)])
def test_options_changed_between_steps_take_effect_at_the_next(cls, name, was, becomes):
    weights, grads = problem(steps=8)
    options = {"weight_decay": 0.3, "use_gc": True, name: was}
    params, optimizer = train(cls, weights, grads[:6], **options)
    same_params, same = continued(optimizer)
    new_params, new = continued(optimizer, **{name: becomes})
    optimizer.param_groups[0][name] = becomes
    for x in (optimizer, same, new):
        advance(x, grads[6:])
    assert_same(params, new_params)
    assert not all(map(torch.equal, params, same_params))


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_a_weight_that_changes_its_shape(cls):
    (w,), grads = problem([(12,)])
    p = Parameter(torch.ones(4, 3))
    optimizer = cls([p], lr=0.1, use_gc=True)
    p.grad = torch.rand(4, 3)
    optimizer.step()
    optimizer.state.clear()
    p.grad = None
    p.data = w.clone()
    advance(optimizer, grads)
    assert_close([p], expected(cls, [w], grads, use_gc=True), 1e-5)


@pytest.mark.parametrize("implementation", KERNELS, ids=str)
def test_a_weight_that_is_transposed_where_it_lies(implementation):
    (w,), grads = problem([(3, 3)], steps=2)
    p = Parameter(w.clone())
    optimizer = core.SGD([p], lr=0.1, use_gc=True, **implementation)
    advance(optimizer, grads[:1])
    p.data = p.data.t()  # and the next gradient has the old layout again
    (before,) = expected(core.SGD, [w], grads[:1], use_gc=True)
    advance(optimizer, grads[1:])
    assert_close([p], expected(core.SGD, [before.t()], grads[1:], use_gc=True), 1e-6)


@pytest.mark.parametrize("options", [{"use_gc": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_a_gradient_that_was_of_another_shape_is_refused(cls, options):
    p = one((2, 3))
    optimizer = cls([p], **options)
    advance(optimizer, [[torch.ones(2, 3)]])
    optimizer.state.clear()
    p.data = torch.ones(2000, 3)
    for _ in range(2):
        with pytest.raises((ValueError, RuntimeError), match=r"shape|size"):
            optimizer.step()
    assert p.eq(1).all()


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_fused_refuses_a_weight_that_has_become_a_part_of_its_memory(cls):
    p = one((4, 6))
    optimizer = cls([p], fused=True)
    advance(optimizer, [[torch.ones(4, 6)]])
    optimizer.state.clear()
    p.grad = None
    p.data = p.data[:, :3]
    p.grad = torch.ones(4, 3)
    with pytest.raises(ValueError, match="strided view"):
        optimizer.step()


@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=KERNELS))
def test_lazy_modules(cls, options):
    module = torch.nn.LazyLinear(3)
    optimizer = cls(module.parameters(), **options, use_gc=True)
    x = torch.rand(5, 4)
    module(x)
    before = module.weight.detach().clone()
    for _ in range(6):  # RAdam may wait for the first five
        optimizer.zero_grad()
        module(x).pow(2).sum().backward()
        optimizer.step()
    assert not torch.equal(module.weight, before)


# Sparse gradients.


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_the_layout_of_a_refused_gradient_is_named(cls):
    parts = [torch.ones(2, 3), torch.ones(4, 3)]
    p = Parameter(torch.nested.nested_tensor(parts, layout=torch.jagged))
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="jagged"):
        cls([p], use_gc=True).step()


def sparse_problem():
    weights, grads = problem([(4, 3), (5, 3)], steps=1)
    params = [Parameter(w.clone()) for w in weights]
    params[0].grad = grads[0][0].clone()
    params[1].grad = (grads[0][1] * torch.tensor([1.0, 0, 1, 0, 0])[:, None]).to_sparse(1)
    return weights, grads, params


@on_every_device
@pytest.mark.parametrize(
    ("cls", "options", "gc_conv_only"), pairs(one_row_each(), IMPLEMENTATIONS, [False, True])
)
def test_sparse_gradients(cls, options, gc_conv_only):
    use_gc = options["use_gc"]
    weights, grads, params = sparse_problem()
    optimizer = cls(params, **options, gc_conv_only=gc_conv_only)
    if use_gc and not gc_conv_only:
        with pytest.raises(RuntimeError, match=r"use_gc.*sparse"):
            optimizer.step()
        assert_same(params, weights)
        assert_same([params[0].grad], grads[0][:1])
        assert not optimizer.state
        return
    # Nothing for GC to do: the same as torch, be it a step or an error.
    if options.get("fused") and cls in FUSED_HERE:  # torch has no such keyword
        with pytest.raises(RuntimeError, match="sparse"):
            optimizer.step()
        return
    torch_params = sparse_problem()[2]
    theirs = parent(cls)(torch_params, **for_torch(cls, options))
    errors = []
    for x in (optimizer, theirs):
        try:
            x.step()
            errors.append(None)
        except RuntimeError as e:
            errors.append(str(e))
    assert errors[0] == errors[1]
    assert_same(params, torch_params)


# Closures and hooks.


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=KERNELS))
def test_closure(cls, options):
    weights, grads = problem([(4, 3)])
    p = Parameter(weights[0].clone())
    p.grad = torch.full((4, 3), 1e6)  # stale: only the closure's gradient counts
    optimizer = cls([p], lr=0.1, **options, use_gc=True)
    losses = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = (p * grads[len(losses)][0]).sum()
        loss.backward()
        losses.append(loss)
        return loss

    for t in range(len(grads)):
        with torch.no_grad() if t % 2 else torch.enable_grad():
            assert optimizer.step(closure) is losses[-1]
        assert len(losses) == t + 1
    assert_close([p], expected(cls, weights, grads, **options, use_gc=True), 1e-5)
    p.grad = None
    assert optimizer.step() is None


@pytest.mark.parametrize("use_gc", [False, True])
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_every_hook_runs_once_a_step(cls, use_gc):
    p = one()
    optimizer = cls([p], use_gc=use_gc)
    parent(cls)([one()])  # its constructor may wrap the step that ours calls
    calls = []

    def hook(name):
        return lambda opt, args, kwargs: calls.append(name) if opt is optimizer else None

    handles = [
        register_optimizer_step_pre_hook(hook("global pre")),
        register_optimizer_step_post_hook(hook("global post")),
    ]
    try:
        optimizer.register_step_pre_hook(hook("pre"))
        optimizer.register_step_post_hook(hook("post"))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        order = ["global pre", "pre", "post", "global post"]
        for t in range(1, 4):
            p.grad = torch.rand(4, 3)
            optimizer.step()
            scheduler.step()
            assert calls == order * t
        copies = copy.deepcopy(optimizer)
        copies.step()
        assert calls == order * 3  # hooks are not copied
    finally:
        for handle in handles:
            handle.remove()


HOOKS_IN_ORDER = """
import sys, torch
from classy_gc import core
p = torch.nn.Parameter(torch.ones(4, 3))
p.grad = torch.rand(4, 3)
for cls in (core.SGD, core.AdamW, core.Adam, core.PlainRAdam, core.RAdam):
    parent = next(c for c in cls.__mro__ if c.__module__.startswith("torch.optim."))
    order = [cls, parent] if sys.argv[1] == "ours" else [parent, cls]
    optimizers = [c([p]) for c in order]
    for optimizer in optimizers:
        calls = []
        optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
        optimizer.register_step_post_hook(lambda *_: calls.append("post"))
        optimizer.step()
        assert calls == ["pre", "post"], (optimizer, calls)
"""


@pytest.mark.parametrize("first", ["ours", "torchs"])
def test_hooks_run_once_whichever_class_is_instantiated_first(first, tmp_path):
    # torch wraps the step of a class when the process first instantiates it.
    done = forked.run(forked.code, HOOKS_IN_ORDER, first, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# Gradient scaling.


def train_scaled(cls, weights, grads, unscale=False, **options):
    """As ``train``, on losses scaled by a GradScaler whose scale keeps changing."""
    params = [Parameter(w.clone()) for w in weights]
    optimizer = cls(params, **{"lr": 0.1} | options)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    for step_grads in grads:
        optimizer.zero_grad()
        loss = sum((p * g).sum() for p, g in zip(params, step_grads, strict=True))
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        before = [x.detach().clone() for x in (*params, *moments(optimizer))]
        scaler.step(optimizer)
        if not loss.isfinite():
            # The state may have been created by this step.
            after = [*params, *moments(optimizer)][: len(before)]
            assert_same(after, before)
        scaler.update()
    return params, optimizer


@on_every_device
@pytest.mark.parametrize(
    ("cls", "options", "unscale"), pairs(one_row_each(), KERNELS, [False, True])
)
def test_scaled_gradients(cls, options, unscale):
    weights, grads = problem([(4, 3), (2, 3, 2, 2), (5,)])
    params, _ = train_scaled(cls, weights, grads, unscale, **options)
    assert_close(params, expected(cls, weights, grads, **options), 1e-5)


@on_every_device
@pytest.mark.parametrize(("cls", "options", "bad_step"), pairs(one_row_each(), KERNELS, [0, 3]))
def test_a_step_with_an_infinite_gradient_changes_nothing(cls, options, bad_step):
    weights, grads = problem([(4, 3), (2, 3, 2, 2), (5,)])
    torchs = options.get("fused") and not options["use_gc"]
    if cls is core.SGD and torchs and options.get("momentum"):
        pytest.skip("torch's own fused SGD leaves the momentum of its first step unwritten then")
    bad_grads = [g.clone() for g in grads[bad_step]]
    bad_grads[1][1, 1, 0, 1] = float("inf")
    params, _ = train_scaled(
        cls, weights, [*grads[:bad_step], bad_grads, *grads[bad_step:]], **options
    )
    assert_close(params, expected(cls, weights, grads, **options), 1e-5)


@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=[{"fused": True}]))
def test_scaled_gradients_without_kernels(cls, options, monkeypatch):
    monkeypatch.setenv("CLASSY_GC_KERNELS", "0")
    weights, grads = problem([(4, 3), (2, 3, 2, 2), (5,)])
    options = options | {"use_gc": True}
    params, _ = train_scaled(cls, weights, grads, **options)
    assert_close(params, expected(cls, weights, grads, **options), 1e-5)


@pytest.mark.parametrize("foreach", [None, False])
def test_one_gradient_of_two_parameters(foreach):
    g, (p, q) = torch.tensor([[1.0, 3.0]]), [Parameter(torch.zeros(1, 2)) for _ in range(2)]
    p.grad = q.grad = g
    groups = [{"params": [p]}, {"params": [q], "use_gc": False}]
    core.SGD(groups, lr=1.0, use_gc=True, foreach=foreach).step()
    assert (p.tolist(), q.tolist()) == ([[1.0, -1.0]], [[-1.0, -3.0]])


def overlapping():
    memory = torch.tensor([1.0, 3.0, 5.0, 13.0, 17.0])
    return memory[:4].view(2, 2), memory[1:].view(2, 2)


def columns():
    return torch.tensor([[1.0, 3.0, 5.0, 13.0], [0.0, 4.0, 2.0, 2.0]]).chunk(2, dim=1)


def of_one_tensor():
    memory = torch.tensor([1.0, 3.0, 5.0])
    return memory.as_strided((2, 2), (1, 1)), torch.tensor([[1.0, 3.0], [3.0, 5.0]])


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("gradients", [overlapping, columns, of_one_tensor])
def test_gradients_that_share_memory(gradients, foreach):
    ps = [Parameter(torch.zeros(2, 2)) for _ in range(2)]
    for p, g in zip(ps, gradients(), strict=True):
        p.grad = g
    core.SGD([{"params": [p]} for p in ps], lr=1.0, use_gc=True, foreach=foreach).step()
    for p, g in zip(ps, gradients(), strict=True):
        assert_same([p], [g.mean(1, keepdim=True) - g])


@pytest.mark.parametrize("foreach", [None, False])
def test_a_gradient_that_is_the_weight(foreach):
    p = Parameter(torch.tensor([[1.0, 3.0]]))
    p.grad = p.data
    core.SGD([p], lr=0.5, use_gc=True, foreach=foreach).step()
    assert p.tolist() == [[1.5, 2.5]]


def test_kernels_that_there_are_not_are_refused_at_once(monkeypatch):
    monkeypatch.setenv("CLASSY_GC_KERNELS", "tritn")
    with pytest.raises(ValueError, match="'tritn', must be 0, triton, or unset"):
        core.Adam([Parameter(torch.ones(2, 3))], use_gc=True)


# State.


def by_state_dict(cls, params, optimizer):
    params = [Parameter(p.detach().clone()) for p in params]
    # Other options, to show that those of the state are used.
    other = cls([{"params": params[:2]}, {"params": params[2:]}], use_gc=False)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return params, other


def by_saved_state_dict(cls, params, optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    params = [Parameter(p.detach().clone()) for p in params]
    other = cls([{"params": params[:2]}, {"params": params[2:]}], lr=9.0)
    other.load_state_dict(torch.load(file))
    return params, other


def by_save(cls, params, optimizer):
    file = io.BytesIO()
    torch.save((params, optimizer), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_pickle(cls, params, optimizer):
    return pickle.loads(pickle.dumps((params, optimizer)))


def by_deepcopy(cls, params, optimizer):
    return copy.deepcopy((params, optimizer))


@on_every_device
@pytest.mark.filterwarnings("ignore:.*as in torch it counts")
@pytest.mark.parametrize(
    ("cls", "options", "restore"),
    pairs(
        one_row_each(),
        KERNELS,
        [by_state_dict, by_saved_state_dict, by_save, by_pickle, by_deepcopy],
    ),
)
def test_a_restored_optimizer_goes_on_alike(cls, options, restore):
    weights, grads = problem([(4, 3), (2, 3, 2, 2), (5, 3), (2, 2, 3, 1)], steps=8)
    weights[3] = weights[3].to(memory_format=torch.channels_last)
    params = [Parameter(w.clone()) for w in weights]
    groups = [{"params": params[:2], "use_gc": 1.0}, {"params": params[2:], "gc_conv_only": True}]
    options = options | {"use_gc": True}
    optimizer = cls(groups, lr=0.1, **options)
    advance(optimizer, grads[:3])

    restored_params, restored = restore(cls, params, optimizer)
    for ours, theirs in zip(restored.param_groups, optimizer.param_groups, strict=True):
        assert {**ours, "params": 0} == {**theirs, "params": 0}
    advance(optimizer, grads[3:])
    advance(restored, grads[3:])
    assert_same(restored_params, params)
    assert_same(moments(restored), moments(optimizer))
    wanted = expected(cls, weights[:2], [g[:2] for g in grads], **options)
    assert_close(restored_params[:2], wanted, 1e-5)

    if restore not in (by_state_dict, by_saved_state_dict):
        restored.add_param_group({"params": [one()]})
        assert restored.param_groups[-1]["use_gc"] is True
        with pytest.raises(ValueError, match="use_gc"):
            restored.add_param_group({"params": [one()], "use_gc": "yes"})


@pytest.mark.parametrize("cls", TORCH_GRID)  # those that compute what torch does
def test_a_state_of_the_torch_class_loads(cls):
    weights, grads = problem(steps=8)
    torch_params, theirs = train(parent(cls), weights, grads[:4], weight_decay=0.3)
    params = [Parameter(p.detach().clone()) for p in torch_params]
    extra = {"gc_loc": True} if cls is not core.SGD else {}
    optimizer = cls(params, lr=9.0, use_gc=True, gc_conv_only=1.0, **extra)
    optimizer.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert_same(moments(optimizer), moments(theirs))
    group = optimizer.param_groups[0]
    assert {**group, "params": 0} == {
        **{k: cls([one()]).defaults[k] for k in cls.added_defaults},
        **theirs.param_groups[0],
        "use_gc": True,
        "gc_conv_only": 1.0,
        **extra,
        "params": 0,
    }

    wanted, reference = train(cls, weights, grads[:4], weight_decay=0.3, gc_conv_only=True, **extra)
    reference.param_groups[0]["use_gc"] = True
    advance(reference, grads[4:])
    advance(optimizer, grads[4:])
    assert_same(params, wanted)


@pytest.mark.parametrize("cls", TORCH_GRID)  # those that compute what torch does
def test_the_torch_class_loads_our_state(cls):
    weights, grads = problem(steps=8)
    params, optimizer = train(cls, weights, grads[:4], weight_decay=0.3)
    torch_params = [Parameter(p.detach().clone()) for p in params]
    theirs = parent(cls)(torch_params)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(theirs, grads[4:])
    advance(optimizer, grads[4:])
    assert_same(torch_params, params)


# Memory.


def peak_allocation(function):
    """The peak of bytes that ``function`` allocates beyond what was allocated before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=KERNELS))
def test_gc_works_in_place(cls, options, dtype):
    weights, grads = problem([(64, 512)] * 3, steps=1, dtype=dtype)
    optimizers = [
        train(parent(cls), weights, grads, **for_torch(cls, options))[1],
        train(cls, weights, grads, **options, use_gc=True)[1],
    ]
    torchs, ours = (peak_allocation(optimizer.step) for optimizer in optimizers)
    row_means, tensor = 3 * 64 * 8, weights[0].nbytes
    allowed = torchs + row_means + tensor
    if dtype is torch.bfloat16 and not options.get("gc_loc", True) and not options.get("fused"):
        # Weights, gradients and three moments in float32, the temporaries of their step, and
        # step counts.
        allowed = 2 * torchs + row_means + 5 * 3 * 2 * tensor + 3 * 8
    assert ours <= allowed


@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=KERNELS))
def test_what_is_no_longer_trained_is_freed(cls, options):
    weights, grads = problem(steps=2)
    params, optimizer = train(cls, weights, grads, **options, use_gc=True)
    optimizer.add_param_group({"params": [one()]})
    old = [weakref.ref(p) for p in params]
    del params, optimizer.param_groups[0]
    optimizer.state.clear()
    advance(optimizer, [[torch.rand(4, 3)]])
    assert not any(p() is not None for p in old)


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_parameters_without_memory_are_taken_as_torch_takes_them(cls, fused):
    p = Parameter(torch.empty(4, 3, device="meta"))
    options = {"fused": fused} if accepts(cls, "fused") else {}
    optimizer = cls([p], **options, use_gc=True)
    optimizer.add_param_group({"params": [Parameter(torch.empty(4, 3, device="meta"))]})
    # As in torch, the model gets memory later, and its optimizer works with it.
    (weight,), grads = problem([(4, 3)])
    real = Parameter(weight.clone())
    for group in optimizer.param_groups:
        group["params"] = [real] if group is optimizer.param_groups[0] else []
    advance(optimizer, grads)
    assert_close(
        [real], train(cls, [weight], grads, lr=optimizer.defaults["lr"], use_gc=True)[0], 1e-5
    )


def test_an_option_that_a_subclass_adds_may_be_negative():
    class Shifted(core.CentralizedOptimizer, torch.optim.SGD):
        added_defaults: ClassVar = {**core.CentralizedOptimizer.added_defaults, "shift": 0.0}

    weight = torch.nn.Parameter(torch.ones(2, 2))
    assert Shifted([weight], shift=-1.0).param_groups[0]["shift"] == -1
