"""Similarity matrices: formula, floor, masks, precision, errors.

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

from iusp_plugin.losses import gram, iusp_loss, similarity_matrix, sp_loss
from tests.reference.loss_loops import similarity_loop

SIMILARITIES = ("row_l2", "cosine")


def draw_rows(seed, *shape, dtype=torch.float64):
    """Normal rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    t=st.integers(1, 6),
    width=st.integers(1, 5),
    similarity=st.sampled_from(SIMILARITIES),
    eps=st.sampled_from([0.0, 1e-4, 0.3]),
)
def test_equals_loops(seed, t, width, similarity, eps):
    rows = draw_rows(seed, 2, t, width)
    rows[0, seed % t] *= (seed % 3) / 2  # sometimes silent
    matrix = similarity_matrix(rows, similarity=similarity, eps=eps)
    loops = [similarity_loop(r.tolist(), similarity, eps) for r in rows]
    torch.testing.assert_close(matrix, torch.tensor(loops, dtype=torch.float64))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_masked_rows_and_columns_are_zero(similarity):
    rows = draw_rows(0, 1, 5, 3)
    mask = torch.tensor([[True, False, True, True, False]])
    spoiled = rows.masked_fill(~mask.unsqueeze(-1), float("nan"))
    matrix = similarity_matrix(spoiled, mask, similarity=similarity)
    live = mask[0].nonzero().squeeze(1)
    alone = similarity_matrix(rows[:, live], similarity=similarity)
    torch.testing.assert_close(matrix[0][live][:, live], alone[0])
    assert (matrix[0, ~mask[0]] == 0).all()
    assert (matrix[0, :, ~mask[0]] == 0).all()


def test_row_l2_has_unit_rows_and_cosine_is_symmetric_with_unit_diagonal():
    rows = draw_rows(1, 2, 6, 4)
    g = similarity_matrix(rows)
    torch.testing.assert_close(g.norm(dim=2), torch.ones(2, 6).double())
    assert (g - g.mT).abs().max() > 0.01
    c = similarity_matrix(rows, similarity="cosine")
    torch.testing.assert_close(c, c.mT)
    torch.testing.assert_close(
        c.diagonal(dim1=1, dim2=2), torch.ones(2, 6).double()
    )


@pytest.mark.parametrize("scale, lives", [(2e-4, True), (0.5e-4, False)])
@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_floor_is_relative_to_the_largest_row(scale, lives, factor):
    rows = torch.tensor([[[1.0, 0.0], [scale, 0.0]]]) * factor
    for similarity in SIMILARITIES:
        matrix = similarity_matrix(rows, similarity=similarity)
        assert bool((matrix[0, 1] != 0).any()) == lives


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_row_is_not_taken_for_silence(similarity, bad):
    rows = draw_rows(2, 2, 4, 3)
    rows[1, 2, 0] = bad
    matrix = similarity_matrix(rows, similarity=similarity)
    assert matrix[0].isfinite().all()
    assert not matrix[1].isfinite().all()


@pytest.mark.parametrize(
    "dtype, expected",
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_result_dtype(dtype, expected):
    assert similarity_matrix(torch.ones(1, 2, 3, dtype=dtype)).dtype == expected


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_autocast_changes_no_bit(similarity):
    rows = draw_rows(3, 2, 7, 5, dtype=torch.float32)
    plain = similarity_matrix(rows, similarity=similarity)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = similarity_matrix(rows, similarity=similarity)
    assert torch.equal(plain, cast)


def test_options_are_checked():
    rows = torch.ones(1, 2, 3)
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        similarity_matrix(rows, similarity="cosin")
    with pytest.raises(ValueError, match=r"eps=-1.0 must be >= 0"):
        similarity_matrix(rows, eps=-1.0)


def test_to_frames_values():
    image = torch.arange(24.0).view(1, 2, 3, 4)  # channel, time, freq
    rows = gram.to_frames(image, "channel_first")
    assert rows.shape == (1, 3, 8)
    for t in range(3):
        assert torch.equal(rows[0, t].view(4, 2), image[0, :, t].T)
    assert torch.equal(gram.to_frames(image), image.view(1, 2, 12))
    assert gram.to_frames(image[0, :, :, 0]).shape == (2, 3, 1)
    assert torch.equal(
        gram.to_frames(image[..., 0], "channel_first"), image[..., 0].mT
    )


def test_to_frames_of_a_channels_last_map_is_a_view():
    image = torch.randn(2, 4, 6, 3).to(memory_format=torch.channels_last)
    rows = gram.to_frames(image, "channel_first")
    assert rows.data_ptr() == image.data_ptr()


@pytest.mark.parametrize(
    "feats, layout, error, match",
    [
        (torch.ones(3), "time_first", ValueError, r"x has shape \(3,\)"),
        (torch.ones(2, 0, 3), "time_first", ValueError, "non-empty"),
        (torch.ones(2, 3), "channel_first", ValueError, "channel, time"),
        (torch.ones(1, 1, 1, 1, 1), "channel_first", ValueError, "layout="),
        (torch.ones(2, 3).long(), "time_first", TypeError, "x is torch.int64"),
        (torch.ones(2, 3).bool(), "time_first", TypeError, "floating"),
        ([[1.0]], "time_first", TypeError, "x is list"),
    ],
)
def test_features_are_checked(feats, layout, error, match):
    with pytest.raises(error, match=match):
        gram.check_features("x", feats, layout)


def test_reductions():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert gram.reduce_losses(values, "mean") == 3
    assert gram.reduce_losses(values, "batchmean") == 3
    assert gram.reduce_losses(values, "sum") == 9
    assert torch.equal(gram.reduce_losses(values, "batch"), values)
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        gram.reduce_losses(values, "meen")


def test_finite_check_names_the_guilty_input():
    nan, good = torch.tensor([1.0, float("nan")]), torch.ones(2)
    gram.check_loss_finite(good, a=nan)  # looked at only if the loss is bad
    with pytest.raises(ValueError, match="b holds 1 non-finite values of 2"):
        gram.check_loss_finite(nan, none=None, a=good, b=nan)
    with pytest.raises(ValueError, match="although its inputs are"):
        gram.check_loss_finite(nan, a=good)


@pytest.mark.parametrize("loss", [iusp_loss, sp_loss])
@pytest.mark.parametrize("layout", ["time_first", "channel_first"])
def test_what_padding_holds_is_innocent(loss, layout):
    """The input that is named is the one that spoils a valid frame."""
    student, teacher = draw_rows(0, 2, 4, 3), draw_rows(1, 2, 4, 3)
    lengths = torch.tensor([1.0, 0.5])
    student[1, 2:] = float("nan")
    teacher[1, 0] = float("inf")
    if layout == "channel_first":
        student, teacher = student.mT, teacher.mT
    with pytest.raises(ValueError, match="teacher_feats holds 3 non-finite"):
        loss(student, teacher, lengths, layout=layout)


def test_rows_without_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"rows has shape \(4, 3\)"):
        similarity_matrix(torch.ones(4, 3))
