"""The table of a parameter group, which tells a kernel where its tensors lie."""

from array import array
from collections.abc import Sequence

import torch

#: For each parameter: the addresses of the parameter, its gradient, step count and state, or 0; the
#: number of elements; the length of a row, or 0 if GC leaves it alone; the type; whether its
#: momentum starts with this step. ``rows.c`` has the same order.
COLUMNS = ("p", "g", "step", "state0", "state1", "state2", "size", "length", "type", "new")
_INDEX = {column: i for i, column in enumerate(COLUMNS)}
#: the types of elements, by number in the table
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Table:
    """Columns of integers with one entry per parameter of a group.

    Args:
        count: the number of parameters.

    Example:
        >>> table = Table(2)
        >>> table["size"] = [3, 4]
        >>> table["size"].tolist(), table["new"].tolist()
        ([3, 4], [0, 0])
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.memory = array("q", bytes(8 * count * len(COLUMNS)))
        self.address, _ = self.memory.buffer_info()

    def __getitem__(self, column: str) -> array:
        start = _INDEX[column] * self.count
        return self.memory[start : start + self.count]

    def __setitem__(self, column: str, values: Sequence[int]) -> None:
        start = _INDEX[column] * self.count
        self.memory[start : start + self.count] = array("q", values)
