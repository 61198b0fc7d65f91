"""Closed-form kernels: values, gradients and peaks against autograd.

Authors
 * The iusp_plugin authors 2026
"""

import itertools

import pytest
import torch

from iusp_plugin.losses import similarity_factors
from iusp_plugin.losses.kernels import KERNELS
from iusp_plugin.losses.teacher_similarity import (
    CosineSimilarity,
    Frames,
    Matrix,
    SimilarityFactors,
)

SIMILARITIES = ("row_l2", "cosine")
EPS = 1e-4
EXACT = {"rtol": 1e-11, "atol": 1e-12}


def draw(seed, *shape, dtype=torch.float64):
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def unit(rows, eps):
    """Each row over its norm, or zero."""
    least = eps * max(float(row.detach().norm()) for row in rows)
    return torch.stack(
        [
            row / row.norm() if row.detach().norm() > least else 0 * row
            for row in rows
        ]
    )


def similarity_by_hand(rows, similarity, eps=EPS):
    """G of the frames of one clip."""
    if similarity == "cosine":
        rows = unit(rows, eps)
        return rows @ rows.mT
    return unit(rows @ rows.mT, eps)


def distance_by_hand(student, given, similarity, eps=EPS):
    """Squared distances, and half the gradient of their sum by autograd."""
    student = student.double().clone().requires_grad_()
    own = [similarity_by_hand(rows, similarity, eps) for rows in student]
    per_clip = (torch.stack(own) - given).square().sum(dim=(1, 2))
    (gradient,) = torch.autograd.grad(per_clip.sum(), student)
    return per_clip.detach(), gradient / 2


def student_frames(dtype=torch.float64):
    """Three clips; a frame of zeros and one below the threshold."""
    frames = draw(0, 3, 7, 4, dtype=dtype)
    frames[0, 2] = 0
    frames[1, 4] *= 1e-6
    return frames


def teacher_frames(dtype=torch.float64):
    """Another frame of zeros and another below the threshold."""
    frames = draw(1, 3, 7, 5, dtype=dtype)
    frames[0, 5] = 0
    frames[2, 1] *= 1e-6
    return frames


def of_frames(frames, similarity):
    """The teacher's own features."""
    return Frames(frames)


def of_matrix(frames, similarity):
    """A matrix that is neither symmetric nor of unit rows."""
    return Matrix(draw(2, 3, 7, 7))


def of_cosines(frames, similarity):
    """Cosines and norms."""
    cosines = [similarity_by_hand(rows, "cosine", 0.0) for rows in frames]
    return CosineSimilarity(torch.stack(cosines), frames.norm(dim=2))


def of_factors(frames, similarity):
    """What `similarity_factors` makes, with the squares known."""
    return similarity_factors(frames, similarity=similarity)


def of_any_factors(frames, similarity):
    """Factors whose product is no similarity, its squares unknown."""
    return SimilarityFactors(draw(3, 3, 7, 2), draw(4, 3, 7, 2))


KINDS = {
    of_frames: ("gram", "covariance"),
    of_matrix: ("gram",),
    of_cosines: ("gram",),
    of_factors: ("gram", "covariance"),
    of_any_factors: ("gram", "covariance"),
}
CASES = [
    pytest.param(*case, id=f"{case[0].__name__}-{case[1]}-{case[2]}")
    for kind, forms in KINDS.items()
    for case in itertools.product([kind], forms, SIMILARITIES)
]


def given_matrix(teacher, frames, similarity, eps=EPS):
    """G of the teacher, computed apart from the teacher's own methods."""
    matrix = None
    if isinstance(teacher, Matrix):
        matrix = teacher.matrix
    elif isinstance(teacher, SimilarityFactors) and teacher.squares is None:
        matrix = teacher.left @ teacher.right.mT
    if matrix is not None:
        if similarity == "cosine":
            return matrix
        return torch.stack([unit(rows, eps) for rows in matrix])
    by_clip = [similarity_by_hand(rows, similarity, eps) for rows in frames]
    return torch.stack(by_clip)


def target_of(teacher, similarity, form, eps=EPS):
    """The teacher as the kernel wants it."""
    wanted = teacher.rows if form == "gram" else teacher.factors
    return wanted(similarity, eps)


@pytest.mark.parametrize("kind, form, similarity", CASES)
def test_value_and_gradient_are_those_of_autograd(kind, form, similarity):
    student, frames = student_frames(), teacher_frames()
    teacher = kind(frames, similarity)
    given = given_matrix(teacher, frames, similarity)
    target = target_of(teacher, similarity, form)
    kernel = KERNELS[similarity, form]
    got = kernel(student, target, EPS, True)
    value, gradient = distance_by_hand(student, given, similarity)
    assert (value > 0.1).all()
    torch.testing.assert_close(got.per_clip, value, **EXACT)
    torch.testing.assert_close(got.gradient, gradient, **EXACT)


