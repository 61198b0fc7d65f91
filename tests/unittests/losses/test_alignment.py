"""Alignment of frames: pooling, interpolation, who is fitted to whom.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
from hypothesis import (
    given,
    settings,
    strategies as st,
)
from torch.nn import functional as F

from iusp_plugin.lengths import frame_mask
from iusp_plugin.losses import (
    cosine_similarity,
    iusp_loss,
    similarity_factors,
    similarity_matrix,
)
from iusp_plugin.losses.alignment import (
    align_frames,
    check_pair,
    interpolate_frames,
    paired_frames,
    pool_frames,
)
from tests.reference.loss_loops import count_frames, pool_loop

NAN = float("nan")
RESAMPLERS = [pool_frames, interpolate_frames]


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


# Pooling


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    longer=st.integers(1, 12),
    shorter=st.integers(1, 12),
    length=st.floats(1 / 128, 1, width=32),
)
def test_pooling_equals_loops(seed, longer, shorter, length):
    longer, shorter = max(longer, shorter), min(longer, shorter)
    feats = draw(seed, 1, longer, 2)
    n_in, n_out = (count_frames(length, t) for t in (longer, shorter))
    feats[:, n_in:] = NAN
    pooled = pool_frames(feats, shorter, torch.tensor([length]))
    expected = torch.zeros(shorter, 2).double()
    loops = pool_loop(feats[0, :n_in].tolist(), n_out)
    expected[:n_out] = torch.tensor(loops, dtype=torch.float64)
    torch.testing.assert_close(pooled[0], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("longer, shorter", [(12, 4), (7, 3), (5, 5), (9, 8)])
def test_pooling_is_adaptive_average_pooling(longer, shorter):
    feats = draw(0, 2, longer, 3)
    expected = F.adaptive_avg_pool1d(feats.mT, shorter).mT
    torch.testing.assert_close(pool_frames(feats, shorter), expected)


@pytest.mark.parametrize(
    "longer, shorter", [(12, 4), (12, 1), (12, 12), (7, 3), (13, 12), (11, 6)]
)
def test_quick_ways_of_pooling_are_the_general_one(longer, shorter):
    """Whole windows, and torch's own, against the matrix of windows."""
    leaf = draw(0, 2, longer, 3).requires_grad_()
    weights = draw(1, 2, shorter, 3)
    results = []
    for lengths in (None, torch.ones(2)):
        pooled = pool_frames(leaf, shorter, lengths)
        (grad,) = torch.autograd.grad((pooled * weights).sum(), leaf)
        results.append((pooled.detach(), grad))
    torch.testing.assert_close(*results, rtol=1e-14, atol=1e-15)
    strided = draw(0, 2, 3, longer).mT
    torch.testing.assert_close(
        pool_frames(strided, shorter),
        pool_frames(strided.contiguous(), shorter, torch.ones(2)),
    )


def test_no_window_is_cut_short():
    """The mean of ones is one, at any length and ratio of frames."""
    for longer in range(1, 31):
        lengths = torch.arange(1, 4 * longer + 1) / (4 * longer)
        ones = torch.ones(len(lengths), longer, 1)
        for shorter in range(1, longer + 1):
            pooled = pool_frames(ones, shorter, lengths).squeeze(2)
            mask = frame_mask(lengths, shorter)
            torch.testing.assert_close(pooled, mask.float())


# Interpolation


