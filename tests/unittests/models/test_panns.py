"""PANNs' networks, their names and their checkpoints.

Authors
 * The iusp_plugin authors 2026
"""

import pickle

import pytest
import torch
import torch.nn.functional as F

from iusp_plugin.features import LogMel
from iusp_plugin.models import get_model
from iusp_plugin.models.panns import (
    PANNS_FRONT_END,
    PANNsBlock,
    PANNsCNN,
    load_panns_checkpoint,
)

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_shapes(n_blocks, n_classes=527, width=64, n_mels=64):
    """Names and shapes of a published state dict, the front end's last."""
    shapes = {}

    def norm(name, channels):
        for key in NORM:
            size = () if key == "num_batches_tracked" else (channels,)
            shapes[f"{name}.{key}"] = size

    norm("bn0", n_mels)
    previous = 1
    for i in range(n_blocks):
        channels, block = width * 2**i, f"conv_block{i + 1}"
        shapes[f"{block}.conv1.weight"] = (channels, previous, 3, 3)
        shapes[f"{block}.conv2.weight"] = (channels, channels, 3, 3)
        norm(f"{block}.bn1", channels)
        norm(f"{block}.bn2", channels)
        previous = channels
    shapes["fc1.weight"] = (previous, previous)
    shapes["fc1.bias"] = (previous,)
    shapes["fc_audioset.weight"] = (n_classes, previous)
    shapes["fc_audioset.bias"] = (n_classes,)
    for part in ("real", "imag"):
        name = f"spectrogram_extractor.stft.conv_{part}.weight"
        shapes[name] = (513, 1, 1024)
    shapes["logmel_extractor.melW"] = (513, n_mels)
    return shapes


def without_front_end(shapes):
    """The network's own names."""
    return {k: v for k, v in shapes.items() if "extractor" not in k}


def random_state(shapes):
    """Random tensors of these names and shapes."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.tensor(7)
        if name.endswith("num_batches_tracked")
        else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("name, n_blocks", [("cnn10", 4), ("cnn14", 6)])
def test_names_and_shapes_are_the_published_ones(name, n_blocks):
    with torch.device("meta"):
        model = get_model(name, n_classes=527)
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert own == without_front_end(published_shapes(n_blocks))


@pytest.mark.parametrize(
    "name, count", [("cnn10", 5_219_279), ("cnn14", 80_753_615)]
)
def test_parameters_are_the_published_ones(name, count):
    with torch.device("meta"):
        model = get_model(name, n_classes=527)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", ["cnn_teacher", "cnn10", "cnn14"])
def test_group_norm_keeps_the_attribute_names(name):
    with torch.device("meta"):
        batch = get_model(name).state_dict()
        group = get_model(name, norm="group").state_dict()
    assert set(group) == {
        k for k in batch if "running" not in k and "tracked" not in k
    }


def _forward_by_hand(model, feats, n_pools):
    """The network as the paper draws it, in eval mode."""
    x = model.bn0(feats[:, None].transpose(1, 3)).transpose(1, 3)
    for i in range(len(model.taps)):
        block = model.get_submodule(f"conv_block{i + 1}")
        x = F.relu(block.bn1(block.conv1(x)))
        x = F.relu(block.bn2(block.conv2(x)))
        x = F.avg_pool2d(x, 2 if i < n_pools else 1)
    x = x.mean(dim=3)
    x = x.max(dim=2).values + x.mean(dim=2)
    return model.fc_audioset(F.relu(model.fc1(x)))


@pytest.mark.parametrize("n_blocks, n_pools", [(4, 4), (6, 5), (4, 3)])
def test_forward_by_hand(n_blocks, n_pools):
    torch.manual_seed(0)
    model = PANNsCNN(width=4, n_blocks=n_blocks, n_pools=n_pools)
    feats = torch.randn(3, 64, 64)
    model(feats)  # moves the running statistics away from 0 and 1
    model.eval()
    with torch.no_grad():
        expected = _forward_by_hand(model, feats, n_pools)
        assert torch.allclose(model(feats), expected, atol=1e-5)


@pytest.mark.parametrize("name, pools", [("cnn10", 4), ("cnn14", 5)])
def test_fewest_frames_follow_from_the_poolings(name, pools):
    with torch.device("meta"):
        model = get_model(name)
        assert model(torch.zeros(2, 2**pools, 64)).shape == (2, 31)
        with pytest.raises(ValueError, match=f"at least {2**pools}"):
            model(torch.zeros(2, 2**pools - 1, 64))


def test_too_few_bands_for_the_poolings():
    PANNsCNN(width=4, n_mels=20)
    with pytest.raises(ValueError, match="n_mels=20 must be >= 32"):
        PANNsCNN(width=4, n_mels=20, n_blocks=6, n_pools=5)


@pytest.mark.parametrize(
    "option", [{"n_pools": 2}, {"n_pools": 5}, {"head_dropout": 2.0}]
)
def test_options_are_checked(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        PANNsCNN(width=4, **option)


def test_published_initialisation():
    model = PANNsCNN(width=8)
    weight = model.conv_block2.conv1.weight
    bound = (6 / (9 * (8 + 16))) ** 0.5
    assert 0.9 * bound < weight.abs().max() <= bound
    assert model.fc1.bias.abs().sum() == 0
    assert (model.bn0.weight == 1).all() and (model.bn0.bias == 0).all()


def test_block_is_not_pooled():
    assert PANNsBlock(2, 6)(torch.zeros(1, 2, 9, 7)).shape == (1, 6, 9, 7)


def test_padding_is_zero_after_bn0():
    """As the convolution's own padding is, whatever bn0 adds."""
    model = PANNsCNN(width=4).eval()
    torch.nn.init.constant_(model.bn0.bias, 3.0)
    seen = []
    model.conv_block1.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    model(torch.zeros(1, 32, 64), torch.tensor([0.5]))
    assert (seen[0][:, :, :16] == 3).all() and (seen[0][:, :, 16:] == 0).all()


