"""Shared pieces: taps, norms, input checks, pooling.

Authors
 * The iusp_plugin authors 2026
"""

import dataclasses

import pytest
import torch

from iusp_plugin.models.blocks import (
    ConvBlock,
    Tap,
    check_options,
    make_norm,
    mask_frames,
    pool_time,
    prepare_feats,
)


def test_tap_is_frozen_and_checks_its_layout():
    tap = Tap("a.b", 3, 2, "time_first")
    with pytest.raises(dataclasses.FrozenInstanceError):
        tap.channels = 4
    with pytest.raises(ValueError, match="channel_first"):
        Tap("a", 3, 2, "chanel_first")


@pytest.mark.parametrize(
    "channels, groups", [(4, 1), (8, 2), (12, 1), (16, 4), (48, 4), (512, 8)]
)
def test_group_norm_groups_divide_and_hold_four(channels, groups):
    norm = make_norm("group", channels)
    assert norm.num_groups == groups
    assert channels % groups == 0 and channels // groups >= 4


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_group_norm_of_few_channels(channels):
    assert make_norm("group", channels).num_groups == 1


def test_norm_choice():
    assert isinstance(make_norm("batch", 8), torch.nn.BatchNorm2d)
    with pytest.raises(ValueError, match="Did you mean 'batch'"):
        make_norm("bath", 8)


def test_conv_block_is_conv_norm_activation():
    block = ConvBlock(2, 4, 5, stride=2, activation=torch.nn.ReLU()).eval()
    x = torch.randn(3, 2, 9, 8)
    expected = block.norm(block.conv(x)).relu()
    assert torch.equal(block(x), expected)
    assert block.conv.bias is None and expected.shape == (3, 4, 5, 4)
    assert block(x).min() == 0


def test_conv_block_without_activation_is_linear():
    assert ConvBlock(1, 4).eval()(torch.randn(2, 1, 8, 8)).min() < 0


def test_mask_frames_zeroes_even_what_is_not_finite():
    feats = torch.randn(2, 4, 3)
    feats[1, 2:] = float("nan")
    masked = mask_frames(feats, torch.tensor([1.0, 0.5]))
    assert torch.equal(masked[0], feats[0])
    assert torch.equal(masked[1, :2], feats[1, :2])
    assert masked[1, 2:].abs().sum() == 0
    assert mask_frames(feats, None) is feats


@pytest.mark.parametrize(
    "shape, words",
    [
        ((8, 64), r"\(8, 64\) and must be \(batch, time, n_mels\)"),
        ((2, 1, 8, 64), "without a channel axis"),
        ((2, 8, 40), "40 mel bands .* n_mels=64"),
        ((2, 7, 64), "7 frames .* at least 8"),
    ],
)
def test_prepare_feats_refuses(shape, words):
    with pytest.raises(ValueError, match=words):
        prepare_feats(torch.zeros(shape), None, 64, min_frames=8)


@pytest.mark.parametrize(
    "lengths", [[0.5], [0.5, 0.0], [0.5, 30.0], [[0.5], [1.0]]]
)
def test_prepare_feats_refuses_lengths(lengths):
    with pytest.raises(ValueError, match="lengths"):
        prepare_feats(torch.zeros(2, 8, 4), torch.tensor(lengths), 4)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"n_mels": 7, "min_mels": 8}, "n_mels=7 must be >= 8"),
        ({"base": 0}, "base=0"),
    ],
)
def test_check_options_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        check_options(**{"dropout": 0.1, "n_mels": 64, **options})


def _loop_pool(frames, counts):
    """Mean plus maximum, one clip after the other."""
    clips = [frames[i, :n] for i, n in enumerate(counts)]
    return torch.stack([x.mean(0) + x.max(0).values for x in clips])


def test_pool_time_equals_a_loop():
    frames = torch.randn(4, 10, 3, dtype=torch.float64)
    lengths = torch.tensor([1.0, 0.52, 0.3, 0.001])
    expected = _loop_pool(frames, [10, 5, 3, 1])
    assert torch.allclose(pool_time(frames, lengths), expected)
    everything = _loop_pool(frames, [10] * 4)
    assert torch.allclose(pool_time(frames, None), everything)


def test_pool_time_ignores_padding_and_its_gradient():
    frames = torch.randn(2, 6, 3)
    lengths = torch.tensor([0.5, 1.0])
    spoiled = frames.clone()
    spoiled[0, 3:] = float("inf")
    spoiled.requires_grad_()
    out = pool_time(spoiled, lengths)
    assert torch.equal(out, pool_time(frames, lengths))
    out.sum().backward()
    assert spoiled.grad[0, 3:].abs().sum() == 0
    assert spoiled.grad[0, :3].abs().sum() > 0


def test_pool_time_gradient():
    frames = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([0.6, 1.0])
    assert torch.autograd.gradcheck(lambda x: pool_time(x, lengths), frames)
