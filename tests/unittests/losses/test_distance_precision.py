"""The engine of SP and IUSP: magnitudes, silence, precision.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import distance, iusp_loss, similarity_matrix, sp_loss

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
EVERY_FORM = pytest.mark.parametrize(
    "similarity, form", [(s, f) for s in SIMILARITIES for f in FORMS]
)


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def gradient(student, *args, weights=None, loss=iusp_loss, **options):
    """Loss and gradient with respect to the student's features."""
    student = student.detach().clone().requires_grad_()
    value = loss(student, *args, **options)
    value.backward(weights)
    return value.detach(), student.grad


def assert_near(got, expected, tolerance):
    """Values by themselves, gradients by the largest of each clip's."""
    value, grad = expected
    torch.testing.assert_close(got[0], value, rtol=tolerance, atol=tolerance)
    size = grad.abs().amax(dim=tuple(range(1, grad.dim())), keepdim=True)
    assert (size > 0).any()
    assert ((got[1] - grad).abs() <= tolerance * size).all()


# Magnitudes

SCALES = [1e-30, 1e-18, 1e-10, 1e10, 1e18]


@EVERY_FORM
@pytest.mark.parametrize("scale", SCALES)
def test_any_magnitude(similarity, form, scale):
    """The value of unscaled features, and the gradient over the scale."""
    student = draw(0, 2, 9, 4, dtype=torch.float32)
    teacher = draw(1, 2, 9, 5, dtype=torch.float32)
    options = {"similarity": similarity, "form": form}
    expected = gradient(student.double(), teacher.double(), **options)
    sides = [(scale, 1), (1, scale), (scale, scale), (scale, 1 / scale)]
    for ours, yours in sides:
        value, grad = gradient(student * ours, teacher * yours, **options)
        assert value.dtype == torch.float32
        got = value.double(), grad.double() * ours
        assert_near(got, expected, 3e-6)


@EVERY_FORM
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5, 0.7, 1.0])])
@pytest.mark.parametrize(
    "scales",
    [(1e-30, 1.0, 1e-10, 1e18), (1.0, 1e-30, 1.0, 1.0), (1.0, 1.0, 1e18, 1.0)],
)
def test_clips_of_one_batch_may_differ_in_magnitude(
    similarity, form, lengths, scales
):
    scales = torch.tensor(scales).double().view(4, 1, 1)
    student, teacher = draw(0, 4, 10, 4), draw(1, 4, 10, 5)
    options = {"similarity": similarity, "form": form, "reduction": "batch"}
    options |= {"lengths": lengths, "weights": torch.ones(4)}
    expected = gradient(student, teacher, **options)
    for theirs in (torch.ones_like(scales), scales, scales.flip(0)):
        value, grad = gradient(
            (student * scales).float(), (teacher * theirs).float(), **options
        )
        got = value.double(), grad.double() * scales
        assert_near(got, expected, 3e-6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scale", SCALES)
def test_sp_of_any_magnitude(similarity, scale):
    student = draw(0, 6, 4, dtype=torch.float32)
    teacher = draw(1, 6, 5, dtype=torch.float32)
    options = {"similarity": similarity, "loss": sp_loss}
    expected = gradient(student.double(), teacher.double(), **options)
    for yours in (1, scale, 1 / scale):
        value, grad = gradient(student * scale, teacher * yours, **options)
        got = value.double(), grad.double() * scale
        assert_near(got, expected, 3e-6)


@EVERY_FORM
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_a_silent_clip_beside_live_ones(similarity, form, scale):
    student = draw(0, 4, 9, 4, dtype=torch.float32) * scale
    teacher = draw(1, 4, 9, 5, dtype=torch.float32)
    student[1] = 0
    teacher[2] = 0
    options = {"similarity": similarity, "form": form, "reduction": "batch"}
    options["weights"] = torch.ones(4)
    value, grad = gradient(student, teacher, **options)
    live = [0, 3]
    alone = gradient(
        student[live], teacher[live], **options | {"weights": torch.ones(2)}
    )
    got = value[live], grad[live] * scale
    assert_near(got, (alone[0], alone[1] * scale), 3e-6)
    for clip, feats in ((1, teacher[1]), (2, student[2] / scale)):
        matrix = similarity_matrix(feats[None], similarity=similarity)
        size = matrix.square().sum() / 81
        torch.testing.assert_close(value[clip], size)
    assert (grad[1] == 0).all() and grad[2].isfinite().all()


# Precision


@EVERY_FORM
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_a_scaled_half_precision_step(similarity, form, dtype):
    """A loss scaled as a gradient scaler does; the gradient fits float16."""
    student, teacher = draw(0, 2, 9, 6).to(dtype), draw(1, 2, 9, 6).to(dtype)
    options = {"similarity": similarity, "form": form}
    expected = gradient(student.double(), teacher.double(), **options)
    scale = torch.tensor(2.0**10)
    value, grad = gradient(student, teacher, weights=scale, **options)
    assert value.dtype == torch.float32 and grad.dtype == dtype
    got = value.double(), grad.double() / scale
    assert_near((got[0], expected[1]), expected, 3e-6)
    assert_near((expected[0], got[1]), expected, torch.finfo(dtype).eps)


@EVERY_FORM
@pytest.mark.parametrize("chunk", [1, 2**19])
def test_autocast_changes_no_bit(similarity, form, chunk, monkeypatch):
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", chunk)
    student = draw(0, 2, 12, 6, dtype=torch.float32)
    teacher = draw(1, 2, 12, 6, dtype=torch.float32)
    lengths = torch.tensor([1.0, 0.5])
    options = {"similarity": similarity, "form": form}
    plain = gradient(student, teacher, lengths, **options)
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradient(student, teacher, lengths, **options)
    assert all(map(torch.equal, plain, cast))


@EVERY_FORM
def test_wide_teachers_of_narrow_students(similarity, form):
    """Computed in float64, handed back in float32."""
    student, teacher = draw(0, 2, 6, 3).float(), draw(1, 2, 6, 4)
    options = {"similarity": similarity, "form": form}
    value, grad = gradient(student, teacher, **options)
    expected, exact = gradient(student.double(), teacher, **options)
    assert torch.equal(value, expected) and torch.equal(grad, exact.float())


@pytest.mark.parametrize("offset", [1e-2, 1e-4])
def test_covariances_of_cosines_do_not_cancel(offset):
    """A small difference of large sums: in float32 nothing would be left."""
    teacher = draw(0, 2, 40, 6, dtype=torch.float32)
    student = teacher + offset * draw(1, 2, 40, 6, dtype=torch.float32)
    options = {"similarity": "cosine", "form": "covariance"}
    expected = gradient(student.double(), teacher.double(), **options)
    assert 0 < expected[0] < offset**2
    value, grad = gradient(student, teacher, **options)
    torch.testing.assert_close(value.double(), expected[0], rtol=1e-5, atol=0)
    assert_near((expected[0], grad.double()), expected, 1e-5)
