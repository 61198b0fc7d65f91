"""Centred kernel alignment of the frames of student and teacher.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor

from iusp_plugin.checks import check_choice
from iusp_plugin.losses.alignment import paired_frames
from iusp_plugin.losses.gram import (
    EPS,
    FORMS,
    REDUCTIONS,
    autocast_off,
    centred_rows,
    check_eps,
    check_floating,
    check_loss_finite,
    reduce_losses,
)
from iusp_plugin.losses.module import LossModule


def _centred(
    rows: Tensor, mask: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Frames less their mean, and True for each clip that they vary in.

    NaN counts as varying, so that it shows in the result.
    """
    rows, centred = centred_rows(rows, mask)
    whole = rows.detach().square().sum(dim=(1, 2))
    varying = centred.detach().square().sum(dim=(1, 2))
    return centred, ~(varying <= eps**2 * whole)


def _squared_norm(matrix: Tensor, live: Tensor) -> Tensor:
    """Squared Frobenius norm of each matrix; 1 where it is not live."""
    squares = matrix.square().sum(dim=(1, 2))
    return torch.where(live, squares, torch.ones_like(squares))


def _gram_form(
    student: Tensor, teacher: Tensor, live: tuple[Tensor, Tensor]
) -> Tensor:
    """1 - CKA from t x t matrices, as half a squared distance.

    With unit matrices, 1 - <A, B> = 1/2 ||A - B||^2: no cancellation, so
    that close to zero the value has all its digits, and is never negative.
    """
    units = []
    for rows, alive in zip((student, teacher), live, strict=True):
        gram = rows @ rows.mT
        norm = _squared_norm(gram, alive).sqrt()
        units.append(gram / norm.view(-1, 1, 1))
    return (units[0] - units[1]).square().sum(dim=(1, 2)) / 2


def _covariance_form(
    student: Tensor, teacher: Tensor, live: tuple[Tensor, Tensor]
) -> Tensor:
    """1 - CKA from D x D matrices; rounding may not take it below zero."""
    cross = (teacher.mT @ student).square().sum(dim=(1, 2))
    own_s = _squared_norm(student.mT @ student, live[0]).sqrt()
    own_t = _squared_norm(teacher.mT @ teacher, live[1]).sqrt()
    return (1 - cross / (own_s * own_t)).clamp(min=0.0)


def _cheaper_form(t: int, d_student: int, d_teacher: int) -> str:
    """The form of fewer multiplications in its matrix products."""
    gram = t * (d_student + d_teacher)
    covariance = d_student**2 + d_teacher**2 + d_student * d_teacher
    return "gram" if gram <= covariance else "covariance"


def _clip_losses(
    student: Tensor, teacher: Tensor, mask: Tensor | None, form: str, eps: float
) -> Tensor:
    """1 - CKA of each clip, (batch,)."""
    student, student_varies = _centred(student, mask, eps)
    teacher, teacher_varies = _centred(teacher, mask, eps)
    if form == "auto":
        t, d_student = student.shape[1:]
        form = _cheaper_form(t, d_student, teacher.shape[2])
    compute = _gram_form if form == "gram" else _covariance_form
    loss = compute(student, teacher, (student_varies, teacher_varies))
    loss = torch.where(student_varies, loss, torch.ones_like(loss))
    return torch.where(teacher_varies, loss, torch.zeros_like(loss))


