"""Delays Ctrl-C where it would do harm."""

import signal
from collections.abc import Callable
from functools import wraps
from typing import Any


def delay_interrupts(create: Callable[..., Any]) -> Callable[..., Any]:
    """Delays Ctrl-C while processes are started; these ignore it, and end quietly.

    Args:
        create: starts the processes, such as the workers of data loaders.

    Returns:
        The same function; an interrupt during a call is raised when it returns.

    Example:
        >>> delay_interrupts(print)("started")
        started
    """

    @wraps(create)
    def delayed(*args: Any, **kwargs: Any) -> Any:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return create(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return delayed
