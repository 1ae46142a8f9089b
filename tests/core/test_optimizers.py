"""The numbers: torch's where GC is off, the float64 reference's where it is on."""

import inspect
import re
from itertools import product

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn import Parameter

from classy_gc import core
from tests.devices import on_every_device

from .cases import (
    FUSED_HERE,
    IMPLEMENTATIONS,
    INELIGIBLE,
    KERNELS,
    OPTIMIZERS,
    RADAMS,
    REFERENCE,
    ROWS,
    TORCH_GRID,
    accepted,
    accepts,
    advance,
    assert_close,
    assert_same,
    expected,
    grid,
    moments,
    one_row_each,
    pairs,
    parent,
    problem,
    rows,
    train,
)


def outcome(cls, weights, grads, **options):
    """Weights, moments and gradients after the step, or the error."""
    leaves = [w.clone().requires_grad_() for w in weights]
    params = leaves
    try:
        if options.get("differentiable"):
            params = [leaf.clone() for leaf in leaves]
        optimizer = cls(params, **options)
        for step_grads in grads:
            for p, g in zip(params, step_grads, strict=True):
                p.grad = g.clone()
            optimizer.step()
        if options.get("differentiable"):
            sum((p**2).sum() for p in params).backward()
            return None, params, [*moments(optimizer), *(leaf.grad for leaf in leaves)]
    except Exception as e:
        return (type(e), str(e)), [], []
    return None, params, moments(optimizer)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("cls", [c for c in TORCH_GRID if c not in RADAMS])
def test_without_gc_every_option_is_torch_bit_for_bit(cls, foreach, fused):
    kernel = {"foreach": foreach} | ({"fused": fused} if accepts(parent(cls), "fused") else {})
    weights, grads = problem([(3,), (3, 2), (2, 1, 2, 2)], steps=3)
    worked = 0
    for options in grid(TORCH_GRID[cls]):
        options |= kernel
        wanted = outcome(parent(cls), weights, grads, **options)
        actual = outcome(cls, weights, grads, **options)
        assert actual[0] == wanted[0], options
        for ours, theirs in zip(actual[1:], wanted[1:], strict=True):
            assert len(ours) == len(theirs), options
            assert all(map(torch.equal, ours, theirs)), options
        worked += wanted[0] is None
    assert worked or (kernel.get("fused") and foreach)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("cls", RADAMS)
def test_without_gc_radam_is_torch(cls, foreach, fused):
    weights, grads = problem([(3,), (3, 2), (2, 1, 2, 2)], steps=12)
    for options in grid(TORCH_GRID[cls]):
        options |= {"foreach": foreach}
        if fused and any(options[k] for k in ("foreach", "differentiable", "capturable")):
            continue  # refused, see test_centralized_optimizer.py
        wanted = outcome(parent(cls), weights, grads, **options)
        if fused and wanted[0]:
            continue
        actual = outcome(cls, weights, grads, **options, fused=fused)
        assert actual[0] == wanted[0], options
        for ours, theirs in zip(actual[1:], wanted[1:], strict=True):
            assert_close(ours, [x.double() for x in theirs], 1e-6)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_signature_is_torchs_plus_the_added_options(cls):
    ours, torchs = (inspect.signature(c).parameters for c in (cls, parent(cls)))
    added = set(ours) - set(torchs)
    gc = {"use_gc", "gc_conv_only"} | ({"gc_loc"} if cls is not core.SGD else set())
    assert added == gc | {
        *({"degenerated_to_sgd"} if cls in RADAMS else ()),
        *({"fused"} if cls in FUSED_HERE else ()),
        *({"initial_square_avg", "lr_in_momentum"} if cls is core.RMSpropTF else ()),
    }
    torch_like = {name: p for name, p in ours.items() if name not in added}
    assert list(torch_like) == [n for n, p in torchs.items() if p.kind is not p.VAR_KEYWORD]
    for name, p in torch_like.items():
        assert p.default == torchs[name].default, name
        # The published RAdam has another option where torch has its sixth.
        if (cls, name) not in [(radam, "decoupled_weight_decay") for radam in RADAMS]:
            assert p.kind == torchs[name].kind, name

    promised = inspect.signature(REFERENCE[cls]).parameters
    for name in added - {"fused"}:
        assert ours[name].kind is inspect.Parameter.KEYWORD_ONLY
        if name in promised:
            assert ours[name].default is promised[name].default, name

    w = [Parameter(torch.ones(1))]
    in_group = cls(w).param_groups[0]
    theirs = parent(cls)(w).param_groups[0]
    assert in_group == theirs | {name: ours[name].default for name in added}


