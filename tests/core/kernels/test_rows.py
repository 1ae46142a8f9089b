"""The C kernel: what only our own kernel can promise, and every case against the formulas."""

import logging
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn import Parameter

from classy_gc import core
from classy_gc.core.kernels import rows as kernel
from tests import forked

from ..cases import (
    WITH_KERNELS,
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

pytestmark = pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing()))

FUSED = [{"fused": True}]
RAGGED = [1, 2, 3, 7, 8, 9, 15, 17, 31, 33, 63, 65, 4095, 4097]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cls", "options"), rows(implementations=FUSED))
def test_ragged_rows(cls, options):
    # Among so many gradients, some are so small that eps = 1e-8 would keep only their sign.
    options = options | ({"eps": 1e-2} if accepts(cls, "eps") else {})
    weights, grads = problem([(3, n) for n in RAGGED] + [(1, 5), (2, 1, 3, 3)], steps=3)
    params, optimizer = train(cls, weights, grads, **options, use_gc=True)
    assert optimizer.step_paths() == ["one pass"]
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)


@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=FUSED))
def test_long_rows_and_unaligned_memory(cls, options):
    options = options | ({"eps": 1e-2} if accepts(cls, "eps") else {})
    weights, grads = problem([(2, 400_000), (5, 7), (1, 2**18 + 1)], steps=2)
    whole = [torch.zeros(w.numel() + 3) for w in weights]
    params = []
    for memory, w in zip(whole, weights, strict=True):
        params.append(Parameter(memory[3:].view(w.shape)))
        params[-1].data.copy_(w)
    optimizer = cls(params, lr=0.1, **options, use_gc=True)
    advance(optimizer, grads)
    assert_close(params, expected(cls, weights, grads, **options, use_gc=True), 1e-5)
    assert all(memory[:3].eq(0).all() for memory in whole)


def _step_without_memory(others):
    import resource

    row, other = Parameter(torch.ones(1, 2**24)), Parameter(torch.ones(3, 4))
    optimizer = core.SGD([{"params": [row]}], lr=0.1, use_gc=True)
    if others:
        optimizer.add_param_group({"params": [other], "foreach": True})  # GC around torch's step
    row.grad, other.grad = torch.ones(1, 2**24), torch.rand(3, 4)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, before[1]))
    try:
        with pytest.raises(MemoryError):
            optimizer.step()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert row.eq(1).all()
    assert other.eq(1).all()
    optimizer.step()
    assert other.eq(1).all() != others


# In a process of its own, since what other tests have freed is memory to work in.
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside_torchs_step"])
def test_without_memory_nothing_moves(others, tmp_path):
    done = forked.run(_step_without_memory, others, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("cls", "options"), one_row_each(implementations=FUSED))
def test_results_are_the_same_bits_for_every_number_of_threads(cls, options, dtype, two_threads):
    shapes = [(40, 3001), (70000,), (3, 5), (2, 300_001)]  # whose rows are shared
    weights, grads = problem(shapes, steps=2, dtype=dtype)
    results = []
    for threads in (1, 5):
        torch.set_num_threads(threads)
        params, optimizer = train(cls, weights, grads, **options, use_gc=True)
        results.append([*params, *moments(optimizer)])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize(
    ("cls", "options", "dtype", "length"),
    [
        *((*row.values, torch.float32, 1001) for row in rows(implementations=FUSED)),
        *(
            (*row.values, dtype, 300_011)  # shared between threads
            for row in one_row_each(implementations=FUSED)
            for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        ),
    ],
)
def test_a_row_of_equal_elements_ends_where_it_was(cls, options, dtype, length):
    options = {k: v for k, v in options.items() if k not in ("eps", "initial_square_avg")}
    if options.get("gc_loc", cls is core.AdamW):  # where decoupled decay moves it
        options.pop("decoupled_weight_decay", None)
        options |= {"weight_decay": 0.0} if cls is core.AdamW else {}
    row = torch.tensor([0.1, -0.7, 3e-3], dtype=dtype)[:, None]
    weights = [row.expand(3, n).clone() for n in (7, length)]
    grads = [[row.expand_as(w) * (t / 3 - 1.3) for w in weights] for t in range(4)]
    params, optimizer = train(cls, weights, grads, **options, use_gc=True)
    assert optimizer.step_paths() == ["one pass"]
    assert_same(params, weights)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_both_paths_agree_whatever_the_group(data):
    cls, options = data.draw(st.sampled_from([p.values for p in rows(implementations=FUSED)]))
    options = options | {
        "use_gc": data.draw(st.booleans()),
        "gc_conv_only": data.draw(st.booleans()),
    }
    shape = st.lists(st.integers(0, 9), max_size=5)
    shapes = data.draw(st.lists(shape, min_size=1, max_size=6))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    weights, grads = problem(shapes, steps=data.draw(st.integers(1, 8)), dtype=dtype)
    for step_grads in grads:
        for i in data.draw(st.sets(st.integers(0, len(shapes) - 1))):
            step_grads[i] = None
    params, optimizer = train(cls, weights, grads, **options)
    wanted, around = train(cls, weights, grads, **options | {"fused": False})
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    assert_close(params, [p.detach().double() for p in wanted], tolerance)
    assert_close(moments(optimizer), [x.double() for x in moments(around)], tolerance)


HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("kernels_on", [True, False])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("cls", [p for p in WITH_KERNELS if p.values[0] is not core.SGD])
def test_row_means_of_half_precision_weights_do_not_drift(cls, dtype, kernels_on, monkeypatch):
    if not kernels_on:
        monkeypatch.setenv("CLASSY_GC_KERNELS", "0")
    generator = torch.Generator().manual_seed(0)
    w = (torch.randn(16, 512, generator=generator) * 0.02).to(dtype)
    grads = [[(torch.randn(16, 512, generator=generator) + 0.5).to(dtype)] for _ in range(50)]
    options = {"lr": 1e-4, "gc_loc": False} | (
        {"betas": (0.9, 0.99)} if accepts(cls, "betas") else {}
    )
    drift = {}
    for use_gc in (False, True):
        (p,), _ = train(cls, [w], grads, use_gc=use_gc, **options)
        drift[use_gc] = (p.detach().double().mean(1) - w.double().mean(1)).abs().mean().item()
    assert drift[True] < drift[False] / 8


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(("cls", "options"), rows(implementations=FUSED))
def test_half_precision_is_rounded_once(cls, options, dtype):
    # One step in float32 is the reference, rounded.
    options = options | ({"eps": 1e-2} if accepts(cls, "eps") else {})
    weights, grads = problem([(6, 40), (3, 2, 3, 3), (5,)], steps=1, dtype=dtype)
    params, _ = train(cls, weights, grads, **options, use_gc=True)
    exact = expected(cls, weights, grads, **options, use_gc=True)
    for p, x in zip(params, exact, strict=True):
        off = (p.detach().double() - x).abs() / x.abs().clamp(min=1e-2)
        assert off.max() <= torch.finfo(dtype).eps * 0.51


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_every_half_precision_number_survives_a_step_of_nothing(dtype):
    # All bit patterns but NaN: loaded, stored, and not moved by lr = 0.
    numbers = torch.arange(2**16).to(torch.uint16).view(dtype)
    numbers = numbers[numbers.isfinite()]
    p = Parameter(numbers[: len(numbers) // 2 * 2].view(2, -1).clone())
    p.grad = torch.zeros_like(p)
    core.SGD([p], lr=0.0, use_gc=True).step()
    assert p.detach().flatten().eq(numbers[: p.numel()]).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("gc_loc", [False, True])
def test_every_half_precision_nan_stays_one(dtype, gc_loc):
    numbers = torch.arange(2**16).to(torch.uint16).view(dtype)
    numbers = numbers[numbers.isnan()]
    for in_gradient in (False, True):
        p = Parameter(torch.zeros(len(numbers), 2, dtype=dtype))
        p.grad = torch.zeros_like(p)
        (p.grad if in_gradient else p.data)[:, 0] = numbers
        core.AdamW([p], use_gc=True, gc_loc=gc_loc).step()
        assert p[:, 0].isnan().all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_rounding_is_torchs(dtype):
    # g/3 in float32 over the whole range: subnormal, normal, infinite.
    generator = torch.Generator().manual_seed(0)
    scale = 10.0 ** torch.linspace(-9, 5, 40000)
    g = (torch.randn(40000, generator=generator) * scale).to(dtype)
    p = Parameter(torch.zeros(1, 40000, dtype=dtype))
    p.grad = g[None].clone()
    core.SGD([p], lr=1 / 3, maximize=True, use_gc=True, gc_conv_only=True).step()
    assert torch.equal(p.detach()[0], (g.float() * torch.tensor(1 / 3)).to(dtype))


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_autograd_sees_that_weights_changed(cls):
    w = Parameter(torch.ones(2, 3))
    loss = (w**2).sum()
    w.grad = torch.rand(2, 3)
    optimizer = cls([w], use_gc=True)
    optimizer.step()
    assert optimizer.step_paths() == ["one pass"]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_that_share_memory_are_stepped_one_after_the_other():
    w = torch.rand(4, 3)
    params = [Parameter(w), Parameter(w)]
    optimizer = core.SGD(params, lr=0.5, use_gc=True)
    before = w.clone()
    for p in params:
        p.grad = torch.tensor([1.0, 2.0, 3.0]).expand(4, 3).clone()
    optimizer.step()
    torch.testing.assert_close(before - w, torch.tensor([-1.0, 0, 1.0]).expand(4, 3))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({}, "one pass"),
        ({"fused": True}, "one pass"),
        ({"use_gc": False}, "torch's own step"),
        ({"fused": False}, "GC around torch's own step: fused is off"),
        ({"foreach": True}, "GC around torch's own step: foreach is set"),
        ({"capturable": True}, "GC around torch's own step: capturable is on"),
    ],
    ids=str,
)
def test_which_path_a_step_takes(change, path):
    options = {"use_gc": True} | change
    assert core.Adam([Parameter(torch.ones(2, 3))], **options).step_paths() == [path]


