"""Blocks of rows that fit in the CPU's cache.

GC reads a gradient twice and fused kernels read it a third time. Taken block by block, rows
come from memory once and the rest finds them in cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from classy_gc.core.centralization import in_batches

#: elements of a block: a weight, its gradient and two moments of float32 are 16 MB of it
BLOCK = 2**20


class RowBlock(NamedTuple):
    """Parameters, or some rows of one, that are stepped together."""

    #: which of all pieces
    pieces: slice
    #: which of those GC acts on, in batches for ``batch_row_sums``
    batches: list[list[int]]


class RowBlocks(NamedTuple):
    """How a group of parameters is cut into blocks of whole rows."""

    #: index of a parameter that is cut, rows of a piece of it, number of its pieces
    cuts: list[tuple[int, int, int]]
    blocks: list[RowBlock]

    def cut(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The pieces of all blocks.

        Args:
            tensors: that go with the parameters one by one, or none. One without dimensions, a
                step count, belongs to each piece of its parameter.

        Example:
            >>> import torch
            >>> blocks = RowBlocks([(0, 2, 2)], [])
            >>> blocks.cut([torch.arange(3), torch.ones(1)])
            [tensor([0, 1]), tensor([2]), tensor([1.])]
            >>> blocks.cut([])
            []
        """
        pieces = list(tensors)
        # From the last, so that the indices of those before it stay what they are.
        for i, rows, count in reversed(self.cuts) if pieces else ():
            pieces[i : i + 1] = pieces[i].split(rows) if pieces[i].dim() else [pieces[i]] * count
        return pieces


def row_blocks(params: Sequence[Tensor], eligible: Iterable[Tensor]) -> RowBlocks:
    """Cuts a group of parameters into blocks of whole rows.

    Args:
        params: dense tensors of any shapes, with the memory layout of their gradients and moments.
        eligible: those of them that GC acts on.

    Returns:
        Blocks of at most :data:`BLOCK` elements of one dtype (more where one row has more, or
        where rows do not lie one after the other), in the order of ``params``.

    Example:
        >>> import torch
        >>> weight, bias = torch.zeros(16, 2**17), torch.zeros(8)
        >>> cuts, blocks = row_blocks([weight, bias], [weight])
        >>> cuts, [block.pieces for block in blocks]
        ([(0, 8, 2)], [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)])
    """
    cuts, owners = [], []
    for i, p in enumerate(params):
        count = -(-p.numel() // BLOCK)
        if count > 1 and p.stride(0) * p.size(0) == p.numel():
            rows = -(-p.size(0) // count)
            count = -(-p.size(0) // rows)
            cuts.append((i, rows, count))
        else:
            count = 1
        owners += [p] * count
    blocks = RowBlocks(cuts, [])
    pieces = blocks.cut(params)

    starts, room = [], 0
    for j, x in enumerate(pieces):
        if not starts or x.numel() > room or x.dtype is not pieces[j - 1].dtype:
            starts.append(j)
            room = BLOCK
        room -= x.numel()

    ids = set(map(id, eligible))
    for first, end in pairwise([*starts, len(pieces)]):
        # Batches are found by identity, of the pieces themselves.
        index = {id(pieces[j]): j for j in range(first, end) if id(owners[j]) in ids}
        batches = in_batches(pieces[j] for j in index.values())
        batches = [[index[id(x)] - first for x in batch] for batch in batches]
        blocks.blocks.append(RowBlock(slice(first, end), batches))
    return blocks
