"""||G_teacher - G_student||_F^2 by autograd: what second derivatives need.

The same numbers as the kernels, written with operations that autograd knows.
Used with ``create_graph=True``, and where rows are wanted one by one.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor

from iusp_plugin.losses.gram import (
    inverse_norms,
    similarity_matrix,
    unit_peak,
    unit_rows,
)
from iusp_plugin.losses.target import Factors, Rows


def gram_row_distances(
    student: Tensor, target: Rows, similarity: str, eps: float
) -> Tensor:
    """||row of G_teacher - row of G_student||^2 by t x t matrices.

    Arguments
    ---------
    student : torch.Tensor
        (batch, t, D), zero in padding. Carries gradient, of any order.
    target : Rows
        The teacher's similarity.
    similarity : str
        "row_l2" or "cosine".
    eps : float
        Relative floor of a row's norm.

    Returns
    -------
    torch.Tensor
        (batch, t).
    """
    own = similarity_matrix(student, similarity=similarity, eps=eps)
    given = target.matrix
    if similarity == "row_l2":
        given = given * inverse_norms(target.norms, eps)[0].unsqueeze(2)
    return (own - given).square().sum(dim=2)


def covariance_distance(
    student: Tensor, target: Factors, similarity: str, eps: float
) -> Tensor:
    """||G_teacher - G_student||_F^2 of each clip by D x D matrices.

    Arguments
    ---------
    student : torch.Tensor
        (batch, t, D), zero in padding. Carries gradient, of any order.
    target : Factors
        The teacher's similarity; in float64 for "cosine".
    similarity : str
        "row_l2" or "cosine".
    eps : float
        Relative floor of a row's norm.

    Returns
    -------
    torch.Tensor
        (batch,).
    """
    student = unit_peak(student)
    if similarity == "cosine":  # a small difference of large sums
        unit = unit_rows(student.double(), eps)
        return _cosine(unit, target).to(student.dtype)
    return _row_l2(student, target, eps)


def _cosine(unit: Tensor, target: Factors) -> Tensor:
    """||S^ S^T||^2 - 2 <S^ S^T, G> + ||G||^2."""
    assert target.squares is not None
    own = (unit.mT @ unit).square().sum(dim=(1, 2))
    left, right = target.left.mT @ unit, target.right.mT @ unit
    cross = (left * right).sum(dim=(1, 2))
    return _not_below_zero(own - 2.0 * cross + target.squares.sum(dim=1))


def _row_l2(student: Tensor, target: Factors, eps: float) -> Tensor:
    """sum over i of 2 - 2 c_i, a silent row counting 0 for its 1."""
    own = student @ (student.mT @ student)
    cross = target.left @ (target.right.mT @ student)
    squares = (own * student).sum(dim=2)
    floor = squares.detach().amax(dim=1, keepdim=True) * eps**2
    live = ~(squares.detach() <= floor)
    norms = torch.where(live, squares, torch.ones_like(squares)).sqrt()
    scale, _ = inverse_norms(target.norms, eps)
    dots = (cross * student).sum(dim=2) * scale
    cosine = torch.where(live, dots / norms, torch.zeros_like(dots))
    rows = scale.sign() + live.to(cosine.dtype) - 2.0 * cosine
    return _not_below_zero(rows).sum(dim=1)


def _not_below_zero(distances: Tensor) -> Tensor:
    """Rounded up to zero without a change to any derivative."""
    return distances - distances.detach().clamp_max(0.0)
