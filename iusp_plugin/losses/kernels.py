"""||G_teacher - G_student||_F^2 and its gradient, in four closed forms.

For one clip with student rows s_i (t, D), the teacher's similarity G and its
row i written g_i:

* "row_l2": a_i = S s_i, n_i = ||a_i||, c_i = <g_i, a_i> / n_i, and the squared
  distance is the sum over i of ||g_i||^2 + 1 - 2 c_i. Its gradient with
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
from iusp_plugin.losses.matmul import matmul
from iusp_plugin.losses.target import Factors, Rows


class Distance(NamedTuple):
    """What a kernel returns.

    Arguments
    ---------
    per_clip : torch.Tensor
        (batch,), squared distances.
    gradient : torch.Tensor or None
        (batch, t, D), half the gradient of their sum; None if not wanted.
    peaks : list of torch.Tensor
        Largest row norms, (batch, 1) each, whose size tells whether the
        arithmetic stayed within its range.
    """

    per_clip: Tensor
    gradient: Tensor | None
    peaks: list[Tensor]


def _peaks(*peaks: Tensor | None) -> list[Tensor]:
    """Those that there are."""
    return [peak for peak in peaks if peak is not None]


def _row_distances(squares: Tensor, inverse: Tensor, cosine: Tensor) -> Tensor:
    """sum over i of ||g_i||^2 + 1 - 2 c_i, a silent row being zero."""
    rows = inverse.sign().add_(squares).sub_(cosine, alpha=2.0)
    return rows.clamp_min_(0.0).sum(dim=1)


def _outer_sum(rows: Tensor) -> Tensor:
    """rows[i] + rows[j] as a matrix."""
    return rows.unsqueeze(2) + rows.unsqueeze(1)


def gram_row_l2(
    student: Tensor, target: Rows, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "row_l2" by t x t matrices; see the module."""
    gram = matmul(student, student.mT)
    norms = torch.linalg.vector_norm(gram, dim=2)
    inverse, peak = inverse_norms(norms, eps)
    both = inverse * target.scale
    cosine = (gram * target.matrix).sum(dim=2).mul_(both)
    per_clip = _row_distances(target.squares, inverse, cosine)
    peaks = _peaks(peak, target.peak)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    # M + M^T with M[i] = c_i a_i / n_i^2 - g_i / n_i, in place.
    gram *= _outer_sum(inverse.square().mul_(cosine))
    if target.symmetric:
        gram.addcmul_(target.matrix, _outer_sum(both), value=-1.0)
    else:
        weighted = target.matrix * both.unsqueeze(2)
        gram.sub_(weighted).sub_(weighted.mT)
    return Distance(per_clip, matmul(gram, student), peaks)


def _through_unit_rows(unit: Tensor, inverse: Tensor, grad: Tensor) -> Tensor:
    """Gradient with respect to rows from that of the rows of unit norm."""
    along = (unit * grad).sum(dim=2, keepdim=True)
    return (grad - unit * along) * inverse


def _unit_rows(student: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of unit norm, their inverse norms (batch, t, 1), the peak."""
    norms = torch.linalg.vector_norm(student, dim=2)
    inverse, peak = inverse_norms(norms, eps)
    inverse = inverse.unsqueeze(2)
    return student * inverse, inverse, peak


def gram_cosine(
    student: Tensor, target: Rows, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "cosine" by t x t matrices; see the module."""
    unit, inverse, peak = _unit_rows(student, eps)
    error = matmul(unit, unit.mT).sub_(target.matrix)
    norms = torch.linalg.vector_norm(error, dim=2)
    per_clip = norms.square().sum(dim=1)
    peaks = _peaks(peak, target.peak)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    if target.symmetric:
        grad = matmul(error, unit).mul_(2.0)
    else:
        grad = matmul(error + error.mT, unit)
    return Distance(per_clip, _through_unit_rows(unit, inverse, grad), peaks)


def covariance_row_l2(
    student: Tensor, target: Factors, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "row_l2" by D x D matrices; see the module."""
    own = matmul(student, matmul(student.mT, student))
    cross = matmul(target.left, matmul(target.right.mT, student))
    norms = (own * student).sum(dim=2).clamp_min_(0.0).sqrt_()
    inverse, peak = inverse_norms(norms, eps)
    both = inverse * target.scale
    cosine = (cross * student).sum(dim=2).mul_(both)
    per_clip = _row_distances(target.squares, inverse, cosine)
    peaks = _peaks(peak, target.peak)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    beta = inverse.square().mul_(cosine).unsqueeze(2)
    both = both.unsqueeze(2)
    weight_own = matmul(student.mT, student * beta)
    weight_cross = matmul(target.left.mT, student * both)
    grad = own.mul_(beta).addcmul_(cross, both, value=-1.0)
    grad += matmul(student, weight_own)
    grad -= matmul(target.right, weight_cross)
    return Distance(per_clip, grad, peaks)


def covariance_cosine(
    student: Tensor, target: Factors, eps: float, need_gradient: bool
) -> Distance:
    """The distance of "cosine" by D x D matrices; see the module.

    In float64, because the distance is a small difference of large sums; the
    factors are expected so.
    """
    dtype = student.dtype
    unit, inverse, peak = _unit_rows(student.double(), eps)
    own = matmul(unit.mT, unit)
    left, right = matmul(target.left.mT, unit), matmul(target.right.mT, unit)
    per_clip = own.square().sum(dim=(1, 2)) + target.squares.sum(dim=1)
    per_clip = per_clip - 2.0 * (left * right).sum(dim=(1, 2))
    per_clip = per_clip.clamp_min_(0.0).to(dtype)
    peaks = _peaks(peak, target.peak)
    if not need_gradient:
        return Distance(per_clip, None, peaks)
    grad = matmul(unit, own).mul_(2.0)
    grad -= matmul(target.left, right)
    grad -= matmul(target.right, left)
    grad = _through_unit_rows(unit, inverse, grad)
    return Distance(per_clip, grad.to(dtype), peaks)


Kernel = Callable[[Tensor, Any, float, bool], Distance]

KERNELS: dict[tuple[str, str], Kernel] = {
    ("row_l2", "gram"): gram_row_l2,
    ("cosine", "gram"): gram_cosine,
    ("row_l2", "covariance"): covariance_row_l2,
    ("cosine", "covariance"): covariance_cosine,
}
