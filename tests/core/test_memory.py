"""Tensors whose memory differs from their values, or is shared."""

import gc
from contextlib import suppress

import pytest
import torch
from torch.nn import Parameter

from classy_gc import core
from tests.pairwise import pairwise

from .cases import (
    WITH_KERNELS,
    accepts,
    advance,
    assert_close,
    assert_same,
    moments,
    problem,
    train,
)

PATHS = [{"use_gc": True}, {"use_gc": True, "fused": False}, {"use_gc": False, "fused": True}]

# All except RMSpropTF: torch lacks its multi-tensor operators for these.
TORCHS = [p for p in WITH_KERNELS if p.values[0] is not core.RMSpropTF]


def negative(x):
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def zeros(x):
    return torch._efficientzerotensor(x.shape)


@pytest.mark.parametrize(
    ("cls", "path", "lazy", "later"),
    pairwise([param.values[0] for param in WITH_KERNELS], PATHS, [negative, zeros], [False, True]),
)
def test_a_lazy_gradient_is_what_it_shows(cls, path, lazy, later):
    weights, grads = problem([(4, 3), (5,)], steps=3)
    results = []
    for of in (lazy, lambda x: lazy(x) + 0):
        params = [Parameter(w.clone()) for w in weights]
        optimizer = cls(params, lr=0.1, **path)
        advance(optimizer, grads if later else ())
        for p, g in zip(params, grads[0], strict=True):
            p.grad = of(g)
        optimizer.step()
        results.append([*params, *moments(optimizer)])
    assert_same(*results)


@pytest.mark.parametrize("cls", TORCHS)
def test_a_weight_that_is_the_negative_of_its_memory(cls):
    weights, grads = problem([(4, 3)], steps=3)
    p = Parameter(negative(weights[0]))
    assert p.is_neg()
    advance(cls([p], lr=0.1, use_gc=True), grads)
    wanted, _ = train(cls, weights, grads, use_gc=True)
    assert_close([p], [x.detach().double() for x in wanted], 1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("cls", TORCHS)
def test_a_step_inside_of_vmap(cls):
    weights, grads = problem([(4, 3), (4, 3)], steps=1)

    def step(w, g):
        p = w * 1
        p.grad = g
        cls([p], lr=0.1, use_gc=True).step()
        return p

    batch = torch.vmap(step)(torch.stack(weights), torch.stack(grads[0]))
    wanted, _ = train(cls, weights, grads, use_gc=True)
    assert_close(batch, [x.detach().double() for x in wanted], 1e-6)


@pytest.mark.parametrize("shape", [(2, 4), (0,), (4, 8), (8, 5)], ids=str)
def test_a_gradient_whose_shape_changes_in_place_is_refused(shape):
    cls = core.AdamW
    p = Parameter(torch.ones(8, 4))
    optimizer = cls([p], use_gc=True)
    advance(optimizer, [[torch.rand(8, 4)]] * 2)
    before = p.detach().clone()
    p.grad.data = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"\[8, 4\]"):
        optimizer.step()
    assert_same([p], [before])


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_memory_that_was_freed_is_not_read(cls):
    p = Parameter(torch.ones(8, 4))
    optimizer = cls([p], use_gc=True)
    p.grad = torch.rand(8, 4)
    optimizer.step()
    assert optimizer.step_paths() == ["one pass"]
    p.grad = torch.zeros(8, 4).mul(2)
    del p.grad
    gc.collect()
    optimizer.step()


@pytest.mark.parametrize(
    ("optimizer", "dtype", "gc_loc", "path"),
    pairwise(
        [*((param.values[0], 0) for param in WITH_KERNELS), (core.AdamW, 0.1)],
        [torch.float32, torch.float64, torch.bfloat16],
        [True, False],
        ["kernel", "rows.c", "torch"],
    ),
)
def test_an_infinite_weight_stays_unless_its_gradient_decays(
    optimizer, dtype, gc_loc, path, monkeypatch
):
    cls, weight_decay = optimizer
    # Masks are kept as parameters of −inf.
    options = {"gc_loc": gc_loc} if accepts(cls, "gc_loc") else {}
    if path != "kernel":
        options["foreach"] = False  # GC goes around torch's step
    if path == "torch":
        monkeypatch.setenv("CLASSY_GC_KERNELS", "0")
    p = Parameter(torch.zeros(3, 4, dtype=dtype))
    p.data[0, 1] = -torch.inf
    optimizer = cls([p], lr=0.1, weight_decay=weight_decay, use_gc=True, **options)
    advance(optimizer, [[torch.rand(3, 4, dtype=dtype)]] * 3)
    assert (optimizer.step_paths() == ["one pass"]) == (path == "kernel")
    assert p[0, 1] == -torch.inf
    assert p.isfinite().sum() == 11


