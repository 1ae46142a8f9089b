"""Classy Vision datasets, one file per registered name; those of torchvision share one."""

import classy_vision  # noqa: F401  which registers the names in these folders

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
