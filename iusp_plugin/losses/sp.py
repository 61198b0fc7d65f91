"""Similarity preserving distillation over the clips of a batch.

Authors
 * The iusp_plugin authors 2026
"""

from typing import Any

from torch import Tensor, is_grad_enabled

from iusp_plugin.checks import LAYOUTS, check_choice
from iusp_plugin.lengths import check_lengths, frame_mask
from iusp_plugin.losses.distance import Comparison, weighted_distance
from iusp_plugin.losses.gather import gather_rows
from iusp_plugin.losses.gram import (
    EPS,
    POOLINGS,
    REDUCTIONS,
    SIMILARITIES,
    autocast_off,
    check_eps,
    check_features,
    check_floating,
    check_loss_finite,
    check_same_clips,
    compute_dtype,
    to_frames,
)
from iusp_plugin.losses.module import LossModule
from iusp_plugin.losses.teacher_similarity import (
    READY_MADE,
    CosineSimilarity,
    Frames,
    SimilarityFactors,
    Teacher,
    each,
    given_teacher,
    named_parts,
)


def _clip_rows(
    feats: Tensor, lengths: Tensor | None, layout: str, pooling: str
) -> tuple[Tensor, int]:
    """One row a clip, (batch, D), padded frames out of it; frames a row."""
    pooled = pooling == "mean"
    if feats.dim() == 2 or lengths is None and not pooled:
        return feats.flatten(1), 1
    feats = to_frames(feats, layout)
    if pooled:
        feats = feats.to(compute_dtype(feats))
    if lengths is None:
        return feats.mean(dim=1), 1
    frames = feats.shape[1]
    mask = frame_mask(lengths, frames).unsqueeze(-1)
    feats = feats.masked_fill(~mask, 0.0)
    if pooled:
        return feats.sum(dim=1) / mask.sum(dim=1), 1
    return feats.flatten(1), frames


def _check_inputs(
    student: Tensor,
    teacher: Tensor | None,
    given: Tensor | CosineSimilarity | SimilarityFactors | None,
    lengths: Tensor | None,
    layout: str,
    gather: bool,
) -> None:
    """One clear error for inputs that do not belong together."""
    # Rows without a time axis have no layout.
    check_floating("student_feats", student)
    flat = student.dim() == 2
    check_features("student_feats", student, "time_first" if flat else layout)
    if (teacher is None) == (given is None):
        raise ValueError(
            "Give exactly one of teacher_feats and teacher_similarity."
        )
    if teacher is None and gather:
        raise ValueError(
            "gather=True needs teacher_feats: a ready-made similarity knows "
            "nothing of other processes' clips."
        )
    if teacher is not None:
        check_floating("teacher_feats", teacher)
        flat = teacher.dim() == 2
        check_features(
            "teacher_feats", teacher, "time_first" if flat else layout
        )
        check_same_clips(student, teacher)
    if lengths is not None:
        check_lengths(lengths, student.shape[0])


def _given(
    similarity: Tensor | CosineSimilarity | SimilarityFactors, batch: int
) -> Teacher:
    """A ready-made similarity of the batch's clips."""
    if isinstance(similarity, Tensor):
        one: Any = similarity.unsqueeze(0)
    elif isinstance(similarity, READY_MADE):
        one = each(similarity, lambda x: x.unsqueeze(0))
    else:
        one = similarity  # refused below
    teacher = given_teacher(one, 1)
    if teacher[0].shape[1] != batch:
        raise ValueError(
            f"teacher_similarity compares {teacher[0].shape[1]} clips and "
            f"student_feats holds {batch}; both must hold the same clips."
        )
    return teacher


