"""Log-mels computed once and read from a memory map.

A store is a folder named by the fingerprint of what it was made from (front
end, audio files, code version), so another front end or a changed file makes
another store and nothing stale is ever read. Its records are those of
``iusp_plugin.dataio.shards``: one array "feats", float32 (frames, n_mels), a
clip.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.dataio.shards import ShardStore, ShardWriter
from iusp_plugin.features import LogMel, band_statistics
from iusp_plugin.files import replacing

# Raise when the content of a store made from the same inputs would change.
STORE_VERSION = 2
# 128 clips of 10 s and 64 bands: 16 MB a shard.
SHARD_CLIPS = 128
STATISTICS = "statistics.json"


class FeatureStore:
    """Un-normalised log-mels by clip id, from a memory map.

    Arguments
    ---------
    folder : str or Path
        A finished store.

    Raises
    ------
    ValueError
        If it is not finished, or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._records = ShardStore(folder)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, clip_id: str) -> Tensor:
        """Log-mel of one clip, (frames, n_mels), a copy."""
        return torch.from_numpy(self._records[clip_id]["feats"])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each band over all clips.

        Computed at the first call, by ``features.band_statistics``, and kept
        beside the store.

        Returns
        -------
        tuple of torch.Tensor
            Mean and standard deviation, float64 (n_mels,).
        """
        path = self.folder / STATISTICS
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            mean, std = (torch.tensor(row, dtype=torch.float64) for row in kept)
            return mean, std
        mean, std = band_statistics(self[clip] for clip in self._records)
        with replacing(path) as part:
            part.write_text(json.dumps([mean.tolist(), std.tolist()]))
        return mean, std


def audio_digest(audio: Mapping[str, str]) -> str:
    """Fingerprint of audio files, by their sizes and times of change.

    Arguments
    ---------
    audio : mapping of str to str
        Path of each clip's audio by id.

    Returns
    -------
    str
        Hexadecimal.
    """
    files = []
    for clip, path in audio.items():
        stat = os.stat(path)
        files.append([clip, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


class FeatureStoreMaker:
    """Makes the store of some clips, unless it is there already.

    Processes share the work: each fills its part, and when all have, one of
    them finishes the store. What an interrupted process has made is kept.

    Arguments
    ---------
    folder : str or Path
        Where stores live.
    audio : callable
        Returns the path of each clip's audio by id; called only if the store
        has to be made.
    source : str
        Fingerprint of the audio, such as ``audio_digest``.
    front_end : LogMel
        What computes the features; its statistics play no part.
    clip_duration_s : float
        Longest duration of a clip, seconds.
    """

    def __init__(
        self,
        folder: str | Path,
        audio: Callable[[], Mapping[str, str]],
        source: str,
        front_end: LogMel,
        clip_duration_s: float,
    ):
        self._audio = audio
        self._front_end = front_end
        self._clip_duration_s = clip_duration_s
        self._identity: dict[str, Any] = {
            "version": STORE_VERSION,
            "front_end": front_end.config,
            "clip_duration_s": float(clip_duration_s),
            "source": source,
        }
        text = json.dumps(self._identity, sort_keys=True).encode()
        self.folder = Path(folder) / hashlib.sha256(text).hexdigest()[:16]

    def finished(self) -> bool:
        """Whether the store is there."""
        return (self.folder / "index.json").is_file()

    def _writer(self, clips: list[str]) -> ShardWriter:
        """Where the records go."""
        return ShardWriter(self.folder, self._identity, clips, SHARD_CLIPS)

    @torch.no_grad()
    def fill(
        self,
        rank: int = 0,
        world_size: int = 1,
        description: str = "features",
    ) -> None:
        """Compute this process's part of the features.

        Arguments
        ---------
        rank, world_size : int
            This process among how many.
        description : str
            Label of the progress bar, which the first process shows.
        """
        audio = self._audio()
        writer = self._writer(list(audio))
        missing = writer.missing(rank, world_size)
        total = sum(len(writer.of(number)) for number in missing)
        with tqdm(
            total=total, desc=description, unit="clip", disable=rank > 0
        ) as bar:
            for number in missing:
                records = []
                for clip in writer.of(number):
                    records.append({"feats": self._feats(audio[clip]).numpy()})
                    bar.update()
                writer.write(number, records)

    def _feats(self, path: str) -> Tensor:
        """Features of one clip."""
        rate = self._front_end.sample_rate
        wav = read_clip(path, rate, self._clip_duration_s)
        return self._front_end.log_mel(wav.unsqueeze(0)).squeeze(0)

    def finish(self) -> None:
        """Make what all processes have filled readable."""
        self._writer(list(self._audio())).finish()


def feature_store(
    folder: str | Path,
    audio: Mapping[str, str],
    front_end: LogMel,
    clip_duration_s: float,
    description: str = "features",
) -> FeatureStore:
    """Open the store of these clips, making it first if there is none.

    Arguments
    ---------
    folder : str or Path
        Where stores live.
    audio : mapping of str to str
        Path of each clip's audio by id.
    front_end : LogMel
        What computes the features; its statistics play no part.
    clip_duration_s : float
        Longest duration of a clip, seconds.
    description : str
        Label of the progress bar.

    Returns
    -------
    FeatureStore
        The finished store.
    """
    maker = FeatureStoreMaker(
        folder, lambda: audio, audio_digest(audio), front_end, clip_duration_s
    )
    if not maker.finished():
        maker.fill(description=description)
        maker.finish()
    return FeatureStore(maker.folder)