@pytest.mark.parametrize(
    "shorter, longer", [(1, 1), (1, 5), (2, 3), (3, 7), (5, 10), (31, 124)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_interpolation_is_that_of_torch(shorter, longer, dtype):
    feats = draw(0, 2, shorter, 3, dtype=dtype)
    expected = F.interpolate(
        feats.mT, longer, mode="linear", align_corners=False
    ).mT
    tolerance = 1e-14 if dtype == torch.float64 else 1e-5
    for lengths in (None, torch.ones(2)):
        result = interpolate_frames(feats, longer, lengths)
        assert result.dtype == dtype
        torch.testing.assert_close(
            result, expected, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("t", [1, 2, 7, 60])
def test_as_many_frames_are_left_as_they_are(t):
    feats = draw(0, 2, t, 3, dtype=torch.float32)
    for resample in RESAMPLERS:
        assert torch.equal(resample(feats, t), feats)
    assert torch.equal(interpolate_frames(feats, t, torch.ones(2)), feats)


# Both


COUNTS = {pool_frames: (12, 8), interpolate_frames: (6, 9)}


@pytest.mark.parametrize("resample", RESAMPLERS)
@pytest.mark.parametrize("fill", [NAN, float("inf"), 1e30])
def test_each_clip_over_its_own_length(resample, fill):
    t, total = COUNTS[resample]
    lengths = torch.tensor([1.0, 0.5, 0.25, 0.01])
    feats = draw(0, 4, t, 3)
    spoiled = feats.clone()
    sizes = [
        (count_frames(r, t), count_frames(r, total)) for r in lengths.tolist()
    ]
    assert sizes[0] == (t, total) and sizes[3] == (1, 1)
    for clip, (n, _) in zip(spoiled, sizes, strict=True):
        clip[n:] = fill
    leaf = spoiled.requires_grad_()
    result = resample(leaf, total, lengths)
    weights = draw(1, 4, total, 3)
    (grad,) = torch.autograd.grad((result * weights).sum(), leaf)
    for i, (n, m) in enumerate(sizes):
        alone = feats[i : i + 1, :n].clone().requires_grad_()
        expected = resample(alone, m)
        torch.testing.assert_close(result[i : i + 1, :m], expected)
        (own,) = torch.autograd.grad((expected * weights[i, :m]).sum(), alone)
        torch.testing.assert_close(grad[i : i + 1, :n], own)
        assert (result[i, m:] == 0).all() and (grad[i, n:] == 0).all()


@pytest.mark.parametrize("resample", RESAMPLERS)
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.6])])
def test_derivatives(resample, lengths):
    t, total = COUNTS[resample]
    feats = draw(0, 2, t, 2).requires_grad_()

    def resampled(x):
        return resample(x, total, lengths)

    assert torch.autograd.gradcheck(resampled, (feats,))
    assert torch.autograd.gradgradcheck(resampled, (feats,))


@pytest.mark.parametrize("resample", RESAMPLERS)
def test_lengths_of_whole_clips_are_no_lengths(resample):
    feats = draw(0, 3, COUNTS[resample][0], 2)
    total = COUNTS[resample][1]
    torch.testing.assert_close(
        resample(feats, total, torch.ones(3)), resample(feats, total)
    )


# Pairs


@pytest.mark.parametrize("alignment", ["pool", "interpolate"])
@pytest.mark.parametrize("frames", [(4, 6), (6, 4)])
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5])])
def test_one_side_is_fitted_to_the_other(alignment, frames, lengths):
    sides = draw(0, 2, frames[0], 3), draw(1, 2, frames[1], 5)
    aligned = align_frames(*sides, lengths, alignment)
    pool = alignment == "pool"
    total = min(frames) if pool else max(frames)
    resample = pool_frames if pool else interpolate_frames
    for side, result in zip(sides, aligned, strict=True):
        if side.shape[1] == total:
            assert result is side
        else:
            assert torch.equal(result, resample(side, total, lengths))


@pytest.mark.parametrize("alignment", ["error", "pool", "interpolate"])
def test_the_same_number_of_frames_is_left(alignment):
    sides = draw(0, 2, 4, 3), draw(1, 2, 4, 5)
    aligned = align_frames(*sides, torch.tensor([1.0, 0.5]), alignment)
    assert aligned[0] is sides[0] and aligned[1] is sides[1]


