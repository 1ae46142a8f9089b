"""Blocks of rows that fit in the CPU's cache.

GC reads a gradient twice and fused kernels read it a third time. Taken block by block, rows
come from memory once and the rest finds them in cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from classy_gc.core.centralization import in_batches

#: elements of a block: a weight, its gradient and two moments of float32 are 16 MB of it
BLOCK = 2**20


class RowBlock(NamedTuple):
    """Parameters, or some rows of one, that are stepped together."""

    #: which parameter, and which of its rows (None: all); None: every parameter
    pieces: list[tuple[int, slice | None]] | None
    #: which pieces GC acts on, in batches for ``batch_row_sums``
    batches: list[list[int]]

    def of(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The pieces of ``tensors``, which go with the parameters one by one, or not at all.

        A tensor without dimensions, a step count, belongs to each piece of its parameter.

        Example:
            >>> import torch
            >>> block = RowBlock([(1, slice(2, 4))], [[0]])
            >>> block.of([torch.zeros(3), torch.arange(5)]), block.of([])
            ([tensor([2, 3])], [])
        """
        if not tensors or self.pieces is None:
            return list(tensors)
        return [
            tensors[i] if rows is None or not tensors[i].dim() else tensors[i][rows]
            for i, rows in self.pieces
        ]


def row_blocks(params: Sequence[Tensor], eligible: Iterable[Tensor]) -> list[RowBlock]:
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
        >>> [block.pieces for block in row_blocks([weight, bias], [weight])]
        [[(0, slice(0, 8, None))], [(0, slice(8, 16, None))], [(1, None)]]
        >>> row_blocks([bias, weight[0]], [])
        [RowBlock(pieces=None, batches=[])]
    """
    eligible_ids = set(map(id, eligible))
    blocks: list[RowBlock] = []
    room, dtype = 0, None
    for i, p in enumerate(params):
        numel, count = p.numel(), -(-p.numel() // BLOCK)
        if count > 1 and p.stride(0) * p.size(0) == numel:
            step = -(-p.size(0) // count)
            pieces = [slice(first, first + step) for first in range(0, p.size(0), step)]
        else:
            pieces = [None]
        for rows in pieces:
            size = numel // len(pieces)
            if not blocks or size > room or p.dtype is not dtype:
                blocks.append(RowBlock([], []))
                room, dtype = BLOCK, p.dtype
            blocks[-1].pieces.append((i, rows))
            room -= size
    for block in blocks:
        # Batches are found by identity, of the pieces themselves.
        index = {
            id(x): (j, x)
            for j, ((i, _), x) in enumerate(zip(block.pieces, block.of(params), strict=True))
            if id(params[i]) in eligible_ids
        }
        for batch in in_batches(x for _, x in index.values()):
            block.batches.append([index[id(x)][0] for x in batch])
    if len(blocks) == 1 and all(rows is None for _, rows in blocks[0].pieces):
        return [blocks[0]._replace(pieces=None)]
    return blocks
