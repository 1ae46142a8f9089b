"""GC and the update in one pass over memory, if there is a kernel for it.

The cost of GC is to read a gradient a second time. :mod:`classy_gc.core.kernels.rows` avoids it on
the CPU: it updates a row right after summing it, while the row is still in the cache. Without a
kernel, GC runs around torch's own step (:mod:`classy_gc.core.around_update`), with the same numbers
up to rounding.

The environment variable ``CLASSY_GC_KERNELS``, read at an optimizer's first step, is unset for the
C kernel on the CPU, ``triton`` to add :mod:`classy_gc.core.kernels.triton_rows` on CUDA, or ``0``
for no kernel.

A kernel is a module with three functions. ``missing()`` returns why it cannot be called, or None.
``usable(tensors)`` returns whether it reaches these tensors and knows their types.
``launch(steps, first)`` steps groups, given the ``Update`` and the ``Table`` of each; ``first`` is
called before anything changes.
"""
