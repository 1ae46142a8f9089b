"""The operator on its own."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from classy_gc.core import centralize_, ineligible_reason

from .cases import ELIGIBLE, INELIGIBLE, assert_close, assert_same, problem
from .reference import centralizer

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64]
SHAPES = st.lists(st.integers(0, 20), max_size=5).filter(lambda s: torch.Size(s).numel() < 4000)


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((5, 3), {"use_gc": False}, "use_gc is off"),
        ((5, 3), {"use_gc": 0.0}, "use_gc is off"),
        ((), {}, "it has 0 dimensions, and rows need at least 2"),
        ((5,), {}, "it has 1 dimension, and rows need at least 2"),
        ((5, 3), {"gc_conv_only": True}, "gc_conv_only is on and it has 2 dimensions"),
        ((5, 3, 2), {"gc_conv_only": 1.0}, "gc_conv_only is on and it has 3 dimensions"),
        ((0, 3), {}, "it is empty"),
        ((3, 0, 2), {}, "it is empty"),
        ((5, 1), {}, "one element"),
        ((1, 1), {}, "one element"),
        ((5, 1, 1, 1), {"gc_conv_only": True}, "one element"),
        ((5, 3), {}, None),
        ((1, 2), {"use_gc": 0.5, "gc_conv_only": 0.0}, None),
        ((5, 3, 2), {"gc_conv_only": False}, None),
        ((5, 3, 2, 2), {"gc_conv_only": True}, None),
        ((5, 1, 1, 1, 2), {"gc_conv_only": True}, None),
    ],
)
def test_ineligible_reason(shape, options, reason):
    actual = ineligible_reason(torch.zeros(shape), **options)
    assert actual is None if reason is None else reason in actual


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, st.sampled_from(DTYPES), st.booleans())
def test_centralize_subtracts_row_means_and_is_idempotent(shape, dtype, gc_conv_only):
    (x,), _ = problem([shape], steps=0, dtype=dtype)
    eps = torch.finfo(dtype).eps
    c = centralizer(x, use_gc=True, gc_conv_only=gc_conv_only)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    wanted = c(x.to(wide))

    once = x.clone()
    (returned,) = centralize_([once], gc_conv_only=gc_conv_only)
    assert returned is once
    assert once.dtype is dtype
    assert_close([once], [wanted], 4 * eps)
    twice = centralize_([once.clone()], gc_conv_only=gc_conv_only)
    assert_close(twice, [once.to(wide)], 4 * eps)


def test_centralize_takes_lists_generators_and_parameters():
    weights, _ = problem([*ELIGIBLE, *INELIGIBLE], steps=0)
    wanted = [centralizer(w, use_gc=True)(w.double()) for w in weights]
    parameters = [torch.nn.Parameter(w.clone()) for w in weights]
    returned = centralize_(p for p in parameters)
    assert all(a is b for a, b in zip(returned, parameters, strict=True))
    assert_close(parameters, wanted, 1e-6)
    assert_same(parameters[len(ELIGIBLE) :], weights[len(ELIGIBLE) :])
    assert all(p.is_leaf and p.requires_grad for p in parameters)
    assert centralize_([]) == []


def test_gc_conv_only_leaves_small_tensors_alone():
    weights, _ = problem([(5, 3), (4, 3, 2)], steps=0)
    assert_same(centralize_([w.clone() for w in weights], gc_conv_only=True), weights)


@pytest.mark.parametrize("rows", [1, 3, 9, 17])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.bfloat16, 1.0),  # the sum, 70001, is 70144 in bfloat16: a mean of 1.002
        (torch.float16, 1.0),  # and infinite in float16
        (torch.float16, 60000.0),
    ],
    ids=str,
)
def test_half_precision_sums_in_float32(dtype, value, rows):
    x = torch.full((rows, 70001), value, dtype=dtype)
    centralize_([x])
    assert x.abs().max() <= torch.finfo(dtype).eps * value * 1e-3


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_layout(layout, dtype):
    (w,), _ = problem([(9, 3, 2, 2)], steps=0, dtype=dtype)
    x = layout(w)
    stride = x.stride()
    (wanted,) = centralize_([w])
    centralize_([x])
    assert x.stride() == stride
    assert_close([x], [wanted], 4 * torch.finfo(dtype).eps)
