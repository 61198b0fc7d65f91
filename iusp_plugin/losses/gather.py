"""The joint batch of all processes, with the gradient that belongs to it.

Authors
 * The iusp_plugin authors 2026
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

# Every floating dtype that a network may have, for a code of each.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def world_size() -> int:
    """Number of processes that train together, 1 without distribution.

    Example
    -------
    >>> world_size()
    1
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def _shapes(rows: Tensor, frames: int, ragged: bool) -> list[list[int]]:
    """Facts of each process's rows; the same error everywhere if they differ.

    Rows, width, width of a frame, dtype, and whether narrower rows may be
    padded.
    """
    kind = DTYPES.index(rows.dtype)
    facts = [*rows.shape, rows.shape[1] // frames, kind, int(ragged)]
    own = torch.tensor(facts, device=rows.device)
    shapes = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(shapes, own)
    table = torch.stack(shapes).tolist()
    names = ["flattened widths", "widths of a frame", "dtypes"]
    first = 2 if all(row[4] for row in table) else 1
    for column in range(first, 4):
        values = [row[column] for row in table]
        if len(set(values)) > 1:
            name = names[column - 1]
            if name == "dtypes":
                values = [str(DTYPES[value]) for value in values]
            raise ValueError(
                "gather=True needs features of the same kind on every process, "
                f"but their {name} are {values}; give lengths on all of them, "
                "so that shorter clips are padded, and one dtype, or compare "
                "pooled features."
            )
    return table


def _own_part(table: list[list[int]]) -> slice:
    """Where this process's rows are among those of all."""
    rank = dist.get_rank()
    first = sum(row[0] for row in table[:rank])
    return slice(first, first + table[rank][0])


class _GatherRows(torch.autograd.Function):
    """All processes' rows; the gradient is summed over processes."""

    @staticmethod
    def forward(ctx, rows, dtype, table):
        """Rows of every process, in rank order, zeros where one is narrower."""
        ctx.table, ctx.dtype = table, rows.dtype
        ctx.width = rows.shape[1]
        most, widest = (max(row[i] for row in table) for i in (0, 1))
        own = rows.new_zeros(most, widest)
        own[: rows.shape[0], : rows.shape[1]] = rows
        padded = [torch.empty_like(own) for _ in table]
        dist.all_gather(padded, own)
        parts = [p[: row[0]] for p, row in zip(padded, table, strict=True)]
        return torch.cat(parts).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """This process's part of the summed gradients."""
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        own = grad[_own_part(ctx.table), : ctx.width]
        return own.to(ctx.dtype), None, None


def gather_rows(
    rows: Tensor, dtype: torch.dtype, frames: int = 1, ragged: bool = False
) -> tuple[Tensor, slice]:
    """Rows of all processes as one batch, in rank order.

    Every process then computes the same value from the joint batch. Its
    gradient with respect to one process's rows is summed over the processes,
    so after the mean that DistributedDataParallel takes of the parameters'
    gradients, they are those of one process with the joint batch. Processes
    may hold different numbers of rows, as in a last batch, and must all call
    it. Second derivatives are refused, and so is the compiler, which would
    lose the gradient: leave the loss outside ``torch.compile``.

    Arguments
    ---------
    rows : torch.Tensor
        (rows, D). Carries gradient. Sent in its own dtype.
    dtype : torch.dtype
        Of the joint rows, in which gradients are summed.
    frames : int
        Frames whose features a row holds one after the other.
    ragged : bool
        Whether rows of fewer frames are padded with zeros to the longest.

    Returns
    -------
    joint : torch.Tensor
        (sum of rows, widest D).
    own : slice
        Where this process's rows are in it.

    Raises
    ------
    ValueError
        On every process, if D (with ``ragged``: D of a frame) or the dtype is
        not the same on all.
    RuntimeError
        While compiling.

    Example
    -------
    >>> gather_rows(torch.ones(2, 3), torch.float32)[0].shape  # one process
    torch.Size([2, 3])
    """
    if world_size() == 1:
        return rows.to(dtype), slice(0, rows.shape[0])
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "gather=True cannot be compiled: its collectives would lose the "
            "gradient. Compile the network, and call the loss outside."
        )
    table = _shapes(rows, frames, ragged)
    return _GatherRows.apply(rows, dtype, table), _own_part(table)
