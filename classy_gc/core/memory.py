"""How elements lie in memory, which kernels that are given addresses have to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import PLAIN, fused_devices, is_uninitialized, local_tensor
from classy_gc.core.centralization import HALF


@lru_cache(maxsize=4096)
def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the elements of a tensor fill one block of memory, in whatever order.

    Args:
        shape: of the tensor.
        stride: of the tensor, in elements.

    Example:
        >>> x = torch.zeros(4, 6)
        >>> [is_dense(y.shape, y.stride()) for y in (x, x.t(), x[:, ::2])]
        [True, True, False]
    """
    filled = 1
    for size, step in sorted(zip(shape, stride, strict=True), key=lambda dim: dim[1]):
        if size != 1:
            if step != filled:
                return 0 in shape
            filled *= size
    return True


def fused_supported(p: Tensor) -> bool:
    """Whether torch's fused kernels can update ``p``.

    Args:
        p: a parameter, on the device it is trained on.

    Returns:
        True if it is real floating point, dense in memory, and its device has the kernels.

    Example:
        >>> fused_supported(torch.zeros(2, 3)), fused_supported(torch.zeros(2, 3).cfloat())
        (True, False)
    """
    x = local_tensor(p)
    return (
        p.is_floating_point()
        and p.device.type in fused_devices()
        and is_dense(x.shape, x.stride())
        and not skipped_by_fused_sgd(p)
    )


def skipped_by_fused_sgd(p: Tensor) -> bool:
    """Whether torch's fused SGD leaves most elements of ``p`` as they are, an error of torch's.

    Source: https://github.com/pytorch/pytorch/issues/191763, mended in torch 2.14.

    Args:
        p: a parameter, on the device it is trained on.

    Example:
        >>> skipped_by_fused_sgd(torch.zeros(64))
        False
    """
    return torch.__version__ < (2, 14) and p.is_cpu and p.dtype in HALF


def check_dense(params: Iterable[Tensor]) -> None:
    """Refuses parameters that torch's fused kernels would read past.

    Args:
        params: of a group with ``fused``; lazy ones have no memory yet.

    Raises:
        ValueError: one is a strided view.
    """
    for p in params:
        if not is_uninitialized(p) and not is_dense(
            local_tensor(p).shape, local_tensor(p).stride()
        ):
            raise ValueError(
                "fused=True needs parameters whose elements fill one block of memory (torch's "
                "fused kernels read past them otherwise); got a strided view, use fused=False"
            )


def laid_out_as(p: Tensor, x: Tensor) -> Tensor:
    """``x`` if it lies in memory as ``p`` does, else a copy that does.

    Args:
        p: a dense tensor.
        x: of the same shape.

    Example:
        >>> x = torch.arange(6).reshape(3, 2).t()
        >>> laid_out_as(torch.zeros(2, 3), x).stride()
        (3, 1)
    """
    if x.stride() == p.stride() or (x.is_contiguous() and p.is_contiguous()):
        return x
    return torch.empty_like(p, dtype=x.dtype).copy_(x)


def lay_out_gradient(p: Tensor, fused: bool) -> None:
    """Replaces a gradient that cannot be worked on in place as it lies in memory.

    Autograd makes none of them; a user who sets ``p.grad`` may. Fused kernels need a gradient
    that lies as its parameter does (torch's CPU kernels would pair its elements with the wrong
    weights), GC one whose elements do not share memory.

    Args:
        p: a parameter with a gradient.
        fused: whether torch's fused kernels are to read it.
    """
    g = p.grad
    if g.layout != torch.strided:
        return
    # Looking up a missing attribute is slow, so not on a plain tensor.
    if type(g) not in PLAIN and hasattr(g, "placements") and g.placements != p.placements:
        # Autograd leaves sums of replicated weights to whoever reads them.
        g = p.grad = g.redistribute(placements=p.placements)
    if fused:
        laid_out = laid_out_as(p, g)
        if laid_out is not g:
            p.grad = laid_out
    elif 0 in g.stride():
        p.grad = g.contiguous()


def lay_out_state(p: Tensor, state: Iterable[Any]) -> None:
    """Has tensors of a parameter's state lie in memory as it does.

    They may not where the memory format of a model changed after the first step, or since the
    state was saved.

    Args:
        p: a parameter.
        state: values of its state; tensors of its shape are changed in place.
    """
    for x in state:
        if isinstance(x, Tensor) and x.shape == p.shape and x.stride() != p.stride():
            x.data = laid_out_as(p, x)
