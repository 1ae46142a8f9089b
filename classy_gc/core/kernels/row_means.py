"""Row means by ``rows.c``, for GC around a step that is none of ours; by torch where it cannot."""

import os
from array import array
from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor

from classy_gc.core import centralization
from classy_gc.core._torch import OWN_TYPES
from classy_gc.core.kernels import rows
from classy_gc.core.kernels.plan import row_length
from classy_gc.core.kernels.table import TYPES
from classy_gc.core.memory import has_memory


def row_means(tensors: Sequence[Tensor]) -> list[Tensor]:
    """``μ(x)`` of each tensor that GC can act on, shape ``[d0]``.

    Example:
        >>> row_means([torch.tensor([[1.0, 3.0], [5.0, 5.0]])])[0].tolist()
        [2.0, 5.0]
    """
    addresses = _addresses(tensors)
    xs = list(compress(tensors, addresses))
    counts = [len(x) for x in xs]
    by_kernel = torch.empty(sum(counts), dtype=torch.float64).split(counts) if xs else ()
    _call("classy_gc_row_means", xs, addresses, by_kernel)
    if len(xs) == len(tensors):
        return list(by_kernel)
    means = iter(by_kernel)
    return [
        next(means) if address else centralization.row_means(x).flatten()
        for x, address in zip(tensors, addresses, strict=True)
    ]


def set_row_means_(tensors: Sequence[Tensor], means: Sequence[Tensor | None]) -> None:
    """Shifts the rows of each tensor, in place, so that they have these means; None is zero.

    A row whose mean is to be infinite stays as it is: weights of −inf are masks.

    Example:
        >>> x = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
        >>> set_row_means_([x], [torch.tensor([4.0, 5.0])])
        >>> x.tolist()
        [[3.0, 5.0], [5.0, 5.0]]
    """
    addresses = _addresses(tensors)
    for x, mean, address in zip(tensors, means, addresses, strict=True):
        if address:
            continue
        shift = centralization.row_means(x)
        if mean is not None:
            mean = mean.view(shift.shape)
            shift = shift.sub_(mean).masked_fill_(mean.isinf(), 0)
        centralization.shift_rows_(x, shift)
    xs = list(compress(tensors, addresses))
    doubles = [mean if mean is None else mean.double() for mean in compress(means, addresses)]
    _call("classy_gc_set_row_means", xs, addresses, doubles)
    torch.autograd.graph.increment_version(xs)


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    """The address of each tensor, or 0 if ``rows.c`` cannot read its rows as blocks of memory."""
    if os.environ.get("CLASSY_GC_KERNELS") == "0" or rows.missing():
        return [0] * len(tensors)
    return [
        x.data_ptr()
        if type(x) in OWN_TYPES
        and x.is_cpu
        and x.dtype in TYPES
        and row_length(x.shape, x.stride(), True, False)
        and has_memory(x)
        and not x.is_neg()
        else 0
        for x in tensors
    ]


def _call(
    function: str, xs: list[Tensor], addresses: list[int], means: Sequence[Tensor | None]
) -> None:
    if not xs:
        return
    counts = [len(x) for x in xs]
    table = array("q", filter(None, addresses))
    table.extend([TYPES.index(x.dtype) for x in xs])
    table.extend(counts)
    table.extend([x.numel() // count for x, count in zip(xs, counts, strict=True)])
    table.extend([0 if mean is None else mean.data_ptr() for mean in means])
    address, _ = table.buffer_info()
    getattr(rows.library(), function)(address, len(xs), torch.get_num_threads())
