"""GC and the update in one pass over memory, where there is a kernel for it.

Reading a gradient a second time is what GC costs; a row that has just been summed is still in
the cache when it is updated. :mod:`classy_gc.core.kernels.rows` does so on the CPU. Where there
is no kernel, GC goes around torch's own step (:mod:`classy_gc.core.around_update`), with the same
numbers to rounding.

The environment variable ``CLASSY_GC_KERNELS``, read at an optimizer's first step, is unset for the
C kernel on the CPU, ``triton`` for :mod:`classy_gc.core.kernels.triton_rows` on CUDA besides, or
``0`` for no kernel.

A kernel is a module of three functions: ``missing()`` says why it cannot be called, or None;
``usable(tensors)``, whether it reaches these tensors and knows their types; and
``launch(steps)`` steps groups, of each of which it gets the ``Update`` and the ``Table``.
"""
