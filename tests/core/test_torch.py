"""Whether torch still has each private name that ``classy_gc.core._torch`` relies on."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import StepLR

from classy_gc import core
from classy_gc.core import _torch


def sgd(**options):
    p = Parameter(torch.ones(4, 3))
    p.grad = torch.ones(4, 3)
    return torch.optim.SGD([p], lr=0.1, **options)


@pytest.mark.parametrize("name", vars(_torch.foreach))
def test_multi_tensor_operators(name):
    operator = getattr(torch, f"_foreach_{name}", None)
    assert operator is not None, f"RMSpropTF outside of a kernel needs torch._foreach_{name}"


def test_gradients_are_enabled():
    assert torch.is_grad_enabled()
    _torch.set_grad_enabled(False)
    off = torch.is_grad_enabled()
    _torch.set_grad_enabled(True)
    assert torch.is_grad_enabled() is not off


def test_graph_breaks():
    exists = hasattr(torch._dynamo, "graph_break")
    assert exists, "CentralizedOptimizer.step keeps torch.compile out of GC by it"


def test_check_of_fused_parameters():
    p = Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    _torch.check_fused(p.to("meta"))
    with pytest.raises(RuntimeError, match="fused=True"):
        _torch.check_fused(p)


def test_steps_are_wrapped_in_hooks():
    step = type(sgd()).step
    message = "unhooked takes the hooks off a step by both, else those of a parent run twice"
    assert getattr(step, "hooked", False), message
    assert hasattr(step, "__wrapped__"), message
    assert _torch.unhooked(step) is not step
    assert _torch.unhooked(_torch.unhooked(step)) is _torch.unhooked(step)


def test_a_changed_class_can_be_hooked():
    found = hasattr(torch.optim.Optimizer, "_patch_step_function")
    assert found, "centralize_optimizer has the step of the new class run hooks by it"


def test_schedulers_watch_the_step():
    optimizer = sgd()
    StepLR(optimizer, 1)
    marked = getattr(vars(optimizer).get("step"), "_wrapped_by_lr_sched", False)
    assert marked, "centralize_optimizer replaces what a scheduler put into the instance"
    optimizer.step()
    message = "centralize_optimizer tells schedulers by it that the step was called"
    assert vars(optimizer).get("_opt_called"), message


def test_an_optimizer_knows_that_it_was_initialized():
    message = "centralize_optimizer tells optimizers from what wraps them by their hooks"
    assert _torch.is_initialized(sgd()), message


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adam])
def test_fused_optimizers_unscale_gradients(cls):
    p = Parameter(torch.ones(4, 3))
    message = "GradScaler leaves the scale to a step by this flag; LARC refuses by it"
    assert cls([p], fused=True)._step_supports_amp_scaling, message
    assert not core.LARC([p], fused=True)._step_supports_amp_scaling, message
    seen = []
    optimizer = cls([p], fused=True)
    optimizer.register_step_pre_hook(lambda x, *_: seen.append((x.grad_scale, x.found_inf)))
    p.grad = torch.ones(4, 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    ((scale, found_inf),) = seen
    assert scale.item() == 64, "kernels divide by grad_scale"
    assert found_inf.item() == 0, "kernels skip the step where found_inf is set"


@pytest.mark.parametrize(
    "other",
    [
        lambda: torch.ones(3, 4).t(),
        lambda: torch.ones(2, 3),
        lambda: torch.ones(4, 3, dtype=torch.float64),
        lambda: torch.ones(4, 3, device="meta"),
        lambda: torch.ones(4, 3).to_sparse(),
        lambda: torch.ones(4, 3)._neg_view(),
        lambda: torch._efficientzerotensor((4, 3)),
        lambda: Parameter(torch.ones(4, 3)),
    ],
)
def test_guards_of_tensors(other):
    x = torch.ones(4, 3)
    same = _torch.sameness([x, torch.ones(2)])
    message = "kernels are told addresses of tensors that this guard has seen"
    assert same(torch.zeros(4, 3), torch.ones(2)), message
    assert not same(other(), torch.ones(2)), message
    assert not same(torch.vmap(lambda y: y)(x), other()), message


def test_lazy_tensors_are_materialized():
    x = torch.ones(4, 3)
    assert _torch.materialized(x) is x
    for lazy in (x._neg_view(), torch._efficientzerotensor((4, 3))):
        y = _torch.materialized(lazy)
        assert y.data_ptr(), "its memory is read"
        assert torch.equal(y, lazy + 0)


def test_local_tensors():
    from torch.distributed.tensor import DTensor

    found = "_local_tensor" in DTensor.__slots__
    assert found, "GC changes in place what a process holds of a DTensor"


def test_flattened_parameters():
    from torch.distributed.fsdp import _flat_param

    assert hasattr(_flat_param, "FlatParameter"), "FSDP1 is refused by the name of this class"
    source = inspect.getsource(_flat_param)
    assert "_fsdp_flattened" in source, "FSDP1 is refused by this attribute with use_orig_params"


def test_lazy_parameters():
    assert _torch.is_uninitialized(torch.nn.LazyLinear(2).weight), "they have no shape yet"
    assert not _torch.is_uninitialized(torch.nn.Linear(2, 2).weight)


def test_no_other_module_reads_a_private_name_of_torch():
    # graph_break, which torch documents, acts only in the function that calls it.
    for path in Path(core.__file__).parent.rglob("*.py"):
        if path.name != "_torch.py":
            code = path.read_text().replace("torch._dynamo.graph_break()", "")
            assert not re.findall(r"torch[\w.]*\._[a-z]\w*", code), path
