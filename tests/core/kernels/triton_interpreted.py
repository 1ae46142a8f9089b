"""The Triton kernel under Triton's interpreter, which is chosen before Triton is imported.

``test_triton_rows.py`` runs this file in a process of its own.
"""

import pytest
import torch
import triton.language as tl
from torch.nn import Parameter

from classy_gc import core
from classy_gc.core.kernels import triton_rows
from classy_gc.core.kernels.pick import pick

from ..cases import (
    FUSED_HERE,
    RADAMS,
    accepts,
    advance,
    assert_close,
    assert_same,
    expected,
    moments,
    one_row_each,
    problem,
    rows,
    train,
)

FUSED = [{"fused": True}]

# The interpreter patches triton.language for each function called, but the kernel's patch is
# enough for those that it calls itself: this halves the time.
for name in ("load", "store", "sgd", "adam", "rmsprop"):
    setattr(triton_rows, name, getattr(triton_rows, name).fn)


@pytest.fixture
def launches(monkeypatch):
    """The types of the tensors of each launch."""
    types = []
    row = triton_rows.row

    class Counted:
        def __getitem__(self, grid):
            def launch(c, *args, **options):
                types.append(c.dtype.value)
                return row[grid](c, *args, **options)

            return launch

    monkeypatch.setattr(triton_rows, "row", Counted())
    return types


def large_eps(cls, options):
    # Among many gradients, some are so small that eps = 1e-8 would keep only their sign.
    return options | ({"eps": 1e-2} if accepts(cls, "eps") else {})


@pytest.mark.parametrize(
    ("cls", "options"), [*rows([False], FUSED), *one_row_each(gc_loc=[True], implementations=FUSED)]
)
def test_every_case(cls, options, launches):
    weights, grads = problem([(2, 3), (3,), (0, 2)], steps=7 if cls in RADAMS else 3)
    grads[0][1] = None  # each parameter has its own count of steps
    params, optimizer = train(cls, weights, grads, **options, use_gc=True)
    assert optimizer.step_paths() == ["one pass"]
    assert launches == [tl.float32] * len(grads)
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)


@pytest.mark.parametrize(("cls", "options"), one_row_each([False], FUSED))
def test_ragged_and_long_rows_and_what_is_not_eligible(cls, options):
    options = large_eps(cls, options) | {"use_gc": True}
    weights, grads = problem([(1, 2, 16, 32), (1, 2500), (), (2, 1), (4097,)], steps=2)
    weights[0] = weights[0].to(memory_format=torch.channels_last)  # but the gradients are not
    params, _ = train(cls, weights, grads, **options)
    assert_close(params, expected(cls, weights, grads, **options), 1e-5)


@pytest.mark.parametrize("cls", FUSED_HERE)
def test_without_gc_and_for_convolutions_only(cls, launches):
    weights, grads = problem([(2, 3), (1, 2, 2, 2)], steps=3)
    for gc in ({"use_gc": False}, {"use_gc": True, "gc_conv_only": 1.0}):
        params, _ = train(cls, weights, grads, fused=True, **gc)
        assert_close(params, expected(cls, weights, grads, **gc), 1e-5)
    assert len(launches) == 6


@pytest.mark.parametrize(("cls", "options"), one_row_each([True], FUSED))
def test_each_type_is_rounded_once(cls, options, launches):
    options = large_eps(cls, options)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        weights, grads = problem([(1, 40)] * 2, steps=1, dtype=dtype)
        params, _ = train(cls, weights, grads, **options, use_gc=True)
        # Rounded to nearest, except bfloat16, which the interpreter truncates.
        ulps = {torch.float32: 40, torch.bfloat16: 1.01, torch.float16: 0.51}[dtype]
        exact = expected(cls, weights, grads, **options, use_gc=True)
        for p, x in zip(params, exact, strict=True):
            off = (p.detach().double() - x).abs() / x.abs().clamp(min=1e-2)
            assert off.max() <= torch.finfo(dtype).eps * ulps
    assert launches == [tl.float32, tl.bfloat16, tl.float16]


