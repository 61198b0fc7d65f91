"""Reading one clip of audio as the networks want it.

Authors
 * The iusp_plugin authors 2026
"""

from pathlib import Path

import soundfile
import torch
import torchaudio
from torch import Tensor


def read_clip(
    path: str | Path, sample_rate: int, clip_duration_s: float | None = None
) -> Tensor:
    """Read audio as mono at one rate, no longer than asked.

    Channels are averaged; another rate is resampled (windowed sinc). A longer
    file is cropped at its end; a shorter one is returned as it is, and a
    batch pads it and knows its relative length.

    Arguments
    ---------
    path : str or Path
        wav, flac or ogg, any rate, mono or more.
    sample_rate : int
        Rate wanted, Hz.
    clip_duration_s : float, optional
        Longest duration, seconds.

    Returns
    -------
    torch.Tensor
        float32 (time,).

    Raises
    ------
    ValueError
        If the file cannot be read or holds no audio.
    """
    try:
        with soundfile.SoundFile(str(path)) as audio:
            rate = audio.samplerate
            limit = -1
            if clip_duration_s is not None:
                limit = round(clip_duration_s * rate)
            samples = audio.read(limit, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as audio: {error}") from error
    if len(samples) == 0:
        raise ValueError(f"{path} holds no audio.")
    wav = torch.from_numpy(samples).mean(dim=1)
    if rate == sample_rate:
        return wav
    wav = torchaudio.functional.resample(wav, rate, sample_rate)
    if clip_duration_s is not None:
        # Rounding at two rates may leave a sample too many.
        wav = wav[: round(clip_duration_s * sample_rate)]
    return wav
