"""What every registered model promises.

Authors
 * The iusp_plugin authors 2026
"""

import copy
import functools

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from iusp_plugin.models import get_model, list_models

# Built whole once only, and elsewhere without memory: 80 M parameters.
LIGHT = tuple(name for name in list_models() if name != "cnn14")
PARAMETERS = {
    "cnn_20k": (18_000, 23_000),
    "cnn_80k": (75_000, 88_000),
    "cnn_320k": (300_000, 340_000),
    "cnn_lstm_small": (80_000, 86_000),
    "cnn_lstm_large": (300_000, 350_000),
    "mobilenetv2_narrow": (100_000, 150_000),
    "cnn_teacher": (4_500_000, 5_500_000),
    "cnn10": (4_500_000, 5_500_000),
    "cnn14": (79_000_000, 82_000_000),
}


@functools.cache
def cached(name):
    """One model of a name in eval mode; tests leave it as it is."""
    torch.manual_seed(0)
    return get_model(name).eval()


def meta_model(name, **options):
    """A model without memory: shapes and names only."""
    with torch.device("meta"):
        return get_model(name, **options)


def feats_for(model, batch=2, seed=0):
    """Random features of 64 frames, on the model's device."""
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(batch, 64, model.n_mels, generator=generator)
    return feats.to(next(model.parameters()).device)


def test_every_model_is_tested():
    assert set(PARAMETERS) == set(list_models())


@pytest.mark.parametrize("name", list_models())
def test_parameters_in_range(name):
    low, high = PARAMETERS[name]
    count = sum(p.numel() for p in meta_model(name).parameters())
    assert low <= count <= high


def test_narrow_teacher_size():
    count = sum(
        p.numel() for p in meta_model("cnn_teacher", width=32).parameters()
    )
    assert 1_100_000 <= count <= 1_300_000


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", list_models())
def test_logits_shape_for_every_norm(name, norm):
    model = meta_model(name, norm=norm, n_classes=5)
    assert model(feats_for(model)).shape == (2, 5)
    kinds = {type(m) for m in model.modules()}
    assert (torch.nn.BatchNorm2d in kinds) == (norm == "batch")
    assert (torch.nn.GroupNorm in kinds) == (norm == "group")


@pytest.mark.parametrize("name", list_models())
def test_taps_are_what_they_declare(name):
    model = meta_model(name)
    assert model.default_tap in model.taps
    assert model.early_tap in model.taps
    early, default = (
        model.taps[name] for name in (model.early_tap, model.default_tap)
    )
    assert early.time_stride <= default.time_stride
    assert early != default
    seen = {}
    for key, tap in model.taps.items():
        module = model.get_submodule(tap.name)
        assert not isinstance(
            module, torch.nn.modules.batchnorm._BatchNorm | torch.nn.LSTM
        )
        module.register_forward_hook(
            lambda _, __, output, key=key: seen.update({key: output})
        )
    feats = feats_for(model)
    model(feats)
    for key, tap in model.taps.items():
        output = seen[key]
        assert isinstance(output, torch.Tensor)
        if tap.layout == "channel_first":
            batch, channels, time, _ = output.shape
        else:
            batch, time, channels = output.shape
        assert (batch, channels) == (2, tap.channels)
        assert time * tap.time_stride == feats.shape[1]


@pytest.mark.parametrize("name", list_models())
def test_default_tap_keeps_a_frame_in_eight_or_more(name):
    model = meta_model(name)
    assert model.taps[model.default_tap].time_stride <= 8


@pytest.mark.parametrize("name", LIGHT)
def test_tap_survives_conversion_to_synchronised_norm(name):
    model = get_model(name, **({"width": 4} if name == "cnn_teacher" else {}))
    calls = []
    for tap in model.taps.values():
        module = model.get_submodule(tap.name)
        module.register_forward_hook(lambda m, *_: calls.append(m))
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()
    model(feats_for(model))
    assert len(calls) == len(model.taps)


@pytest.mark.parametrize("name", list_models())
def test_full_lengths_change_no_bit(name):
    model = cached(name)
    feats = feats_for(model)
    with torch.no_grad():
        assert torch.equal(model(feats), model(feats, torch.ones(2)))


