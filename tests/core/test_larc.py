"""LARC leaves gradients as they are, and refuses at once what it cannot take norms of."""

import pytest
import torch
from torch.nn import Parameter

from classy_gc import core

from .cases import IMPLEMENTATIONS, assert_close, assert_same, problem, row_id


@pytest.mark.parametrize("use_gc", [False, True])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda x: row_id((core.LARC, x)))
def test_gradients_and_options_end_as_they_were(implementation, use_gc):
    weights, (grads,) = problem(steps=1)
    params = [Parameter(w.clone()) for w in weights]
    optimizer = core.LARC(
        params, lr=0.1, momentum=0.9, weight_decay=0.3, use_gc=use_gc, **implementation
    )
    given = [g.clone() for g in grads]
    for p, g in zip(params, given, strict=True):
        p.grad = g
    optimizer.step()
    assert all(p.grad is g for p, g in zip(params, given, strict=True))
    assert_same(given, grads)
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert not torch.equal(params[0], weights[0])


@pytest.mark.parametrize("use_gc", [False, True])
def test_a_sparse_gradient_is_refused_in_one_line_and_changes_nothing(use_gc):
    weights, (grads,) = problem([(4, 3), (5, 3)], steps=1)
    params = [Parameter(w.clone()) for w in weights]
    optimizer = core.LARC(params, momentum=0.9, weight_decay=0.3, use_gc=use_gc)
    sparse = grads[1].to_sparse(1)
    params[0].grad, params[1].grad = grads[0].clone(), sparse
    with pytest.raises(RuntimeError, match=r"^LARC .*sparse.*\[5, 3\].*$") as caught:
        optimizer.step()
    assert "\n" not in str(caught.value)
    assert_same(params, weights)
    assert params[1].grad is sparse
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    assert not optimizer.state


def test_gradients_come_back_after_an_error(monkeypatch):
    p = Parameter(torch.ones(4, 3))
    optimizer = core.LARC([p], weight_decay=0.3)
    p.grad = grad = torch.rand(4, 3)

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(core.LARC, "update_without_gc", fails)
    with pytest.raises(MemoryError):
        optimizer.step()
    assert p.grad is grad
    assert optimizer.param_groups[0]["weight_decay"] == 0.3


def test_norms_that_half_precision_cannot_hold():
    weight, grad = torch.ones(100, 1000), torch.full((100, 1000), 500.0)
    grad[:, 0] = 0.0
    changes = []
    for dtype in (torch.float32, torch.float16):
        p = Parameter(weight.to(dtype, copy=True))
        p.grad = grad.to(dtype)
        core.LARC([p], lr=1.0, use_gc=True).step()
        changes.append((p.detach() - 1)[:, 0].float())
    assert_close(changes[1:], changes[:1], 0.05)
