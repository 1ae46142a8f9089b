"""Classy Vision datasets, one file a registered name."""

from classy_gc.dataset.digits import DigitsDataset

__all__ = ["DigitsDataset"]
