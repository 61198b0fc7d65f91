"""A teacher's similarity G as the two forms of the distance want it.

Authors
 * The iusp_plugin authors 2026
"""

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """G as a matrix.

    "row_l2": G[i] = matrix[i] / norms[i], zero where a norm counts as zero.
    "cosine": G = matrix, and the norms are those of the frames.

    Arguments
    ---------
    matrix : torch.Tensor
        (batch, t, t).
    norms : torch.Tensor
        (batch, t).
    symmetric : bool
        Whether ``matrix`` is.
    """

    matrix: Tensor
    norms: Tensor
    symmetric: bool = True


class Factors(NamedTuple):
    """G as a product.

    "row_l2": G[i] = left[i] right^T / norms[i], zero where a norm counts as
    zero. "cosine": G = left right^T, and the norms are those of the frames.

    Arguments
    ---------
    left, right : torch.Tensor
        (batch, t, K).
    norms : torch.Tensor
        (batch, t).
    squares : torch.Tensor or None
        (batch, t), the squared norms of G's rows; given for "cosine".
    """

    left: Tensor
    right: Tensor
    norms: Tensor
    squares: Tensor | None = None
