"""Row arithmetic of a whole group of tensors in one kernel launch, for CUDA.

Off unless the environment says ``CLASSY_GC_TRITON=1``, see :mod:`classy_gc.core.centralization`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

# A row of up to BLOCK elements stays in registers between the sum and the subtraction; of a
# longer one the second read finds in cache what the first one brought.
_BLOCK = 2048


def supports(x: Tensor) -> bool:
    """Whether the kernel can work on ``x`` where it lies.

    Args:
        x: an eligible tensor, ``[d0, d1, …]``.

    Returns:
        True for float32, bfloat16 and float16 on CUDA (on the CPU under the interpreter) whose
        elements are dense and whose rows are one block of memory each, ``channels_last``
        included.
    """
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.dtype in _DTYPES
        and (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1")
        and x.stride(0) * x.size(0) == x.numel()
        and torch.empty_like(x, device="meta").stride() == x.stride()
    )


@triton.jit
def _rows(
    x_table,
    p_table,
    tensor_of_row,
    first_row,
    length,
    sums,
    scale,
    wd,
    DTYPE: tl.constexpr,
    HAS_DECAY: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SUMS: tl.constexpr,
    SUM_ONLY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    t = tl.load(tensor_of_row + row)
    n = tl.load(length + t)
    start = (row - tl.load(first_row + t)).to(tl.int64) * n
    x = tl.load(x_table + t).to(tl.pointer_type(DTYPE)) + start
    if HAS_DECAY:
        p = tl.load(p_table + t).to(tl.pointer_type(DTYPE)) + start
        factor = wd
        if HAS_SCALE:
            factor = wd * tl.load(scale)
    columns = tl.arange(0, BLOCK)
    if n <= BLOCK:
        mask = columns < n
        values = tl.load(x + columns, mask=mask, other=0.0).to(tl.float32)
        total = tl.sum(values, axis=0)
        if HAS_DECAY:
            decay = tl.load(p + columns, mask=mask, other=0.0).to(tl.float32)
            total += factor * tl.sum(decay, axis=0)
        if SUM_ONLY:
            tl.store(sums + row, total)
        else:
            if HAS_SUMS:
                total -= tl.load(sums + row)
            tl.store(x + columns, (values - total / n).to(DTYPE), mask=mask)
    else:
        partial = tl.zeros([BLOCK], dtype=tl.float32)
        for first in range(0, n, BLOCK):
            mask = first + columns < n
            partial += tl.load(x + first + columns, mask=mask, other=0.0).to(tl.float32)
            if HAS_DECAY:
                decay = tl.load(p + first + columns, mask=mask, other=0.0).to(tl.float32)
                partial += factor * decay
        total = tl.sum(partial, axis=0)
        if SUM_ONLY:
            tl.store(sums + row, total)
        else:
            if HAS_SUMS:
                total -= tl.load(sums + row)
            mean = total / n
            for first in range(0, n, BLOCK):
                mask = first + columns < n
                values = tl.load(x + first + columns, mask=mask, other=0.0).to(tl.float32)
                tl.store(x + first + columns, (values - mean).to(DTYPE), mask=mask)


class RowKernel:
    """One launch over all rows of a list of tensors of one dtype and device.

    What depends on shapes alone is laid out once, here; a call sends only the addresses.

    Args:
        tensors: such that :func:`supports` says yes, of one dtype and device.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.dtype, self.device = tensors[0].dtype, tensors[0].device
        rows = torch.tensor([x.size(0) for x in tensors])
        self.num_rows = int(rows.sum())
        self.length = torch.tensor(
            [x.numel() // x.size(0) for x in tensors], dtype=torch.int32, device=self.device
        )
        self.first_row = (rows.cumsum(0) - rows).to(self.device, torch.int32)
        self.tensor_of_row = torch.repeat_interleave(torch.arange(len(rows)), rows).to(
            self.device, torch.int32
        )

    def _addresses(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.tensor([x.data_ptr() for x in tensors], device=self.device)

    def _launch(
        self,
        tensors: Sequence[Tensor],
        params: Sequence[Tensor] = (),
        wd: float = 0.0,
        scale: Tensor | None = None,
        sums: Tensor | None = None,
        sum_only: bool = False,
    ) -> None:
        table = self._addresses(tensors)
        _rows[(self.num_rows,)](
            table,
            self._addresses(params) if params else table,
            self.tensor_of_row,
            self.first_row,
            self.length,
            self.length if sums is None else sums,
            self.length if scale is None else scale,
            wd,
            DTYPE=_DTYPES[self.dtype],
            HAS_DECAY=bool(params),
            HAS_SCALE=scale is not None,
            HAS_SUMS=sums is not None and not sum_only,
            SUM_ONLY=sum_only,
            BLOCK=_BLOCK,
        )

    def centralize_(
        self,
        grads: Sequence[Tensor],
        params: Sequence[Tensor] = (),
        wd: float = 0.0,
        scale: Tensor | None = None,
    ) -> None:
        """``g −= μ(g + scale·wd·p)`` in place; without ``params``, ``g −= μ(g)``."""
        self._launch(grads, params, wd, scale)

    def sums(self, tensors: Sequence[Tensor]) -> Tensor:
        """Row sums, one after the other: shape ``[num_rows]``, float32."""
        sums = torch.empty(self.num_rows, dtype=torch.float32, device=self.device)
        self._launch(tensors, sums=sums, sum_only=True)
        return sums

    def restore_(self, tensors: Sequence[Tensor], sums: Tensor) -> None:
        """Shifts rows in place so that their sums become ``sums`` again."""
        self._launch(tensors, sums=sums)
