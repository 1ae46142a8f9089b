"""Gradient centralization for Classy Vision.

``import classy_gc`` registers every optimizer, dataset and hook of this package with Classy
Vision, under the names of their files.
"""

from classy_gc import optim

__all__ = ["optim"]
