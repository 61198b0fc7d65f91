"""Random sound-making tools: tones, noise, hits, envelopes and filters.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.floating]
Spans = list[tuple[float, float]]

# Far below the quietest event, far above a division by zero.
TINY = 1e-9


class Synth:
    """Random sound-making tools for one stretch of samples.

    Arguments
    ---------
    rng : np.random.Generator
        Source of every random choice.
    num_samples : int
        Length of the stretch.
    sample_rate : int
        Samples a second.

    Example
    -------
    >>> synth = Synth(np.random.default_rng(0), 100, 8000)
    >>> synth.tone(1000.0, [1.0])[:3].round(3)
    array([0.707, 1.   , 0.707])
    """

    def __init__(
        self, rng: np.random.Generator, num_samples: int, sample_rate: int
    ) -> None:
        self.rng = rng
        self.num_samples = num_samples
        self.sample_rate = sample_rate
        self.time = np.arange(num_samples) / sample_rate
        self.duration_s = num_samples / sample_rate

    def uniform(self, low: float, high: float) -> float:
        """One number between two bounds."""
        return float(self.rng.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """One positive number, even on a logarithmic scale (as pitch is)."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def contour(self, low: float, high: float, rate_hz: float) -> Signal:
        """A random line that turns about ``rate_hz`` times a second.

        Arguments
        ---------
        low, high : float
            Bounds of its values.
        rate_hz : float
            Turns a second.
        """
        num_knots = int(self.duration_s * rate_hz) + 2
        knots = self.rng.uniform(low, high, num_knots)
        place = np.linspace(0, num_knots - 1, self.num_samples)
        return np.interp(place, np.arange(num_knots), knots)

    def noise(self, low_hz: float, high_hz: float) -> Signal:
        """Gaussian noise between two corner frequencies, peak about 1."""
        return self.hiss(band(low_hz, high_hz)) / 3

    def hiss(self, gain: Callable[[Signal], Signal]) -> Signal:
        """Gaussian noise of any colour, RMS 1."""
        size = _fft_size(self.num_samples)
        freq = np.fft.rfftfreq(size, 1 / self.sample_rate)
        # A random spectrum spares the transform of a random signal.
        spectrum = self.rng.standard_normal(2 * len(freq)).view(np.complex128)
        wav = np.fft.irfft(spectrum * gain(freq), size)[: self.num_samples]
        return wav / (np.sqrt(np.mean(wav**2)) + TINY)

    def tone(
        self, freq_hz: float | Signal, amplitudes: Sequence[float] | Signal
    ) -> Signal:
        """Harmonics of a (moving) pitch, those above Nyquist left out."""
        freq = np.broadcast_to(freq_hz, self.num_samples)
        # A little below Nyquist, where no real recording has much either.
        room = max(1, int(0.45 * self.sample_rate / float(freq.max())))
        grid = np.linspace(0.0, 1.0, 2049)
        amps = np.asarray(amplitudes)[:room, None]
        orders = np.arange(1, len(amps) + 1)[:, None]
        # One period is summed once and read by phase: cheap at any length.
        # No matrix product: its rounding differs between BLAS libraries.
        table = np.sum(amps * np.sin(2 * np.pi * orders * grid), axis=0)
        phase = np.cumsum(freq) / self.sample_rate
        return np.interp(phase % 1.0, grid, table)

    def shape(
        self,
        wav: Signal,
        gain: Callable[[Signal], Signal],
        *,
        normalize: bool = False,
    ) -> Signal:
        """Zero-phase filter by a gain over frequency, optionally to RMS 1.

        Arguments
        ---------
        wav : np.ndarray
            Any signal.
        gain : callable
            Frequencies in Hz to factors, as ``band`` returns.
        normalize : bool
            Bring the result to RMS 1.
        """
        size = _fft_size(len(wav))
        freq = np.fft.rfftfreq(size, 1 / self.sample_rate)
        out: Signal = np.fft.irfft(np.fft.rfft(wav, size) * gain(freq), size)
        out = out[: len(wav)]
        return out / (np.sqrt(np.mean(out**2)) + TINY) if normalize else out

    def strike(self, times_s: Signal, kernel: Signal, jitter: float) -> Signal:
        """Place a sound at given times, each hit with its own level.

        Arguments
        ---------
        times_s : np.ndarray
            Onsets in seconds; those outside the clip are left out.
        kernel : np.ndarray
            The sound of one hit.
        jitter : float
            Levels are uniform in [1 - jitter, 1].
        """
        train: Signal = np.zeros(self.num_samples)
        place = (np.asarray(times_s) * self.sample_rate).astype(int)
        place = place[(place >= 0) & (place < self.num_samples)]
        train[place] = self.rng.uniform(1 - jitter, 1, len(place))
        size = _fft_size(self.num_samples + len(kernel))
        spectrum = np.fft.rfft(train, size) * np.fft.rfft(kernel, size)
        return np.fft.irfft(spectrum, size)[: self.num_samples]

    def ring(
        self, low_hz: float, high_hz: float, decay_s: float, noisiness: float
    ) -> Signal:
        """The sound of one hit: decaying inharmonic partials and a burst.

        Arguments
        ---------
        low_hz, high_hz : float
            Range of the partials.
        decay_s : float
            Time in which the slowest partial falls to 1 / e.
        noisiness : float
            Level of the burst of noise.
        """
        time = np.arange(int(5 * decay_s * self.sample_rate)) / self.sample_rate
        shape = (6, 1)
        freq = np.exp(self.rng.uniform(np.log(low_hz), np.log(high_hz), shape))
        decay = decay_s * self.rng.uniform(0.3, 1, shape)
        level = self.rng.uniform(0.1, 0.5, shape)
        partials = level * np.sin(2 * np.pi * freq * time)
        partials = np.sum(partials * np.exp(-time / decay), axis=0)
        burst: Signal = self.rng.standard_normal(len(time))
        burst = burst * np.exp(-4 * time / decay_s)
        burst = self.shape(burst, band(low_hz, 1.5 * high_hz))
        return partials + noisiness * burst

    def spans(
        self, on_s: tuple[float, float], off_s: tuple[float, float]
    ) -> Spans:
        """Alternate sounding and silence: start and stop of each sounding."""
        spans, start = [], 0.0
        while start < self.duration_s:
            stop = start + self.uniform(*on_s)
            spans.append((start, stop))
            start = stop + self.uniform(*off_s)
        return spans

    def gate(self, spans: Spans, ramp_s: float = 0.01) -> Signal:
        """An envelope that is open within the spans, each at its level."""
        points: list[tuple[float, float]] = []
        for start, stop in spans:
            ramp, level = min(ramp_s, (stop - start) / 3), self.uniform(0.6, 1)
            points += [(start, 0), (start + ramp, level)]
            points += [(stop - ramp, level), (stop, 0)]
        return np.interp(self.time, *np.array(points).T)

    def progress(self, spans: Spans) -> Signal:
        """How far (0..1) the current span has got."""
        times = np.array(spans).ravel()
        return np.interp(self.time, times, np.tile([0.0, 1.0], len(spans)))


def _fft_size(length: int) -> int:
    """The next length of few small factors, where an FFT is quick."""
    factors = (1, 3, 5, 9, 15, 25, 125, 625)
    return min(f << (-(-length // f) - 1).bit_length() for f in factors)


def band(low_hz: float, high_hz: float) -> Callable[[Signal], Signal]:
    """Gain of a gentle band-pass (12 dB an octave on both sides)."""

    def gain(freq: Signal) -> Signal:
        low = np.square(low_hz / np.maximum(freq, 1.0))
        high = np.square(freq / high_hz)
        return 1 / np.sqrt((1 + low * low) * (1 + high * high))

    return gain
