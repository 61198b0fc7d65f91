"""The log-mel front end against numpy, its padding, options and state.

Authors
 * The iusp_plugin authors 2026
"""

import math

import pytest
import torch

from iusp_plugin.features import LogMel
from tests.reference.log_mel_loops import log_mel_loop, mel_filters

SMALL = {
    "sample_rate": 8000,
    "n_fft": 256,
    "win_length": 200,
    "hop_length": 100,
    "n_mels": 12,
    "fmin": 50.0,
}


def noise(*shape, seed=0):
    """White noise of a moderate level."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "db", "offset": 1e-10},
        {"pad_mode": "reflect"},
        {"fmax": 3000.0, "n_mels": 7},
        {"win_length": 256, "hop_length": 128, "fmin": 0.0},
    ],
)
def test_equals_numpy(options):
    front_end = LogMel(**{**SMALL, **options})
    tone = 0.5 * torch.sin(torch.arange(1234) * 2 * math.pi * 700 / 8000)
    feats = front_end.log_mel(torch.stack([noise(1234), tone]))
    for clip, row in zip((noise(1234), tone), feats, strict=True):
        expected = torch.from_numpy(
            log_mel_loop(clip.numpy(), front_end.config)
        )
        assert row.shape == expected.shape
        error = (row.double() - expected).abs() / front_end.log_unit
        if clip is tone:
            # Far from the tone there is only float32's rounding noise.
            floor = expected.max() - math.log(1e5) * front_end.log_unit
            error = error[expected > floor]
            assert error.numel() > 20
        assert error.max() < 1e-4


def test_default_filters_equal_numpy():
    front_end = LogMel()
    config = front_end.config
    expected = mel_filters(
        *(config[k] for k in ("sample_rate", "n_fft", "n_mels", "fmin", "fmax"))
    )
    filters = front_end.mel.mel_scale.fb.T.double()
    torch.testing.assert_close(
        filters, torch.from_numpy(expected), atol=1e-7, rtol=1e-4
    )
    assert (filters.sum(dim=1) > 0).all()


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize(
    "samples, frames",
    [(1, 1), (99, 1), (100, 1), (128, 1), (199, 1), (200, 2), (1050, 10)],
)
def test_number_of_frames(pad_mode, samples, frames):
    front_end = LogMel(**SMALL, pad_mode=pad_mode)
    feats = front_end(noise(3, samples))
    assert feats.shape == (3, frames, 12)
    assert feats.dtype == torch.float32 and feats.isfinite().all()


def test_padded_clip_equals_the_clip_alone():
    front_end = LogMel(**SMALL)
    front_end.mean.normal_()
    front_end.std.uniform_(1, 2)
    wav = noise(1, 600)
    batch = torch.zeros(2, 1000)
    batch[0] = noise(1000, seed=1)
    batch[1, :600] = wav
    feats = front_end(batch, torch.tensor([1.0, 0.6]))
    torch.testing.assert_close(feats[1:, :6], front_end(wav))
    assert (feats[1, 6:] == 0).all()
    torch.testing.assert_close(feats[:1], front_end(batch[:1]))


def test_clips_do_not_depend_on_their_batch():
    front_end = LogMel(**SMALL)
    wavs = noise(3, 500)
    alone = torch.cat([front_end(wav[None]) for wav in wavs])
    torch.testing.assert_close(front_end(wavs), alone)


def test_a_tone_is_in_its_band():
    front_end = LogMel(**{**SMALL, "n_fft": 1024, "win_length": 1024})
    config = front_end.config
    filters = mel_filters(
        *(config[k] for k in ("sample_rate", "n_fft", "n_mels", "fmin", "fmax"))
    )
    for hz in (300, 1000, 2500):
        tone = torch.sin(torch.arange(4000) * 2 * math.pi * hz / 8000)
        band = front_end.log_mel(tone[None])[0, 10:30].mean(0).argmax()
        assert int(band) == filters[:, round(hz * 1024 / 8000)].argmax()


@pytest.mark.parametrize("scale", ["ln", "db"])
def test_ten_times_the_amplitude(scale):
    front_end = LogMel(**SMALL, scale=scale, offset=1e-12)
    wav = noise(1, 800)
    step = front_end.log_mel(10 * wav) - front_end.log_mel(wav)
    expected = 20.0 if scale == "db" else math.log(100)
    assert (step - expected).abs().max() < 1e-3
    assert expected == pytest.approx(front_end.log_unit * math.log(100))


@pytest.mark.parametrize(
    "scale, floor", [("ln", math.log(1e-6)), ("db", -60.0)]
)
def test_silence_is_the_floor(scale, floor):
    front_end = LogMel(**SMALL, scale=scale)
    feats = front_end.log_mel(torch.zeros(1, 800))
    assert torch.allclose(feats, torch.tensor(floor))


def test_low_precision_has_no_effect():
    front_end = LogMel(**SMALL)
    wav = noise(2, 800)
    plain = front_end(wav)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front_end(wav), plain)
    half = front_end(wav.half())
    assert half.dtype == torch.float32
    assert torch.equal(half, front_end(wav.half().float()))


def test_statistics_equal_those_of_all_frames():
    front_end = LogMel(**SMALL)
    clips = [noise(n, 12, seed=n) * 3 - 7 for n in (5, 1, 30)]
    front_end.fit_statistics(iter(clips))
    frames = torch.cat(clips).double()
    torch.testing.assert_close(front_end.mean, frames.mean(0).float())
    std = frames.std(0, correction=0).float()
    torch.testing.assert_close(front_end.std, std)
    normal = front_end.normalise(torch.cat(clips))
    assert normal.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(normal.square().mean(0), torch.ones(12))


def test_statistics_of_constant_bands_are_usable():
    front_end = LogMel(**SMALL)
    front_end.fit_statistics([torch.full((4, 12), -13.8)])
    assert (front_end.std > 0).all()
    assert front_end(torch.zeros(1, 400)).isfinite().all()


def test_statistics_need_audio():
    with pytest.raises(ValueError, match="clips is empty"):
        LogMel(**SMALL).fit_statistics([])


def test_state_round_trip_carries_statistics():
    one, other = LogMel(**SMALL), LogMel(**SMALL)
    one.mean.normal_()
    one.std.uniform_(1, 2)
    other.load_state_dict(one.state_dict())
    wav = noise(1, 400)
    assert torch.equal(one(wav), other(wav))


@pytest.mark.parametrize(
    "name, value",
    [
        ("sample_rate", 16000),
        ("n_fft", 512),
        ("win_length", 256),
        ("hop_length", 50),
        ("n_mels", 13),
        ("fmin", 60.0),
        ("fmax", 3900.0),
        ("offset", 1e-5),
        ("scale", "db"),
        ("pad_mode", "reflect"),
    ],
)
def test_statistics_of_another_front_end_are_refused(name, value):
    state = LogMel(**SMALL).state_dict()
    with pytest.raises(ValueError, match=f"another front end .*{name}: "):
        LogMel(**{**SMALL, name: value}).load_state_dict(state)


def test_every_option_is_compared_on_load():
    config = LogMel(**SMALL).config
    assert set(SMALL) < set(config) and len(config) == 10
    stated = {**SMALL, "fmax": 4000, "fmin": 50}
    assert LogMel(**stated).config == config


@pytest.mark.parametrize(
    "options, match",
    [
        ({"scale": "log"}, "scale='log' is unknown"),
        ({"pad_mode": "reflct"}, "Did you mean 'reflect'"),
        ({"fmax": 4001.0}, r"fmax=4001.0 must be > 50.0 and <= 4000.0"),
        ({"fmax": 50.0}, "fmax=50.0"),
        ({"win_length": 257}, "win_length=257 must be >= 1 and <= 256"),
        ({"hop_length": 0}, "hop_length=0"),
        ({"offset": 0.0}, "offset=0.0 must be > 0"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        LogMel(**{**SMALL, **options})


@pytest.mark.parametrize("shape", [(800,), (1, 1, 800), (2, 0)])
def test_waveform_shape_is_checked(shape):
    with pytest.raises(ValueError, match=r"wavs has shape .*\(batch, time\)"):
        LogMel(**SMALL)(torch.zeros(shape))


def test_lengths_are_checked():
    wavs = torch.zeros(3, 800)
    with pytest.raises(ValueError, match=r"lengths has shape \(1,\)"):
        LogMel(**SMALL)(wavs, torch.ones(1))
    with pytest.raises(ValueError, match=r"lengths\[0\]=800.0"):
        LogMel(**SMALL)(wavs, torch.full((3,), 800.0))


@pytest.mark.parametrize(
    "option", ["sample_rate", "n_fft", "win_length", "hop_length", "n_mels"]
)
def test_counts_are_whole_numbers(option):
    values = {"sample_rate": 16000.5, "n_fft": 1024.5}
    value = values.get(option, 20.5)
    with pytest.raises(ValueError, match=f"{option}={value}.*whole number"):
        LogMel(**{option: value})
