"""Every optimizer again, straight from its formula: one tensor, in float64.

Only ``around`` uses torch.optim; it is for the classes without a formula here.

Each function takes the initial weight and the gradients of steps 1, 2, …, and returns the
final weight. Keyword defaults are those the optimizers promise. ``C`` is written out where
the formula has it, without row sums, fused kernels or restored means.
"""

from math import sqrt

import torch

from classy_gc.core import CentralizedOptimizer


def centralizer(p, use_gc, gc_conv_only=False):
    """``C`` for tensors shaped as ``p``: subtracts row means where eligible, else nothing."""
    rows = p.shape[0] if p.dim() else 0
    eligible = use_gc and p.dim() > (3 if gc_conv_only else 1) and p.numel() > rows
    if not eligible:
        return lambda x: x
    return lambda x: x - x.flatten(1).mean(1).reshape(-1, *[1] * (x.dim() - 1))


def centralized(cls):
    """The class that an optimizer of the core centralizes."""
    return next(c for c in cls.__mro__ if not issubclass(c, CentralizedOptimizer))


def around(cls):
    """The reference of a class without a formula here: what it centralizes, and GC around it."""

    def reference(p, grads, **options):
        gc = {name: options.pop(name, default) for name, default in cls.added_defaults.items()}
        weight = torch.nn.Parameter(p.double().clone())
        optimizer = centralized(cls)([weight], **options)
        c = centralizer(p, gc["use_gc"], gc["gc_conv_only"])
        decoupled = options.get("decoupled_weight_decay", cls.decoupled_weight_decay)
        decay = 0 if decoupled else options.get("weight_decay", 0)
        for g in grads:
            before = weight.detach().clone()
            l2 = (-decay if options.get("maximize") else decay) * before
            weight.grad = c(g.double() + l2) - l2 if gc["gc_loc"] else g.double()
            optimizer.step()
            if not gc["gc_loc"]:
                weight.data = before + c(weight.detach() - before)
        return weight.detach()

    return reference


def sgd(
    p,
    grads,
    *,
    lr=1e-3,
    momentum=0,
    dampening=0,
    weight_decay=0,
    nesterov=False,
    maximize=False,
    use_gc=False,
    gc_conv_only=False,
):
    """SGD: ``p −= lr·d``, ``d = C(g + wd·p)`` with torch's momentum."""
    p, c = p.double(), centralizer(p, use_gc, gc_conv_only)
    buffer = None
    for g in grads:
        g = -g.double() if maximize else g.double()
        d = c(g + weight_decay * p)
        if momentum:
            buffer = d if buffer is None else momentum * buffer + (1 - dampening) * d
            d = d + momentum * buffer if nesterov else buffer
        p = p - lr * d
    return p


def adam(
    p,
    grads,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0,
    amsgrad=False,
    maximize=False,
    decoupled_weight_decay=False,
    use_gc=False,
    gc_conv_only=False,
    gc_loc=False,
):
    """Adam: L2 decay is part of the gradient, decoupled decay part of the update."""
    p, c = p.double(), centralizer(p, use_gc, gc_conv_only)
    beta1, beta2 = betas
    l2, decoupled = (0, weight_decay) if decoupled_weight_decay else (weight_decay, 0)
    m = v = v_max = torch.zeros_like(p)
    for t, g in enumerate(grads, 1):
        g = -g.double() if maximize else g.double()
        d = g + l2 * p
        if gc_loc:
            d = c(d)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d * d
        v_max = torch.maximum(v_max, v)
        m_hat = m / (1 - beta1**t)
        v_hat = (v_max if amsgrad else v) / (1 - beta2**t)
        u = m_hat / (v_hat.sqrt() + eps) + decoupled * p
        p = p - lr * (u if gc_loc else c(u))
    return p


def adamw(p, grads, *, weight_decay=1e-2, gc_loc=True, **options):
    """AdamW: Adam with decoupled decay."""
    options |= {"weight_decay": weight_decay, "gc_loc": gc_loc}
    return adam(p, grads, decoupled_weight_decay=True, **options)


def radam(
    p,
    grads,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0,
    decoupled_weight_decay=False,
    maximize=False,
    use_gc=False,
    gc_conv_only=False,
    gc_loc=False,
    degenerated_to_sgd=True,
):
    """RAdam: Adam's update times ``r_t`` once ``ρ_t > 5``; before, ``m̂`` or nothing."""
    p, c = p.double(), centralizer(p, use_gc, gc_conv_only)
    beta1, beta2 = betas
    l2, decoupled = (0, weight_decay) if decoupled_weight_decay else (weight_decay, 0)
    rho_inf = 2 / (1 - beta2) - 1
    m = v = torch.zeros_like(p)
    for t, g in enumerate(grads, 1):
        g = -g.double() if maximize else g.double()
        d = g + l2 * p
        if gc_loc:
            d = c(d)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d * d
        m_hat = m / (1 - beta1**t)
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho > 5:
            r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            u = r * m_hat * sqrt(1 - beta2**t) / (v.sqrt() + eps)
        elif degenerated_to_sgd:
            u = m_hat
        else:
            continue
        u = u + decoupled * p
        p = p - lr * (u if gc_loc else c(u))
    return p


def rmsprop(
    p,
    grads,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0,
    momentum=0,
    centered=False,
    maximize=False,
    use_gc=False,
    gc_conv_only=False,
    gc_loc=False,
    denominator=lambda v, eps: v.sqrt() + eps,
    initial_square_avg=0.0,
    lr_in_momentum=False,
):
    """RMSprop: GC acts on the direction as it is after momentum."""
    p, c = p.double(), centralizer(p, use_gc, gc_conv_only)
    v, mean, buffer = torch.full_like(p, initial_square_avg), torch.zeros_like(p), 0
    for g in grads:
        g = -g.double() if maximize else g.double()
        d = g + weight_decay * p
        if gc_loc:
            d = c(d)
        v = alpha * v + (1 - alpha) * d * d
        mean = alpha * mean + (1 - alpha) * d
        u = d / denominator(v - mean**2 if centered else v, eps)
        if momentum:
            u = buffer = momentum * buffer + (lr * u if lr_in_momentum else u)
        p = p - (1 if momentum and lr_in_momentum else lr) * (u if gc_loc else c(u))
    return p


def rmsprop_tf(p, grads, **options):
    """TensorFlow's RMSprop: ``eps`` inside the square root."""
    return rmsprop(p, grads, denominator=lambda v, eps: (v + eps).sqrt(), **options)
