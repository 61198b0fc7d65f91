"""Intra-utterance similarity preserving distillation.

Authors
 * The iusp_plugin authors 2026
"""

from torch import Tensor

from iusp_plugin.checks import LAYOUTS, check_choice
from iusp_plugin.lengths import check_lengths, num_frames
from iusp_plugin.losses.alignment import (
    ALIGNMENTS,
    aligned_pair,
    interpolate_frames,
    pool_frames,
)
from iusp_plugin.losses.costs import choose_form
from iusp_plugin.losses.distance import Comparison, weighted_distance
from iusp_plugin.losses.gram import (
    EPS,
    FORMS,
    FRAME_WEIGHTS,
    REDUCTIONS,
    SIMILARITIES,
    autocast_off,
    check_eps,
    check_features,
    check_floating,
    check_loss_finite,
    compute_dtype,
    to_frames,
)
from iusp_plugin.losses.module import LossModule
from iusp_plugin.losses.teacher_similarity import (
    CosineSimilarity,
    Frames,
    SimilarityFactors,
    Teacher,
    factor_width,
    given_teacher,
    named_parts,
)


def _from_similarity(
    student_feats: Tensor,
    similarity: Tensor | CosineSimilarity | SimilarityFactors,
    lengths: Tensor | None,
    alignment: str,
    layout: str,
) -> tuple[Tensor, Teacher]:
    """The student's frames, as many as the ready-made similarity has."""
    check_features("student_feats", student_feats, layout)
    if lengths is not None:
        check_lengths(lengths, student_feats.shape[0])
    teacher = given_teacher(similarity, student_feats.shape[0])
    student = to_frames(student_feats, layout)
    student = student.to(compute_dtype(student, teacher[0]))
    t, wanted = student.shape[1], teacher[0].shape[1]
    if t > wanted and alignment == "pool":
        student = pool_frames(student, wanted, lengths)
    elif t < wanted and alignment == "interpolate":
        student = interpolate_frames(student, wanted, lengths)
    elif t != wanted:
        raise ValueError(
            f"student_feats has {t} frames and teacher_similarity {wanted}; "
            "a similarity cannot be resampled: choose a tap of the teacher's "
            "time stride, or, for the student alone, alignment='pool' from "
            "more frames or alignment='interpolate' from fewer."
        )
    return student, teacher


def _form(form: str, student: Tensor, teacher: Teacher, similarity: str) -> str:
    """The form asked for, or the cheaper one."""
    factors = factor_width(teacher)
    if form == "auto":
        batch, t, width = student.shape
        return choose_form(batch, t, width, factors, similarity)
    if form == "covariance" and factors is None:
        raise ValueError(
            "form='covariance' has no use for a t x t matrix of the teacher; "
            "give teacher_feats or SimilarityFactors."
        )
    return form


def _check_energies(teacher: Teacher, form: str) -> None:
    """Raise if the strength of the teacher's frames is not known."""
    if not isinstance(teacher, Frames | CosineSimilarity):
        raise ValueError(
            "frame_weights='energy' needs the norms of the teacher's frames; "
            "give teacher_feats or a CosineSimilarity in place of "
            f"{type(teacher).__name__}."
        )
    if form == "covariance":
        raise ValueError(
            "frame_weights='energy' has no covariance form; leave form='auto'."
        )


def _clip_weights(
    student: Tensor, frames: Tensor | None, reduction: str, scaled: bool
) -> Tensor | float:
    """What ||G_teacher - G_student||^2 of each clip is multiplied with."""
    batch, t, _ = student.shape
    share = 1.0 / batch if reduction in ("mean", "batchmean") else 1.0
    if frames is None:
        return share / t if scaled else share / (t * t)
    n = frames.to(student.dtype)
    return share / n if scaled else share / (n * n)


