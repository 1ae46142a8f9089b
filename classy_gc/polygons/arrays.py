"""Maps and frame fields from outside, checked before anything is computed from them."""

from typing import Any, NamedTuple

import numpy as np
import torch

from classy_gc.polygons.frame_field import FrameField

_ROUNDING = 1e-3  # by which a probability may miss [0, 1]


class InputError(ValueError):
    """A fault of a file or an option, told in one line."""


class Buildings(NamedTuple):
    """Polygons, and how probable the map makes each.

    Attributes:
        polygons: shapely polygons in (x, y) = (column + ½, row + ½) pixels, shape ``[n]``.
        probability: the mean of the map over each polygon, shape ``[n]``.
        before: polygons of the unrefined outlines, only simplified, shape ``[m]``.
    """

    polygons: np.ndarray
    probability: np.ndarray
    before: np.ndarray


def as_array(values: Any) -> np.ndarray:
    """A NumPy array made from an array, a tensor of any device and precision, or lists.

    Masked elements become 0.

    Example:
        >>> as_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).tolist()
        [1.0, 1.0]
        >>> as_array(np.ma.masked_greater([1, 2, 3], 2)).tolist()
        [1, 2, 0]
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().resolve_conj()
        values = values.float() if values.dtype == torch.bfloat16 else values
        values = values.resolve_neg().numpy()
    return np.ascontiguousarray(np.ma.filled(values, 0))


def as_map(values: Any, name: str = "interior", shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A map of probabilities as an array of float32.

    Args:
        values: anything that :func:`as_array` takes, shape ``[H, W]``, in [0, 1]. Values outside by
            less than 0.001 are clipped, since rounding explains them.
        name: what messages call the map (default: ``"interior"``)
        shape: the shape it must have (default: None, any)

    Raises:
        InputError: another shape, other numbers, NaN, or values outside the range.

    Example:
        >>> as_map([[0, 0.5], [1, 1.0000002]]).tolist()
        [[0.0, 0.5], [1.0, 1.0]]
    """
    try:
        values = as_array(values)
    except ValueError as error:  # lists of unequal length
        raise InputError(f"{name} must be one array [height, width]: {error}") from error
    check_form(values, name)
    if shape is not None and values.shape != shape:
        raise InputError(f"{name} is {size_text(values.shape)}, interior {size_text(shape)} pixels")
    return in_range(values, name)


def check_form(values: np.ndarray, name: str) -> None:
    """Refuses an array whose shape or kind of numbers cannot be a map's; see :func:`as_map`."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        raise InputError(
            f"{name} must have the shape [height, width] and real numbers, not "
            f"{list(values.shape)} and {values.dtype}"
        )


def in_range(values: np.ndarray, name: str) -> np.ndarray:
    """Probabilities as float32; see :func:`as_map`."""
    values = np.array(values, np.float32)  # a copy: torch warns of memory that is read-only
    low, high = values.min(initial=0), values.max(initial=0)
    if np.isnan(low):
        raise InputError(f"{name} must lie in [0, 1], but some values are NaN")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"{name} must lie in [0, 1], not from {values.min():g} to {values.max():g}"
        )
    return values.clip(0, 1) if low < 0 or high > 1 else values


def as_frame(frame: Any, shape: tuple[int, ...], name: str = "the frame field") -> FrameField:
    """Checks a frame field and returns it as two complex64 arrays.

    Args:
        frame: c0 and c2, each anything that :func:`as_array` takes.
        shape: the shape both must have.
        name: what messages call the frame field (default: ``"the frame field"``)

    Raises:
        InputError: not two maps, another shape, or values that are not finite.

    Example:
        >>> as_frame((torch.ones(2, 3), [[0j] * 3] * 2), (2, 3)).c2.dtype
        dtype('complex64')
    """
    if len(frame) != 2:
        raise InputError(
            f"{name} must be c0 and c2, not {len(frame)} arrays; from_channels builds it from four"
        )
    checked = FrameField(*(as_array(c).astype(np.complex64) for c in frame))
    for c in checked:
        if c.shape != tuple(shape):
            raise InputError(f"{name} is {size_text(c.shape)}, the map {size_text(shape)} pixels")
        if not np.isfinite(c).all():
            raise InputError(f"{name} has values that are not finite")
    return checked


def size_text(shape: tuple[int, ...]) -> str:
    """A shape as text, such as ``120×160``."""
    return "×".join(map(str, shape))