BAD = [
    {"lr": -1.0},
    {"lr": torch.tensor([0.1, 0.2])},
    {"lr": "fast"},
    {"weight_decay": -0.1},
    {"momentum": -0.9},
    {"nesterov": True},
    {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
    {"eps": -1e-8},
    {"betas": (1.0, 0.9)},
    {"betas": (0.9, -0.1)},
    {"betas": (0.9,)},
    {"betas": (torch.tensor(0.9), 0.9)},
    {"betas": (torch.tensor([0.9, 0.9]), torch.tensor(0.9))},
    {"lr": torch.tensor(0.1), "foreach": True},
    {"fused": True, "foreach": True},
    {"fused": True, "differentiable": True},
    {"no_such_option": 1},
]


def error(function, *args, **kwargs):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*args, **kwargs)
    # Only the method, of a qualified constructor's name.
    return caught.type, re.sub(r"\w+\.__init__", "__init__", str(caught.value))


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_bad_options_raise_torchs_errors(cls):
    w = [Parameter(torch.ones(2, 2))]
    for bad in BAD:
        try:
            parent(cls)(w, **bad)
        except Exception:
            if not (cls in FUSED_HERE and "fused" in bad):
                assert error(cls, w, **bad) == error(parent(cls), w, **bad)
        else:
            cls(w, **bad)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_bad_params_raise_torchs_errors(cls):
    for params in (
        [],
        torch.ones(2),
        ["weight"],
        [torch.ones(2, requires_grad=True) * 2],
        [{"params": {torch.ones(2)}}],
        [{"params": [torch.ones(2)]}, [torch.ones(2)]],
    ):
        assert error(cls, params) == error(parent(cls), params)


@on_every_device
@pytest.mark.parametrize(("cls", "options"), rows())
def test_ten_steps_match_the_reference(cls, options):
    weights, grads = problem()
    for gc in ({"use_gc": False}, {"use_gc": True}, {"use_gc": True, "gc_conv_only": True}):
        wanted = expected(cls, weights, grads, **options, **gc)
        for implementation in accepted(cls, IMPLEMENTATIONS):
            params, _ = train(cls, weights, grads, **options, **gc, **implementation)
            assert_close(params, wanted, 1e-5)


@pytest.mark.parametrize(("cls", "options"), rows(implementations=[{"fused": True}]))
def test_without_kernels_gc_goes_around_torchs_fused_step(cls, options, monkeypatch):
    monkeypatch.setenv("CLASSY_GC_KERNELS", "0")
    weights, grads = problem()
    params, optimizer = train(cls, weights, grads, **options, use_gc=True)
    assert optimizer.step_paths() == ["GC around torch's own step: CLASSY_GC_KERNELS is 0"]
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)