def sp_loss(
    student_feats: Tensor,
    teacher_feats: Tensor | None = None,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    similarity: str = "row_l2",
    scaled: bool = False,
    pooling: str = "none",
    layout: str = "time_first",
    teacher_similarity: Tensor
    | CosineSimilarity
    | SimilarityFactors
    | None = None,
    gather: bool = False,
    check_finite: bool = True,
    eps: float = EPS,
) -> Tensor:
    """Squared difference of teacher's and student's clip similarities.

    With Q (b, D) one row a clip of the batch, everything after the batch axis
    flattened or averaged over time, and G the similarity matrix (see
    ``iusp_plugin.losses.gram.similarity_matrix``),

        loss = 1 / b^2 * ||G_teacher - G_student||_F^2

    For "row_l2" it lies in [0, 4 / b]; ``scaled=True`` multiplies by b. The
    value depends on which clips share a batch, and on a batch of one it is
    constant.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV
    2019, arXiv 1907.09682, equations 2 to 4. Departure: a clip whose row is
    not above ``eps`` times the batch's largest counts as silent. The paper
    sums over layer pairs: see ``DistillationTerm``.

    Arguments
    ---------
    student_feats : torch.Tensor
        (batch, ...), any floating dtype. Carries gradient.
    teacher_feats : torch.Tensor, optional
        (batch, ...), the same clips; other axes may differ. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths in (0, 1], shape (batch,): frames beyond them are set
        to zero before flattening. Clip-wise features (batch, D), such as
        logits, have no time axis and ignore it.
    reduction : str
        A clip's share is (1 / b) ||row of G_teacher - row of G_student||^2.
        "mean" or "batchmean": mean of the shares, the formula above; "sum":
        their sum; "batch": one share a clip, with ``gather`` of this
        process's clips.
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply by b.
    pooling : str
        "none" (paper): a clip's frames one after the other; "mean": the mean
        of its frames, which a shift in time hardly changes, and which is
        short enough to be kept of a teacher. Clip-wise features (batch, D)
        are taken as they are.
    layout : str
        Where the time axis is, used with ``lengths`` or ``pooling`` only:
        "time_first" or "channel_first".
    teacher_similarity : torch.Tensor or NamedTuple, optional
        In place of ``teacher_feats``: the similarity matrix (batch, batch),
        ``CosineSimilarity`` of (batch, batch) and (batch,), or
        ``SimilarityFactors`` of (batch, K).
    gather : bool
        Compare the clips of all processes. Each then has the value of the
        joint batch, and under DistributedDataParallel the gradient of one
        process with the joint batch; last batches may differ in size. All
        processes must call the loss, outside ``torch.compile``. Off while the
        student's features carry no gradient, because processes may hold
        different numbers of batches in validation.
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
    >>> import torch
    >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> teacher = torch.ones(2, 5)
    >>> sp_loss(student, teacher)  # 1/4 * 2 * (2 - sqrt(2))
    tensor(0.2929)
    """
    check_choice("similarity", similarity, SIMILARITIES)
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("pooling", pooling, POOLINGS)
    check_choice("layout", layout, LAYOUTS)
    check_eps(eps)
    if lengths is None and pooling == "none":
        layout = "time_first"
    given = teacher_similarity
    _check_inputs(student_feats, teacher_feats, given, lengths, layout, gather)
    gather = gather and student_feats.requires_grad and is_grad_enabled()
    with autocast_off(student_feats):
        rows, frames = _clip_rows(student_feats, lengths, layout, pooling)
        own = slice(0, rows.shape[0])
        if teacher_feats is not None:
            target, others = _clip_rows(
                teacher_feats.detach(), lengths, layout, pooling
            )
            dtype = compute_dtype(rows, target)
            if gather:
                ragged = lengths is not None
                rows, own = gather_rows(rows, dtype, frames, ragged)
                target, _ = gather_rows(target, dtype, others, ragged)
            teacher: Teacher = Frames(target.unsqueeze(0).to(dtype))
        else:
            assert given is not None  # checked above
            teacher = _given(given, len(rows))
            dtype = compute_dtype(rows, teacher[0])
        rows = rows.unsqueeze(0).to(dtype)
        comparison = Comparison(teacher, None, similarity, "gram", eps)
        batch = rows.shape[1]
        share = 1.0 if scaled else 1.0 / batch
        if reduction == "batch":
            loss = comparison.row_distances(rows).squeeze(0)[own] * share
        else:
            weight = share if reduction == "sum" else share / batch
            loss = weighted_distance(rows, comparison, weight, total=True)
    if check_finite:
        check_loss_finite(
            loss,
            lengths,
            layout,
            student_feats=student_feats,
            teacher_feats=teacher_feats,
            **named_parts(teacher_similarity),
        )
    return loss


class SPLoss(LossModule):
    """Module form of ``sp_loss``; its options are the function's.

    Arguments
    ---------
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply by the number of clips.
    pooling : str
        "none" or "mean" over time.
    layout : str
        "time_first" or "channel_first"; used with lengths only.
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    gather : bool
        Compare the clips of all processes.
    check_finite : bool
        Raise on a non-finite loss.
    eps : float
        Relative floor of a row's norm.

    Example
    -------
    >>> import torch
    >>> SPLoss()(torch.eye(2), torch.ones(2, 5))
    tensor(0.2929)
    """

    def __init__(
        self,
        similarity: str = "row_l2",
        scaled: bool = False,
        pooling: str = "none",
        layout: str = "time_first",
        reduction: str = "mean",
        gather: bool = False,
        check_finite: bool = True,
        eps: float = EPS,
    ):
        super().__init__(
            sp_loss,
            similarity=similarity,
            scaled=scaled,
            pooling=pooling,
            layout=layout,
            reduction=reduction,
            gather=gather,
            check_finite=check_finite,
            eps=eps,
        )

    @property
    def teacher_record(self) -> str:  # type: ignore[override]
        """The mean alone where that is what is compared."""
        return "mean" if self.pooling == "mean" else "features"