@pytest.mark.parametrize("form", ["gram", "covariance"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_higher_threshold(form, similarity):
    """Several frames of either side are silent."""
    student, frames = student_frames(), teacher_frames()
    given = given_matrix(Frames(frames), frames, similarity, 0.5)
    target = target_of(Frames(frames), similarity, form, 0.5)
    got = KERNELS[similarity, form](student, target, 0.5, True)
    value, gradient = distance_by_hand(student, given, similarity, 0.5)
    low, _ = distance_by_hand(student, given, similarity, EPS)
    assert not torch.allclose(value, low, rtol=0.01)
    torch.testing.assert_close(got.per_clip, value, **EXACT)
    torch.testing.assert_close(got.gradient, gradient, **EXACT)


@pytest.mark.parametrize("kind, form, similarity", CASES)
def test_no_gradient_is_computed_where_none_is_wanted(kind, form, similarity):
    student, teacher = student_frames(), kind(teacher_frames(), similarity)
    kernel = KERNELS[similarity, form]
    target = target_of(teacher, similarity, form)
    with_gradient = kernel(student, target, EPS, True)
    without = kernel(student, target, EPS, False)
    assert without.gradient is None
    assert torch.equal(without.per_clip, with_gradient.per_clip)
    assert torch.equal(without.peaks, with_gradient.peaks)


@pytest.mark.parametrize("kind, form, similarity", CASES)
def test_what_was_given_is_left_as_it_was(kind, form, similarity):
    """The arithmetic in place is on the kernel's own tensors."""
    student, teacher = student_frames(), kind(teacher_frames(), similarity)
    target = target_of(teacher, similarity, form)
    given = [student, *teacher, *target]
    tensors = [x for x in given if isinstance(x, torch.Tensor)]
    before = [x.clone() for x in tensors]
    KERNELS[similarity, form](student, target, EPS, True)
    assert all(map(torch.equal, tensors, before))


@pytest.mark.parametrize("form", ["gram", "covariance"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_peaks_are_the_largest_row_norms(form, similarity):
    sides = student_frames(), 100 * teacher_frames()
    target = target_of(Frames(sides[1]), similarity, form)
    got = KERNELS[similarity, form](sides[0], target, EPS, False)
    for peaks, rows in zip(got.peaks, sides, strict=True):
        if similarity == "row_l2":
            rows = rows @ rows.mT
        largest = rows.norm(dim=2).amax(dim=1, keepdim=True)
        torch.testing.assert_close(peaks, largest, **EXACT)


@pytest.mark.parametrize("form", ["gram", "covariance"])
def test_a_silent_row_has_no_gradient_of_its_own_norm(form):
    """Cosine: none at all. Row L2: through the columns of the others."""
    student, teacher = student_frames(), Frames(teacher_frames())
    target = target_of(teacher, "cosine", form)
    got = KERNELS["cosine", form](student, target, EPS, True).gradient
    assert (got[0, 2] == 0).all() and (got[1, 4] == 0).all()
    assert (got[2].abs().sum(dim=1) > 0).all()
    target = target_of(teacher, "row_l2", form)
    got = KERNELS["row_l2", form](student, target, EPS, True).gradient
    live = got[0].norm(dim=1).median()
    assert 0 < got[0, 2].norm() < 10 * live
    assert 0 < got[1, 4].norm() < 10 * live


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_forms_agree_in_float32(similarity):
    student = draw(0, 2, 60, 8, dtype=torch.float32)
    teacher = Frames(draw(1, 2, 60, 12, dtype=torch.float32))
    if similarity == "cosine":
        wide = Frames(teacher.frames.double())
        factors = wide.factors(similarity, EPS)
    else:
        factors = teacher.factors(similarity, EPS)
    given = {"gram": teacher.rows(similarity, EPS), "covariance": factors}
    gram, covariance = (
        KERNELS[similarity, form](student, target, EPS, True)
        for form, target in given.items()
    )
    assert covariance.per_clip.dtype == torch.float32
    assert covariance.gradient.dtype == torch.float32
    torch.testing.assert_close(
        gram.per_clip, covariance.per_clip, rtol=1e-5, atol=0
    )
    size = gram.gradient.abs().max().item()
    torch.testing.assert_close(
        gram.gradient, covariance.gradient, rtol=0, atol=1e-5 * size
    )


@pytest.mark.parametrize("form", ["gram", "covariance"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_silent_clips_on_either_side(form, similarity):
    """All zero: distance of the other side's rows to nothing."""
    student, frames = student_frames(), teacher_frames()
    student[0] = 0
    frames[1] = 0
    given = given_matrix(Frames(frames), frames, similarity)
    target = target_of(Frames(frames), similarity, form)
    got = KERNELS[similarity, form](student, target, EPS, True)
    value, gradient = distance_by_hand(student, given, similarity)
    torch.testing.assert_close(got.per_clip, value, **EXACT)
    torch.testing.assert_close(got.gradient, gradient, **EXACT)
    assert (got.gradient[0] == 0).all()
