"""Table A: the log-mel front end beside librosa and plain torchaudio.

Authors
 * The iusp_plugin authors 2026
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from report import table
from timing import Effort, interleave, use_threads

from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.dataio.feature_store import feature_store
from iusp_plugin.features import LogMel

# Of log-mels between -14 and 5, where a mel band holds any power at all.
TOLERANCE = 1e-3
BATCH = 16


def librosa_log_mel(front_end: LogMel) -> Callable[[np.ndarray], np.ndarray]:
    """The same features by librosa.

    Arguments
    ---------
    front_end : LogMel
        Whose options are taken.

    Returns
    -------
    callable
        Of one clip, (time,) to (frames, n_mels).
    """
    import librosa

    options = front_end.config

    def log_mel(wav: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=wav,
            sr=options["sample_rate"],
            n_fft=options["n_fft"],
            win_length=options["win_length"],
            hop_length=options["hop_length"],
            n_mels=options["n_mels"],
            fmin=options["fmin"],
            fmax=options["fmax"],
            pad_mode=options["pad_mode"],
        )
        frames = max(1, len(wav) // options["hop_length"])
        return np.log(mel[:, :frames] + options["offset"]).T

    return log_mel


def torchaudio_log_mel(front_end: LogMel) -> Callable:
    """The same features by torchaudio's transform, made once.

    Arguments
    ---------
    front_end : LogMel
        Whose options are taken.

    Returns
    -------
    callable
        Of one clip.
    """
    options = front_end.config
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=options["sample_rate"],
        n_fft=options["n_fft"],
        win_length=options["win_length"],
        hop_length=options["hop_length"],
        f_min=options["fmin"],
        f_max=options["fmax"],
        n_mels=options["n_mels"],
        pad_mode=options["pad_mode"],
        norm="slaney",
        mel_scale="slaney",
    )
    return lambda wav: torch.log(mel(wav) + options["offset"]).T


def _contenders(front_end: LogMel, folder: Path, seconds: float) -> dict:
    """Calls by name, and how many clips each makes."""
    rate = front_end.sample_rate
    generator = np.random.default_rng(0)
    wav = generator.uniform(-0.3, 0.3, round(seconds * rate))
    wav = wav.astype(np.float32)
    path = folder / "clip.wav"
    soundfile.write(path, wav, rate)
    clip = torch.from_numpy(wav)
    batch = clip.expand(BATCH, -1).contiguous()
    store = feature_store(
        folder / "feats", {"clip": str(path)}, front_end, seconds
    )
    plain = torchaudio_log_mel(front_end)

    def decoded():
        return front_end.log_mel(read_clip(path, rate).unsqueeze(0))

    calls = {
        "ours, one clip": (lambda: front_end.log_mel(clip.unsqueeze(0)), 1),
        f"ours, {BATCH} clips": (lambda: front_end.log_mel(batch), BATCH),
        "torchaudio's transform": (lambda: plain(clip), 1),
        "ours, a wav file decoded": (decoded, 1),
        "feature store": (lambda: store["clip"], 1),
    }
    if importlib.util.find_spec("librosa"):
        other = librosa_log_mel(front_end)
        ours = front_end.log_mel(clip.unsqueeze(0)).squeeze(0).numpy()
        difference = float(np.abs(other(wav) - ours).max())
        if difference > TOLERANCE:
            raise ValueError(f"librosa differs by {difference}.")
        number = importlib.metadata.version("librosa")
        calls[f"librosa {number}"] = (lambda: other(wav), 1)
    return calls


def front_end(folder: Path, seconds: float, effort: Effort) -> dict:
    """Clips per second on one core.

    Arguments
    ---------
    folder : Path
        For one clip and its store.
    seconds : float
        Duration of the clip.
    effort : Effort
        How long to go on.

    Returns
    -------
    dict
        As ``report.table``.
    """
    threads = torch.get_num_threads()
    use_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    calls = _contenders(LogMel(), folder, seconds)
    times = interleave({n: call for n, (call, _) in calls.items()}, effort)
    use_threads(threads)
    ours = "ours, one clip"
    rows = []
    for name, (_, clips) in calls.items():
        rate = clips / times.median(name)
        ratio = times.ratio(name, ours)
        ratio = {key: value / clips for key, value in ratio.items()}
        rows.append({"name": name, "rate": rate, "ratio": ratio})
    return table(
        "A. Front end on one core",
        f"Log-mels of noise, {seconds:g} s at 16 kHz, 64 bands; librosa's "
        f"values agree within {TOLERANCE:g}.",
        [
            ("way", "name", "text"),
            ("clips / s", "rate", "number"),
            ("time / ours, one clip", "ratio", "ratio"),
        ],
        rows,
    )
