"""||G_teacher - G_student||_F^2 and its gradient, in four closed forms.

For one clip with student rows s_i (t, D), the teacher's similarity G and its
row i written g_i:

* "row_l2": a_i = S s_i, n_i = ||a_i||, c_i = <g_i, a_i> / n_i, and the squared
  distance is the sum over i of 2 - 2 c_i. Its gradient with
  respect to a_i is 2 (c_i a_i / n_i^2 - g_i / n_i).
* "cosine": E = S^ S^T - G with rows of S^ of unit norm; the squared distance
  is ||E||_F^2, its gradient with respect to S^ is 2 (E + E^T) S^.

The Gram kernels hold t x t matrices. The covariance kernels use n_i^2 =
s_i^T (S^T S) s_i and, with G = L R^T, <g_i, a_i> = l_i^T (R^T S) s_i, so they
hold D x D matrices and cost O(t D^2) in place of O(t^2 D).

Everything runs without autograd; a row that counts as zero has an inverse norm
of zero, and thereby a gradient of zero.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iusp_plugin.losses.gram import inverse_norms
from iusp_plugin.losses.matmul import gram_matrix, matmul
from iusp_plugin.losses.target import Factors, Rows


class Distance(NamedTuple):
    """What a kernel returns.

    Arguments
    ---------
    per_clip : torch.Tensor
        (batch,), squared distances.
    gradient : torch.Tensor or None
        (batch, t, D), half the gradient of their sum; None if not wanted.
    peaks : torch.Tensor
        Largest row norms of both sides, whose size tells whether the
        arithmetic stayed within its range.
    """

    per_clip: Tensor
    gradient: Tensor | None
    peaks: Tensor


def _compare_rows(
    norms: Tensor, target: Rows | Factors, dots: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distances (batch,) from the rows' norms and inner products.

    And what the gradient wants: c_i / n_i^2 and 1 / (n_i m_i), m_i the
    teacher's norms; and the peaks.
    """
    inverse, peaks = inverse_norms(torch.stack((norms, target.norms)), eps)
    own, other = inverse.unbind(0)
    both = own * other
    cosine = dots.mul_(both)
    # ||g_i||^2 of both sides is 1, and 0 for a row that counts as zero.
    rows = inverse.sign().sum(dim=0).sub_(cosine, alpha=2.0).clamp_min_(0.0)
    return rows.sum(dim=1), cosine.mul_(own).mul_(own), both, peaks


def _outer_sum(rows: Tensor) -> Tensor:
    """rows[i] + rows[j] as a matrix."""
    return rows.unsqueeze(2) + rows.unsqueeze(1)


def gram_row_l2(
    student: Tensor, target: Rows, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "row_l2" by t x t matrices.

    Arguments
    ---------
    student : torch.Tensor
        (batch, t, D), zero in padding.
    target : Rows or Factors
        The teacher's similarity, as the form wants it.
    eps : float
        Relative floor of a row's norm.
    need_gradient : bool
        Whether the gradient is wanted.

    Returns
    -------
    Distance
        Values, gradient, peaks.
    """
    gram = gram_matrix(student)
    norms = torch.linalg.vector_norm(gram, dim=2)
    dots = (gram * target.matrix).sum(dim=2)
    per_clip, along, both, peaks = _compare_rows(norms, target, dots, eps)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    # M + M^T with M[i] = c_i a_i / n_i^2 - g_i / n_i, in place.
    gram *= _outer_sum(along)
    if target.symmetric:
        gram.addcmul_(target.matrix, _outer_sum(both), value=-1.0)
    else:
        gram.addcmul_(target.matrix, both.unsqueeze(2), value=-1.0)
        gram.addcmul_(target.matrix.mT, both.unsqueeze(1), value=-1.0)
    return Distance(per_clip, matmul(gram, student), peaks)


def covariance_row_l2(
    student: Tensor, target: Factors, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "row_l2" by D x D matrices; see ``gram_row_l2``."""
    own = matmul(student, matmul(student.mT, student))
    cross = matmul(target.left, matmul(target.right.mT, student))
    norms = (own * student).sum(dim=2).clamp_min_(0.0).sqrt_()
    dots = (cross * student).sum(dim=2)
    per_clip, along, both, peaks = _compare_rows(norms, target, dots, eps)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    along, both = along.unsqueeze(2), both.unsqueeze(2)
    through_own = matmul(student.mT, student * along)
    through_cross = matmul(target.left.mT, student * both)
    grad = own.mul_(along).addcmul_(cross, both, value=-1.0)
    grad += matmul(student, through_own)
    grad -= matmul(target.right, through_cross)
    return Distance(per_clip, grad, peaks)


def _unit_rows(
    student: Tensor, target: Rows | Factors, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of unit norm, their inverse norms (batch, t, 1), the peaks."""
    norms = torch.linalg.vector_norm(student, dim=2)
    inverse, peaks = inverse_norms(torch.stack((norms, target.norms)), eps)
    own = inverse[0].unsqueeze(2)
    return student * own, own, peaks


def _through_unit_rows(unit: Tensor, inverse: Tensor, grad: Tensor) -> Tensor:
    """Gradient with respect to rows from that of the rows of unit norm."""
    along = (unit * grad).sum(dim=2, keepdim=True)
    return (grad - unit * along) * inverse


def gram_cosine(
    student: Tensor, target: Rows, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "cosine" by t x t matrices; see ``gram_row_l2``."""
    unit, inverse, peaks = _unit_rows(student, target, eps)
    error = gram_matrix(unit).sub_(target.matrix)
    norms = torch.linalg.vector_norm(error, dim=2)
    per_clip = norms.square_().sum(dim=1)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    if target.symmetric:
        grad = matmul(error, unit).mul_(2.0)
    else:
        grad = matmul(error + error.mT, unit)
    return Distance(per_clip, _through_unit_rows(unit, inverse, grad), peaks)


def covariance_cosine(
    student: Tensor, target: Factors, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "cosine" by D x D matrices; see ``gram_row_l2``.

    In float64, because the distance is a small difference of large sums; the
    factors are expected so.
    """
    assert target.squares is not None
    unit, inverse, peaks = _unit_rows(student.double(), target, eps)
    own = matmul(unit.mT, unit)
    left, right = matmul(target.left.mT, unit), matmul(target.right.mT, unit)
    per_clip = own.square().sum(dim=(1, 2)) + target.squares.sum(dim=1)
    per_clip.sub_((left * right).sum(dim=(1, 2)), alpha=2.0).clamp_min_(0.0)
    if not need_gradient:
        return Distance(per_clip.to(student.dtype), None, peaks)
    grad = matmul(unit, own).mul_(2.0)
    grad -= matmul(target.left, right)
    grad -= matmul(target.right, left)
    grad = _through_unit_rows(unit, inverse, grad)
    dtype = student.dtype
    return Distance(per_clip.to(dtype), grad.to(dtype), peaks)


Kernel = Callable[[Tensor, Any, float, bool], Distance]

KERNELS: dict[tuple[str, str], Kernel] = {
    ("row_l2", "gram"): gram_row_l2,
    ("cosine", "gram"): gram_cosine,
    ("row_l2", "covariance"): covariance_row_l2,
    ("cosine", "covariance"): covariance_cosine,
}
