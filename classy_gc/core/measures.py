"""Measures what gradient centralization removes from a gradient, and how far row means drift."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


@torch.no_grad()
def row_sums(x: Tensor) -> Tensor:
    """The sums of all rows, also of a DTensor's, at least in float32.

    Args:
        x: shape ``[d0, d1, …]``, at least two dimensions.

    Returns:
        Shape ``[d0, 1, …]``; for a DTensor, the sums over all processes.

    Example:
        >>> row_sums(torch.tensor([[3.0, 5.0], [-1.0, 1.0]])).tolist()
        [[8.0], [0.0]]
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    sums = x.sum(tuple(range(1, x.dim())), True, dtype=dtype)
    return sums.full_tensor() if hasattr(sums, "full_tensor") else sums


@torch.no_grad()
def row_mean_norms(x: Tensor, reference: Tensor | None = None) -> Tensor:
    """``[‖x − C(x)‖, ‖x‖]``: the norms of the row means, each counted per element, and of ``x``.

    ``‖x − C(x)‖² = Σ n·mean²`` over the rows of ``n`` elements, so nothing as large as ``x`` is
    allocated. Half precision is computed in float32, and a DTensor over all processes.

    Args:
        x: shape ``[d0, d1, …]``, at least two dimensions, not empty.
        reference: row sums to subtract first, shape ``[d0, 1, …]`` (default: None).

    Returns:
        Shape ``[2]``, on the device of ``x``.

    Example:
        >>> row_mean_norms(torch.tensor([[3.0, 5.0], [-1.0, 1.0]])).square().round()
        tensor([32., 36.])
    """
    sums = row_sums(x)
    if reference is not None:
        sums = sums - reference
    norm = torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32))
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    row_length = x.numel() / x.shape[0]
    return torch.stack([torch.linalg.vector_norm(sums) / math.sqrt(row_length), norm])


def gradient_norms(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """:func:`row_mean_norms` of the gradient of each parameter that has a dense one."""
    return {
        name: row_mean_norms(p.grad)
        for name, p in parameters.items()
        if p.grad is not None and p.grad.layout == torch.strided
    }


def ratios(
    norms: Mapping[str, Tensor], power: int = 1
) -> tuple[dict[str, float | None], float | None]:
    """The ratios of norms, with one wait for the device.

    Args:
        norms: from :func:`row_mean_norms`, by name.
        power: of the ratios; 2 for those of squared norms (default: 1)

    Returns:
        ``‖x − C(x)‖ / ‖x‖`` of each to this power, and of all taken as one vector; None for 0/0,
        or if a norm is not finite.

    Example:
        >>> ratios({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0, 3.0])})
        ({'a': 0.75, 'b': 0.0}, 0.6)
    """
    if not norms:
        return {}, None
    device = next(iter(norms.values())).device
    values = torch.stack([pair.to(device) for pair in norms.values()]).tolist()
    parts, totals = zip(*values, strict=True)

    def ratio(part: float, total: float) -> float | None:
        exists = total and math.isfinite(part) and math.isfinite(total)
        return (part / total) ** power if exists else None

    each = {name: ratio(*pair) for name, pair in zip(norms, values, strict=True)}
    return each, ratio(math.hypot(*parts), math.hypot(*totals))
