"""The convolution and LSTM student, and that its LSTM scans time.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.models.cnn_lstm import CNNLSTM, LSTMSequence


def test_sequence_is_the_output_without_the_state():
    layer = LSTMSequence(6, 4)
    x = torch.randn(2, 10, 6)
    assert torch.equal(layer(x), layer.rnn(x)[0])


@pytest.mark.parametrize("n_mels, bands", [(64, 16), (20, 5), (30, 8)])
def test_parameters_by_hand(n_mels, bands):
    model = CNNLSTM(n_mels=n_mels, channels=16, hidden_size=64)
    lstm = 4 * 64 * (16 * bands + 64 + 2)
    expected = 16 * 25 + 2 * 16 + lstm + 64 * 31 + 31
    assert sum(p.numel() for p in model.parameters()) == expected


def _lstm_output(model, feats):
    """What the tap of the LSTM sees."""
    seen = []
    module = model.get_submodule(model.taps["lstm"].name)
    handle = module.register_forward_hook(lambda *args: seen.append(args[2]))
    model(feats)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("n_mels", [64, 20])
def test_a_step_does_not_depend_on_later_frames(n_mels):
    torch.manual_seed(0)
    model = CNNLSTM(n_mels=n_mels).eval()
    feats = torch.randn(2, 80, n_mels)
    later = feats.clone()
    later[:, 40:] = torch.randn(2, 40, n_mels)
    before, after = _lstm_output(model, feats), _lstm_output(model, later)
    # Step s reads frames 4 s - 2 to 4 s + 2: the first to see 40 is step 10.
    assert torch.equal(before[:, :10], after[:, :10])
    assert ((before - after).abs().amax((0, 2))[10:] > 0).all()


def test_a_step_depends_on_every_band_of_its_frame():
    torch.manual_seed(0)
    model = CNNLSTM().eval()
    feats = torch.randn(1, 80, 64, requires_grad=True)
    _lstm_output(model, feats)[0, 5].sum().backward()
    by_frame = feats.grad[0].abs().sum(1)
    assert (by_frame[22 + 1 :] == 0).all()
    assert (feats.grad[0, 18:23].abs().sum(0) > 0).sum() > 56


def test_input_vector_of_a_step_is_its_frame():
    torch.manual_seed(0)
    model = CNNLSTM().eval()
    seen = {}
    model.conv.register_forward_hook(lambda *a: seen.update(conv=a[2]))
    model.lstm.register_forward_pre_hook(lambda _, a: seen.update(lstm=a[0]))
    model(torch.randn(2, 48, 64))
    assert seen["lstm"].shape == (2, 12, 16 * 16)
    for step in (0, 7, 11):
        frame = seen["conv"][:, :, step, :].flatten(1)
        assert torch.equal(seen["lstm"][:, step], frame)


def test_valid_steps_equal_the_clip_alone():
    """The last valid step sees at most the zeros of the convolution."""
    torch.manual_seed(0)
    model = CNNLSTM().eval()
    feats = torch.randn(1, 80, 64)
    padded = torch.cat([feats, torch.randn(1, 80, 64)], 1)
    with torch.no_grad():
        assert torch.allclose(
            model(padded, torch.tensor([0.5])), model(feats), atol=1e-6
        )


def test_one_frame_is_enough():
    assert CNNLSTM().eval()(torch.zeros(2, 1, 64)).shape == (2, 31)


@pytest.mark.parametrize("option", ["channels", "hidden_size"])
def test_sizes_are_checked(option):
    with pytest.raises(ValueError, match=f"{option}=0"):
        CNNLSTM(**{option: 0})
