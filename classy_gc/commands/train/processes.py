"""The processes of one training, which agree on everything before they train."""

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch.distributed import PrefixStore, rendezvous

from classy_gc.configuration.errors import user_error

Value = TypeVar("Value")

# How long other ranks let the primary one report an error that all of them have.
_PRIMARY_FIRST_SECONDS = 1.0


class Ranks:
    """All ranks of a training; they communicate through the store of the process group.

    Args:
        distributed: whether there are other ranks, according to ``torchrun``'s environment.

    Source: https://pytorch.org/docs/stable/distributed.html#distributed-key-value-store

    Example:
        >>> Ranks(distributed=False).of_primary(lambda: "run/checkpoint.torch")
        'run/checkpoint.torch'
    """

    def __init__(self, distributed: bool) -> None:
        self.rank, self.size = 0, 1
        #: the config that errors refer to, once it is read
        self.config: Mapping[str, Any] | None = None
        self._exchanged = 0
        if distributed:
            os.environ.setdefault("MASTER_ADDR", "localhost")
            os.environ.setdefault("MASTER_PORT", "29500")
            store, self.rank, self.size = next(rendezvous("env://"))
            self._store = PrefixStore("classy-gc", store)

    def agreed(self, function: Callable[[], Value]) -> Value:
        """Calls a function on every rank; if it fails on one, it fails on all.

        Args:
            function: without arguments; called by all ranks in the same order.

        Returns:
            The function's value on this rank.

        Raises:
            Exception: the function's; on other ranks, a ValueError with the rank and the reason.
        """
        error = value = None
        try:
            value = function()
        except Exception as failure:
            error = failure
        for rank, reason in enumerate(self._exchange(error and user_error(error, self.config))):
            if reason and not error:
                raise ValueError(f"rank {rank}: {reason}" if rank else reason)
        if error:
            raise error
        return value

    def of_primary(self, function: Callable[[], Value]) -> Value:
        """Returns a function's value on the primary rank to every rank.

        Args:
            function: without arguments, called only by the primary rank; it may read what differs
                between ranks, such as a local disk, and must return a JSON value.

        Raises:
            Exception: of the function.
        """
        return self._exchange(self.agreed(lambda: None if self.rank else function()))[0]

    def is_first_to_fail(self) -> bool:
        """Whether this rank reports why the training ends; the primary does if it fails too."""
        if self.size == 1:
            return True
        if self.rank:
            time.sleep(_PRIMARY_FIRST_SECONDS)
        try:
            return self._store.add("failed", 1) == 1
        except RuntimeError:  # the primary rank, which owns the store, has ended
            return False

    def _exchange(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        if self.size == 1:
            return [value]
        self._exchanged += 1
        keys = [f"{self._exchanged}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(value))
        return [json.loads(self._store.get(key)) for key in keys]


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

    @functools.wraps(create)
    def delayed(*args: Any, **kwargs: Any) -> Any:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return create(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return delayed