@pytest.mark.parametrize(("cls", "options"), one_row_each([False], FUSED))
def test_a_row_of_equal_elements_ends_where_it_was(cls, options):
    options = {k: v for k, v in options.items() if k not in ("eps", "weight_decay")}
    w = torch.full((1, 1500), 0.1)
    grads = [[torch.full((1, 1500), -0.7)], [torch.full((1, 1500), 3e-3)]]
    params, _ = train(cls, [w], grads, **options, use_gc=True, weight_decay=0.0)
    assert_same(params, [w])


class OnDevice(torch.Tensor):
    """A tensor that the host should not wait for."""

    is_cpu = False


@pytest.mark.parametrize(("cls", "options"), one_row_each([True], FUSED))
def test_an_infinite_gradient_changes_nothing_and_does_not_count(cls, options):
    weights, grads = problem([(1, 3), (3,)], steps=7 if cls in RADAMS else 3)
    options = options | {"use_gc": True}
    params = [Parameter(w.clone()) for w in weights]
    optimizer = cls(params, lr=0.1, **options)
    for t, step_grads in enumerate(grads):
        # As GradScaler leaves them for the step.
        scale, found = (torch.tensor(x).as_subclass(OnDevice) for x in (64.0 * 2**t, 1.0))
        optimizer.grad_scale, optimizer.found_inf = scale, found
        if t in (0, 2):
            for p in params:
                p.grad = torch.full_like(p, float("inf"))
            before = [x.detach().clone() for x in (*params, *moments(optimizer))]
            optimizer.step()
            after = [*params, *moments(optimizer)]
            assert_same(after[: len(before)], before)  # the state may be new in this step
            assert not any(x.any() for x in after[len(before) :] if cls is not core.RMSpropTF)
        optimizer.found_inf = torch.zeros_like(found)
        advance(optimizer, [[g * (64.0 * 2**t) for g in step_grads]])
    assert_close(params, expected(cls, weights, grads, **options), 1e-5)


def test_state_of_another_shape_is_refused_before_anything_changes():
    p = Parameter(torch.ones(2, 3))
    p.grad = torch.ones(2, 3)
    optimizer = core.Adam([p], use_gc=True)
    optimizer.step()
    p.data, p.grad = torch.ones(3, 30), torch.ones(3, 30)
    before = [x.clone() for x in moments(optimizer)]
    with pytest.raises(ValueError, match=r"\[3, 30\].*\[2, 3\]"):
        optimizer.step()
    assert_same(moments(optimizer), before)


def test_float64_goes_around_torchs_own_step(launches):
    weights, grads = problem([(4, 3)], dtype=torch.float64)
    params, _ = train(core.Adam, weights, grads, use_gc=True)
    assert not launches
    assert_close(params, expected(core.Adam, weights, grads, use_gc=True), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_step_counts_of_any_type(dtype):
    weights, grads = problem([(1, 3)], steps=2)
    params, optimizer = train(core.Adam, weights, grads[:1], use_gc=True)
    state = optimizer.state[params[0]]
    state["step"] = state["step"].to(dtype)
    advance(optimizer, grads[1:])
    assert (state["step"].dtype, state["step"].item()) == (dtype, 2)
    assert_close(params, expected(core.Adam, weights, grads, use_gc=True), 1e-5)


def test_the_environment_picks_the_kernel(monkeypatch):
    optimizer = core.Adam([torch.nn.Parameter(torch.ones(2, 3))], use_gc=True)
    assert pick(optimizer, optimizer.param_groups[0])[0] is triton_rows
    monkeypatch.setenv("CLASSY_GC_KERNELS", "")
    assert pick(optimizer, optimizer.param_groups[0])[0].__name__.endswith(".rows")
