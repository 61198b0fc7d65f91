"""The one log-mel front end of training, evaluation and inference.

Authors
 * The iusp_plugin authors 2026
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn

from iusp_plugin.checks import check_choice, check_range
from iusp_plugin.lengths import check_lengths, frame_mask


class LogMel(nn.Module):
    """Log-mel spectrogram, normalised per band by stored statistics.

    Power spectrogram (Hann window, centred), Slaney mel bands of unit area,
    then

        "ln": ln(mel + offset)        "db": 10 log10(max(mel, offset))

    and (x - mean) / std per band, with mean and std in buffers: 0 and 1 until
    ``fit_statistics`` or a checkpoint sets them. A clip of N samples has
    max(1, N // hop_length) frames. Computed in float32 whatever autocast says.
    The options travel in the state_dict, and loading weights that were trained
    on another front end is an error that names the options.

    Arguments
    ---------
    sample_rate : int
        Hz.
    n_fft, win_length, hop_length : int
        Samples.
    n_mels : int
        Mel bands.
    fmin, fmax : float
        Edges of the lowest and highest band, Hz; fmax None is half the rate.
    offset : float
        Floor of the power inside the logarithm.
    scale : str
        "ln" or "db".
    pad_mode : str
        Padding at both ends: "constant" keeps a padded clip equal to the clip
        alone; "reflect" as librosa and PANNs.

    Example
    -------
    >>> front_end = LogMel(sample_rate=16000, hop_length=320, n_mels=64)
    >>> front_end(torch.zeros(2, 160000)).shape
    torch.Size([2, 500, 64])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 1024,
        win_length: int = 640,
        hop_length: int = 320,
        n_mels: int = 64,
        fmin: float = 50.0,
        fmax: float | None = None,
        offset: float = 1e-6,
        scale: str = "ln",
        pad_mode: str = "constant",
    ):
        super().__init__()
        check_choice("scale", scale, ("ln", "db"))
        check_choice("pad_mode", pad_mode, ("constant", "reflect"))
        fmax = sample_rate / 2 if fmax is None else float(fmax)
        check_range("fmax", fmax, low=fmin, high=sample_rate / 2, low_open=True)
        check_range("win_length", win_length, low=1, high=n_fft)
        check_range("hop_length", hop_length, low=1)
        check_range("offset", offset, low=0.0, low_open=True)
        counts = {
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "win_length": win_length,
            "hop_length": hop_length,
            "n_mels": n_mels,
        }
        for name, value in counts.items():
            if value != int(value) or value < 1:
                raise ValueError(
                    f"{name}={value!r} must be a whole number above 0."
                )
        self.config: dict[str, Any] = {
            "sample_rate": int(sample_rate),
            "n_fft": int(n_fft),
            "win_length": int(win_length),
            "hop_length": int(hop_length),
            "n_mels": int(n_mels),
            "fmin": float(fmin),
            "fmax": fmax,
            "offset": float(offset),
            "scale": scale,
            "pad_mode": pad_mode,
        }
        self.sample_rate = int(sample_rate)
        self.hop_length = int(hop_length)
        self.n_mels = int(n_mels)
        self.offset = float(offset)
        # One unit of the scale in nepers of power; mixing needs it.
        self.log_unit = 1.0 if scale == "ln" else 10.0 / math.log(10.0)
        self.scale = scale
        self.min_samples = n_fft // 2 + 1 if pad_mode == "reflect" else 1
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            f_min=fmin,
            f_max=fmax,
            n_mels=n_mels,
            center=True,
            pad_mode=pad_mode,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))

    def get_extra_state(self) -> dict[str, Any]:
        """The options, kept beside the statistics."""
        return dict(self.config)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse statistics of another front end."""
        differing = [
            f"{key}: {state.get(key)!r} in the checkpoint, {value!r} here"
            for key, value in self.config.items()
            if state.get(key) != value
        ]
        if differing:
            raise ValueError(
                "The checkpoint was made with another front end ("
                + "; ".join(differing)
                + "). Declare the same options."
            )

    def log_mel(self, wavs: Tensor) -> Tensor:
        """Log-mel before normalisation.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, time), floating, mono, at ``sample_rate``.

        Returns
        -------
        torch.Tensor
            float32 (batch, frames, n_mels).
        """
        if wavs.dim() != 2 or wavs.shape[1] == 0:
            raise ValueError(
                f"wavs has shape {tuple(wavs.shape)}, expected a non-empty "
                "(batch, time) of mono audio."
            )
        frames = max(1, wavs.shape[1] // self.hop_length)
        short = self.min_samples - wavs.shape[1]
        if short > 0:
            wavs = nn.functional.pad(wavs, (0, short))
        with torch.autocast(wavs.device.type, enabled=False):
            mel = self.mel(wavs.float())[..., :frames].transpose(1, 2)
            if self.scale == "ln":
                return torch.log(mel + self.offset)
            return 10.0 * torch.log10(mel.clamp(min=self.offset))

    def normalise(self, feats: Tensor) -> Tensor:
        """(x - mean) / std per band."""
        return (feats - self.mean) / self.std

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Normalised log-mel; frames of padding are zero.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, time).
        wav_lens : torch.Tensor, optional
            Relative lengths, (batch,).

        Returns
        -------
        torch.Tensor
            float32 (batch, frames, n_mels).
        """
        feats = self.normalise(self.log_mel(wavs))
        if wav_lens is None:
            return feats
        check_lengths(wav_lens, len(feats))
        mask = frame_mask(wav_lens, feats.shape[1])
        return feats.masked_fill(~mask.unsqueeze(-1), 0.0)

    @torch.no_grad()
    def fit_statistics(self, clips: Iterable[Tensor]) -> None:
        """Set mean and std per band from un-normalised log-mels.

        Arguments
        ---------
        clips : iterable of torch.Tensor
            Each (frames, n_mels), as ``log_mel`` returns them.
        """
        self.set_statistics(*band_statistics(clips))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and std per band, (n_mels,) each."""
        self.mean.copy_(mean)
        self.std.copy_(std)


def band_statistics(clips: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band over the frames of all clips.

    Arguments
    ---------
    clips : iterable of torch.Tensor
        Each (frames, n_mels).

    Returns
    -------
    tuple of torch.Tensor
        Mean and standard deviation (at least 1e-3), float64 (n_mels,).

    Raises
    ------
    ValueError
        If there are no clips.

    Example
    -------
    >>> band_statistics([torch.tensor([[1.0], [3.0]])])
    (tensor([2.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    count = 0
    total, squares = torch.zeros(2, 1, dtype=torch.float64)
    for feats in clips:
        feats = feats.double()
        count += feats.shape[0]
        total = total + feats.sum(dim=0)
        squares = squares + feats.square().sum(dim=0)
    if count == 0:
        raise ValueError("clips is empty; statistics need audio.")
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=1e-6)
    return mean, variance.sqrt()
