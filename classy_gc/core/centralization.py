"""The gradient-centralization operator: eligible tensors, row means, centralizing in place.

A step on the CPU does not call these functions: ``kernels/update.h`` has the same operator and the
update in one pass. Elsewhere they run around torch's own step.

For a tensor ``x`` of shape ``[d0, d1, …]`` the row mean is ``μ(x)``, the mean over dims
``1…``, and ``C(x) = x − μ(x)`` (Yong et al., *Gradient Centralization*, ECCV 2020,
https://arxiv.org/abs/2004.01461, eq. 1).

A row is a row of the *tensor*: what the first index selects. For a linear layer or a convolution
that is an output unit, for ``ConvTranspose2d`` an input channel. Only shapes matter, so a
``LayerNorm`` over several dimensions, a class token ``[1, 1, d]``, a position embedding or a table
of biases is centralized too, unless its parameter group has ``use_gc=False``. One NaN makes its
whole row NaN.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import OWN_TYPES, local_tensor

HALF = (torch.float16, torch.bfloat16)


def ineligible_reason(
    x: Tensor, *, use_gc: bool | float = True, gc_conv_only: bool | float = False
) -> str | None:
    """Why gradient centralization leaves ``x`` alone, or ``None`` if it applies.

    Only the shape of ``x`` matters, so a weight and its gradient give the same answer.

    Args:
        x: a weight or its gradient, of any shape.
        use_gc: the group's option of that name (default: True).
        gc_conv_only: only tensors of more than three dimensions, the weights of 2-d and
            3-d convolutions, are eligible (default: False).

    Returns:
        None, or a phrase that completes "not centralized: …".

    Example:
        >>> ineligible_reason(torch.zeros(8, 3, 3, 3)) is None
        True
        >>> ineligible_reason(torch.zeros(8))
        'it has 1 dimension, and rows need at least 2'
        >>> ineligible_reason(torch.zeros(8, 1))
        'its rows hold one element, which would become zero and never train'
        >>> ineligible_reason(torch.zeros(8, 4), gc_conv_only=True)
        'gc_conv_only is on and it has 2 dimensions, not more than 3'
    """
    if not use_gc:
        return "use_gc is off"
    dims = x.dim()
    if dims < 2:
        return f"it has {dims} dimension{'s' * (dims != 1)}, and rows need at least 2"
    if gc_conv_only and dims < 4:
        return f"gc_conv_only is on and it has {dims} dimensions, not more than 3"
    if x.numel() == 0:
        return "it is empty"
    if x.numel() == x.shape[0]:
        return "its rows hold one element, which would become zero and never train"
    return None


def local_rows(x: Tensor) -> Tensor:
    """The local rows of a DTensor, if this process holds whole rows; else ``x``.

    ``fully_shard`` shards along the first dimension, so GC needs no communication there. If rows
    are split between processes, :func:`row_means` sums over them.
    """
    # Most tensors have these types, and looking up a missing attribute is slow.
    if type(x) in OWN_TYPES or not hasattr(x, "placements"):
        return x
    return x if any(map(_splits_rows, x.placements)) else x.to_local()


def _splits_rows(placement: Any) -> bool:
    # ``dim`` and not ``is_shard``, which is false for tensor-parallel weights under FSDP2.
    return not (placement.is_replicate() or getattr(placement, "dim", None) == 0)


def row_means(x: Tensor) -> Tensor:
    """``μ(x)``: the mean over all dimensions but the first, of at least two.

    Returns:
        Shape ``[d0, 1, …]``; float32 if ``x`` is half precision, else ``x.dtype``. For a DTensor
        with split rows, the means of the rows that this process holds a part of.

    Example:
        >>> row_means(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).tolist()
        [[2.0], [5.0]]
    """
    dims = tuple(range(1, x.dim()))
    dtype = torch.float32 if x.dtype in HALF else None
    if type(x) in OWN_TYPES or not hasattr(x, "placements"):
        return x.mean(dims, True, dtype=dtype)
    sums = x.to_local().sum(dims, True, dtype=dtype)
    for i, placement in enumerate(x.placements):
        if _splits_rows(placement):
            torch.distributed.all_reduce(sums, group=x.device_mesh.get_group(i))
    return sums * (x.shape[0] / x.numel())


def shift_rows_(x: Tensor, means: Tensor) -> Tensor:
    """``x −= means`` in place, so that row means fall by ``means``, of shape ``[d0, 1, …]``.

    Example:
        >>> x = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
        >>> shift_rows_(x, row_means(x)).tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
    """
    local_tensor(x).sub_(means)
    return x


@torch.no_grad()
def centralize_(tensors: Iterable[Tensor], *, gc_conv_only: bool | float = False) -> list[Tensor]:
    """``C(x) = x − μ(x)`` in place, for every eligible tensor; the others are not changed.

    Tensors may have any floating or complex dtype, any device, and a dense or strided layout.

    Args:
        tensors: tensors of any shapes.
        gc_conv_only: leave tensors of up to three dimensions alone (default: False).

    Returns:
        The same tensors, in a list.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020, https://arxiv.org/abs/2004.01461,
    equation 1.

    Example:
        >>> weight, bias = torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 3.0])
        >>> centralize_([weight, bias])
        [tensor([[-1.,  1.]]), tensor([1., 3.])]
    """
    tensors = list(tensors)
    for x in tensors:
        if ineligible_reason(x, gc_conv_only=gc_conv_only) is None:
            shift_rows_(x, row_means(x))
    return tensors
