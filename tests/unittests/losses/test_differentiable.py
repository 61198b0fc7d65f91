"""Distances by autograd: the kernels' numbers, and derivatives of any order.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import similarity_matrix
from iusp_plugin.losses.differentiable import (
    covariance_distance,
    gram_row_distances,
)
from iusp_plugin.losses.kernels import KERNELS
from iusp_plugin.losses.teacher_similarity import (
    Frames,
    Matrix,
    SimilarityFactors,
)

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
EPS = 1e-4


def draw(seed, *shape, dtype=torch.float64):
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


TEACHERS = {
    "frames": lambda: Frames(draw(1, 2, 5, 4)),
    "factors": lambda: SimilarityFactors(draw(2, 2, 5, 2), draw(3, 2, 5, 2)),
}


def silent_frames(frames):
    """One frame of zeros, one below the threshold."""
    frames = frames.clone()
    frames[0, 2] = 0
    frames[1, 4] *= 1e-6
    return frames


def target_of(teacher, similarity, form):
    """The teacher as the form wants it."""
    wanted = teacher.rows if form == "gram" else teacher.factors
    return wanted(similarity, EPS)


def distance(student, target, similarity, form):
    """(batch,) by autograd."""
    if form == "gram":
        rows = gram_row_distances(student, target, similarity, EPS)
        return rows.sum(dim=1)
    return covariance_distance(student, target, similarity, EPS)


CASES = pytest.mark.parametrize(
    "kind, similarity, form",
    [(k, s, f) for k in TEACHERS for s in SIMILARITIES for f in FORMS],
)


@CASES
def test_equals_the_kernels(kind, similarity, form):
    student = silent_frames(draw(0, 2, 5, 3)).requires_grad_()
    target = target_of(TEACHERS[kind](), similarity, form)
    value = distance(student, target, similarity, form)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    kernel = KERNELS[similarity, form]
    expected = kernel(student.detach(), target, EPS, True)
    same = {"rtol": 1e-11, "atol": 1e-12}
    assert (value > 0.1).all()
    torch.testing.assert_close(value.detach(), expected.per_clip, **same)
    torch.testing.assert_close(gradient / 2, expected.gradient, **same)


@CASES
def test_derivatives_of_first_and_second_order(kind, similarity, form):
    student = draw(0, 2, 5, 3).requires_grad_()
    target = target_of(TEACHERS[kind](), similarity, form)

    def loss(feats):
        return distance(feats, target, similarity, form)

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("form", FORMS)
def test_silence_has_finite_second_derivatives(similarity, form):
    student = silent_frames(draw(0, 2, 5, 3)).requires_grad_()
    teacher = Frames(silent_frames(draw(1, 2, 5, 4)))
    target = target_of(teacher, similarity, form)
    value = distance(student, target, similarity, form).sum()
    (gradient,) = torch.autograd.grad(value, student, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), student)
    assert gradient.isfinite().all() and second.isfinite().all()
    assert second.abs().sum() > 0


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_each_row_is_its_own_distance(similarity):
    student, given = draw(0, 2, 5, 3), draw(1, 2, 5, 5)
    target = Matrix(given).rows(similarity, EPS)
    rows = gram_row_distances(student, target, similarity, EPS)
    own = similarity_matrix(student, similarity=similarity)
    if similarity == "row_l2":
        given = given / given.norm(dim=2, keepdim=True)
    assert rows.shape == (2, 5)
    for clip in range(2):
        for i in range(5):
            expected = (own[clip, i] - given[clip, i]).norm() ** 2
            torch.testing.assert_close(rows[clip, i], expected)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scale_of_float32_students_does_not_matter(similarity, form, scale):
    student = draw(0, 2, 5, 3, dtype=torch.float32)
    wide = form == "covariance" and similarity == "cosine"
    dtype = torch.float64 if wide else torch.float32
    teacher = Frames(draw(1, 2, 5, 4, dtype=dtype))
    target = target_of(teacher, similarity, form)
    results = []
    for factor in (1.0, scale):
        leaf = (student * factor).requires_grad_()
        value = distance(leaf, target, similarity, form)
        assert value.dtype == torch.float32
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        results.append((value.detach(), gradient * factor))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_rounding_below_zero_costs_no_derivative(similarity):
    """At the minimum, where rows are as often rounded below as above."""
    student = draw(0, 2, 30, 4).requires_grad_()
    teacher = Frames(student.detach())
    along = draw(1, 2, 30, 4)
    seconds = []
    for form in FORMS:
        target = target_of(teacher, similarity, form)
        value = distance(student, target, similarity, form)
        assert (value >= 0).all() and (value < 1e-10).all()
        (first,) = torch.autograd.grad(value.sum(), student, create_graph=True)
        (second,) = torch.autograd.grad((first * along).sum(), student)
        assert first.abs().max() < 1e-7
        seconds.append(second)
    assert seconds[0].abs().max() > 0.01
    torch.testing.assert_close(*seconds, rtol=1e-6, atol=1e-8)