@on_every_device
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_where_gc_acts_by_default_matches_the_reference(cls):
    weights, grads = problem()
    params, _ = train(cls, weights, grads, weight_decay=0.3, use_gc=True)
    assert_close(params, expected(cls, weights, grads, weight_decay=0.3, use_gc=True), 1e-5)


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_what_is_not_eligible_is_trained_as_without_gc(cls, options):
    weights, grads = problem(INELIGIBLE)
    plain = {k: v for k, v in options.items() if k != "gc_loc"}
    for implementation in accepted(cls, IMPLEMENTATIONS):
        wanted, reference = train(cls, weights, grads, **plain, **implementation)
        params, optimizer = train(cls, weights, grads, **options, **implementation, use_gc=True)
        if optimizer.step_paths() == reference.step_paths():
            assert_same(params, wanted)
            assert_same(moments(optimizer), moments(reference))
        else:  # our kernel against torch
            assert_close(params, [p.detach().double() for p in wanted], 1e-5)
            assert_close(moments(optimizer), [x.double() for x in moments(reference)], 1e-5)
        moved = [not torch.equal(p, w) for p, w in zip(params, weights, strict=True)]
        assert moved == [w.numel() > 0 for w in weights]


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=KERNELS))
def test_parameters_that_miss_gradients_go_at_their_own_pace(cls, options):
    weights, grads = problem([(4, 3)] * 5)
    for t, step_grads in enumerate(grads):
        if 2 <= t < 5:
            step_grads[1] = None
        if t == 7:
            step_grads[2] = None
        if t < 3:
            step_grads[3] = None
        step_grads[4] = None
    params, optimizer = train(cls, weights, grads, **options, use_gc=True)
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)
    assert_same(params[4:], weights[4:])
    assert not optimizer.state.get(params[4])


@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=[{"fused": True}]))
def test_the_state_of_one_parameter_cleared(cls, options):
    weights, grads = problem([(4, 3)] * 2)
    options = options | {"use_gc": True}
    params, optimizer = train(cls, weights, grads[:4], **options)
    middle = params[0].detach().clone()
    optimizer.state[params[0]].clear()
    advance(optimizer, grads[4:])
    (anew,) = expected(cls, [middle], [g[:1] for g in grads[4:]], **options)
    (other,) = expected(cls, weights[1:], [g[1:] for g in grads], **options)
    assert_close(params, [anew, other], 1e-5)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize(("cls", "options"), one_row_each(gc_loc=[False], implementations=KERNELS))
def test_row_means_of_a_parameter_listed_twice(cls, options):
    weights, grads = problem([(4, 3)] * 2, dtype=torch.float64)
    params = [Parameter(w.clone()) for w in weights]
    optimizer = cls([*params, params[0]], lr=0.1, **options, use_gc=True)
    for first, second in grads:
        params[0].grad, params[1].grad = first.clone(), second.clone()
        optimizer.step()
    for p, w in zip(params, weights, strict=True):
        assert not torch.equal(p, w)
        torch.testing.assert_close(p.mean(1), w.mean(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_frozen_parameters_stay(cls, options):
    weights, grads = problem([(4, 3)] * 2)
    frozen, trained = weights[0].clone(), Parameter(weights[1].clone())
    optimizer = cls([frozen, trained], lr=0.1, **options, use_gc=True)
    for step_grads in grads:
        trained.grad = step_grads[1].clone()
        optimizer.step()
    assert_same([frozen], weights[:1])
    wanted = expected(cls, weights[1:], [g[1:] for g in grads], **options, use_gc=True)
    assert_close([trained], wanted, 1e-5)


@pytest.mark.parametrize(("cls", "options"), rows(gc_loc=[False]))
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=5).filter(
        lambda shape: torch.Size(shape[1:]).numel() > 1
    )
)
def test_row_means_never_move(cls, options, shape):
    weights, grads = problem([shape], dtype=torch.float64)
    for implementation in accepted(cls, KERNELS):
        params, _ = train(cls, weights, grads, **options, **implementation, use_gc=True)
        before, after = (x.detach().flatten(1).mean(1) for x in (weights[0], params[0]))
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
        assert not torch.equal(params[0], weights[0])


LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "strided": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "contiguous": lambda x: x.clone(),
}


def train_laid_out(cls, options, layout, gradient_layout):
    """As ``train``, with weights and gradients in the given layouts."""
    weights, grads = problem([(4, 3, 2, 2)])
    p = Parameter(LAYOUTS[layout](weights[0]))
    stride = p.stride()
    optimizer = cls([p], lr=0.1, **options)
    for (g,) in grads:
        p.grad = LAYOUTS[gradient_layout](g)
        optimizer.step()
    assert p.stride() == stride
    return [p], expected(cls, weights, grads, **options)


