"""Costs of the models against sums by hand.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.models import get_model, list_models
from iusp_plugin.models.macs import count_macs, count_parameters

FRAMES = 100


def half(n):
    """Size after a padded convolution of stride two."""
    return (n + 1) // 2


def cnn_macs(base, frames, bands):
    total, previous = 0, 1
    for i, ratio in enumerate((1, 2, 4, 6)):
        total += frames * bands * 9 * previous * base * ratio
        previous = base * ratio
        if i < 3:
            frames, bands = frames // 2, bands // 2
    return total + previous * 31


def panns_macs(n_blocks, frames, bands, width=64):
    total, previous = 0, 1
    for i in range(n_blocks):
        channels = width * 2**i
        total += frames * bands * 9 * (previous + channels) * channels
        previous = channels
        frames, bands = frames // 2, bands // 2
    return total + previous * previous + previous * 31


def cnn_lstm_macs(channels, hidden, frames, bands):
    steps, bands = -(-frames // 4), -(-bands // 4)
    conv = steps * bands * 25 * channels
    lstm = steps * 4 * hidden * (channels * bands + hidden)
    return conv + lstm + hidden * 31


def mobilenet_macs(frames, bands):
    """At width 0.2: the channels written out, not scaled."""
    frames, bands = half(frames), half(bands)
    total, previous = frames * bands * 9 * 8, 8
    stages = [
        (1, 4, 1, 1),
        (6, 4, 2, 2),
        (6, 8, 3, 2),
        (6, 12, 4, 2),
        (6, 20, 3, 1),
        (6, 32, 3, 2),
        (6, 64, 1, 1),
    ]
    for expansion, channels, repeats, first in stages:
        for i in range(repeats):
            inner = previous * expansion
            if expansion > 1:
                total += frames * bands * previous * inner
            if i == 0 and first == 2:
                frames, bands = half(frames), half(bands)
            total += frames * bands * inner * (9 + channels)
            previous = channels
    return total + frames * bands * 64 * 256 + 256 * 31


BY_HAND = {
    "cnn_20k": lambda t, f: cnn_macs(8, t, f),
    "cnn_80k": lambda t, f: cnn_macs(16, t, f),
    "cnn_320k": lambda t, f: cnn_macs(32, t, f),
    "cnn_lstm_small": lambda t, f: cnn_lstm_macs(16, 64, t, f),
    "cnn_lstm_large": lambda t, f: cnn_lstm_macs(32, 128, t, f),
    "mobilenetv2_narrow": mobilenet_macs,
    "cnn_teacher": lambda t, f: panns_macs(4, t, f),
    "cnn10": lambda t, f: panns_macs(4, t, f),
    "cnn14": lambda t, f: panns_macs(6, t, f),
}


@pytest.mark.parametrize("name", list_models())
def test_macs_by_hand(name):
    with torch.device("meta"):
        model = get_model(name)
    assert count_macs(model, FRAMES) == BY_HAND[name](FRAMES, 64)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("n_mels", [64, 20])
def test_lstm_counts_alike_fused_and_in_steps(device, n_mels):
    with torch.device(device):
        model = get_model("cnn_lstm_small", n_mels=n_mels)
    expected = cnn_lstm_macs(16, 64, FRAMES, n_mels)
    assert count_macs(model, FRAMES, n_mels) == expected


class _Stacked(torch.nn.Module):
    """An LSTM of two layers, between linear layers."""

    def __init__(self, **options):
        super().__init__()
        self.first = torch.nn.Linear(6, 5)
        self.rnn = torch.nn.LSTM(5, 3, batch_first=True, **options)
        self.last = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.rnn(self.first(x))[0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_lstm_of_two_layers(device):
    model = _Stacked(num_layers=2).to(device)
    step = 6 * 5 + 4 * 3 * (5 + 3) + 4 * 3 * (3 + 3) + 3 * 2
    assert count_macs(model, 7, n_mels=6) == 7 * step


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"proj_size": 2}])
def test_other_lstms_are_refused(options):
    model = _Stacked(**options)
    with pytest.raises(ValueError, match="LSTMs of one direction"):
        count_macs(model, 7, n_mels=6)
    assert not model.rnn._forward_hooks


def test_counting_leaves_the_model_as_it_was():
    model = get_model("cnn_lstm_small").train()
    model.conv.eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    count_macs(model, FRAMES)
    assert model.training and model.lstm.training
    assert not model.conv.training and not model.conv.norm.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules()
    )


def test_a_failing_forward_leaves_the_model_as_it_was():
    model = get_model("cnn_lstm_small").train()
    with pytest.raises(ValueError, match="mel bands"):
        count_macs(model, FRAMES, n_mels=20)
    assert all(m.training for m in model.modules())
    assert not model.lstm.rnn._forward_hooks


def test_parameters_that_are_frozen_do_not_count():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    assert count_parameters(model) == 8 + 3
    model[0].requires_grad_(False)
    assert count_parameters(model) == 3
