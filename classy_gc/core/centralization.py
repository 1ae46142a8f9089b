"""The gradient-centralization operator: who is eligible, row sums, centralize in place.

For a tensor ``x`` of shape ``[d0, d1, …]`` the row mean is ``μ(x)``, the mean over dims
``1…``, and ``C(x) = x − μ(x)`` (Yong et al., *Gradient Centralization*, ECCV 2020,
https://arxiv.org/abs/2004.01461, eq. 1).

The functions work with row *sums*: ``x −= Σ/n`` folds the division by the row length
``n`` into the subtraction, one kernel launch less for every tensor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_LOW_PRECISION = (torch.float16, torch.bfloat16)

#: number of dimensions: those that make up a row
_ROW_DIMS = [tuple(range(1, dims)) for dims in range(65)]  # torch has at most 64


def ineligible_reason(
    x: Tensor, *, use_gc: bool | float = True, gc_conv_only: bool | float = False
) -> str | None:
    """Why gradient centralization leaves ``x`` alone, or ``None`` if it applies.

    Only the shape of ``x`` is looked at, so a weight and its gradient give one answer.

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
    """The rows of ``x`` that this process holds, where it holds them whole.

    Args:
        x: a tensor, or a :class:`torch.distributed.tensor.DTensor`.

    Returns:
        The local shard of a DTensor that is replicated or sharded along its first dimension,
        as ``fully_shard`` does: GC needs no communication there. Anything else as it is:
        where rows are split between processes, :func:`row_sums` adds up their parts.

    Example:
        >>> x = torch.zeros(2, 3)
        >>> local_rows(x) is x
        True
    """
    # Most tensors are of these two types, and looking up a missing attribute is slow.
    if type(x) in (Tensor, torch.nn.Parameter) or not hasattr(x, "placements"):
        return x
    return x if any(map(_splits_rows, x.placements)) else x.to_local()


def _splits_rows(placement: Any) -> bool:
    # ``dim`` and not ``is_shard``, which is false for what FSDP2 makes of tensor-parallel weights.
    return not (placement.is_replicate() or getattr(placement, "dim", None) == 0)


def _in_blocks(x: Tensor) -> bool:
    """Whether to work through ``x`` in eighths, to bound mixed-precision temporaries.

    On the CPU torch casts whole operands to float32 before it adds a float32 to a
    half-precision tensor: four times the tensor in temporaries. Eighths keep that to half.
    """
    return x.dtype in _LOW_PRECISION and x.device.type == "cpu"


def row_sums(x: Tensor) -> Tensor:
    """``n·μ(x)``: the sum over every dimension but the first.

    Args:
        x: shape ``[d0, d1, …]``, at least two dimensions.

    Returns:
        Shape ``[d0, 1, …]``; float32 where ``x`` is half precision, else ``x.dtype``. Of a
        DTensor whose rows are split, the sums of those that this process holds a part of.

    Example:
        >>> row_sums(torch.ones(2, 3, 4)).flatten()
        tensor([12., 12.])
    """
    if type(x) not in (Tensor, torch.nn.Parameter) and hasattr(x, "placements"):
        sums = row_sums(x.to_local())
        for i, placement in enumerate(x.placements):
            if _splits_rows(placement):
                torch.distributed.all_reduce(sums, group=x.device_mesh.get_group(i))
        return sums
    dims = _ROW_DIMS[x.dim()]
    if x.dtype not in _LOW_PRECISION:
        return x.sum(dims, True)
    blocks = x.chunk(8) if _in_blocks(x) else (x,)
    return torch.cat([rows.sum(dims, True, dtype=torch.float32) for rows in blocks])


