"""Which parameters torch's fused kernels can step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from classy_gc.core._torch import local_tensor
from classy_gc.core.centralization import HALF
from classy_gc.core.memory import is_dense


def fused_supported(p: Tensor) -> bool:
    """Whether torch's fused kernels can update ``p``.

    Before torch 2.14, its fused SGD on the CPU does not update most elements of half-precision
    parameters (https://github.com/pytorch/pytorch/issues/191763).

    Args:
        p: a parameter on the device where it is trained.

    Returns:
        True if it is real floating point, dense in memory, and its device has the kernels.

    Example:
        >>> fused_supported(torch.zeros(2, 3)), fused_supported(torch.zeros(2, 3).cfloat())
        (True, False)
    """
    skipped = torch.__version__ < (2, 14) and p.is_cpu and p.dtype in HALF
    x = local_tensor(p)
    return (
        p.is_floating_point()
        and p.device.type in _get_fused_kernels_supported_devices()
        and is_dense(x.shape, x.stride())
        and not skipped
    )
