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


def _onednn_linear():
    """torch's ``x @ w.T`` by oneDNN, or None where torch lacks it."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):
        return None


_ONEDNN_LINEAR = _onednn_linear()


def _onednn_wins(a: Tensor, b: Tensor) -> bool:
    """Whether the product of two float32 matrices on the CPU is big enough."""
    result = a.shape[1] * b.shape[2]
    return result >= ONEDNN_RESULT and 2 * result * a.shape[2] >= ONEDNN_FLOPS


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
    if (
        a.shape[0] == 1
        and a.dtype == torch.float32
        and a.device.type == "cpu"
        and _onednn_wins(a, b)
        and _ONEDNN_LINEAR is not None
        and not torch.compiler.is_compiling()
    ):
        product = _ONEDNN_LINEAR(a[0], b[0].mT, None, "none", [], "")
        return product.unsqueeze(0)
    return torch.bmm(a, b)