@on_every_device
@pytest.mark.parametrize(
    ("cls", "options", "layouts"),
    pairs(
        one_row_each(),
        KERNELS,
        [
            *((layout, layout) for layout in LAYOUTS),
            *((layout, "contiguous") for layout in LAYOUTS if layout != "contiguous"),
            *(("contiguous", layout) for layout in LAYOUTS if layout != "contiguous"),
            ("channels_last", "reversed"),
        ],
    ),
)
def test_any_memory_layout(cls, options, layouts):
    layout, gradient_layout = layouts
    if options.get("fused") and layout == "strided":
        with pytest.raises(ValueError, match=r"fused=True.*strided view"):
            train_laid_out(cls, options, layout, gradient_layout)
        return
    params, wanted = train_laid_out(cls, options, layout, gradient_layout)
    assert_close(params, wanted, 1e-5)


@on_every_device
@pytest.mark.parametrize(
    ("cls", "options", "layout"),
    pairs(one_row_each(), KERNELS, [layout for layout in LAYOUTS if layout != "contiguous"]),
)
def test_a_weight_laid_out_anew_between_steps(cls, options, layout):
    weights, grads = problem([(4, 3, 2, 2), (4, 3, 2, 2)])
    params, optimizer = train(cls, weights, grads[:4], **options)
    for new, steps in ((layout, grads[4:7]), ("contiguous", grads[7:])):
        params[0].data = LAYOUTS[new](params[0].data)
        if options.get("fused") and new == "strided":
            before = [x.detach().clone() for x in (*params, *moments(optimizer))]
            with pytest.raises(ValueError, match=r"fused=True.*strided view"):
                advance(optimizer, steps)
            assert_same([*params, *moments(optimizer)], before)
            return
        advance(optimizer, steps)
    assert_close(params, expected(cls, weights, grads, **options), 1e-5)


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=[{"fused": True}]))
def test_fused_switched_between_steps(cls, options):
    weights, grads = problem([(4, 3, 2, 2), (5, 3)])
    # torch's SGD clones gradients as its first buffers, with their layout in memory.
    grads = [[LAYOUTS["reversed"](g[0]), g[1]] for g in grads]
    for use_gc, was in product((False, True), repeat=2):
        switched = options | {"use_gc": use_gc, "fused": was}
        params, optimizer = train(cls, weights, grads[:5], **switched)
        optimizer.param_groups[0]["fused"] = not was
        advance(optimizer, grads[5:])
        assert_close(params, expected(cls, weights, grads, **switched), 1e-5)


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_an_expanded_gradient(cls, options):
    weights, grads = problem([(4, 3)], steps=3)
    grads = [[g.flatten()[0].expand(4, 3)] for (g,) in grads]
    for implementation in accepted(cls, IMPLEMENTATIONS):
        p = Parameter(weights[0].clone())
        optimizer = cls([p], lr=0.1, **options, **implementation, use_gc=True)
        for (g,) in grads:
            p.grad = g
            optimizer.step()
        assert_close([p], expected(cls, weights, grads, **options, use_gc=True), 1e-5)


