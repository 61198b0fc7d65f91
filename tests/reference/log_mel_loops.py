"""Log-mel features in plain float64 numpy, from the formulas.

Slaney's mel scale (linear below 1 kHz, logarithmic above), triangles of unit
area, a centred short-time Fourier transform with a periodic Hann window.

Authors
 * The iusp_plugin authors 2026
"""

import math

import numpy as np

BREAK_HZ = 1000.0
HZ_PER_MEL = 200.0 / 3.0
LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(hz):
    """Slaney's mel of a frequency."""
    if hz < BREAK_HZ:
        return hz / HZ_PER_MEL
    return BREAK_HZ / HZ_PER_MEL + math.log(hz / BREAK_HZ) / LOG_STEP


def mel_to_hz(mel):
    """Frequency of Slaney's mel."""
    linear = BREAK_HZ / HZ_PER_MEL
    if mel < linear:
        return mel * HZ_PER_MEL
    return BREAK_HZ * math.exp(LOG_STEP * (mel - linear))


def mel_filters(sample_rate, n_fft, n_mels, fmin, fmax):
    """Triangles (n_mels, n_fft // 2 + 1) of unit area in Hz."""
    mels = np.linspace(hz_to_mel(fmin), hz_to_mel(fmax), n_mels + 2)
    edges = [mel_to_hz(mel) for mel in mels]
    filters = np.zeros((n_mels, n_fft // 2 + 1))
    for band in range(n_mels):
        low, centre, high = edges[band : band + 3]
        for k in range(n_fft // 2 + 1):
            hz = k * sample_rate / n_fft
            rise = (hz - low) / (centre - low)
            fall = (high - hz) / (high - centre)
            filters[band, k] = max(0.0, min(rise, fall)) * 2 / (high - low)
    return filters


def log_mel_loop(wav, config):
    """Log-mel (frames, n_mels) of one clip under a front end's options."""
    n_fft, hop = config["n_fft"], config["hop_length"]
    width = config["win_length"]
    n = np.arange(width)
    window = np.zeros(n_fft)
    left = (n_fft - width) // 2
    window[left : left + width] = 0.5 - 0.5 * np.cos(2 * np.pi * n / width)
    padded = np.pad(
        np.asarray(wav, dtype=np.float64), n_fft // 2, mode=config["pad_mode"]
    )
    filters = mel_filters(
        config["sample_rate"],
        n_fft,
        config["n_mels"],
        config["fmin"],
        config["fmax"],
    )
    rows = []
    for frame in range(max(1, len(wav) // hop)):
        piece = padded[frame * hop : frame * hop + n_fft] * window
        mel = filters @ np.abs(np.fft.rfft(piece)) ** 2
        if config["scale"] == "ln":
            rows.append(np.log(mel + config["offset"]))
        else:
            rows.append(10 * np.log10(np.maximum(mel, config["offset"])))
    return np.stack(rows)
