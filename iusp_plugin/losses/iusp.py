"""Intra-utterance similarity preserving distillation.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor, nn

from iusp_plugin.checks import LAYOUTS, check_choice
from iusp_plugin.lengths import check_lengths, frame_mask, num_frames
from iusp_plugin.losses.gram import (
    EPS,
    REDUCTIONS,
    SIMILARITIES,
    check_features,
    check_loss_finite,
    compute_dtype,
    reduce_losses,
    similarity_matrix,
    to_frames,
)

ALIGNMENTS = ("error", "pool")


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
    if lengths is None:
        lengths = torch.ones(1, device=feats.device)
    n_in = num_frames(lengths, longer).view(-1, 1)
    n_out = num_frames(lengths, total).view(-1, 1)
    out = torch.arange(total, device=feats.device)
    start = (out * n_in) // n_out
    end = -((-(out + 1) * n_in) // n_out)
    frame = torch.arange(longer, device=feats.device)
    inside = (frame >= start.unsqueeze(-1)) & (frame < end.unsqueeze(-1))
    inside = inside & (out < n_out).unsqueeze(-1)
    weights = inside.to(feats.dtype) / (end - start).unsqueeze(-1)
    # A padded frame may hold anything; 0 * NaN would still be NaN.
    feats = feats.masked_fill(frame.view(1, -1, 1) >= n_in.unsqueeze(-1), 0.0)
    return weights @ feats


def _align(
    student: Tensor, teacher: Tensor, lengths: Tensor | None, alignment: str
) -> tuple[Tensor, Tensor]:
    """Bring student and teacher to the same number of frames."""
    t_student, t_teacher = student.shape[1], teacher.shape[1]
    if t_student == t_teacher:
        return student, teacher
    if alignment == "error":
        raise ValueError(
            f"student_feats has {t_student} frames and teacher_feats "
            f"{t_teacher}; choose taps of the same time stride, or "
            "alignment='pool' to average the longer one."
        )
    if t_student > t_teacher:
        return pool_frames(student, t_teacher, lengths), teacher
    return student, pool_frames(teacher, t_student, lengths)


def _check_inputs(
    student: Tensor,
    teacher: Tensor | None,
    lengths: Tensor | None,
    teacher_similarity: Tensor | None,
    layout: str,
) -> None:
    """One clear error for inputs that do not belong together."""
    check_choice("layout", layout, LAYOUTS)
    check_features("student_feats", student, layout)
    if (teacher is None) == (teacher_similarity is None):
        raise ValueError(
            "Give exactly one of teacher_feats and teacher_similarity."
        )
    if teacher is not None:
        check_features("teacher_feats", teacher, layout)
        if len(teacher) != len(student):
            raise ValueError(
                f"student_feats holds {len(student)} clips and teacher_feats "
                f"{len(teacher)}; both must hold the same clips."
            )
    if teacher_similarity is not None:
        t = to_frames(student, layout).shape[1]
        wanted = (len(student), t, t)
        if tuple(teacher_similarity.shape) != wanted:
            raise ValueError(
                "teacher_similarity has shape "
                f"{tuple(teacher_similarity.shape)}, expected {wanted}."
            )
    if lengths is not None:
        check_lengths(lengths, len(student))


def iusp_loss(
    student_feats: Tensor,
    teacher_feats: Tensor | None = None,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    similarity: str = "row_l2",
    scaled: bool = False,
    alignment: str = "error",
    layout: str = "time_first",
    teacher_similarity: Tensor | None = None,
    check_finite: bool = True,
    eps: float = EPS,
) -> Tensor:
    """Squared difference of teacher's and student's frame similarities.

    For each clip, with Q (t, D) one row a frame, everything after time
    flattened, and G the similarity matrix (see
    ``iusp_plugin.losses.gram.similarity_matrix``),

        loss = 1 / t^2 * ||G_teacher - G_student||_F^2

    and the mean over the clips. For "row_l2" this is the paper's form and lies
    in [0, 4 / t]; ``scaled=True`` multiplies by t, so that the value lies in
    [0, 4] and a weight holds across time resolutions. For "cosine" the value
    lies in [0, 4] without scaling.

    Source: Chang et al., "Intra-Utterance Similarity Preserving Knowledge
    Distillation for Audio Tagging", Interspeech 2020, arXiv 2009.01759; the
    row normalisation of Tung and Mori, ICCV 2019. Departures: padding is
    masked; a frame whose row is not above ``eps`` times the clip's largest
    counts as silent (zero row, zero gradient through it), where a plain
    normalisation gives it a gradient of 1 / epsilon.

    Arguments
    ---------
    student_feats : torch.Tensor
        Student features, layout as below, any floating dtype. Carries
        gradient.
    teacher_feats : torch.Tensor, optional
        Teacher features of the same clips; D may differ. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths in (0, 1], shape (batch,). t is then each clip's own
        round(length * T), and padded rows and columns are out: the padded
        batch equals each clip alone.
    reduction : str
        "mean" or "batchmean": mean over clips; "sum": sum over clips; "batch":
        one value a clip.
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply each clip's loss by its t.
    alignment : str
        What to do if student and teacher differ in frames: "error", or "pool"
        (average the longer one over each clip's own length).
    layout : str
        "time_first", (batch, time, ...), or "channel_first",
        (batch, channel, time[, freq]); holds for both.
    teacher_similarity : torch.Tensor, optional
        The teacher's similarity matrices, (batch, t, t), in place of
        ``teacher_feats``; made with the same ``similarity``.
    check_finite : bool
        Raise on a non-finite loss and name the guilty input.
    eps : float
        Relative floor of a row's norm.

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
    A student that tells two frames apart and a teacher that does not:
    rows (1, 0), (0, 1) against (1, 1) / sqrt(2) twice.

    >>> student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> teacher = torch.ones(1, 2, 5)
    >>> iusp_loss(student, teacher)  # 1/4 * 2 * (2 - sqrt(2))
    tensor(0.2929)
    >>> iusp_loss(teacher, teacher)
    tensor(0.)
    """
    check_choice("alignment", alignment, ALIGNMENTS)
    check_choice("reduction", reduction, REDUCTIONS)
    _check_inputs(
        student_feats, teacher_feats, lengths, teacher_similarity, layout
    )
    given = [student_feats, teacher_feats, teacher_similarity]
    dtype = compute_dtype(*(x for x in given if x is not None))
    with torch.autocast(student_feats.device.type, enabled=False):
        student = to_frames(student_feats, layout).to(dtype)
        teacher = None
        if teacher_feats is not None:
            teacher = to_frames(teacher_feats.detach(), layout).to(dtype)
            student, teacher = _align(student, teacher, lengths, alignment)
        t = student.shape[1]
        mask = None if lengths is None else frame_mask(lengths, t)
        g_student = similarity_matrix(
            student, mask, similarity=similarity, eps=eps
        )
        if teacher is not None:
            g_teacher = similarity_matrix(
                teacher, mask, similarity=similarity, eps=eps
            )
        else:
            assert teacher_similarity is not None  # checked above
            g_teacher = teacher_similarity.detach().to(dtype)
            if mask is not None:
                pairs = mask.unsqueeze(1) & mask.unsqueeze(2)
                g_teacher = g_teacher.masked_fill(~pairs, 0.0)
        per_clip = (g_teacher - g_student).square().sum(dim=(1, 2))
        n = t if lengths is None else num_frames(lengths, t).to(dtype)
        per_clip = per_clip / n if scaled else per_clip / (n * n)
        loss = reduce_losses(per_clip, reduction)
    if check_finite:
        check_loss_finite(
            loss,
            student_feats=student_feats,
            teacher_feats=teacher_feats,
            teacher_similarity=teacher_similarity,
        )
    return loss


class IUSPLoss(nn.Module):
    """Module form of ``iusp_loss``; its options are the function's.

    Arguments
    ---------
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply each clip's loss by its number of frames.
    alignment : str
        "error" or "pool".
    layout : str
        "time_first" or "channel_first".
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.
    eps : float
        Relative floor of a row's norm.

    Example
    -------
    >>> loss = IUSPLoss(scaled=True)
    >>> student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> loss(student, torch.ones(1, 2, 5))
    tensor(0.5858)
    """

    def __init__(
        self,
        similarity: str = "row_l2",
        scaled: bool = False,
        alignment: str = "error",
        layout: str = "time_first",
        reduction: str = "mean",
        check_finite: bool = True,
        eps: float = EPS,
    ):
        super().__init__()
        check_choice("similarity", similarity, SIMILARITIES)
        check_choice("alignment", alignment, ALIGNMENTS)
        check_choice("layout", layout, LAYOUTS)
        check_choice("reduction", reduction, REDUCTIONS)
        self.similarity = similarity
        self.scaled = scaled
        self.alignment = alignment
        self.layout = layout
        self.reduction = reduction
        self.check_finite = check_finite
        self.eps = eps

    def forward(
        self,
        student_feats: Tensor,
        teacher_feats: Tensor | None = None,
        lengths: Tensor | None = None,
        teacher_similarity: Tensor | None = None,
    ) -> Tensor:
        """The loss; see ``iusp_loss`` for shapes."""
        return iusp_loss(
            student_feats,
            teacher_feats,
            lengths,
            self.reduction,
            similarity=self.similarity,
            scaled=self.scaled,
            alignment=self.alignment,
            layout=self.layout,
            teacher_similarity=teacher_similarity,
            check_finite=self.check_finite,
            eps=self.eps,
        )
