"""Records of a teacher made once: padding, layouts, precision, silence.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import (
    cosine_similarity,
    iusp_loss,
    similarity_factors,
    similarity_matrix,
)

SIMILARITIES = ("row_l2", "cosine")
NAN = float("nan")


def draw(seed, *shape, dtype=torch.float64):
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def frames_with_silence():
    """Two clips of six frames, one frame zero and one all but."""
    frames = draw(0, 2, 6, 4)
    frames[0, 2] = 0
    frames[1, 3] *= 1e-6
    return frames


def matrix_of(record, similarity):
    """G from cosines C and norms n: C, or n_i C_ij n_j with unit rows."""
    norms = record.norms
    if similarity == "cosine":
        live = norms > 1e-4 * norms.amax(dim=1, keepdim=True)
        return record.cosine * live[:, :, None] * live[:, None]
    gram = record.cosine * norms[:, :, None] * norms[:, None]
    sizes = gram.norm(dim=2, keepdim=True)
    live = sizes > 1e-4 * sizes.amax(dim=1, keepdim=True)
    return torch.where(live, gram / sizes, torch.zeros_like(gram))


def both_builders(feats, *args, similarity="row_l2", **options):
    """G of either builder, and what they built."""
    record = cosine_similarity(feats, *args, **options)
    factors = similarity_factors(feats, *args, similarity=similarity, **options)
    return [matrix_of(record, similarity), factors.left @ factors.right.mT], (
        record,
        factors,
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_padding_leaves_no_trace(similarity):
    frames = frames_with_silence()
    spoiled = frames.clone()
    spoiled[1, 3:] = NAN
    spoiled[0, 5:] = float("inf")
    lengths = torch.tensor([5 / 6, 0.5])
    mask = torch.arange(6) < torch.tensor([[5], [3]])
    expected = similarity_matrix(frames, mask, similarity=similarity)
    matrices, built = both_builders(spoiled, lengths, similarity=similarity)
    for matrix in matrices:
        torch.testing.assert_close(matrix, expected)
    for record in built:
        for part in record:
            assert (part[1, 3:] == 0).all() and (part[0, 5:] == 0).all()
    record, factors = built
    assert (record.cosine[1, :, 3:] == 0).all()
    torch.testing.assert_close(factors.squares, expected.square().sum(dim=2))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_layouts(similarity):
    image = draw(0, 2, 3, 6, 4)  # channel, time, frequency
    frames = image.permute(0, 2, 3, 1).flatten(2)
    last = image.to(memory_format=torch.channels_last)
    expected = similarity_matrix(frames, similarity=similarity)
    for feats in (image, last):
        matrices, _ = both_builders(
            feats, similarity=similarity, layout="channel_first"
        )
        for matrix in matrices:
            torch.testing.assert_close(matrix, expected)
    matrices, _ = both_builders(image.movedim(2, 1), similarity=similarity)
    for matrix in matrices:
        torch.testing.assert_close(matrix, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_features_are_computed_in_float32(dtype):
    feats = (100 * draw(0, 2, 6, 4)).to(dtype)
    wide = cosine_similarity(feats.float()), similarity_factors(feats.float())
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            built = cosine_similarity(feats), similarity_factors(feats)
        for record, expected in zip(built, wide, strict=True):
            assert all(part.dtype == torch.float32 for part in record)
            assert all(map(torch.equal, record, expected))


def test_no_gradient_is_kept():
    feats = draw(0, 2, 6, 4).requires_grad_()
    for record in both_builders(feats)[1]:
        assert not any(part.requires_grad for part in record)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_silent_frames(similarity):
    """Zero rows and columns; the threshold is the loss's own."""
    frames = frames_with_silence()
    matrices, (record, factors) = both_builders(frames, similarity=similarity)
    for matrix in matrices:
        assert (matrix[0, 2] == 0).all() and (matrix[0, :, 2] == 0).all()
        assert (matrix[1, 3] == 0).all()
    assert (record.cosine[0, 2] == 0).all() and record.norms[0, 2] == 0
    assert record.cosine[1, 3, 3] == pytest.approx(1)  # faint is not silent
    assert factors.squares[0, 2] == factors.squares[1, 3] == 0
    loose = similarity_factors(frames, similarity=similarity, eps=0.0)
    assert loose.squares[1, 3] > 0.9 and loose.squares[0, 2] == 0
    silent, _ = both_builders(0 * frames, similarity=similarity)
    assert all((matrix == 0).all() for matrix in silent)


@pytest.mark.parametrize("builder", ["cosine", "factors"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_any_magnitude(builder, similarity, scale):
    student = draw(0, 2, 6, 3, dtype=torch.float32)
    teacher = draw(1, 2, 6, 4, dtype=torch.float32)
    value = iusp_loss(student, teacher, similarity=similarity)
    if builder == "cosine":
        kept = cosine_similarity(teacher * scale)
    else:
        kept = similarity_factors(teacher * scale, similarity=similarity)
    other = iusp_loss(student, teacher_similarity=kept, similarity=similarity)
    torch.testing.assert_close(other, value)


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"layout": "time_frst"}, ValueError, "mean 'time_first'"),
        ({"feats": torch.ones(3)}, ValueError, r"feats has shape \(3,\)"),
        ({"feats": torch.ones(1, 2).int()}, TypeError, "feats is torch.int32"),
        ({"lengths": torch.ones(3)}, ValueError, r"lengths has shape \(3,\)"),
        ({"lengths": torch.tensor([1.0, 2])}, ValueError, r"lengths\[1\]=2.0"),
    ],
)
def test_builders_check_what_they_are_given(options, error, match):
    options = {"feats": torch.ones(2, 3, 4)} | options
    for builder in (cosine_similarity, similarity_factors):
        with pytest.raises(error, match=match):
            builder(**options)


def test_similarity_factors_checks_its_options():
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        similarity_factors(torch.ones(1, 2, 3), similarity="cosin")
    with pytest.raises(ValueError, match="eps=-1 must be >= 0"):
        similarity_factors(torch.ones(1, 2, 3), eps=-1)
