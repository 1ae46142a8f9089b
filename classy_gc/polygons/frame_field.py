"""Frame fields: two directions in every pixel that the walls of buildings there follow.

Directions are complex numbers, row + i·column. A frame field is two complex maps that do not depend
on the order or the sign of the directions: ``c0 = u²v²`` and ``c2 = −(u² + v²)``. The roots of
``f(z) = z⁴ + c2·z² + c0`` are ±u and ±v.

Source: Girard et al., *Polygonal Building Extraction by Frame Field Learning*, CVPR 2021,
https://arxiv.org/abs/2004.14875, section 3.1.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.transform import downscale_local_mean

from classy_gc.polygons.maps import as_array, check_size, load_arrays

#: ``|c0|`` above which a field is certain of its directions
CERTAIN = 0.95
_GRADIENT_SIGMA = 2.0  # px
_AVERAGE_SIGMA = 32.0
_BLOCK = 4


class FrameField(NamedTuple):
    """The two coefficients in every pixel.

    Attributes:
        c0: ``u²v²``, complex, shape ``[H, W]``.
        c2: ``−(u² + v²)``, complex, shape ``[H, W]``.
    """

    c0: Any
    c2: Any


def from_directions(u: Any, v: Any) -> FrameField:
    """The frame field of two directions.

    Args:
        u, v: complex arrays or tensors of the same shape, with absolute value 1.

    Example:
        >>> frame = from_directions(np.array([1 + 0j]), np.array([1j]))
        >>> frame.c0.tolist(), frame.c2.tolist()
        ([(-1+0j)], [(-0-0j)])
    """
    return FrameField(u**2 * v**2, -(u**2 + v**2))


def from_channels(channels: Any) -> FrameField:
    """The frame field in the output channels of a network.

    Args:
        channels: real and imaginary parts of c0, then of c2; real numbers, shape ``[4, H, W]``.

    Raises:
        ValueError: another shape, or complex values.

    Example:
        >>> from_channels(np.array([-1.0, 0, 0, 0]).reshape(4, 1, 1)).c0.tolist()
        [[(-1+0j)]]
    """
    if not isinstance(channels, torch.Tensor):
        channels = np.asarray(channels)
    elif channels.element_size() < 4:  # torch has no complex bfloat16
        channels = channels.float()
    if len(channels.shape) != 3 or channels.shape[0] != 4 or "complex" in str(channels.dtype):
        found = f"{channels.dtype}, {list(channels.shape)}"
        raise ValueError(f"a frame field's channels must be real, [4, height, width], not {found}")
    return FrameField(channels[0] + 1j * channels[1], channels[2] + 1j * channels[3])


def as_frame(frame: Any, shape: tuple[int, ...], name: str = "the frame field") -> FrameField:
    """Checks a frame field and returns it as two complex64 arrays.

    Args:
        frame: c0 and c2, each anything that :func:`as_array` takes.
        shape: the shape both must have.
        name: what messages call the frame field (default: ``"the frame field"``)

    Raises:
        ValueError: not two maps, another shape, or values that are not finite.

    Example:
        >>> as_frame((torch.ones(2, 3), [[0j] * 3] * 2), (2, 3)).c2.dtype
        dtype('complex64')
    """
    if len(frame) != 2:
        raise ValueError(f"{name} must be c0 and c2, not {len(frame)} arrays; see from_channels")
    checked = FrameField(*(as_array(c).astype(np.complex64) for c in frame))
    for c in checked:
        check_size(name, c.shape, "the map", shape)
        if not np.isfinite(c).all():
            raise ValueError(f"{name} has values that are not finite")
    return checked


def open_frame_field(path: str | Path, shape: tuple[int, int]) -> FrameField:
    """Reads a frame field.

    Args:
        path: of an ``.npz`` with complex ``c0`` and ``c2`` of shape ``[H, W]``, or with one array
            of four channels: real and imaginary parts of c0, then of c2.
        shape: the shape it must have.

    Raises:
        ValueError: no such file, other arrays, another shape, or values that are not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "frame.npz")
        >>> np.savez(path, np.ones((4, 2, 3)))
        >>> open_frame_field(path, (2, 3)).c2.shape
        (2, 3)
    """
    arrays = load_arrays(Path(path))
    if len(arrays) == 1:
        frame = from_channels(*arrays.values())
    elif arrays.keys() == {"c0", "c2"}:
        frame = FrameField(**arrays)
    else:
        raise ValueError(f"{path} must hold c0 and c2, or four channels, not {list(arrays)}")
    return as_frame(frame, shape, f"the frame field {path}")


def from_map(interior: np.ndarray) -> FrameField:
    """The frame field with right angles that the walls in the map suggest.

    A direction keeps its fourth power when it turns by 90°. The map is smoothed by a Gaussian of 2
    px; the fourth power of the direction of its gradient g, weighted by |g|², is averaged by a
    Gaussian of 32 px.

    Args:
        interior: probability of a building, shape ``[H, W]``.

    Returns:
        A frame field of ``complex64``, with ``c2 = 0``. ``|c0|`` is the square of how well the
        gradients agree, at most 1, so that ``f`` weighs little where they disagree; it is 0 where
        the map is flat all around.

    Example:
        >>> wall = np.zeros((64, 64), np.float32)
        >>> wall[:, 32:] = 1
        >>> from_map(wall).c0[32, 32].round(3) + 0
        np.complex64(-1+0j)
    """
    interior = np.float32(interior)
    rows = ndimage.gaussian_filter(interior, _GRADIENT_SIGMA, (1, 0), mode="nearest")
    columns = ndimage.gaussian_filter(interior, _GRADIENT_SIGMA, (0, 1), mode="nearest")
    z2 = (rows + 1j * columns) ** 2
    size = np.abs(z2)
    z4 = z2**2 / np.maximum(size, np.finfo(np.float32).tiny)
    average = _averaged(z4) / np.maximum(_averaged(size), 1e-12)
    c0 = (-average * np.abs(average)).repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    c0 = np.ascontiguousarray(c0[: len(interior), : interior.shape[1]])
    return FrameField(c0, np.zeros_like(c0))


def _averaged(x: np.ndarray) -> np.ndarray:
    """Averages by the wide Gaussian, one value per block: it does not need every pixel."""
    x = downscale_local_mean(x, (_BLOCK, _BLOCK))
    return ndimage.gaussian_filter(x, _AVERAGE_SIGMA / _BLOCK, mode="constant")


def directions(frame: FrameField) -> tuple[Any, Any]:
    """The two directions of a frame field: ``√((−c2 ± √(c2² − 4·c0)) / 2)``.

    Args:
        frame: of arrays or tensors of any shape.

    Returns:
        u and v, in no particular order and with no particular sign.

    Example:
        >>> u, v = directions(from_directions(np.array([1j]), np.array([0.6 + 0.8j])))
        >>> np.round(u, 3).tolist(), np.round(v, 3).tolist()
        ([(0.6+0.8j)], [1j])
    """
    root = (frame.c2**2 - 4 * frame.c0) ** 0.5
    return ((root - frame.c2) / 2) ** 0.5, ((-root - frame.c2) / 2) ** 0.5


def nearest(frame: FrameField, points: Any) -> FrameField:
    """The frame field in the pixels nearest to points.

    Args:
        frame: of arrays or tensors of shape ``[H, W]``.
        points: (row, column), an array or a tensor like ``frame``, shape ``[n, 2]``.

    Returns:
        A frame field of arrays or tensors of shape ``[n]``.

    Example:
        >>> c0 = np.array([[1 + 0j, 2, 3]])
        >>> nearest(FrameField(c0, c0), np.array([[0.0, 1.6]])).c0.tolist()
        [(3+0j)]
    """
    height, width = frame.c0.shape
    index = points.round()
    row, column = (index.long() if torch.is_tensor(index) else index.astype(int)).T
    pixel = row.clip(0, height - 1) * width + column.clip(0, width - 1)
    if torch.is_tensor(pixel):  # index_select is twice as fast as take
        return FrameField(*(c.flatten().index_select(0, pixel) for c in frame))
    return FrameField(*(c.take(pixel) for c in frame))


def polynomial(z: Any, frame: FrameField) -> Any:
    """``f(z) = z⁴ + c2·z² + c0``: zero where z follows the frame.

    Args:
        z: complex directions, an array or a tensor.
        frame: a frame field of the same shape.

    Example:
        >>> frame = from_directions(np.array([1 + 0j]), np.array([1j]))
        >>> abs(polynomial(np.array([1j]), frame)).tolist()
        [0.0]
        >>> (abs(polynomial(np.exp([0.25j * np.pi]), frame)) ** 2).round(6).tolist()
        [4.0]
    """
    z2 = z * z
    return (z2 + frame.c2) * z2 + frame.c0


def follows_u(z: Any, directions: tuple[Any, Any]) -> Any:
    """Whether u is nearer to z than v.

    Args:
        z: complex numbers, an array or a tensor.
        directions: u and v from :func:`directions`, each of the shape of ``z``.

    Example:
        >>> follows_u(np.array([2 + 1j]), (np.array([1]), np.array([1j]))).tolist()
        [True]
    """
    u, v = directions
    return abs((z * u.conj()).real) > abs((z * v.conj()).real)


def square_map(values: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The map resampled to the square pixels of ``polygonize_map``, bilinearly."""
    if (ratio == 1).all():
        return values
    return ndimage.zoom(values, ratio, order=1, mode="nearest", grid_mode=True)


def square_frame(frame: FrameField, ratio: np.ndarray) -> FrameField:
    """The frame field on the pixels of :func:`square_map`, with its directions adapted."""
    if (ratio == 1).all():
        return frame
    turned = []
    for w in directions(frame):
        z = w.real * ratio[0] + 1j * w.imag * ratio[1]
        turned.append(z * np.abs(w) / np.maximum(np.abs(z), 1e-9))
    return FrameField(*(square_map(c, ratio) for c in from_directions(*turned)))