def iusp_loss(
    student_feats: Tensor,
    teacher_feats: Tensor | None = None,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    similarity: str = "row_l2",
    scaled: bool = False,
    frame_weights: str = "equal",
    alignment: str = "error",
    layout: str = "time_first",
    teacher_similarity: Tensor
    | CosineSimilarity
    | SimilarityFactors
    | None = None,
    check_finite: bool = True,
    form: str = "auto",
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

    Value and gradient are computed together, in float32, or in float64 if an
    input is; second derivatives are those of autograd.

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
    frame_weights : str
        "equal" (paper), or "energy", ours: row i of G counts by the factor
        ||q_i|| / mean over the clip's frames of ||q||, q the teacher's, so
        that its silence counts little. By autograd, in the Gram form, for
        ``teacher_feats`` or a ``CosineSimilarity``; the bounds above do not
        hold for it.
    alignment : str
        What to do if student and teacher differ in frames: "error"; "pool",
        average the longer one; "interpolate", interpolate the shorter one;
        over each clip's own length (``alignment.align_frames``). Only the
        student can be fitted to a ready-made similarity.
    layout : str
        "time_first", (batch, time, ...), or "channel_first",
        (batch, channel, time[, freq]); holds for both.
    teacher_similarity : torch.Tensor or NamedTuple, optional
        Made once and kept, in place of ``teacher_feats``: the similarity
        matrices (batch, t, t) as ``similarity_matrix`` makes them with the
        same ``similarity``; or a ``CosineSimilarity``, as
        ``cosine_similarity`` makes it, which serves both; or
        ``SimilarityFactors``, as ``similarity_factors`` makes them.
    check_finite : bool
        Raise on a non-finite loss and name the guilty input.
    form : str
        "gram" computes with t x t matrices, "covariance" with D x D ones,
        "auto" takes the cheaper (``costs.choose_form``). The value is the
        same.
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

    >>> import torch
    >>> student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> teacher = torch.ones(1, 2, 5)
    >>> iusp_loss(student, teacher)  # 1/4 * 2 * (2 - sqrt(2))
    tensor(0.2929)
    >>> iusp_loss(teacher, teacher)
    tensor(0.)
    """
    check_choice("similarity", similarity, SIMILARITIES)
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("alignment", alignment, ALIGNMENTS)
    check_choice("layout", layout, LAYOUTS)
    check_choice("form", form, FORMS)
    check_choice("frame_weights", frame_weights, FRAME_WEIGHTS)
    check_eps(eps)
    if (teacher_feats is None) == (teacher_similarity is None):
        raise ValueError(
            "Give exactly one of teacher_feats and teacher_similarity."
        )
    check_floating("student_feats", student_feats)
    with autocast_off(student_feats):
        if teacher_feats is not None:
            student, teacher_rows = aligned_pair(
                student_feats, teacher_feats, lengths, alignment, layout
            )
            teacher: Teacher = Frames(teacher_rows)
        else:
            assert teacher_similarity is not None  # checked above
            student, teacher = _from_similarity(
                student_feats, teacher_similarity, lengths, alignment, layout
            )
        if frame_weights == "energy":
            _check_energies(teacher, form)
            form = "gram"
        form = _form(form, student, teacher, similarity)
        t = student.shape[1]
        frames = None if lengths is None else num_frames(lengths, t)
        comparison = Comparison(teacher, frames, similarity, form, eps)
        weights = _clip_weights(student, frames, reduction, scaled)
        total = reduction != "batch"
        if frame_weights == "energy":
            loss = comparison.weighted_by_energy(student) * weights
            loss = loss.sum() if total else loss
        else:
            loss = weighted_distance(student, comparison, weights, total)
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


class IUSPLoss(LossModule):
    """Module form of ``iusp_loss``; its options are the function's.

    Arguments
    ---------
    similarity : str
        "row_l2" (paper) or "cosine".
    scaled : bool
        Multiply each clip's loss by its number of frames.
    frame_weights : str
        "equal" (paper) or "energy" (ours).
    alignment : str
        "error", "pool" or "interpolate".
    layout : str
        "time_first" or "channel_first".
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.
    form : str
        "auto", "gram" or "covariance".
    eps : float
        Relative floor of a row's norm.

    Example
    -------
    >>> import torch
    >>> loss = IUSPLoss(scaled=True)
    >>> student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> loss(student, torch.ones(1, 2, 5))
    tensor(0.5858)
    """

    teacher_record = "cosine"

    def __init__(
        self,
        similarity: str = "row_l2",
        scaled: bool = False,
        frame_weights: str = "equal",
        alignment: str = "error",
        layout: str = "time_first",
        reduction: str = "mean",
        check_finite: bool = True,
        form: str = "auto",
        eps: float = EPS,
    ):
        super().__init__(
            iusp_loss,
            similarity=similarity,
            scaled=scaled,
            frame_weights=frame_weights,
            alignment=alignment,
            layout=layout,
            reduction=reduction,
            check_finite=check_finite,
            form=form,
            eps=eps,
        )
