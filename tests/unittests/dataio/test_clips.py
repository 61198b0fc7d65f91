"""Reading a clip: channels, rates, durations, broken files.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import pytest
import soundfile
import torch

from iusp_plugin.dataio.clips import read_clip


def tone(hz, rate, seconds, level=0.5):
    """A sine."""
    time = np.arange(round(rate * seconds)) / rate
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def peak_hz(wav, rate):
    """Frequency of the strongest line."""
    spectrum = torch.fft.rfft(wav * torch.hann_window(len(wav)))
    return float(spectrum.abs().argmax()) * rate / len(wav)


def test_samples_are_unchanged_at_the_same_rate(tmp_path):
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    for name in (path, str(path)):
        wav = read_clip(name, 16000)
        assert wav.dtype == torch.float32
        assert torch.equal(wav, torch.from_numpy(samples))


def test_pcm_is_scaled_to_one(tmp_path):
    path = tmp_path / "a.wav"
    values = np.array([-32768, -16384, 0, 16384], np.int16)
    soundfile.write(path, values, 16000, subtype="PCM_16")
    assert read_clip(path, 16000).tolist() == [-1, -0.5, 0, 0.5]


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    left, right = tone(440, 16000, 0.1), tone(1000, 16000, 0.1)
    soundfile.write(path, np.stack([left, right], 1), 16000, subtype="FLOAT")
    wav = read_clip(path, 16000)
    assert wav.shape == (1600,)
    torch.testing.assert_close(wav, torch.from_numpy((left + right) / 2))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_a_tone_keeps_frequency_level_and_duration(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1000, rate, 1.0), rate, subtype="FLOAT")
    wav = read_clip(path, 16000)
    assert abs(len(wav) - 16000) <= 1
    assert abs(peak_hz(wav, 16000) - 1000) < 3
    assert float(wav[2000:14000].abs().max()) == pytest.approx(0.5, abs=0.01)


def test_what_the_lower_rate_cannot_hold_is_filtered_out(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(12000, 44100, 0.5), 44100, subtype="FLOAT")
    assert read_clip(path, 16000)[500:-500].abs().max() < 0.01


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_longer_file_is_cropped_at_its_end(tmp_path, rate):
    path = tmp_path / "a.wav"
    samples = np.concatenate([tone(500, rate, 1), tone(3000, rate, 1)])
    soundfile.write(path, samples, rate, subtype="FLOAT")
    wav = read_clip(path, 16000, clip_duration_s=0.75)
    assert len(wav) == 12000
    assert abs(peak_hz(wav, 16000) - 500) < 3
    whole = read_clip(path, 16000)
    assert len(whole) == 32000
    torch.testing.assert_close(wav[:11000], whole[:11000], atol=1e-4, rtol=0)


def test_a_shorter_file_is_returned_as_it_is(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(500, 16000, 0.3), 16000)
    assert len(read_clip(path, 16000, clip_duration_s=10)) == 4800


@pytest.mark.parametrize("rate", [11025, 22050, 44100])
@pytest.mark.parametrize("duration_s", [0.1, 0.2507, 0.333])
def test_no_clip_is_longer_than_asked(tmp_path, rate, duration_s):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(500, rate, 0.5), rate)
    wav = read_clip(path, 16000, clip_duration_s=duration_s)
    limit = round(duration_s * 16000)
    assert limit - 2 <= len(wav) <= limit


@pytest.mark.parametrize(
    "name, subtype, error",
    [("a.flac", "PCM_16", 1e-4), ("a.ogg", "VORBIS", 0.05)],
)
def test_other_formats(tmp_path, name, subtype, error):
    path = tmp_path / name
    samples = tone(1000, 16000, 0.5)
    soundfile.write(path, samples, 16000, subtype=subtype)
    wav = read_clip(path, 16000)
    assert wav.shape == (8000,)
    # A lossy format may differ at its ends.
    difference = (wav - torch.from_numpy(samples))[1000:-1000]
    assert difference.abs().max() < error


@pytest.mark.parametrize("content", [b"", b"not audio", b"RIFF\x00\x00"])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.wav cannot be read as aud"):
        read_clip(path, 16000)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.wav cannot be read"):
        read_clip(tmp_path / "gone.wav", 16000)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(ValueError, match=r"empty\.wav holds no audio"):
        read_clip(path, 16000)
