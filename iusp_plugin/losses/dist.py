"""Correlation of student's and teacher's outputs, tag by tag.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from iusp_plugin.checks import check_choice, check_range
from iusp_plugin.lengths import check_lengths, frame_mask
from iusp_plugin.losses.gram import (
    EPS,
    REDUCTIONS,
    autocast_off,
    check_eps,
    check_floating,
    check_loss_finite,
    check_same_shape,
    compute_dtype,
    reduce_losses,
)
from iusp_plugin.losses.module import LossModule


def _unit_columns(
    logits: Tensor, mask: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Probabilities of each tag, centred over dim 1, of unit norm.

    Arguments: logits (groups, n, classes), mask (groups, n, 1). Also returns
    where a tag varies, (groups, 1, classes). Probabilities are taken relative
    to the tag's largest, by their logarithms: the correlation stays the same,
    and those of rare tags do not vanish when squared.
    """
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)  # p = 0
    log_p = F.logsigmoid(logits)
    p = (log_p - log_p.detach().amax(dim=1, keepdim=True)).exp()
    n = p.shape[1] if mask is None else mask.sum(dim=1, keepdim=True)
    centred = p - p.sum(dim=1, keepdim=True) / n
    if mask is not None:
        centred = centred.masked_fill(~mask, 0.0)
    squares = centred.square().sum(dim=1, keepdim=True)
    floor = eps**2 * p.detach().square().sum(dim=1, keepdim=True)
    varies = ~(squares.detach() <= floor)
    norm = torch.where(varies, squares, torch.ones_like(squares)).sqrt()
    return centred / norm, varies


def _shares(
    student: Tensor, teacher: Tensor, mask: Tensor | None, eps: float
) -> Tensor:
    """1 - correlation, mean over tags: one share a clip, (batch,).

    With unit columns, 1 - rho = 1/2 sum_i (z_student - z_teacher)^2: no
    cancellation, and a sum of which each clip has its part.
    """
    over_clips = student.dim() == 2
    if over_clips:
        student, teacher = student.unsqueeze(0), teacher.unsqueeze(0)
    z_student, student_varies = _unit_columns(student, mask, eps)
    z_teacher, teacher_varies = _unit_columns(teacher, mask, eps)
    terms = (z_student - z_teacher).square() / 2
    # (1, batch, classes) over clips, (batch, 1, classes) over frames.
    loss = terms * terms.shape[1] if over_clips else terms.sum(1, keepdim=True)
    loss = torch.where(student_varies, loss, torch.ones_like(loss))
    loss = torch.where(teacher_varies, loss, torch.zeros_like(loss))
    return loss.mean(dim=2).flatten()


def dist_intra_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    check_finite: bool = True,
    eps: float = EPS,
) -> Tensor:
    """One minus the correlation of student's and teacher's outputs, by tag.

    With p = sigmoid(logits / T) on either side and rho_c the Pearson
    correlation of student's and teacher's p of tag c,

        loss = T^2 / classes * sum_c (1 - rho_c)

    in [0, 2 T^2]. (batch, classes): rho runs over the clips of the batch, so
    the value depends on the batch. (batch, time, classes): rho runs over the
    valid frames of each clip, one value a clip, and the mean over the clips.
    Only the order and spacing of a tag's outputs count, not their level.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher",
    NeurIPS 2022, arXiv 2205.10536, section 3, intra-class relation; T^2 as in
    the authors' code for images. Departures: sigmoid in place of the softmax,
    because tags are not exclusive; frame-wise, each clip has correlations of
    its own, where the authors' code for maps has one over all positions of
    the batch; no epsilon in the quotient, but a tag does not vary on a side
    where the norm of its centred p is not above ``eps`` times that of p (one
    clip, one frame, an output that is constant or above 1 - ``eps``
    throughout), and has no correlation there. If the teacher's does not vary,
    there is nothing to preserve and the tag adds 0, where the authors' code
    adds 1; if only the student's does not, it adds 1, as uncorrelated. Both
    with zero gradient, and the tag stays in the divisor.

    Arguments
    ---------
    student_logits : torch.Tensor
        (batch, classes), or (batch, time, classes) for frame-wise outputs.
        Carries gradient.
    teacher_logits : torch.Tensor
        The same shape. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths in (0, 1], (batch,). Frame-wise outputs beyond
        round(length * time) are out; clip-wise outputs ignore it.
    reduction : str
        "mean" or "batchmean": as above; "sum": batch times that; "batch": one
        value a clip. Of clip-wise outputs that is the clip's share, with z
        the centred p of unit norm over the batch,
        T^2 batch / (2 classes) * sum_c (z_student - z_teacher)^2, or where
        rho_c is not defined its 0 or 1 as above.
    temperature : float
        T > 0.
    check_finite : bool
        Raise on a non-finite loss and name the guilty input.
    eps : float
        Relative floor of a tag's variation.

    Returns
    -------
    torch.Tensor
        Scalar, or (batch,) for "batch"; float32, or float64 if an input is.

    Raises
    ------
    ValueError
        For differing shapes, T <= 0, unknown reduction, lengths outside
        (0, 1], and non-finite values.

    Example
    -------
    Three clips and one tag: p - 1/2 of the student is as (-1, 0, 1), p of
    the teacher as (0, 0, 1), whose correlation is sqrt(3) / 2.

    >>> student = torch.tensor([[-2.0], [0.0], [2.0]])
    >>> teacher = torch.tensor([[0.0], [0.0], [2.0]])
    >>> dist_intra_loss(student, teacher)  # 1 - sqrt(3) / 2
    tensor(0.1340)
    >>> dist_intra_loss(teacher, teacher)
    tensor(0.)
    """
    check_range("temperature", temperature, low=0.0, low_open=True)
    check_choice("reduction", reduction, REDUCTIONS)
    check_eps(eps)
    check_floating("student_logits", student_logits)
    check_floating("teacher_logits", teacher_logits)
    check_same_shape(
        student_logits=student_logits, teacher_logits=teacher_logits
    )
    with autocast_off(student_logits):
        dtype = compute_dtype(student_logits, teacher_logits)
        student = student_logits.to(dtype) / temperature
        teacher = teacher_logits.detach().to(dtype) / temperature
        mask = None
        if lengths is not None and student.dim() == 3:
            check_lengths(lengths, student.shape[0])
            mask = frame_mask(lengths, student.shape[1]).unsqueeze(-1)
        shares = _shares(student, teacher, mask, eps) * temperature**2
        loss = reduce_losses(shares, reduction)
    if check_finite:
        check_loss_finite(
            loss, student_logits=student_logits, teacher_logits=teacher_logits
        )
    return loss


class DISTIntraLoss(LossModule):
    """Module form of ``dist_intra_loss``; its options are the function's.

    Arguments
    ---------
    temperature : float
        T > 0, on both sides.
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.
    eps : float
        Relative floor of a tag's variation.

    Example
    -------
    >>> student = torch.tensor([[-2.0], [0.0], [2.0]])
    >>> DISTIntraLoss()(student, student.clamp(min=0.0))  # 1 - sqrt(3) / 2
    tensor(0.1340)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        reduction: str = "mean",
        check_finite: bool = True,
        eps: float = EPS,
    ):
        super().__init__(
            dist_intra_loss,
            temperature=temperature,
            reduction=reduction,
            check_finite=check_finite,
            eps=eps,
        )