def shift_rows_(x: Tensor, sums: Tensor) -> Tensor:
    """``x −= sums / n`` in place, so that row sums fall by ``sums``.

    Args:
        x: shape ``[d0, d1, …]``, changed in place.
        sums: shape ``[d0, 1, …]``, as :func:`row_sums` gives.

    Returns:
        ``x``.

    Example:
        >>> x = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
        >>> shift_rows_(x, row_sums(x))
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    numel = x.numel()
    if numel == 0:  # the shard of a process that holds no rows
        return x
    alpha = x.size(0) / numel
    x = getattr(x, "_local_tensor", x)  # of split rows, the part that this process holds
    if not _in_blocks(x):
        return x.sub_(sums, alpha=alpha)
    for rows, rows_sums in zip(x.chunk(8), sums.chunk(8), strict=True):
        rows.sub_(rows_sums, alpha=alpha)
    return x


def in_batches(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Batches for :func:`batch_row_sums`: small tensors of one kind together, others alone.

    A kernel launch a tensor is what centralizing many small tensors costs; stacking them
    into a scratch tensor of at most 65,536 elements costs far less. Large tensors stay
    alone: they are read where they are.

    Args:
        tensors: eligible tensors.

    Returns:
        Lists of one tensor, or of several of the same shape, dtype and device; and where
        :mod:`classy_gc.core.triton_rows` is enabled, a :class:`KernelBatch` for each dtype
        and device of the tensors that it supports.

    Example:
        >>> [len(batch) for batch in in_batches([torch.zeros(2, 3)] * 5 + [torch.zeros(99, 99)])]
        [5, 1]
    """
    batches: list[list[Tensor]] = []
    for_kernels: dict[Any, KernelBatch] = {}
    open_batches: dict[Any, list[Tensor]] = {}
    for x in tensors:
        size = x.numel()
        if TRITON and _kernels().supports(x):
            for_kernels.setdefault((x.dtype, x.device), KernelBatch()).append(x)
            continue
        if size > 4096 or hasattr(x, "placements"):
            batches.append([x])
            continue
        kind = (x.shape, x.dtype, x.device)
        batch = open_batches.get(kind)
        if batch is None or (len(batch) + 1) * size > 65536:
            batch = open_batches[kind] = []
            batches.append(batch)
        batch.append(x)
    for batch in for_kernels.values():
        batch.kernel = _kernels().RowKernel(batch)
    return [*batches, *for_kernels.values()]


#: whether to run row arithmetic on CUDA as one Triton kernel a group: tested under Triton's
#: interpreter, not measured on a GPU, so off unless the environment asks for it
TRITON = os.environ.get("CLASSY_GC_TRITON") == "1"


class KernelBatch(list[Tensor]):
    """Tensors of any shapes whose rows one kernel launch works on."""

    kernel: Any = None


def _kernels() -> ModuleType:
    from classy_gc.core import triton_rows  # triton comes with torch's CUDA wheels only

    return triton_rows


def batch_row_sums(batch: list[Tensor]) -> Tensor:
    """:func:`row_sums` of every tensor of a batch.

    Args:
        batch: one tensor, or several small ones of one shape ``[d0, d1, …]``.

    Returns:
        Shape ``[d0, 1, …]`` of one tensor, ``[len(batch), d0, 1, …]`` of several.

    Example:
        >>> batch_row_sums([torch.ones(2, 3), torch.zeros(2, 3)]).shape
        torch.Size([2, 2, 1])
    """
    if isinstance(batch, KernelBatch):
        return batch.kernel.sums(batch)
    if len(batch) == 1:
        return row_sums(batch[0])
    stacked = torch.stack(batch)
    dims = _ROW_DIMS[stacked.dim()][1:]
    dtype = torch.float32 if stacked.dtype in _LOW_PRECISION else None
    return stacked.sum(dims, True, dtype=dtype)


def shift_batch_rows_(batch: list[Tensor], sums: Tensor) -> None:
    """:func:`shift_rows_` for every tensor of a batch.

    Args:
        batch: one tensor, or several of one shape ``[d0, d1, …]``, changed in place.
        sums: as :func:`batch_row_sums` gives.

    Example:
        >>> batch = [torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 5.0]])]
        >>> shift_batch_rows_(batch, batch_row_sums(batch))
        >>> batch
        [tensor([[-1.,  1.]]), tensor([[0., 0.]])]
    """
    if len(batch) == 1:
        shift_rows_(batch[0], sums)
    else:
        alpha = batch[0].size(0) / batch[0].numel()
        torch._foreach_sub_(batch, sums.unbind(), alpha=alpha)


@torch.no_grad()
def centralize_(tensors: Iterable[Tensor], *, gc_conv_only: bool | float = False) -> list[Tensor]:
    """``C(x) = x − μ(x)`` in place, for every eligible tensor; the others stay as they are.

    Any floating or complex dtype, device and dense or strided layout will do.

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
    eligible = [x for x in tensors if ineligible_reason(x, gc_conv_only=gc_conv_only) is None]
    for batch in in_batches(eligible):
        if isinstance(batch, KernelBatch):
            batch.kernel.centralize_(batch)
        else:
            shift_batch_rows_(batch, batch_row_sums(batch))
    return tensors
