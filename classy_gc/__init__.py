"""Gradient centralization for Classy Vision.

``import classy_gc`` registers every optimizer, dataset, hook and task of this package with Classy
Vision, under the names of their files.
"""

import warnings

with warnings.catch_warnings():
    # Of what Classy Vision imports, and nobody who uses it can act upon.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", message="The 'torchvision.transforms._")
    from classy_gc import dataset, hooks, optim, param_groups, tasks

__all__ = ["dataset", "hooks", "optim", "param_groups", "tasks"]
