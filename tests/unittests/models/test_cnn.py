"""The small convolutional students.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
import torch.nn.functional as F

from iusp_plugin.models.cnn import CNN


@pytest.mark.parametrize("base", [8, 16, 32])
def test_parameters_by_hand(base):
    convs = 9 * base + 9 * base**2 * (1 * 2 + 2 * 4 + 4 * 6)
    norms = 2 * base * (1 + 2 + 4 + 6)
    head = 6 * base * 31 + 31
    count = sum(p.numel() for p in CNN(base=base).parameters())
    assert count == convs + norms + head


def test_forward_by_hand():
    torch.manual_seed(0)
    model = CNN(n_classes=3, base=4).eval()
    feats = torch.randn(2, 24, 64)
    x = feats[:, None]
    for i, block in enumerate(
        [model.block1, model.block2, model.block3, model.block4]
    ):
        x = block.norm(F.conv2d(x, block.conv.weight, padding=1)).relu()
        if i < 3:
            x = F.avg_pool2d(x, kernel_size=(2, 2))
    assert x.shape == (2, 24, 3, 8)
    x = x.mean(3)
    expected = model.head(x.mean(2) + x.amax(2))
    assert torch.allclose(model(feats), expected, atol=1e-6)


def test_odd_numbers_of_frames_and_bands():
    model = CNN(n_mels=20)
    assert model(torch.zeros(2, 501, 20)).shape == (2, 31)


@pytest.mark.parametrize("frames", [1, 7])
def test_too_few_frames(frames):
    with pytest.raises(ValueError, match="at least 8"):
        CNN()(torch.zeros(2, frames, 64))


def test_too_few_bands():
    with pytest.raises(ValueError, match="n_mels=7 must be >= 8"):
        CNN(n_mels=7)


def test_dropout_acts_in_training_only():
    model = CNN(norm="group", dropout=0.5)
    feats = torch.randn(2, 16, 64)
    assert not torch.equal(model(feats), model(feats))
    model.eval()
    assert torch.equal(model(feats), model(feats))
