"""Similarity preserving distillation over the clips of a batch.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor, nn

from iusp_plugin.checks import LAYOUTS, check_choice
from iusp_plugin.lengths import check_lengths, frame_mask
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


def _clip_rows(
    feats: Tensor, lengths: Tensor | None, layout: str, dtype: torch.dtype
) -> Tensor:
    """One row a clip, (1, batch, D), padded frames set to zero."""
    if lengths is not None and feats.dim() > 2:
        feats = to_frames(feats, layout)
        mask = frame_mask(lengths, feats.shape[1])
        feats = feats.masked_fill(~mask.unsqueeze(-1), 0.0)
    return feats.flatten(1).unsqueeze(0).to(dtype)


def sp_loss(
    student_feats: Tensor,
    teacher_feats: Tensor,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    similarity: str = "row_l2",
    scaled: bool = False,
    layout: str = "time_first",
    check_finite: bool = True,
    eps: float = EPS,
) -> Tensor:
    """Squared difference of teacher's and student's clip similarities.

    With Q (b, D) one row a clip of the batch, everything after the batch axis
    flattened, and G the similarity matrix (see
    ``iusp_plugin.losses.gram.similarity_matrix``),

        loss = 1 / b^2 * ||G_teacher - G_student||_F^2

    For "row_l2" it lies in [0, 4 / b]; ``scaled=True`` multiplies by b. The
    value depends on which clips share a batch, and on a batch of one it is
    constant.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV
    2019, arXiv 1907.09682, equations 2 to 4. Departure: a clip whose row is
    not above ``eps`` times the batch's largest counts as silent.

    Arguments
    ---------
    student_feats : torch.Tensor
        (batch, ...), any floating dtype. Carries gradient.
    teacher_feats : torch.Tensor
        (batch, ...), the same clips; other axes may differ. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths in (0, 1], shape (batch,): frames beyond them are set
        to zero before flattening. Clip-wise features (batch, D), such as
        logits, have no time axis and ignore it.
    reduction : str
        A clip's share is (1 / b) ||row of G_teacher - row of G_student||^2.
        "mean" or "batchmean": mean of the shares, the formula above; "sum":
        their sum; "batch": one share a clip.
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply by b.
    layout : str
        Where the time axis is, used with ``lengths`` only: "time_first" or
        "channel_first".
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
    >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> teacher = torch.ones(2, 5)
    >>> sp_loss(student, teacher)  # 1/4 * 2 * (2 - sqrt(2))
    tensor(0.2929)
    """
    check_choice("layout", layout, LAYOUTS)
    check_choice("reduction", reduction, REDUCTIONS)
    if lengths is None:
        layout = "time_first"
    check_features("student_feats", student_feats, layout)
    check_features("teacher_feats", teacher_feats, layout)
    batch = len(student_feats)
    if len(teacher_feats) != batch:
        raise ValueError(
            f"student_feats holds {batch} clips and teacher_feats "
            f"{len(teacher_feats)}; both must hold the same clips."
        )
    if lengths is not None:
        check_lengths(lengths, batch)
    dtype = compute_dtype(student_feats, teacher_feats)
    with torch.autocast(student_feats.device.type, enabled=False):
        student = _clip_rows(student_feats, lengths, layout, dtype)
        teacher = _clip_rows(teacher_feats.detach(), lengths, layout, dtype)
        g_student = similarity_matrix(student, similarity=similarity, eps=eps)
        g_teacher = similarity_matrix(teacher, similarity=similarity, eps=eps)
        share = (g_teacher - g_student).square().sum(dim=2).squeeze(0)
        share = share if scaled else share / batch
        loss = reduce_losses(share, reduction)
    if check_finite:
        check_loss_finite(
            loss, student_feats=student_feats, teacher_feats=teacher_feats
        )
    return loss


class SPLoss(nn.Module):
    """Module form of ``sp_loss``; its options are the function's.

    Arguments
    ---------
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply by the number of clips.
    layout : str
        "time_first" or "channel_first"; used with lengths only.
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.
    eps : float
        Relative floor of a row's norm.

    Example
    -------
    >>> SPLoss()(torch.eye(2), torch.ones(2, 5))
    tensor(0.2929)
    """

    def __init__(
        self,
        similarity: str = "row_l2",
        scaled: bool = False,
        layout: str = "time_first",
        reduction: str = "mean",
        check_finite: bool = True,
        eps: float = EPS,
    ):
        super().__init__()
        check_choice("similarity", similarity, SIMILARITIES)
        check_choice("layout", layout, LAYOUTS)
        check_choice("reduction", reduction, REDUCTIONS)
        self.similarity = similarity
        self.scaled = scaled
        self.layout = layout
        self.reduction = reduction
        self.check_finite = check_finite
        self.eps = eps

    def forward(
        self,
        student_feats: Tensor,
        teacher_feats: Tensor,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """The loss; see ``sp_loss`` for shapes."""
        return sp_loss(
            student_feats,
            teacher_feats,
            lengths,
            self.reduction,
            similarity=self.similarity,
            scaled=self.scaled,
            layout=self.layout,
            check_finite=self.check_finite,
            eps=self.eps,
        )
