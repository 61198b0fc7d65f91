"""The narrow MobileNetV2.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.models.mobilenetv2 import (
    InvertedResidual,
    MobileNetV2,
    scale_channels,
)


@pytest.mark.parametrize(
    "channels, width, expected",
    [
        (32, 0.2, 8),
        (16, 0.2, 4),
        (24, 0.25, 8),
        (1280, 1.0, 1280),
        (16, 0.01, 4),
    ],
)
def test_scale_channels(channels, width, expected):
    assert scale_channels(channels, width) == expected


def test_full_width_has_the_published_parameters():
    """2,223,872 before the classifier, but for the two other input bands."""
    with torch.device("meta"):
        model = MobileNetV2(width_mult=1.0)
    count = sum(p.numel() for p in model.parameters())
    head = 1280 * 31 + 31
    assert count - head == 2_223_872 - 2 * 32 * 9


def test_parameters_grow_with_width():
    counts = []
    for width in (0.1, 0.2, 0.5):
        with torch.device("meta"):
            model = MobileNetV2(width_mult=width)
        counts.append(sum(p.numel() for p in model.parameters()))
    assert counts == sorted(set(counts))


def test_residual_only_where_shapes_agree():
    assert InvertedResidual(8, 8, 1, 6).residual
    assert not InvertedResidual(8, 8, 2, 6).residual
    assert not InvertedResidual(8, 12, 1, 6).residual


def test_residual_adds_the_input():
    block = InvertedResidual(8, 8, 1, 6).eval()
    x = torch.randn(2, 8, 6, 6)
    assert torch.allclose(block(x), x + block.layers(x))


def test_first_stage_has_no_expansion():
    model = MobileNetV2()
    assert len(model.stage1[0].layers) == 2
    assert len(model.stage2[0].layers) == 3


def test_projection_is_linear():
    block = InvertedResidual(4, 8, 1, 6).eval()
    assert block(torch.randn(2, 4, 8, 8)).min() < 0


def test_strides_of_the_stages():
    strides = [tap.time_stride for tap in MobileNetV2().taps.values()]
    assert strides == [2, 2, 4, 8, 16, 16, 32, 32, 32]


def test_other_inputs():
    model = MobileNetV2(n_mels=20).eval()
    assert model(torch.zeros(2, 501, 20)).shape == (2, 31)
    assert model(torch.zeros(2, 1, 20)).shape == (2, 31)


def test_width_is_checked():
    with pytest.raises(ValueError, match="width_mult=0"):
        MobileNetV2(width_mult=0)
