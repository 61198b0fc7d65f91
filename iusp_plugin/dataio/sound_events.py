"""Street sounds from nothing but numpy: one recipe for every fine tag.

A recipe draws pitch, rate, timbre and rhythm anew each time, so that a tag is
a family of sounds rather than one sound, and neighbours overlap on purpose
(an engine and a saw, a siren and a melody, a shout and a bark).

Authors
 * The iusp_plugin authors 2026

Example
-------
>>> rng = np.random.Generator(np.random.PCG64(0))
>>> horn = synthesize_event("5-1_car-horn", rng, 8000, 16000)
>>> horn.shape, float(np.abs(horn).max())
((8000,), 1.0)
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from iusp_plugin.checks import check_choice, check_range
from iusp_plugin.dataio.synth import TINY, Signal, Synth, band

# First three formants (Hz) along a path from "ee" by "ah" to "oo".
_VOWELS = (
    (290, 2300, 3000),
    (560, 1800, 2500),
    (740, 1150, 2500),
    (330, 800, 2300),
)
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def _formants(peaks_hz: Sequence[float], scale: float) -> Callable[..., Signal]:
    """Gain of a mouth: a resonance a formant, each weaker than the last."""

    def gain(freq: Signal) -> Signal:
        total = np.zeros_like(freq)
        for rank, peak in enumerate(peaks_hz):
            width = 70 + 0.06 * peak
            total += 0.6**rank / (1 + ((freq - scale * peak) / width) ** 2)
        return total

    return gain


def _rolloff(synth: Synth, count: int, slope: float) -> Signal:
    """Random harmonic levels that fall as order ** -slope."""
    orders = np.arange(1.0, count + 1)
    return synth.rng.uniform(0.2, 1, count) * orders**-slope


def _engine(
    synth: Synth, low_hz: float, high_hz: float, slope: float, cutoff_hz: float
) -> Signal:
    """Firing pulses with a random timbre, rough noise, idling or revving."""
    base = synth.log_uniform(low_hz, high_hz)
    rev = synth.rng.choice([0.03, 0.15, 0.5])
    freq = base * (1 + rev * synth.contour(0, 1, synth.uniform(0.3, 1.5)))
    pulses = synth.tone(freq, _rolloff(synth, 40, slope))
    rough = 1 + 0.5 * synth.tone(freq / 2, [1.0])
    hiss = synth.noise(100, cutoff_hz) * rough * synth.uniform(0.2, 1.0)
    motor = synth.shape(pulses * rough + hiss, band(30, cutoff_hz))
    return motor * synth.contour(0.4, 1, 0.7)


def _hammer(
    synth: Synth,
    rate_hz: tuple[float, float],
    ring_hz: tuple[float, float],
    decay_s: float,
    hiss: float,
) -> Signal:
    """Regular machine blows in bouts, with compressed air between them."""
    rate = synth.log_uniform(*rate_hz)
    gaps = synth.rng.normal(1, 0.03, int(rate * synth.duration_s) + 1) / rate
    kernel = synth.ring(*ring_hz, decay_s * synth.uniform(0.6, 1.5), 0.7)
    blows = synth.strike(np.cumsum(gaps) - gaps[0], kernel, 0.4)
    air = synth.noise(1500, 6000) * hiss * synth.uniform(0.3, 1)
    bouts = synth.spans((1.5, 4), (0.2, 0.8))
    return (blows + air) * synth.gate(bouts, 0.05)


def _clatter(synth: Synth) -> Signal:
    """Bangs and clanks that follow no clock."""
    low = synth.log_uniform(80, 900)
    kernel = synth.ring(
        low,
        low * synth.uniform(2, 8),
        synth.log_uniform(0.03, 0.3),
        synth.uniform(0.2, 2),
    )
    count = max(1, int(synth.uniform(0.6, 2.5) * synth.duration_s))
    times = synth.rng.uniform(0, 0.95 * synth.duration_s, count)
    times[0] = 0.0
    return synth.strike(times, kernel, 0.8)


def _saw(
    synth: Synth,
    pitch_hz: tuple[float, float],
    slope: float,
    blade_hz: tuple[float, float],
    hiss: float,
) -> Signal:
    """A whining motor that sags under load, and the teeth in the work."""
    cuts = synth.spans((0.8, 2.5), (0.3, 1.0))
    load = synth.gate(cuts, 0.2)
    pitch = synth.log_uniform(*pitch_hz) * (1 - 0.2 * load)
    pitch = pitch * (1 + synth.contour(-0.02, 0.02, 8))
    whine = synth.tone(pitch, _rolloff(synth, 30, slope))
    teeth = synth.noise(*blade_hz) * hiss * (0.3 + load)
    rasp = 1 + 0.5 * synth.tone(pitch / 8, [1.0])
    return (whine + teeth * rasp) * (0.5 + 0.5 * load)


def _horn(synth: Synth) -> Signal:
    """Two reeds about a third apart, pressed a few times."""
    low = synth.uniform(300, 480)
    honks = synth.gate(synth.spans((0.15, 1.2), (0.1, 1.2)), 0.02)
    reeds = synth.tone(low, _rolloff(synth, 20, 0.6))
    reeds += synth.tone(
        low * synth.uniform(1.18, 1.3), _rolloff(synth, 20, 0.6)
    )
    return synth.shape(reeds * honks, band(300, 3500))


def _alarm(synth: Synth) -> Signal:
    """The restless patterns of a parked car: sweeps, two tones, honks."""
    base, rate = synth.log_uniform(500, 1400), synth.uniform(1.5, 6)
    phase = (synth.time * rate) % 1.0
    patterns = (phase, 1 - phase, (phase > 0.5) * 1.0, np.zeros_like(phase))
    pattern = int(synth.rng.integers(len(patterns)))
    alarm = synth.tone(base * (1 + patterns[pattern]), _rolloff(synth, 6, 1.0))
    # The last pattern keeps its pitch and is told by its regular pulses.
    return alarm * (phase < 0.5) if pattern == 3 else alarm


def _siren(synth: Synth) -> Signal:
    """Wail, yelp or two-tone, sometimes passing by."""
    low = synth.log_uniform(400, 750)
    kind = int(synth.rng.integers(3))
    rate = synth.uniform(*((0.15, 0.4), (2, 4.5), (0.5, 1))[kind])
    swing = np.sin(2 * np.pi * (rate * synth.time + synth.uniform(0, 1)))
    lift = (swing > 0) * 0.34 if kind == 2 else 0.5 + 0.5 * swing
    freq = low * (1 + lift * synth.uniform(0.8, 1.6))
    siren = synth.tone(freq, _rolloff(synth, 8, synth.uniform(0.8, 2)))
    return siren * synth.contour(0.2, 1, 0.5)


def _beeper(synth: Synth) -> Signal:
    """Even beeps of a reversing truck, tonal or (newer trucks) of noise."""
    period = synth.uniform(0.6, 1.1)
    beeps = ((synth.time % period) < period * synth.uniform(0.4, 0.6)) * 1.0
    freq = synth.log_uniform(900, 2000)
    if synth.rng.random() < 0.2:
        return synth.noise(freq, 2 * freq) * beeps
    return synth.tone(freq, [1.0, synth.uniform(0, 0.3), 0.1]) * beeps


def _melody(
    synth: Synth,
    base_hz: float | Signal,
    step_s: float,
    timbre: Signal,
    decay_s: float,
) -> Signal:
    """Notes of a scale on a steady beat, each plucked and dying away."""
    scale = _SCALES[int(synth.rng.integers(len(_SCALES)))]
    motif = synth.rng.integers(len(scale), size=8)
    note = (synth.time / step_s).astype(int)
    semitones = np.array(scale)[motif[note % 8]]
    octave = 2.0 ** synth.rng.integers(0, 2, size=8)[note % 8]
    pluck = np.exp(-(synth.time % step_s) / decay_s)
    return synth.tone(base_hz * octave * 2 ** (semitones / 12), timbre) * pluck


def _music(synth: Synth, bass: float, cutoff_hz: float) -> Signal:
    """Lead, chord, bass line and drums through a loudspeaker."""
    step = synth.uniform(0.12, 0.3)
    key = synth.log_uniform(90, 180)
    lead = _melody(synth, 4 * key, step, _rolloff(synth, 10, 1.2), 0.3)
    low = _melody(synth, key / 2, 2 * step, _rolloff(synth, 8, 1.0), 0.5)
    fifth = synth.tone(2 * key, _rolloff(synth, 8, 1)) + synth.tone(
        3 * key, _rolloff(synth, 8, 1)
    )
    beats = np.arange(0, synth.duration_s, 2 * step)
    drums = synth.strike(beats, synth.ring(50, 2500, 0.08, 0.6), 0.3)
    mix = lead * synth.uniform(0.3, 1) + bass * low + drums * bass
    mix += fifth * synth.uniform(0, 0.4)
    return synth.shape(mix, band(60, cutoff_hz))


def _jingle(synth: Synth) -> Signal:
    """The music box of an ice-cream truck, its motor a little unsteady."""
    step = synth.uniform(0.15, 0.3)
    wow = 1 + synth.contour(-0.01, 0.01, 3)
    base = synth.log_uniform(500, 1000) * wow
    timbre = np.array([1, 0.1, 0.4, 0.05, synth.uniform(0.05, 0.3)])
    return _melody(synth, base, step, timbre, synth.uniform(0.1, 0.4))


def _voice(
    synth: Synth, pitch_hz: tuple[float, float], syllable_s: float, slope: float
) -> Signal:
    """Glottal pulses through moving formants, syllable by syllable."""
    spans = synth.spans((0.5 * syllable_s, 1.5 * syllable_s), (0.02, 0.25))
    gate = synth.gate(spans, 0.03)
    pitch = synth.log_uniform(*pitch_hz) * 2 ** synth.contour(-0.3, 0.3, 3)
    source = synth.tone(pitch, np.arange(1, 41) ** -slope) * gate
    centres = np.array(spans).mean(axis=1)
    path = synth.rng.uniform(0, len(_VOWELS) - 1, len(spans))
    vowel = np.interp(synth.time, centres, path)
    mouth = synth.uniform(0.9, 1.2)
    voice = np.zeros(synth.num_samples)
    for rank, peaks in enumerate(_VOWELS):
        weight = np.clip(1 - np.abs(vowel - rank), 0, 1)
        voice += synth.shape(source * weight, _formants(peaks, mouth))
    hush = synth.noise(2500, 6500) * (1 - gate) * synth.contour(-0.2, 0.2, 6)
    return voice / (np.abs(voice).max() + TINY) + hush


def _talk(synth: Synth) -> Signal:
    """One or two people in conversation."""
    talk = _voice(synth, (90, 230), synth.uniform(0.12, 0.22), 1.2)
    if synth.rng.random() < 0.5:
        talk += _voice(synth, (90, 230), 0.18, 1.2) * synth.contour(0, 1, 0.5)
    return talk


def _crowd(synth: Synth) -> Signal:
    """Many voices at once over their common murmur."""
    voices = sum(_voice(synth, (100, 350), 0.2, 1.0) for _ in range(3))
    murmur = synth.shape(synth.noise(200, 3000), _formants(_VOWELS[1], 1.0))
    murmur /= np.abs(murmur).max() + TINY
    return voices + murmur * synth.contour(1, 3, 2)


def _amplified(synth: Synth) -> Signal:
    """Speech through an overdriven horn speaker, with an echo."""
    voice = np.tanh(4 * _voice(synth, (90, 230), 0.2, 1.0))
    voice = synth.shape(voice, band(500, 3000))
    delay = min(int(0.12 * synth.sample_rate), synth.num_samples - 1)
    return voice + 0.4 * np.concatenate([np.zeros(delay), voice[:-delay]])


def _dog(synth: Synth) -> Signal:
    """Bouts of barks, now and then a whine."""
    pitch = synth.log_uniform(280, 900)
    if synth.rng.random() < 0.15:
        spans = synth.spans((0.4, 1.0), (0.2, 0.8))
        glide = 2 ** (0.4 * np.sin(np.pi * synth.progress(spans)))
        return synth.tone(pitch * glide, [1, 0.3, 0.1]) * synth.gate(spans, 0.1)
    spans = synth.spans((0.08, 0.2), (0.12, 0.5))
    # A pause every few barks makes the bout.
    spans = [s for k, s in enumerate(spans) if k % 5 < 4]
    arch = np.sin(np.pi * synth.progress(spans))
    bark = synth.tone(pitch * (0.7 + 0.5 * arch), _rolloff(synth, 12, 0.5))
    bark = bark + 2 * synth.noise(pitch, 4 * pitch) * synth.uniform(0.5, 1.5)
    bark = synth.shape(bark, band(pitch, 3 * pitch))
    return bark * arch * synth.gate(spans, 0.02)


_RECIPES: dict[str, Callable[[Synth], Signal]] = {
    "1-1_small-sounding-engine": partial(
        _engine, low_hz=60, high_hz=150, slope=0.6, cutoff_hz=3000
    ),
    "1-2_medium-sounding-engine": partial(
        _engine, low_hz=38, high_hz=80, slope=0.8, cutoff_hz=1500
    ),
    "1-3_large-sounding-engine": partial(
        _engine, low_hz=18, high_hz=45, slope=0.8, cutoff_hz=800
    ),
    "2-1_rock-drill": partial(
        _hammer, rate_hz=(30, 55), ring_hz=(800, 5000), decay_s=0.01, hiss=1
    ),
    "2-2_jackhammer": partial(
        _hammer, rate_hz=(14, 28), ring_hz=(250, 3000), decay_s=0.02, hiss=0.4
    ),
    "2-3_hoe-ram": partial(
        _hammer, rate_hz=(4, 10), ring_hz=(120, 1800), decay_s=0.05, hiss=0.1
    ),
    "2-4_pile-driver": partial(
        _hammer, rate_hz=(0.8, 2), ring_hz=(70, 1200), decay_s=0.15, hiss=0.05
    ),
    "3-1_non-machinery-impact": _clatter,
    "4-1_chainsaw": partial(
        _saw, pitch_hz=(80, 170), slope=0.4, blade_hz=(1000, 4500), hiss=1.0
    ),
    "4-2_small-medium-rotating-saw": partial(
        _saw, pitch_hz=(450, 1300), slope=0.8, blade_hz=(2500, 7000), hiss=1.5
    ),
    "4-3_large-rotating-saw": partial(
        _saw, pitch_hz=(180, 500), slope=0.7, blade_hz=(1200, 5000), hiss=2.0
    ),
    "5-1_car-horn": _horn,
    "5-2_car-alarm": _alarm,
    "5-3_siren": _siren,
    "5-4_reverse-beeper": _beeper,
    "6-1_stationary-music": partial(_music, bass=0.7, cutoff_hz=5000),
    "6-2_mobile-music": partial(_music, bass=1.6, cutoff_hz=600),
    "6-3_ice-cream-truck": _jingle,
    "7-1_person-or-small-group-talking": _talk,
    "7-2_person-or-small-group-shouting": partial(
        _voice, pitch_hz=(220, 480), syllable_s=0.45, slope=0.6
    ),
    "7-3_large-crowd": _crowd,
    "7-4_amplified-speech": _amplified,
    "8-1_dog-barking-whining": _dog,
}

# The fine tags that have a recipe, in taxonomy order: all complete ones.
EVENT_TAGS: tuple[str, ...] = tuple(_RECIPES)


def synthesize_event(
    tag: str, rng: np.random.Generator, num_samples: int, sample_rate: int
) -> Signal:
    """One random event of a fine tag, its ends faded, its peak at 1.

    Arguments
    ---------
    tag : str
        A complete fine tag, see ``EVENT_TAGS``.
    rng : np.random.Generator
        Source of every random choice.
    num_samples : int
        Length, at least 100 samples.
    sample_rate : int
        Samples a second.

    Returns
    -------
    np.ndarray, float64
        The event (num_samples,).

    Raises
    ------
    ValueError
        If the tag is unknown or the event too short.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> synthesize_event("8-1_dog-barking-whining", rng, 4000, 16000).shape
    (4000,)
    """
    check_choice("tag", tag, EVENT_TAGS)
    check_range("num_samples", num_samples, low=100)
    wav = _RECIPES[tag](Synth(rng, num_samples, sample_rate))
    fade = min(num_samples // 4, sample_rate // 50)
    wav[:fade] *= np.linspace(0, 1, fade)
    wav[-fade:] *= np.linspace(1, 0, fade)
    return wav / (np.abs(wav).max() + TINY * (not wav.any()))


def synthesize_background(
    rng: np.random.Generator, num_samples: int, sample_rate: int
) -> Signal:
    """A street without events: air, wind, distant traffic; RMS 1.

    Arguments
    ---------
    rng : np.random.Generator
        Source of every random choice.
    num_samples : int
        Length.
    sample_rate : int
        Samples a second.

    Returns
    -------
    np.ndarray, float64
        The background (num_samples,).

    Example
    -------
    >>> wav = synthesize_background(np.random.default_rng(0), 8000, 16000)
    >>> wav.shape, round(float(np.mean(wav**2)), 6)
    ((8000,), 1.0)
    """
    synth = Synth(rng, num_samples, sample_rate)
    slope = synth.uniform(0.5, 1.2)
    air = synth.hiss(lambda freq: np.maximum(freq, 40.0) ** -slope)
    wind = synth.noise(20, synth.uniform(100, 300)) * synth.contour(0, 3, 1)
    traffic = synth.noise(60, synth.uniform(400, 1200))
    traffic *= synth.contour(0, 3, 0.4)
    # A far hum that nobody labels, so that low harmonics alone prove nothing.
    hum = synth.tone(synth.log_uniform(25, 120), _rolloff(synth, 12, 1.0))
    mix = air + synth.uniform(0, 1) * wind + synth.uniform(0, 1) * traffic
    mix += synth.uniform(0, 0.5) * hum
    return mix / (np.sqrt(np.mean(mix**2)) + TINY)