@pytest.mark.parametrize("cls", [core.SGD, core.AdamW])
def test_weights_that_overlap_are_stepped_one_after_the_other(cls):
    def overlapping(threads):
        torch.set_num_threads(threads)
        memory = torch.linspace(-1, 1, 15 * 8_000)
        params = [Parameter(memory[: 8 * 8_000]), Parameter(memory[7 * 8_000 :])]
        optimizer = cls(params, lr=0.1, use_gc=True)
        advance(optimizer, [[torch.linspace(0.5, 1, p.numel()) for p in params]] * 2)
        return [memory, *moments(optimizer)]

    before = torch.get_num_threads()
    try:
        wanted = overlapping(1)
        for _ in range(3):
            assert_same(overlapping(2), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_a_gradient_that_is_another_weight(cls):
    results = []
    for copied in (True, False):
        params = [Parameter(torch.arange(12.0).view(4, 3)), Parameter(torch.ones(4, 3))]
        optimizer = cls(params, lr=0.1, use_gc=True, fused=False if copied else None)
        params[0].grad, params[1].grad = torch.ones(4, 3), params[0].detach()
        optimizer.step()
        results.append(params)
    assert_same(*results)


@pytest.mark.parametrize("change", ["type", "shape"])
@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_a_group_that_is_refused_keeps_the_others_where_they_are(cls, change):
    options = {"momentum": 0.9} if accepts(cls, "momentum") else {}
    params = [Parameter(torch.ones(2, 3)) for _ in range(3)]
    optimizer = cls([{"params": [p]} for p in params], use_gc=True, **options)
    advance(optimizer, [[torch.rand(2, 3) for _ in params]])
    before = [p.detach().clone() for p in params[:2]]
    state = [x.clone() for x in moments(optimizer)]
    for p in params:
        p.grad = torch.rand(2, 3)
    last = params[2]
    last.grad = None
    last.data = last.data.bfloat16() if change == "type" else torch.ones(4, 3)
    last.grad = torch.ones_like(last)
    with pytest.raises(ValueError, match="and its state"):
        optimizer.step()
    assert_same(params[:2], before)
    assert_same(moments(optimizer), state)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_loading_again_and_again_keeps_nothing(path):
    weights, grads = problem([(4, 3)] * 20, steps=1)
    _, optimizer = train(core.AdamW, weights, grads, **path)

    def objects():
        for _ in range(5):
            optimizer.load_state_dict(optimizer.state_dict())
            for p in optimizer.param_groups[0]["params"]:
                p.grad = torch.ones_like(p)
            optimizer.step()
        gc.collect()
        return len(gc.get_objects())

    objects()
    assert abs(objects() - objects()) < 20


@pytest.mark.parametrize("what", ["gradient", "state", "weight"])
def test_what_lies_otherwise_after_good_steps_is_noticed_around_torchs_own_step(what):
    def trained(changed):
        p = Parameter(torch.linspace(-1, 1, 12).view(3, 4))
        optimizer = core.centralize_optimizer(torch.optim.Adagrad([p], lr=0.1, fused=True))
        for i in range(4):
            p.grad = torch.linspace(0, 1, 12).view(3, 4) ** i
            x = {"gradient": p.grad, "state": optimizer.state[p]["sum"], "weight": p}[what]
            if changed and i == 2:
                x.data = x.data.t().contiguous().t()
            optimizer.step()
        return p

    assert_close([trained(True)], [trained(False)], 1e-6)


def _other_type(optimizer, p):
    p.data = p.data.double()
    p.grad = torch.rand(3, 4).double()


def _other_shape(optimizer, p):
    for x in optimizer.state[p].values():
        if x.dim():
            x.data = torch.ones(1, 2)


def _no_rate(optimizer, p):
    optimizer.param_groups[1]["lr"] = None


def _sparse(optimizer, p):
    p.grad = torch.ones(3, 4).to_sparse()


@pytest.mark.parametrize("fault", [_other_type, _other_shape, _no_rate, _sparse])
@pytest.mark.parametrize("switches", [{"foreach": True}, {"use_gc": False, "fused": True}], ids=str)
@pytest.mark.parametrize("cls", [core.SGD, core.Adam, core.AdamW])
def test_a_fault_of_a_group_that_torch_steps_leaves_the_others_where_they_are(cls, switches, fault):
    options = {"momentum": 0.9} if accepts(cls, "momentum") else {}
    params = [Parameter(torch.ones(3, 4)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], **switches}]
    optimizer = cls(groups, use_gc=True, **options)
    advance(optimizer, [[torch.rand(3, 4) for _ in params]])
    before = params[0].detach().clone()
    for p in params:
        p.grad = torch.rand(3, 4)
    fault(optimizer, params[1])
    with suppress(ValueError, RuntimeError, TypeError):  # torch takes some of them
        optimizer.step()
        return
    assert_same(params[:1], [before])
