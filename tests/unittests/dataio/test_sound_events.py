"""Synthesised events: every tag, any length, right spectrum and rhythm.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import pytest

from iusp_plugin.dataio.sound_events import (
    EVENT_TAGS,
    synthesize_background,
    synthesize_event,
)
from iusp_plugin.dataio.synth import Signal, Synth, band
from iusp_plugin.dataio.taxonomy import COMPLETE_FINE_TAGS

RATE = 16000


def rng(seed: int = 0) -> np.random.Generator:
    """A generator as the data set makes them."""
    return np.random.Generator(np.random.PCG64(seed))


def rms(wav: Signal) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(wav**2)))


def peak_hz(wav: Signal) -> float:
    """Frequency of the strongest spectral line."""
    return float(np.argmax(np.abs(np.fft.rfft(wav))) * RATE / len(wav))


def test_every_complete_tag_has_a_recipe() -> None:
    assert EVENT_TAGS == COMPLETE_FINE_TAGS


@pytest.mark.parametrize("tag", EVENT_TAGS)
@pytest.mark.parametrize("num_samples", [100, 1601, 48000])
def test_event_is_finite_audible_and_of_its_length(
    tag: str, num_samples: int
) -> None:
    for seed in range(3):
        wav = synthesize_event(tag, rng(seed), num_samples, RATE)
        assert wav.shape == (num_samples,) and wav.dtype == np.float64
        assert np.isfinite(wav).all()
        assert np.abs(wav).max() == pytest.approx(1.0)
        assert wav[0] == wav[-1] == 0.0


@pytest.mark.parametrize("tag", EVENT_TAGS)
def test_event_follows_its_seed(tag: str) -> None:
    first, again, other = (
        synthesize_event(tag, rng(seed), 4000, RATE) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("sample_rate", [8000, 44100])
def test_event_at_other_sample_rates(sample_rate: int) -> None:
    for tag in EVENT_TAGS:
        wav = synthesize_event(tag, rng(), sample_rate, sample_rate)
        assert wav.shape == (sample_rate,) and np.isfinite(wav).all()


def test_small_engines_sound_higher_than_large_ones() -> None:
    def brightness(tag: str) -> float:
        power = sum(
            np.abs(np.fft.rfft(synthesize_event(tag, rng(k), 16000, RATE))) ** 2
            for k in range(8)
        )
        return float(np.sum(power * np.arange(8001)) / np.sum(power))

    small = brightness("1-1_small-sounding-engine")
    large = brightness("1-3_large-sounding-engine")
    assert small > 1.5 * large


def test_repetitive_events_pause() -> None:
    for tag in ("8-1_dog-barking-whining", "5-1_car-horn", "2-4_pile-driver"):
        wav = synthesize_event(tag, rng(3), 5 * RATE, RATE)
        frames = np.sqrt(np.mean(wav.reshape(-1, 160) ** 2, axis=1))
        assert np.min(frames[5:-5]) < 0.05 * np.max(frames), tag


def test_unknown_tag_gets_a_near_name() -> None:
    with pytest.raises(ValueError, match="Did you mean '5-1_car-horn'"):
        synthesize_event("5-1_carhorn", rng(), 1000, RATE)


def test_too_short_an_event_is_refused() -> None:
    with pytest.raises(ValueError, match="num_samples=99 must be >= 100"):
        synthesize_event("5-1_car-horn", rng(), 99, RATE)


def test_background_has_unit_rms_and_falls_with_frequency() -> None:
    for seed in range(3):
        wav = synthesize_background(rng(seed), RATE, RATE)
        power = np.abs(np.fft.rfft(wav)) ** 2
        assert np.isfinite(wav).all() and rms(wav) == pytest.approx(1.0)
        assert power[100:1000].mean() > 10 * power[4000:].mean()


def test_tone_has_its_pitch_and_leaves_out_what_would_alias() -> None:
    synth = Synth(rng(), RATE, RATE)
    assert peak_hz(synth.tone(440.0, [1.0, 0.5])) == 440.0
    # The third harmonic of 3 kHz would fold back to 7 kHz.
    lines = np.abs(np.fft.rfft(synth.tone(3000.0, [1.0, 1.0, 1.0])))
    assert lines[3000] > 1000 and lines[6000] > 1000 and lines[7000] < 10


def test_band_passes_its_middle_and_stops_the_rest() -> None:
    gains = band(200.0, 2000.0)(np.array([0.0, 20.0, 600.0, 8000.0]))
    assert gains[2] > 0.95
    assert (gains[[0, 1, 3]] < 0.1).all()


def test_shape_with_unit_gain_changes_nothing() -> None:
    synth = Synth(rng(), 1001, RATE)
    wav = synth.rng.standard_normal(1001)
    np.testing.assert_allclose(synth.shape(wav, np.ones_like), wav, atol=1e-12)
    assert rms(synth.shape(wav, band(50, 900), normalize=True)) == (
        pytest.approx(1.0)
    )


def test_strike_places_the_kernel_at_each_time() -> None:
    synth = Synth(rng(), 1600, RATE)
    hits = synth.strike(np.array([0.0, 0.05, 9.0]), np.array([1.0, 0.5]), 0.0)
    expected = np.zeros(1600)
    expected[[0, 800]], expected[[1, 801]] = 1.0, 0.5
    np.testing.assert_allclose(hits, expected, atol=1e-12)


def test_gate_is_open_within_the_spans_only() -> None:
    synth = Synth(rng(), RATE, RATE)
    gate = synth.gate([(0.1, 0.3), (0.5, 0.9)])
    times = (np.array([0.05, 0.2, 0.4, 0.7, 0.95]) * RATE).astype(int)
    np.testing.assert_array_equal(gate[times] > 0.5, [0, 1, 0, 1, 0])
    assert gate.min() == 0.0 and gate.max() <= 1.0
    progress = synth.progress([(0.0, 0.5), (0.5, 1.0)])
    assert progress[4000] == pytest.approx(0.5, abs=1e-3)
