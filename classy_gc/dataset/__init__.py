"""Classy Vision datasets, one file a registered name; those of torchvision share one."""

import classy_vision  # noqa: F401  which has all of these folders registered

from classy_gc.dataset.digits import DigitsDataset
from classy_gc.dataset.torchvision_dataset import (
    TorchvisionCIFAR10,
    TorchvisionCIFAR100,
    TorchvisionFashionMNIST,
)

__all__ = [
    "DigitsDataset",
    "TorchvisionCIFAR10",
    "TorchvisionCIFAR100",
    "TorchvisionFashionMNIST",
]
