"""Relational distillation: distances between the frames of a clip.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from iusp_plugin.checks import check_choice
from iusp_plugin.losses.alignment import paired_frames
from iusp_plugin.losses.gram import (
    EPS,
    REDUCTIONS,
    autocast_off,
    centred_rows,
    check_eps,
    check_floating,
    check_loss_finite,
    reduce_losses,
)
from iusp_plugin.losses.module import LossModule


def _pairs(rows: Tensor, mask: Tensor | None) -> Tensor:
    """True at pairs of two different valid frames, (batch or 1, t, t)."""
    t = rows.shape[1]
    same = torch.eye(t, dtype=torch.bool, device=rows.device)
    if mask is None:
        return ~same.unsqueeze(0)
    return mask.unsqueeze(1) & mask.unsqueeze(2) & ~same


def _distances(
    rows: Tensor, mask: Tensor | None, pairs: Tensor, eps: float
) -> Tensor:
    """Distances of each clip's frames, (batch, t, t), 0 but at the pairs.

    From inner products of centred frames: what cancels is as large as their
    spread about the mean, and not as their level. A distance not above the
    floor is 0 and has zero gradient. NaN is above it, so that it shows.
    """
    rows, centred = centred_rows(rows, mask)
    largest = rows.detach().square().sum(dim=2).amax(dim=1).view(-1, 1, 1)
    gram = centred @ centred.mT
    same = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    # Of the same products, for equal frames to cancel. Not gram.diagonal():
    # torch 2.11 compiles a wrong gradient for it (inductor on a CPU; kin of
    # pytorch issue 183602).
    own = (gram * same).sum(dim=2)
    squares = own.unsqueeze(1) + own.unsqueeze(2) - 2 * gram
    squares = squares.masked_fill(~pairs, 0.0)
    apart = ~(squares.detach() <= eps**2 * largest)
    root = torch.where(apart, squares, torch.ones_like(squares)).sqrt()
    return torch.where(apart, root, torch.zeros_like(root))


def _relative(distances: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Distances over their mean, and True for each clip that has any."""
    mean = distances.sum(dim=(1, 2), keepdim=True) / count.view(-1, 1, 1)
    some = ~(mean.detach() <= 0)
    return distances / torch.where(some, mean, 1.0), some.flatten()


def _clip_losses(
    student: Tensor, teacher: Tensor, mask: Tensor | None, eps: float
) -> Tensor:
    """Mean over the pairs of frames of each clip, (batch,)."""
    pairs = _pairs(student, mask)
    count = pairs.sum(dim=(1, 2)).clamp(min=1)
    psi_s, _ = _relative(_distances(student, mask, pairs, eps), count)
    psi_t, some = _relative(_distances(teacher, mask, pairs, eps), count)
    terms = F.smooth_l1_loss(psi_s, psi_t, reduction="none")
    loss = terms.sum(dim=(1, 2)) / count
    return torch.where(some, loss, torch.zeros_like(loss))


def rkd_distance_loss(
    student_feats: Tensor,
    teacher_feats: Tensor,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    alignment: str = "error",
    layout: str = "time_first",
    check_finite: bool = True,
    eps: float = EPS,
) -> Tensor:
    """Huber loss between student's and teacher's distances of frames.

    For each clip, with x_i the t frames of one side, everything after time
    flattened, and sums over the t (t - 1) ordered pairs i != j,

        d_ij = ||x_i - x_j||_2
        psi_ij = d_ij / mu,  mu = 1 / (t (t - 1)) * sum d_ij
        loss = 1 / (t (t - 1)) * sum huber(psi_student - psi_teacher)

    with huber(z) = z^2 / 2 for |z| <= 1, else |z| - 1/2, and the mean over
    the clips. In [0, 2), for psi is 1 in the mean. It does not depend on
    scale, offset or rotation of either side's features, so D may differ. Two
    frames have but one distance: t = 2 gives 0.

    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv
    1904.05068, section 3.2.1, distance-wise loss, with the frames of a clip
    for examples. The authors' code divides the loss by t^2, pairs i = j
    included, which makes it (t - 1) / t of this. Departures: the mean in
    place of the paper's sum; padding is masked; a distance not above ``eps``
    times the clip's largest frame norm counts as 0 and has zero gradient,
    where a square root has an infinite one. If the teacher has no distances
    (t = 1, constant or silent frames), there is nothing to preserve: loss and
    gradient are 0. If only the student has none, its psi is 0.

    Precision: distances come from inner products of frames less their mean,
    so that the level of the features costs none. In float32 what is left of
    the distance of two nearly equal frames is off by up to about 1e-3 of the
    frames' spread (D = 4096); equal frames cancel.

    Arguments
    ---------
    student_feats : torch.Tensor
        Student features, layout as below, any floating dtype. Carries
        gradient, through mu as well.
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
    check_finite : bool
        Raise on a non-finite loss and name the guilty input.
    eps : float
        Relative floor of a distance.

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
    A student whose three frames are equally far apart, psi = (1, 1, 1), of a
    teacher with distances (1, 1, 2), psi = (3/4, 3/4, 3/2).

    >>> student = torch.eye(3).unsqueeze(0)
    >>> teacher = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1)
    >>> rkd_distance_loss(student, teacher)  # 1/3 * (1/32 + 1/32 + 1/8)
    tensor(0.0625)
    >>> rkd_distance_loss(5 - 4 * teacher, teacher)
    tensor(0.)
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_eps(eps)
    check_floating("student_feats", student_feats)
    with autocast_off(student_feats):
        student, teacher, mask = paired_frames(
            student_feats, teacher_feats, lengths, alignment, layout
        )
        per_clip = _clip_losses(student, teacher, mask, eps)
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


class RKDDistanceLoss(LossModule):
    """Module form of ``rkd_distance_loss``; its options are the function's.

    Arguments
    ---------
    alignment : str
        "error", "pool" or "interpolate".
    layout : str
        "time_first" or "channel_first".
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.
    eps : float
        Relative floor of a distance.

    Example
    -------
    >>> teacher = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1)
    >>> RKDDistanceLoss()(torch.eye(3).unsqueeze(0), teacher)
    tensor(0.0625)
    """

    def __init__(
        self,
        alignment: str = "error",
        layout: str = "time_first",
        reduction: str = "mean",
        check_finite: bool = True,
        eps: float = EPS,
    ):
        super().__init__(
            rkd_distance_loss,
            alignment=alignment,
            layout=layout,
            reduction=reduction,
            check_finite=check_finite,
            eps=eps,
        )