def cka_loss(
    student_feats: Tensor,
    teacher_feats: Tensor,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    alignment: str = "error",
    layout: str = "time_first",
    form: str = "auto",
    check_finite: bool = True,
    eps: float = EPS,
) -> Tensor:
    """One minus the linear CKA of student's and teacher's frames, a clip each.

    For each clip, with X (t, D_student) and Y (t, D_teacher) the frames of
    student and teacher less their means over time, one row a frame,
    everything after time flattened,

        loss = 1 - ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)

    in [0, 1], and the mean over the clips. It does not depend on scale,
    offset or rotation of either side's features, so D may differ. Two frames
    have but one relation: t = 2 gives 0.

    Source: Kornblith et al., "Similarity of Neural Network Representations
    Revisited", ICML 2019, arXiv 1905.00414, section 3, linear kernel, with
    the frames of a clip for examples. Departures: a loss, one a clip, and no
    index over a data set; padding is masked. A clip does not vary on a side
    where the centred frames' norm is not above ``eps`` times that of the
    frames themselves (t = 1, constant or silent frames), and there the
    quotient is 0/0. If the teacher does not vary, there is nothing to
    preserve and the loss is 0; if only the student does not, it is 1, as of
    unrelated features. Both with zero gradient.

    Arguments
    ---------
    student_feats : torch.Tensor
        Student features, layout as below, any floating dtype. Carries
        gradient.
    teacher_feats : torch.Tensor
        Teacher features of the same clips; D may differ. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths in (0, 1], shape (batch,). t is then each clip's own
        round(length * T), and padded frames are out: the padded batch equals
        each clip alone.
    reduction : str
        "mean" or "batchmean": mean over clips; "sum": sum over clips; "batch":
        one value a clip.
    alignment : str
        What to do if student and teacher differ in frames: "error", "pool"
        (average the longer one) or "interpolate" (the shorter one), over each
        clip's own length.
    layout : str
        "time_first", (batch, time, ...), or "channel_first",
        (batch, channel, time[, freq]); holds for both.
    form : str
        Two exact ways to the same number. "gram", by t x t matrices of
        frames, <X X^T, Y Y^T> in place of ||Y^T X||^2; "covariance", by
        D x D matrices, as the formula stands; "auto": the one of fewer
        multiplications, t (D_student + D_teacher) against
        D_student^2 + D_teacher^2 + D_student D_teacher. In float32 "gram"
        keeps all digits near 0, "covariance" is good to about 1e-6.
    check_finite : bool
        Raise on a non-finite loss and name the guilty input.
    eps : float
        Relative floor of a clip's variation.

    Returns
    -------
    torch.Tensor
        Scalar, or (batch,) for reduction "batch"; float32, or float64 if an
        input is.

    Raises
    ------
    ValueError
        For shapes that do not belong together, unknown options, lengths
        outside (0, 1], and non-finite values.

    Example
    -------
    With D = 1 CKA is the squared correlation, of (-1, 0, 1) and (-1, -1, 2)
    3^2 / (2 * 6).

    >>> student = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1)
    >>> teacher = torch.tensor([-1.0, -1.0, 2.0]).view(1, 3, 1)
    >>> cka_loss(student, teacher)
    tensor(0.2500)
    >>> cka_loss(5 - 3 * teacher, teacher, form="gram")
    tensor(0.)
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("form", form, FORMS)
    check_eps(eps)
    check_floating("student_feats", student_feats)
    with autocast_off(student_feats):
        student, teacher, mask = paired_frames(
            student_feats, teacher_feats, lengths, alignment, layout
        )
        per_clip = _clip_losses(student, teacher, mask, form, eps)
        loss = reduce_losses(per_clip, reduction)
    if check_finite:
        check_loss_finite(
            loss,
            lengths,
            layout,
            student_feats=student_feats,
            teacher_feats=teacher_feats,
        )
    return loss


class CKALoss(LossModule):
    """Module form of ``cka_loss``; its options are the function's.

    Arguments
    ---------
    alignment : str
        "error", "pool" or "interpolate".
    layout : str
        "time_first" or "channel_first".
    form : str
        "auto", "gram" or "covariance".
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.
    eps : float
        Relative floor of a clip's variation.

    Example
    -------
    >>> student = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1)
    >>> teacher = torch.tensor([-1.0, -1.0, 2.0]).view(1, 3, 1)
    >>> CKALoss()(student, teacher)
    tensor(0.2500)
    """

    def __init__(
        self,
        alignment: str = "error",
        layout: str = "time_first",
        form: str = "auto",
        reduction: str = "mean",
        check_finite: bool = True,
        eps: float = EPS,
    ):
        super().__init__(
            cka_loss,
            alignment=alignment,
            layout=layout,
            form=form,
            reduction=reduction,
            check_finite=check_finite,
            eps=eps,
        )
