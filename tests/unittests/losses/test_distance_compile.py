"""The engine of SP and IUSP compiled: the same values and gradients.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import (
    CosineSimilarity,
    SimilarityFactors,
    cosine_similarity,
    iusp_loss,
    similarity_factors,
    sp_loss,
)

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
# The tracer instantiates autograd functions, and warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")


def draw(seed, *shape):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def gradient(loss, student, *args, cast=False, **options):
    """Loss and gradient with respect to the student's features."""
    leaf = student.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        value = loss(leaf, *args, **options)
    (3 * value).sum().backward()
    return value.detach(), leaf.grad


def compare(loss, student, *args, cast=False, **options):
    """Compiled as a whole, and not at all."""
    torch.compiler.reset()

    def call(student, *args):
        return loss(student, *args, **options)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    expected = gradient(call, student, *args)
    assert expected[1].abs().max() > 1e-3
    got = gradient(compiled, student, *args, cast=cast)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    return compiled, call


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5])])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_iusp(similarity, form, lengths, cast):
    student, teacher = draw(0, 2, 8, 3), draw(1, 2, 8, 4)
    options = {"similarity": similarity, "form": form, "cast": cast}
    compare(iusp_loss, student, teacher, lengths, **options)


SHARES = pytest.mark.xfail(reason="autograd's backward runs under autocast")


@pytest.mark.parametrize(
    "reduction, cast",
    [
        ("mean", False),
        ("mean", True),
        ("batch", False),
        pytest.param("batch", True, marks=SHARES),
    ],
)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_sp(similarity, reduction, cast):
    student, teacher = draw(0, 4, 5, 3), draw(1, 4, 7)
    lengths = torch.tensor([1.0, 0.4, 0.6, 1.0])
    options = {"similarity": similarity, "cast": cast}
    compare(sp_loss, student, teacher, lengths, reduction, **options)


@pytest.mark.parametrize("builder", [cosine_similarity, similarity_factors])
def test_a_teacher_kept(builder):
    record = builder(draw(1, 2, 8, 4))
    kind = type(record)
    assert kind in (CosineSimilarity, SimilarityFactors)

    def loss(student, *parts):
        return iusp_loss(student, teacher_similarity=kind(*parts), form="auto")

    compare(loss, draw(0, 2, 8, 3), *record, cast=True)


def test_another_number_of_frames():
    """Traced again, or with sizes that may vary; per-clip weights."""
    lengths = torch.tensor([1.0, 0.5])
    compiled, call = compare(
        iusp_loss, draw(0, 2, 8, 3), draw(1, 2, 8, 4), lengths, "batch"
    )
    for t in (5, 12):
        args = draw(2, 2, t, 3), draw(3, 2, t, 4), lengths, "batch"
        expected = gradient(call, *args)
        got = gradient(compiled, *args)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_magnitudes_that_the_compiler_cannot_look_at(form, scale):
    """Always rescaled there; a silent clip beside them."""
    student, teacher = draw(0, 3, 8, 3), draw(1, 3, 8, 4)
    student[1] = 0

    def loss(student):
        return iusp_loss(student * scale, teacher / scale, form=form)

    compare(loss, student)
    value = iusp_loss(student, teacher, form=form)
    torch.testing.assert_close(loss(student), value)
