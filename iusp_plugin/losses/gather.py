"""The joint batch of all processes, with the gradient that belongs to it.

Authors
 * The iusp_plugin authors 2026
"""

import torch
import torch.distributed as dist
from torch import Tensor


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


def _shapes(rows: Tensor, ragged: bool) -> list[list[int]]:
    """[rows, width] of each process; raises on widths that may not differ."""
    own = torch.tensor(rows.shape, device=rows.device)
    shapes = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(shapes, own)
    table = torch.stack(shapes).tolist()
    widths = [width for _, width in table]
    if len(set(widths)) > 1 and not ragged:
        raise ValueError(
            "gather=True needs features of the same shape on every process, "
            f"but their flattened widths are {widths}; give lengths, so that "
            "shorter ones are padded, or compare pooled features."
        )
    return table


class _GatherRows(torch.autograd.Function):
    """All processes' rows; the gradient is summed over processes."""

    @staticmethod
    def forward(ctx, rows, dtype, table):
        """Rows of every process, in rank order, zeros where one is narrower."""
        sizes = [size for size, _ in table]
        ctx.sizes, ctx.dtype, ctx.width = sizes, rows.dtype, rows.shape[1]
        own = rows.new_zeros(max(sizes), max(width for _, width in table))
        own[: len(rows), : rows.shape[1]] = rows
        padded = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(padded, own)
        parts = [p[:n] for p, n in zip(padded, sizes, strict=True)]
        return torch.cat(parts).to(dtype)

    @staticmethod
    def backward(ctx, grad):
        """This process's part of the summed gradients."""
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        own = grad[_own_part(ctx.sizes), : ctx.width]
        return own.to(ctx.dtype), None, None


def _own_part(sizes: list[int]) -> slice:
    """Where this process's rows are among those of all."""
    rank = dist.get_rank()
    first = sum(sizes[:rank])
    return slice(first, first + sizes[rank])


def gather_rows(
    rows: Tensor, dtype: torch.dtype, ragged: bool = False
) -> tuple[Tensor, slice]:
    """Rows of all processes as one batch, in rank order.

    Every process then computes the same value from the joint batch. Its
    gradient with respect to one process's rows is summed over the processes,
    so after the mean that DistributedDataParallel takes of the parameters'
    gradients, they are those of one process with the joint batch. Processes
    may hold different numbers of rows, as in a last batch.

    Arguments
    ---------
    rows : torch.Tensor
        (rows, D). Carries gradient. Sent in its own dtype.
    dtype : torch.dtype
        Of the joint rows, in which gradients are summed.
    ragged : bool
        Whether narrower rows are padded with zeros to the widest.

    Returns
    -------
    joint : torch.Tensor
        (sum of rows, widest D).
    own : slice
        Where this process's rows are in it.

    Raises
    ------
    ValueError
        If D is not the same on all processes, unless ``ragged``.

    Example
    -------
    >>> gather_rows(torch.ones(2, 3), torch.float32)[0].shape  # one process
    torch.Size([2, 3])
    """
    if world_size() == 1:
        return rows.to(dtype), slice(0, len(rows))
    table = _shapes(rows, ragged)
    joint = _GatherRows.apply(rows, dtype, table)
    return joint, _own_part([size for size, _ in table])
