"""The table of a parameter group, which tells a kernel where its tensors lie."""

from array import array
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

#: For each parameter: the addresses of the parameter, its gradient, step count and state, or 0; the
#: number of elements; the length of a row, or 0 if GC leaves it alone; the type; whether its
#: momentum starts with this step. ``rows.c`` has the same order.
COLUMNS = ("p", "g", "step", "state0", "state1", "state2", "size", "length", "type", "new")
_INDEX = {column: i for i, column in enumerate(COLUMNS)}
#: the types of elements, by number in the table
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Table:
    """Columns of integers with one entry per tensor; those that are not set yet hold zeros.

    Args:
        tensors: the parameters of a group.
        lengths: of their rows, or 0.

    Example:
        >>> table = Table([torch.ones(2, 3), torch.ones(4)], [3, 0])
        >>> table["size"].tolist(), table["length"].tolist(), table["new"].tolist()
        ([6, 4], [3, 0], [0, 0])
    """

    def __init__(self, tensors: Sequence[Tensor], lengths: Iterable[int]) -> None:
        self.count = len(tensors)
        self.memory = array("q", bytes(8 * self.count * len(COLUMNS)))
        self.address, _ = self.memory.buffer_info()
        #: whether the kernel advances the step counts themselves, not copies
        self.own_steps = True
        self["p"] = [x.data_ptr() for x in tensors]
        self["size"] = [x.numel() for x in tensors]
        self["length"] = lengths
        self["type"] = [TYPES.index(x.dtype) for x in tensors]

    def __getitem__(self, column: str) -> array:
        start = _INDEX[column] * self.count
        return self.memory[start : start + self.count]

    def __setitem__(self, column: str, values: Iterable[int]) -> None:
        start = _INDEX[column] * self.count
        self.memory[start : start + self.count] = array("q", values)