@on_every_device
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-12),
        (torch.complex128, 1e-12),
        (torch.complex64, 1e-5),
        (torch.float16, 1e-2),
        (torch.bfloat16, 8e-2),
    ],
    ids=str,
)
@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_any_dtype(cls, options, dtype, tolerance):
    # Second moments in half precision cannot decay by 0.999, which rounds to 1.
    half = {"betas": (0.8, 0.9), "alpha": 0.9, "eps": 1e-2}
    options = options | {k: v for k, v in half.items() if accepts(cls, k)}
    weights, grads = problem([(4, 30), (3, 2, 3, 3), (5,), (5, 1)], dtype=dtype)
    of_torch = parent(cls).__module__.startswith("torch.optim.")
    for implementation in accepted(cls, IMPLEMENTATIONS):
        given = options | implementation | {"use_gc": True}
        if dtype.is_complex and (implementation.get("fused") or not of_torch):
            with pytest.raises(RuntimeError, match=r"floating point|complex"):
                train(cls, weights, grads, **given)
            continue
        params, _ = train(cls, weights, grads, **given)
        assert all(p.dtype is dtype for p in params)
        assert_close(params, expected(cls, weights, grads, **given), tolerance)


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_large_tensors(cls, options):
    # Among so many gradients, some are so small that eps = 1e-8 would keep only their sign.
    options = options | ({"eps": 1e-2} if accepts(cls, "eps") else {})
    weights, grads = problem([(70, 4099), (3, 2)], steps=2)
    params, _ = train(cls, weights, grads, **options, use_gc=True)
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.99, 0.9999])
@pytest.mark.parametrize("eps", [1e-8, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_second_moment_of_fused_rmsprop_tf(dtype, eps, alpha):
    # Where gradients are so small that v vanishes in v + eps, v stays >= 0 and the step is right.
    weights, grads = problem([(6, 50)], steps=100, dtype=dtype)
    scales = 10.0 ** torch.arange(-8, -2, dtype=dtype)[:, None]
    grads = [[g * scales] for (g,) in grads]
    options = {"alpha": alpha, "eps": eps, "lr": eps**0.5, "use_gc": True, "gc_loc": True}
    weights = [torch.zeros_like(w) for w in weights]
    params, optimizer = train(core.RMSpropTF, weights, grads, fused=True, **options)
    v = optimizer.state[params[0]]["square_avg"]
    assert (v >= 0).all()
    plain, reference = train(core.RMSpropTF, weights, grads, fused=False, **options)
    slack = 400 * torch.finfo(dtype).eps * eps
    torch.testing.assert_close(v, reference.state[plain[0]]["square_avg"], rtol=1e-5, atol=slack)
    for row, wanted in zip(*(p[0].detach().double() for p in (params, plain)), strict=True):
        torch.testing.assert_close(row, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@on_every_device
@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_one_group_of_several_dtypes(cls, options):
    dtypes = [torch.float32, torch.float64, torch.float32, torch.float64]
    weights, grads = problem([(4, 3), (4, 3), (5, 3), (2, 3, 2, 2)])
    weights = [w.to(dtype) for w, dtype in zip(weights, dtypes, strict=True)]
    grads = [[g.to(dtype) for g, dtype in zip(gs, dtypes, strict=True)] for gs in grads]
    wanted = expected(cls, weights, grads, **options, use_gc=True)
    for implementation in accepted(cls, IMPLEMENTATIONS):
        params, _ = train(cls, weights, grads, **options, **implementation, use_gc=True)
        assert [p.dtype for p in params] == dtypes
        assert_close(params, wanted, 1e-5)
        assert_close(params[1::2], wanted[1::2], 1e-12)


@pytest.mark.parametrize(
    ("cls", "options"), rows(table=[row for row in ROWS if row[0] is core.RAdam])
)
def test_plain_radam_is_radam(cls, options):
    weights, grads = problem()
    for step_grads in grads[:4]:
        step_grads[0] = None
    for implementation in KERNELS:
        given = options | implementation | {"use_gc": True}
        params, optimizer = train(core.PlainRAdam, weights, grads, **given)
        wanted, reference = train(cls, weights, grads, **given)
        assert_same(params, wanted)
        assert_same(moments(optimizer), moments(reference))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cls", RADAMS)
def test_radam_that_waits_still_advances_its_moments(cls, fused):
    weights, grads = problem([(4, 3)], steps=5)
    options = {"weight_decay": 0.3, "decoupled_weight_decay": True, "fused": fused}
    waited, optimizer = train(cls, weights, grads, **options, degenerated_to_sgd=False)
    stood = train(cls, weights, grads, **options | {"lr": 0.0})[1]
    assert_same(waited, weights)
    assert_close(moments(optimizer), [x.double() for x in moments(stood)], 1e-6)
    advance_one = problem([(4, 3)], steps=6)[1][5:]
    waited[0].grad = advance_one[0][0]
    optimizer.step()
    assert not torch.equal(waited[0], weights[0])
