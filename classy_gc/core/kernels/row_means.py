"""Row means by ``rows.c``, for GC around a step that is none of ours; by torch where it cannot."""

from __future__ import annotations

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
    known = _known(tensors)
    xs = list(compress(tensors, known))
    counts = [x.shape[0] for x in xs]
    own = torch.empty(sum(counts), dtype=torch.float64).split(counts)
    _call("classy_gc_row_means", xs, own)
    means = iter(own)
    return [
        next(means) if is_known else centralization.row_means(x).flatten()
        for x, is_known in zip(tensors, known, strict=True)
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
    known = _known(tensors)
    for x, mean, is_known in zip(tensors, means, known, strict=True):
        if is_known:
            continue
        shift = centralization.row_means(x)
        if mean is not None:
            mean = mean.view(shift.shape)
            shift = shift.sub_(mean).masked_fill_(mean.isinf(), 0)
        centralization.shift_rows_(x, shift)
    xs = list(compress(tensors, known))
    doubles = [mean if mean is None else mean.double() for mean in compress(means, known)]
    _call("classy_gc_set_row_means", xs, doubles)
    torch.autograd.graph.increment_version(xs)


def _known(tensors: Sequence[Tensor]) -> list[bool]:
    """Whether ``rows.c`` can reach each tensor, whose rows are blocks of memory that show it."""
    if os.environ.get("CLASSY_GC_KERNELS") == "0" or rows.missing():
        return [False] * len(tensors)
    return [
        type(x) in OWN_TYPES
        and x.is_cpu
        and x.dtype in TYPES
        and bool(row_length(x.shape, x.stride(), True, False))
        and has_memory(x)
        and not x.is_neg()
        for x in tensors
    ]


def _call(function: str, xs: Sequence[Tensor], means: Sequence[Tensor | None]) -> None:
    table = array("q", [x.data_ptr() for x in xs])
    table.extend([TYPES.index(x.dtype) for x in xs])
    table.extend([x.shape[0] for x in xs])
    table.extend([x.numel() // x.shape[0] for x in xs])
    table.extend([0 if mean is None else mean.data_ptr() for mean in means])
    if xs:
        address, _ = table.buffer_info()
        getattr(rows.library(), function)(address, len(xs), torch.get_num_threads())