@pytest.mark.parametrize("name", LIGHT)
def test_padding_does_not_reach_the_logits(name):
    model = cached(name)
    feats = feats_for(model)
    lengths = torch.tensor([1.0, 0.5])
    spoiled = feats.clone()
    spoiled[1, 32:] = float("nan")
    with torch.no_grad():
        logits = model(feats, lengths)
        assert torch.equal(logits, model(spoiled, lengths))
        assert not torch.equal(logits[1], model(feats)[1])


@pytest.mark.parametrize("name", LIGHT)
def test_training_ignores_what_padding_holds(name):
    model = copy.deepcopy(cached(name)).train()
    feats, lengths = feats_for(model), torch.tensor([1.0, 0.5])
    feats.requires_grad_()
    torch.manual_seed(0)
    model(feats, lengths).square().mean().backward()
    assert feats.grad[1, 32:].abs().sum() == 0
    assert feats.grad[1, :32].abs().sum() > 0
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
    )


@pytest.mark.parametrize("name", LIGHT)
def test_bfloat16_autocast_is_close(name):
    model = cached(name)
    feats = feats_for(model)
    with torch.no_grad():
        full = model(feats)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(feats)
    assert (half.float() - full).norm() < 0.05 * full.norm() + 1e-3


@pytest.mark.parametrize("name", LIGHT)
def test_memory_format_does_not_matter(name):
    model = cached(name)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    deep = [
        m.weight
        for m in model.modules()
        if isinstance(m, torch.nn.Conv2d) and m.weight[0].numel() > 9
    ]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in deep)
    feats = feats_for(model)
    with torch.no_grad():
        assert torch.allclose(model(feats), plain(feats), atol=1e-5)


@pytest.mark.parametrize("name", LIGHT)
def test_clip_does_not_depend_on_its_batch(name):
    model = cached(name)
    feats = feats_for(model, batch=3)
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in feats])
        assert torch.allclose(model(feats), alone, atol=1e-5)


@pytest.mark.parametrize("name", LIGHT)
def test_wrong_input_is_refused(name):
    model = cached(name)
    with pytest.raises(ValueError, match="n_mels=64"):
        model(torch.zeros(2, 64, 40))
    with pytest.raises(ValueError, match="batch, time, n_mels"):
        model(torch.zeros(2, 1, 64, 64))
    with pytest.raises(ValueError, match="0 frames"):
        model(torch.zeros(2, 0, 64))
    with pytest.raises(ValueError, match="lengths"):
        model(torch.zeros(2, 64, 64), torch.ones(3))


@pytest.mark.parametrize("name", LIGHT)
def test_wrong_options_are_refused(name):
    with pytest.raises(ValueError, match="Did you mean 'batch'"):
        meta_model(name, norm="batchh")
    with pytest.raises(ValueError, match="dropout=-0.1"):
        meta_model(name, dropout=-0.1)
    with pytest.raises(ValueError, match="n_classes=0"):
        meta_model(name, n_classes=0)
    with pytest.raises(ValueError, match="n_mels=0"):
        meta_model(name, n_mels=0)


def test_unknown_name():
    with pytest.raises(ValueError, match="Did you mean 'cnn_20k'"):
        get_model("cnn_20")


def test_unknown_option_names_the_model_and_its_options():
    with pytest.raises(TypeError, match="'cnn10' has no option 'n_mel'.*n_mel"):
        get_model("cnn10", n_mel=64)


@pytest.mark.parametrize(
    "name, option", [("cnn_20k", "base"), ("cnn10", "width")]
)
def test_what_a_name_fixes_is_not_open(name, option):
    with pytest.raises(TypeError, match=option):
        get_model(name, **{option: 4})


def test_yaml_built_equals_python_built():
    text = """
model: !apply:iusp_plugin.models.get_model
    name: cnn_20k
    n_classes: 8
"""
    torch.manual_seed(0)
    from_yaml = load_hyperpyyaml(text)["model"].eval()
    torch.manual_seed(0)
    from_python = get_model("cnn_20k", n_classes=8).eval()
    feats = feats_for(from_python)
    assert torch.equal(from_yaml(feats), from_python(feats))
