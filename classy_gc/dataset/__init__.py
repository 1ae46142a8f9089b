"""Classy Vision datasets, one file a registered name; those of torchvision share one."""

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
