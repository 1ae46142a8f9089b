"""GC around another class's step: row means by the C kernel, and by torch."""

import pytest
import torch

from classy_gc import core
from classy_gc.core.kernels import rows
from classy_gc.core.kernels.rows import row_means, set_row_means_
from tests.core.cases import assert_close, assert_same, bits, expected, problem, train

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(5, 3), (3, 70), (2, 3, 5, 7), (1, 40000), (400, 100)]


def drawn(dtype, shapes=SHAPES):
    torch.manual_seed(0)
    return [torch.randn(shape).add(3).to(dtype) for shape in shapes]


def layouts(dtype):
    """Tensors of any layout; the kernel takes each or leaves it to torch."""
    a, b, c, d, e = drawn(dtype)
    yield from (
        a,
        a.t(),
        b[:, 1:],
        c.to(memory_format=torch.channels_last),
        d[:, ::2],
        e[3:],
        e[:, :7],
    )
    yield a.expand(2, 5, 3)[1]


def test_the_kernel_is_here():
    assert rows.missing() is None


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_means_are_set(dtype):
    xs = [x.clone(memory_format=torch.preserve_format) for x in layouts(dtype)]
    before, means = [x.to(torch.float64, copy=True) for x in xs], row_means(xs)
    for x, mean in zip(before, means, strict=True):
        torch.testing.assert_close(mean.double(), x.flatten(1).mean(1), rtol=1e-6, atol=1e-6)
    wanted = [None if i % 2 else mean + 1 for i, mean in enumerate(means)]
    versions = [x._version for x in xs]
    set_row_means_(xs, wanted)
    assert all(x._version > version for x, version in zip(xs, versions, strict=True))
    tolerance = dict.fromkeys(("rtol", "atol"), 8 * torch.finfo(dtype).eps)
    for x, old, mean, new in zip(xs, before, means, wanted, strict=True):
        shift = (torch.zeros_like(mean) if new is None else new).double() - mean.double()
        shifted = old + shift.view(-1, *[1] * (x.dim() - 1))
        torch.testing.assert_close(x.double(), shifted, **tolerance)


def test_means_are_on_the_cpu_whatever_the_default_device():
    x = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    with torch.device("meta"):
        (mean,) = row_means([x])
    assert mean.tolist() == [2.0, 5.0]


@pytest.mark.parametrize("value", [0.1, 3e38, -7e-30, 1 / 3])
@pytest.mark.parametrize("dtype", TYPES[:3], ids=str)
def test_rows_of_equal_elements_come_back_exactly(dtype, value):
    xs = [torch.full(shape, value, dtype=dtype) for shape in SHAPES]
    means = row_means(xs)
    for x in xs:
        x.fill_(-0.7)
    set_row_means_(xs, means)
    for x in xs:
        assert torch.equal(x, torch.full_like(x, value))
    set_row_means_(xs, [None] * len(xs))
    assert not any(x.any() for x in xs)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_same_bits_for_every_number_of_threads(dtype):
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        xs = drawn(dtype)
        means = row_means(xs)
        set_row_means_(xs, [mean / 3 for mean in means])
        results.append(bits(xs + means))
    torch.set_num_threads(threads)
    assert results[1:] == results[:-1]


@pytest.mark.parametrize("gc_loc", [False, True])
@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
def test_a_step_is_the_same_by_kernel_and_by_torch(dtype, gc_loc, monkeypatch):
    weights, grads = problem(dtype=dtype)
    options = {"weight_decay": 0.3, "maximize": True, "use_gc": True, "gc_loc": gc_loc}
    options["foreach"] = False  # GC goes around it
    by_kernel, _ = train(core.Adam, weights, grads, **options)
    monkeypatch.setenv("CLASSY_GC_KERNELS", "0")
    by_torch, _ = train(core.Adam, weights, grads, **options)
    for params in (by_kernel, by_torch):
        assert_close(params, expected(core.Adam, weights, grads, **options), 1e-5)
    monkeypatch.delenv("CLASSY_GC_KERNELS")
    again, _ = train(core.Adam, weights, grads, **options)
    assert_same(again, by_kernel)
