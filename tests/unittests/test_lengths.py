"""Relative lengths: rounding at every resolution, masks, checks.

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

from iusp_plugin.lengths import check_lengths, frame_mask, num_frames


def test_frames_survive_the_round_trip_at_every_length():
    """n / T in float32 gives n back, for every n and T up to 2000."""
    for total in range(1, 2001):
        n = torch.arange(1, total + 1)
        assert torch.equal(num_frames(n / total, total), n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(length=st.floats(2**-20, 1, width=32), total=st.integers(1, 5000))
def test_rounds_to_the_nearest_within_one_and_all(dtype, length, total):
    found = num_frames(torch.tensor([length], dtype=dtype), total)
    assert found.dtype == torch.int64
    assert 1 <= int(found) <= total
    assert abs(int(found) - length * total) <= 0.5 + 1e-3 or int(found) == 1


@pytest.mark.parametrize(
    "length, total, frames",
    [(0.25, 10, 2), (0.35, 10, 4), (1e-9, 10, 1), (1 + 1e-7, 10, 10)],
)
def test_values(length, total, frames):
    assert num_frames(torch.tensor([length]), total).tolist() == [frames]


def test_resolutions_are_ordered():
    """A coarser map never has more valid frames than a finer one."""
    lengths = torch.linspace(0.001, 1, 777)
    counts = torch.stack([num_frames(lengths, t) for t in (31, 62, 63, 500)])
    assert (counts.diff(dim=0) >= 0).all()
    assert (counts.diff(dim=1) >= 0).all()


def test_mask_has_as_many_leading_frames():
    lengths = torch.tensor([1.0, 0.5, 0.01])
    mask = frame_mask(lengths, 10)
    assert mask.dtype == torch.bool and mask.shape == (3, 10)
    assert mask.sum(dim=1).tolist() == [10, 5, 1]
    assert not (mask[:, 1:] & ~mask[:, :-1]).any()


@pytest.mark.parametrize(
    "lengths",
    [torch.ones(2), torch.tensor([1, 1]), torch.tensor([1e-6, 1 + 5e-7])],
)
def test_good_lengths_pass(lengths):
    assert check_lengths(lengths, 2) is None


@pytest.mark.parametrize(
    "lengths, match",
    [
        (torch.ones(3), r"shape \(3,\), expected \(2,\)"),
        (torch.ones(2, 1), r"shape \(2, 1\), expected \(2,\)"),
        (torch.tensor(1.0), r"shape \(\), expected"),
        (torch.tensor([0.5, 0.0]), r"lengths\[1\]=0.0 must be in \(0, 1\]"),
        (torch.tensor([-0.5, 1.0]), r"lengths\[0\]=-0.5"),
        (torch.tensor([160000, 1]), r"lengths\[0\]=160000.*not frames"),
        (torch.tensor([1.0, float("nan")]), r"lengths\[1\]=nan"),
        (torch.tensor([float("inf"), 1.0]), r"lengths\[0\]=inf"),
    ],
)
def test_bad_lengths_are_refused(lengths, match):
    with pytest.raises(ValueError, match=match):
        check_lengths(lengths, 2)
