"""Student and teacher frames of one clip brought to the same number.

Authors
 * The iusp_plugin authors 2026
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from iusp_plugin.checks import LAYOUTS, check_choice
from iusp_plugin.lengths import check_lengths, frame_mask, num_frames
from iusp_plugin.losses.gram import (
    check_features,
    check_same_clips,
    compute_dtype,
    to_frames,
)

ALIGNMENTS = ("error", "pool", "interpolate")


def _valid_frames(
    feats: Tensor, total: int, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Valid frames in and out of each clip, (batch or 1, 1) both."""
    if lengths is None:
        lengths = torch.ones(1, device=feats.device)
    n_in = num_frames(lengths, feats.shape[1]).view(-1, 1)
    return n_in, num_frames(lengths, total).view(-1, 1)


def pool_frames(
    feats: Tensor, total: int, lengths: Tensor | None = None
) -> Tensor:
    """Average frames down to ``total`` frames, each clip over its own length.

    With L valid frames in and n out, output frame k is the mean of input
    frames floor(k L / n) to ceil((k + 1) L / n) - 1, the windows of
    ``torch.nn.functional.adaptive_avg_pool1d``.

    Arguments
    ---------
    feats : torch.Tensor
        (batch, time, D), time >= total.
    total : int
        Frames wanted for the padded batch.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,).

    Returns
    -------
    torch.Tensor
        (batch, total, D), zero in padded frames.

    Example
    -------
    >>> feats = torch.arange(6.0).view(1, 6, 1)
    >>> pool_frames(feats, total=3).flatten()
    tensor([0.5000, 2.5000, 4.5000])
    """
    longer = feats.shape[1]
    if lengths is None and longer % total == 0:
        return feats.unflatten(1, (total, longer // total)).mean(dim=2)
    if lengths is None:
        return F.adaptive_avg_pool1d(feats.mT, total).mT
    n_in, n_out = _valid_frames(feats, total, lengths)
    out = torch.arange(total, device=feats.device)
    start = (out * n_in) // n_out
    end = -((-(out + 1) * n_in) // n_out)
    # No window is wider: n_out >= total * length - 1/2, and so on.
    widest = math.ceil(1.5 * longer / total + 0.5) + 1
    index = start.unsqueeze(2) + torch.arange(widest, device=feats.device)
    outside = (index >= end.unsqueeze(2)) | (out >= n_out).unsqueeze(2)
    windows = _take(feats, index.clamp(max=longer - 1).flatten(1))
    # What is outside may hold anything; 0 * NaN would still be NaN.
    windows = windows.unflatten(1, (total, widest))
    windows = windows.masked_fill(outside.unsqueeze(3), 0.0)
    return windows.sum(dim=2) / (end - start).unsqueeze(2)


def _take(feats: Tensor, index: Tensor) -> Tensor:
    """Frames of each clip by index (batch or 1, count)."""
    index = index.expand(feats.shape[0], -1).unsqueeze(2)
    return feats.gather(1, index.expand(-1, -1, feats.shape[2]))


def interpolate_frames(
    feats: Tensor, total: int, lengths: Tensor | None = None
) -> Tensor:
    """Interpolate frames up to ``total``, each clip over its own length.

    With L valid frames in and n out, output frame k lies at the input
    position p = (k + 1/2) L / n - 1/2, clipped to [0, L - 1], and is the
    linear mixture of the frames on either side of p: the sampling of
    ``torch.nn.functional.interpolate(mode="linear", align_corners=False)``.

    Arguments
    ---------
    feats : torch.Tensor
        (batch, time, D).
    total : int
        Frames wanted for the padded batch.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,).

    Returns
    -------
    torch.Tensor
        (batch, total, D), zero in padded frames.

    Example
    -------
    >>> feats = torch.tensor([0.0, 4.0]).view(1, 2, 1)
    >>> interpolate_frames(feats, total=4).flatten()
    tensor([0., 1., 3., 4.])
    """
    n_in, n_out = _valid_frames(feats, total, lengths)
    k = torch.arange(total, device=feats.device)
    # In integers, 2 n_out p = (2 k + 1) L - n_out: a position on a frame is
    # exactly on it.
    place = ((2 * k + 1) * n_in - n_out).clamp(min=0)
    place = torch.minimum(place, 2 * n_out * (n_in - 1))
    left = place // (2 * n_out)
    right = torch.minimum(left + 1, n_in - 1)
    share = (place - 2 * n_out * left).to(feats.dtype) / (2 * n_out)
    left_feats, right_feats = _take(feats, left), _take(feats, right)
    mixed = torch.lerp(left_feats, right_feats, share.unsqueeze(2))
    return mixed.masked_fill((k >= n_out).unsqueeze(-1), 0.0)


def align_frames(
    student: Tensor, teacher: Tensor, lengths: Tensor | None, alignment: str
) -> tuple[Tensor, Tensor]:
    """Bring student and teacher to the same number of frames.

    Arguments
    ---------
    student, teacher : torch.Tensor
        (batch, time, D); the numbers of frames may differ.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,); they hold for both.
    alignment : str
        "error": refuse if they differ; "pool": average the longer one down
        (``pool_frames``); "interpolate": the shorter one up
        (``interpolate_frames``).

    Returns
    -------
    student, teacher : torch.Tensor
        (batch, t, D) with the same t.

    Raises
    ------
    ValueError
        If they differ and alignment is "error".

    Example
    -------
    >>> short, long = torch.ones(1, 3, 2), torch.ones(1, 6, 5)
    >>> student, teacher = align_frames(short, long, None, "pool")
    >>> student.shape[1], teacher.shape[1]
    (3, 3)
    """
    check_choice("alignment", alignment, ALIGNMENTS)
    t_student, t_teacher = student.shape[1], teacher.shape[1]
    if t_student == t_teacher:
        return student, teacher
    if alignment == "error":
        raise ValueError(
            f"student_feats has {t_student} frames and teacher_feats "
            f"{t_teacher}; choose taps of the same time stride, or "
            "alignment='pool' to average the longer one, or "
            "alignment='interpolate' to interpolate the shorter one."
        )
    if alignment == "pool":
        resample, total = pool_frames, min(t_student, t_teacher)
    else:
        resample, total = interpolate_frames, max(t_student, t_teacher)
    if t_student != total:
        student = resample(student, total, lengths)
    else:
        teacher = resample(teacher, total, lengths)
    return student, teacher


def check_pair(
    student: Tensor, teacher: Tensor, lengths: Tensor | None, layout: str
) -> None:
    """Raise unless student's and teacher's features belong together.

    Arguments
    ---------
    student, teacher : torch.Tensor
        Features as given to a loss.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,).
    layout : str
        "time_first" or "channel_first".

    Raises
    ------
    TypeError
        If one is not a floating tensor.
    ValueError
        For shapes that do not fit the layout or one another, and lengths
        that are not one in (0, 1] a clip.
    """
    check_features("student_feats", student, layout)
    check_features("teacher_feats", teacher, layout)
    check_same_clips(student, teacher)
    if lengths is not None:
        check_lengths(lengths, student.shape[0])


def aligned_pair(
    student_feats: Tensor,
    teacher_feats: Tensor,
    lengths: Tensor | None,
    alignment: str,
    layout: str,
) -> tuple[Tensor, Tensor]:
    """Checked, aligned rows of both sides; see ``paired_frames``."""
    check_choice("layout", layout, LAYOUTS)
    check_pair(student_feats, teacher_feats, lengths, layout)
    dtype = compute_dtype(student_feats, teacher_feats)
    student = to_frames(student_feats, layout).to(dtype)
    teacher = to_frames(teacher_feats.detach(), layout).to(dtype)
    return align_frames(student, teacher, lengths, alignment)


def paired_frames(
    student_feats: Tensor,
    teacher_feats: Tensor,
    lengths: Tensor | None,
    alignment: str,
    layout: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Checked, aligned rows of both sides: what a loss on frames begins with.

    Arguments
    ---------
    student_feats, teacher_feats : torch.Tensor
        Features, layout as below, any floating dtype.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,).
    alignment : str
        "error", "pool" or "interpolate"; see ``align_frames``.
    layout : str
        "time_first" or "channel_first".

    Returns
    -------
    student, teacher : torch.Tensor
        (batch, t, D) in float32, or float64 if an input is; the teacher's
        without gradient. Padded frames may hold anything.
    mask : torch.Tensor or None
        bool (batch, t), True at valid frames; None without lengths.

    Raises
    ------
    ValueError
        As ``check_pair`` and ``align_frames``.
    """
    student, teacher = aligned_pair(
        student_feats, teacher_feats, lengths, alignment, layout
    )
    mask = None if lengths is None else frame_mask(lengths, student.shape[1])
    return student, teacher, mask