def test_paths_know_devices_and_empty_groups():
    optimizer = core.Adam(
        [{"params": []}, {"params": torch.ones(2, 3, device="meta")}], use_gc=True
    )
    wanted = ["one pass", "GC around torch's own step: there is no kernel for meta"]
    assert optimizer.step_paths() == wanted
    optimizer.step()


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_state_of_another_shape_is_refused_at_the_step_too(cls):
    p = Parameter(torch.ones(2, 3))
    p.grad = torch.ones(2, 3)
    optimizer = cls([p], use_gc=True, **({"momentum": 0.9} if accepts(cls, "momentum") else {}))
    optimizer.step()
    p.data, p.grad = torch.ones(300, 300), torch.ones(300, 300)
    with pytest.raises(ValueError, match=r"\[300, 300\].*\[2, 3\]"):
        optimizer.step()


@pytest.mark.parametrize("cls", WITH_KERNELS)
def test_state_on_another_device_is_refused_at_the_step(cls):
    p = Parameter(torch.ones(2, 3))
    p.grad = torch.ones(2, 3)
    optimizer = cls([p], use_gc=True, **({"momentum": 0.9} if accepts(cls, "momentum") else {}))
    optimizer.step()
    state = optimizer.state[p]
    name = next(name for name, x in state.items() if x.shape == p.shape)
    state[name] = state[name].to("meta")
    with pytest.raises(ValueError, match=r"on cpu, and its state .* on meta"):
        optimizer.step()


def test_step_counts_in_float64_go_on_where_float32_ends():
    p = Parameter(torch.ones(2, 3))
    optimizer = core.Adam([p], use_gc=True)
    advance(optimizer, [[torch.ones(2, 3)]])
    optimizer.state[p]["step"] = torch.tensor(2.0**24, dtype=torch.float64)
    advance(optimizer, [[torch.ones(2, 3)]] * 2)
    assert optimizer.state[p]["step"] == 2**24 + 2


@pytest.mark.parametrize("default", [torch.float64, torch.float32], ids=str)
def test_step_counts_of_any_type(default):
    torch.set_default_dtype(default)
    try:
        weights, grads = problem([(4, 3)], dtype=torch.float32)
        params, optimizer = train(core.RAdam, weights, grads, use_gc=True)
        (state,) = optimizer.state.values()
        assert (state["step"].dtype, state["step"].item()) == (default, 10)
        assert_close(params, expected(core.RAdam, weights, grads, use_gc=True), 1e-5)
    finally:
        torch.set_default_dtype(torch.float32)


def test_missing_kernels_are_said_once(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(kernel, "__file__", str(tmp_path / "rows.py"))
    caches = (kernel.missing, kernel.library)
    for cached in caches:
        cached.cache_clear()
    try:
        weights, grads = problem([(4, 3)])
        with caplog.at_level(logging.INFO):
            params, optimizer = train(core.Adam, weights, grads, use_gc=True)
        assert [record.message.count("did not compile") for record in caplog.records] == [1]
        assert "did not compile" in optimizer.step_paths()[0]
        assert_close(params, expected(core.Adam, weights, grads, use_gc=True), 1e-5)
    finally:
        for cached in caches:
            cached.cache_clear()


SHARED_POOL = """
import re, torch
from classy_gc import core

def pools():
    return set(re.findall(r"\\S*libgomp\\S*", open("/proc/self/maps").read()))

before = pools()
torch.set_num_threads(2)
p = torch.nn.Parameter(torch.rand(300, 300))
p.grad = torch.rand(300, 300)
core.Adam([p], use_gc=True).step()
print(len(before) > 0, pools() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernel_shares_the_thread_pool_of_torch(tmp_path):
    done = forked.run(forked.code, SHARED_POOL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "True set()\n")