def test_front_end_is_one_that_features_take():
    front_end = LogMel(**PANNS_FRONT_END)
    feats = front_end.log_mel(torch.zeros(1, 32000))
    assert feats.shape[2] == 64
    # Silence is the offset alone: ten times its decimal logarithm.
    assert torch.allclose(feats, torch.tensor(-100.0), atol=1e-3)


@pytest.fixture
def save(tmp_path):
    """Write an object as a checkpoint, return its path."""

    def write(saved):
        path = tmp_path / "checkpoint.pth"
        torch.save(saved, path)
        return path

    return write


def small_state(**options):
    """A checkpoint's state of width 4."""
    return random_state(published_shapes(4, width=4, **options))


def test_published_file_loads_but_for_the_head(save):
    state = random_state(published_shapes(4))
    model = get_model("cnn10")
    head = model.fc_audioset.weight.clone()
    kept = load_panns_checkpoint(model, save({"iteration": 1, "model": state}))
    assert kept == ("fc_audioset.weight", "fc_audioset.bias")
    assert torch.equal(model.fc_audioset.weight, head)
    own = model.state_dict()
    for name in own.keys() - set(kept):
        assert torch.equal(own[name], state[name]), name


def test_head_of_the_same_shape_is_loaded(save):
    state = small_state(n_classes=9)
    model = PANNsCNN(width=4, n_classes=9)
    assert load_panns_checkpoint(model, save({"model": state})) == ()
    assert torch.equal(model.fc_audioset.bias, state["fc_audioset.bias"])


def test_file_without_front_end_loads(save):
    state = small_state(n_classes=31)
    state = {k: v for k, v in state.items() if "extractor" not in k}
    assert (
        load_panns_checkpoint(PANNsCNN(width=4), save({"model": state})) == ()
    )


def test_every_misfit_is_named_and_nothing_is_touched(save):
    state = small_state()
    del state["conv_block2.bn1.running_mean"]
    state["spectrogram_extractor.extra"] = torch.zeros(1)
    state["bn0.bias"] = torch.zeros(40)
    model = PANNsCNN(width=4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_panns_checkpoint(model, save({"model": state}))
    message = str(error.value)
    assert "missing: conv_block2.bn1.running_mean;" in message
    assert "unexpected: spectrogram_extractor.extra;" in message
    assert "mismatched: bn0.bias (40,) for (64,)" in message
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("key", ["fc_audioset.weight", "fc1.bias"])
def test_missing_head_is_an_error(save, key):
    state = small_state()
    del state[key]
    with pytest.raises(ValueError, match=f"missing: {key}"):
        load_panns_checkpoint(PANNsCNN(width=4), save({"model": state}))


def test_group_norm_model_refuses_the_published_file(save):
    with pytest.raises(ValueError, match="unexpected: bn0.running_mean"):
        load_panns_checkpoint(
            PANNsCNN(width=4, norm="group"), save({"model": small_state()})
        )


@pytest.mark.parametrize("saved", [{"state": {}}, [1, 2], {"model": 3}])
def test_file_of_another_kind(save, saved):
    with pytest.raises(ValueError, match="whose 'model' is a state dict"):
        load_panns_checkpoint(PANNsCNN(width=4), save(saved))


def test_file_that_holds_code_is_not_run(save):
    path = save({"model": {}, "extra": _Code()})
    with pytest.raises(pickle.UnpicklingError):
        load_panns_checkpoint(PANNsCNN(width=4), path)
    assert not _Code.ran


class _Code:
    """Runs something when it is unpickled."""

    ran = False

    def __init__(self):
        self.held = 1  # without a state, __setstate__ would not be called

    def __setstate__(self, state):
        _Code.ran = True
