"""A teacher's similarity G as the two forms of the distance want it.

Authors
 * The iusp_plugin authors 2026
"""

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """G as a matrix and a scale for each row: G[i] = scale[i] matrix[i].

    Arguments
    ---------
    matrix : torch.Tensor
        (batch, t, t).
    scale : torch.Tensor
        (batch, t).
    squares : torch.Tensor
        (batch, t), the squared norms of G's rows.
    symmetric : bool
        Whether ``matrix`` is.
    peak : torch.Tensor or None
        (batch, 1), the largest norm of a row of ``matrix`` where that norm
        had to be computed from features of any size.
    """

    matrix: Tensor
    scale: Tensor
    squares: Tensor
    symmetric: bool
    peak: Tensor | None = None


class Factors(NamedTuple):
    """G as a product: G[i] = scale[i] left[i] right^T.

    Arguments
    ---------
    left, right : torch.Tensor
        (batch, t, K).
    scale : torch.Tensor
        (batch, t).
    squares : torch.Tensor
        (batch, t), the squared norms of G's rows.
    peak : torch.Tensor or None
        As in ``Rows``.
    """

    left: Tensor
    right: Tensor
    scale: Tensor
    squares: Tensor
    peak: Tensor | None = None
