"""How elements lie in memory, as kernels that work with addresses must know."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import OWN_TYPES, is_uninitialized, local_tensor, materialized


@lru_cache(maxsize=4096)
def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether elements of this shape and stride fill one block of memory, in any order."""
    filled = 1
    for size, step in sorted(zip(shape, stride, strict=True), key=lambda dim: dim[1]):
        if size != 1 and step != filled:
            return 0 in shape
        filled *= size
    return True


def has_memory(x: Tensor) -> bool:
    """Whether ``x`` has memory, unlike a wrapper of ``torch.func``."""
    try:
        return x.numel() == 0 or x.data_ptr() != 0
    except RuntimeError:
        return False


def readable(x: Tensor) -> bool:
    """Whether a kernel that is told the address of ``x`` finds its values there.

    Args:
        x: of any shape, type and device.

    Example:
        >>> readable(torch.ones(2)), readable(torch.ones(2, device="meta"))
        (True, False)
    """
    own = type(x) in OWN_TYPES and x.layout == torch.strided
    return own and not x.is_neg() and has_memory(x)


def check_dense(params: Iterable[Tensor]) -> None:
    """Raises a ValueError for parameters that torch's fused kernels would read past."""
    for p in params:
        x = local_tensor(p)
        if not is_uninitialized(p) and not is_dense(x.shape, x.stride()):
            raise ValueError(
                "fused=True needs parameters that fill one block of memory; for a strided view, "
                "use fused=False"
            )


def laid_out_as(p: Tensor, x: Tensor) -> Tensor:
    """``x`` if it has the memory layout of ``p``, of the same shape; else a copy with that layout.

    Raises:
        ValueError: ``x`` has another shape.
    """
    if x.shape != p.shape:
        raise ValueError(f"a parameter of shape {list(p.shape)} has a gradient of {list(x.shape)}")
    if x.stride() == p.stride() or (x.is_contiguous() and p.is_contiguous()):
        return x
    return torch.empty_like(p, dtype=x.dtype).copy_(x)


def lay_out_gradient(p: Tensor, fused: bool) -> None:
    """Replaces a gradient whose memory layout does not allow work in place.

    Autograd makes no such gradient, but a user who sets ``p.grad`` may. Fused kernels need the
    layout of the parameter (torch's on the CPU would pair elements with the wrong weights), and GC
    needs elements that do not share memory.
    """
    g = p.grad
    if g.layout != torch.strided:
        return
    g = materialized(g)
    placements = getattr(g, "placements", None)
    if placements not in (None, getattr(p, "placements", None)):
        # Autograd leaves the sum over replicas to the reader.
        g = g.redistribute(placements=p.placements)
    if fused:
        g = laid_out_as(p, g)
    elif 0 in g.stride():
        g = g.contiguous()
    p.grad = g


def lay_out_state(p: Tensor, state: Iterable[Any]) -> None:
    """Gives the tensors of a parameter's state its memory layout.

    They lack it if the memory format of a model has changed since the first step, or since the
    state was saved.
    """
    for x in state:
        if isinstance(x, Tensor) and x.shape == p.shape and x.stride() != p.stride():
            x.data = laid_out_as(p, x)


def shared_memory(tensors: Iterable[Tensor]) -> set[int]:
    """The ``id`` of each tensor that may share memory with another, or whose elements may overlap.

    Example:
        >>> x = torch.zeros(3, 4)
        >>> a, b, c = x[:2], x[1:2], x[2:]
        >>> shared_memory([a, b, c]) == {id(a), id(b)}
        True
    """
    spans, shared = [], set()
    for x in tensors:
        part = local_tensor(x)
        if part.layout != torch.strided or not has_memory(part):
            continue
        start, size = part.data_ptr(), part.nbytes
        if not (part.is_contiguous() or is_dense(part.shape, part.stride())):
            shared.add(id(x))
            storage = part.untyped_storage()
            start, size = storage.data_ptr(), storage.nbytes()
        if size:
            spans.append((start, start + size, id(x)))
    end = last = 0
    for start, this_end, this in sorted(spans):
        if start < end:
            shared |= {this, last}
        if this_end > end:
            end, last = this_end, this
    return shared
