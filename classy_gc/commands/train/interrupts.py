"""Makes Ctrl-C wait where it would do harm."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def delay_interrupts(create: Callable[..., None]) -> Callable[..., None]:
    """Makes Ctrl-C wait while processes are started; these ignore it, and end quietly.

    Args:
        create: starts the processes, such as the workers of data loaders.

    Returns:
        The same function; an interrupt that comes meanwhile is raised when it has returned.

    Example:
        >>> delay_interrupts(print)("started")
        started
    """

    def delayed(*args: Any, **kwargs: Any) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            create(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return delayed
