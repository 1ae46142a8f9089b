"""The optimizers of :mod:`classy_gc.core` for MMEngine configs, as ``SGDGC``, ``AdamGC`` and so on.

Importing this module registers each of them as an OPTIMIZER, with ``GC`` appended to its name in
the core, because ``SGD`` and ``Adam`` are torch's own there. Classy Vision is not needed. The
options are those of the class; a key in ``custom_keys`` of ``paramwise_cfg`` takes the GC options
too. ::

    custom_imports = dict(imports=["classy_gc.mmengine"])
    optim_wrapper = dict(
        optimizer=dict(type="AdamWGC", lr=1e-3, weight_decay=0.05, use_gc=True),
        paramwise_cfg=dict(custom_keys={"pos_embed": dict(use_gc=False)}),
    )

Source: https://mmengine.readthedocs.io/en/latest/tutorials/optim_wrapper.html

Example:
    >>> import torch
    >>> from mmengine.registry import OPTIMIZERS
    >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
    >>> optimizer = OPTIMIZERS.build(dict(type="SGDGC", params=[weight], lr=0.5, use_gc=True))
    >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
    >>> optimizer.step()  # the gradient (1, 3) becomes (−1, 1)
    >>> weight.tolist()
    [[1.5, 0.5]]
"""

from mmengine.registry import OPTIMIZERS

from classy_gc import core

for _class in map(vars(core).get, core.__all__):
    if isinstance(_class, type) and _class is not core.CentralizedOptimizer:
        OPTIMIZERS.register_module(name=f"{_class.__name__}GC", module=_class)
