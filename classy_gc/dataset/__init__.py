"""Classy Vision datasets, one file per registered name; those of torchvision share one."""

import classy_vision  # noqa: F401  which registers the names in these folders

from classy_gc.dataset.digits import DigitsDataset as DigitsDataset
from classy_gc.dataset.torchvision_dataset import TorchvisionCIFAR10 as TorchvisionCIFAR10
from classy_gc.dataset.torchvision_dataset import TorchvisionCIFAR100 as TorchvisionCIFAR100
from classy_gc.dataset.torchvision_dataset import TorchvisionFashionMNIST as TorchvisionFashionMNIST