def test_alignment_errors():
    sides = draw(0, 2, 4, 3), draw(1, 2, 6, 5)
    with pytest.raises(ValueError, match="4 frames and teacher_feats 6; .*'po"):
        align_frames(*sides, None, "error")
    with pytest.raises(ValueError, match="Did you mean 'interpolate'"):
        align_frames(*sides, None, "interpolat")
    with pytest.raises(ValueError, match="Did you mean 'pool'"):
        align_frames(sides[0], sides[0], None, "pol")


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"student": torch.ones(4)}, ValueError, r"student_feats has shape"),
        ({"teacher": torch.ones(2, 4).int()}, TypeError, "teacher_feats is"),
        ({"teacher": torch.ones(3, 4, 5)}, ValueError, "2 clips and .* 3"),
        ({"lengths": torch.ones(3)}, ValueError, r"expected \(2,\)"),
        ({"lengths": torch.tensor([1.0, 0])}, ValueError, r"lengths\[1\]"),
    ],
)
def test_pairs_are_checked(change, error, match):
    given_pair = {
        "student": torch.ones(2, 4, 3),
        "teacher": torch.ones(2, 4, 5),
        "lengths": None,
    }
    check_pair(**given_pair, layout="time_first")
    with pytest.raises(error, match=match):
        check_pair(**given_pair | change, layout="time_first")


def test_paired_frames():
    """Rows of both sides in one precision, and which of them count."""
    student = draw(0, 2, 3, 8, 4).half().requires_grad_()  # channel first
    teacher = draw(1, 2, 5, 4).requires_grad_()
    lengths = torch.tensor([1.0, 0.5])
    ours, theirs, mask = paired_frames(
        student, teacher, lengths, "pool", "channel_first"
    )
    assert ours.shape == (2, 4, 12) and theirs.shape == (2, 4, 5)
    assert ours.dtype == theirs.dtype == torch.float64
    assert ours.requires_grad and not theirs.requires_grad
    assert torch.equal(theirs, teacher.mT)
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]
    *_, mask = paired_frames(student, teacher, None, "pool", "channel_first")
    assert mask is None
    with pytest.raises(ValueError, match="Did you mean 'channel_first'"):
        paired_frames(student, teacher, None, "pool", "channel_frst")


# A similarity cannot be resampled: the student is fitted to it.

SIMILARITIES = ("row_l2", "cosine")
BUILDERS = {
    "matrix": lambda feats, similarity: similarity_matrix(
        feats, similarity=similarity
    ),
    "cosines": lambda feats, similarity: cosine_similarity(feats),
    "factors": lambda feats, similarity: similarity_factors(
        feats, similarity=similarity
    ),
}


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    "alignment, frames", [("pool", 12), ("pool", 9), ("interpolate", 4)]
)
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5])])
def test_a_student_of_another_number_of_frames(
    builder, similarity, alignment, frames, lengths
):
    """As the loss of the teacher's features: value and gradient."""
    leaf, teacher = draw(0, 2, frames, 3).requires_grad_(), draw(1, 2, 6, 4)
    if lengths is not None:
        teacher[1, 3:] = 0
    kept = BUILDERS[builder](teacher, similarity)
    results = []
    for how in ({"teacher_feats": teacher}, {"teacher_similarity": kept}):
        loss = iusp_loss(
            leaf,
            lengths=lengths,
            similarity=similarity,
            alignment=alignment,
            **how,
        )
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    assert results[0][0] > 0.01
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "alignment, frames",
    [("pool", 4), ("interpolate", 12), ("error", 4), ("error", 12)],
)
def test_what_the_student_cannot_be_fitted_to(builder, alignment, frames):
    """Less pooled, more interpolated: the teacher would have to change."""
    kept = BUILDERS[builder](draw(1, 2, 6, 4), "row_l2")
    match = f"{frames} frames and teacher_similarity 6; a similarity cannot"
    with pytest.raises(ValueError, match=match):
        iusp_loss(
            draw(0, 2, frames, 3),
            teacher_similarity=kept,
            alignment=alignment,
        )
