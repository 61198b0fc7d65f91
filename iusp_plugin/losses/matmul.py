"""Products of matrices by the faster of torch's two CPU libraries.

On a CPU torch multiplies float32 matrices with MKL. oneDNN, which torch ships
as well and uses for linear layers that it compiles, is up to 2.3 times faster
at the sizes met here where MKL does not use the processor's widest vectors
(AMD EPYC, 2 threads: 200 against 400 GFLOP/s), and not slower elsewhere.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor

# From these sizes on oneDNN wins; measured with 1 and 2 threads. Below, and
# where the result is tiny and the inner dimension long, calling it costs more.
ONEDNN_FLOPS = 8e6
ONEDNN_RESULT = 8192
# From these sizes of rows on, mirroring a quarter of a symmetric product costs
# less than computing it.
MIRROR_ROWS, MIRROR_WIDTH, MIRROR_ELEMENTS = 256, 192, 120_000


def _onednn_linear():
    """torch's ``x @ w.T`` by oneDNN, or None where torch lacks it."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):
        return None


_ONEDNN_LINEAR = _onednn_linear()


def _onednn_wins(a: Tensor, b: Tensor) -> bool:
    """Whether each product is one of float32 on the CPU, and big enough."""
    result = a.shape[1] * b.shape[2]
    return (
        result >= ONEDNN_RESULT
        and 2 * result * a.shape[2] >= ONEDNN_FLOPS
        and a.dtype == torch.float32
        and a.device.type == "cpu"
        and _ONEDNN_LINEAR is not None
    )


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps, by rows or by columns.

    With gaps oneDNN takes its reference kernel, a hundred times slower.
    """
    n, m = matrix.shape
    if matrix.stride() in ((m, 1), (1, n)):
        return matrix
    return matrix.contiguous()


def _onednn_matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of two matrices by oneDNN."""
    return _ONEDNN_LINEAR(_dense(a), _dense(b).mT, None, "none", [], "")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for batches of matrices, outside autograd.

    Arguments
    ---------
    a : torch.Tensor
        (batch, n, k).
    b : torch.Tensor
        (batch, k, m).

    Returns
    -------
    torch.Tensor
        (batch, n, m).

    Example
    -------
    >>> matmul(torch.ones(1, 2, 3), torch.ones(1, 3, 4)).sum()
    tensor(24.)
    """
    if not _onednn_wins(a, b) or torch.compiler.is_compiling():
        return torch.bmm(a, b)
    if a.shape[0] == 1:
        return _onednn_matmul(a[0], b[0]).unsqueeze(0)
    product = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    for i in range(a.shape[0]):
        product[i] = _onednn_matmul(a[i], b[i])
    return product


def _mirror_wins(rows: Tensor) -> bool:
    """Whether mirroring pays; only products by oneDNN were measured."""
    _, t, width = rows.shape
    return (
        t >= MIRROR_ROWS
        and width >= MIRROR_WIDTH
        and t * width >= MIRROR_ELEMENTS
        and _onednn_wins(rows, rows.mT)
    )


def gram_matrix(rows: Tensor) -> Tensor:
    """``rows @ rows.mT``, of which large ones are computed to three quarters.

    Arguments
    ---------
    rows : torch.Tensor
        (batch, t, D).

    Returns
    -------
    torch.Tensor
        (batch, t, t), symmetric.

    Example
    -------
    >>> gram_matrix(torch.ones(1, 2, 3))
    tensor([[[3., 3.],
             [3., 3.]]])
    """
    if not _mirror_wins(rows) or torch.compiler.is_compiling():
        return matmul(rows, rows.mT)
    batch, t, _ = rows.shape
    half = (t // 2 + 15) // 16 * 16
    gram = rows.new_empty(batch, t, t)
    for i in range(batch):
        top = _onednn_matmul(rows[i, :half], rows[i].mT)
        gram[i, :half] = top
        gram[i, half:, :half] = top[:, half:].mT
        rest = rows[i, half:]
        gram[i, half:, half:] = _onednn_matmul(rest, rest.mT)
    return gram
