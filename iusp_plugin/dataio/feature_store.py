"""Log-mels computed once and read from a memory map.

A store is a folder named by the fingerprint of what it was made from (front
end, audio files, code version), so another front end or a changed file makes
another store and nothing stale is ever read:

    <folder>/<fingerprint>/feats.npy    float32 (all frames, n_mels)
    <folder>/<fingerprint>/index.json   clip ids, first frames, fingerprint

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from iusp_plugin.checks import near_names
from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.features import LogMel

# Raise when the content of a store made from the same inputs would change.
STORE_VERSION = 1


class FeatureStore:
    """Un-normalised log-mels by clip id, from a memory map.

    Arguments
    ---------
    folder : str or Path
        A finished store.

    Raises
    ------
    ValueError
        If a file is missing or cannot be read, or index and array do not fit
        together.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / "index.json").read_text())
            self._first: list[int] = index["first_frame"]
            self._row = {clip: i for i, clip in enumerate(index["clips"])}
            self._feats = np.load(self.folder / "feats.npy", mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{self.folder} is damaged: {error}. Delete the folder."
            ) from error
        if len(self._feats) != self._first[-1]:
            raise ValueError(
                f"{self.folder} is damaged: {len(self._feats)} frames where "
                f"the index says {self._first[-1]}. Delete the folder."
            )

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, clip_id: str) -> Tensor:
        """Log-mel of one clip, (frames, n_mels), a copy."""
        if clip_id not in self._row:
            raise KeyError(
                f"Clip {clip_id!r} is not in the feature store {self.folder}. "
                f"{near_names(clip_id, list(self._row)[:20])}"
            )
        row = self._row[clip_id]
        span = slice(self._first[row], self._first[row + 1])
        return torch.from_numpy(np.array(self._feats[span]))


def _fingerprint(
    audio: Mapping[str, str], front_end: LogMel, clip_duration_s: float
) -> str:
    """What a store depends on, as a short hexadecimal name."""
    files = []
    for clip, path in audio.items():
        stat = os.stat(path)
        files.append([clip, stat.st_size, stat.st_mtime_ns])
    facts: dict[str, Any] = {
        "version": STORE_VERSION,
        "front_end": front_end.config,
        "clip_duration_s": clip_duration_s,
        "files": files,
    }
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:16]


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
    name = _fingerprint(audio, front_end, clip_duration_s)
    finished = Path(folder) / name
    if not (finished / "index.json").is_file():
        part = Path(folder) / f".{name}.{uuid.uuid4().hex[:8]}.part"
        part.mkdir(parents=True)
        try:
            _fill(part, audio, front_end, clip_duration_s, description)
            try:
                os.replace(part, finished)
            except OSError:
                # Another process has finished the same store meanwhile.
                if not finished.exists():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return FeatureStore(finished)


@torch.no_grad()
def _fill(
    part: Path,
    audio: Mapping[str, str],
    front_end: LogMel,
    clip_duration_s: float,
    description: str,
) -> None:
    """Compute every clip's features into a new folder."""
    first = [0]
    raw = part / "feats.raw"
    with open(raw, "wb") as stream:
        for path in tqdm(audio.values(), desc=description, unit="clip"):
            wav = read_clip(path, front_end.sample_rate, clip_duration_s)
            feats = front_end.log_mel(wav.unsqueeze(0)).squeeze(0)
            stream.write(feats.contiguous().numpy().tobytes())
            first.append(first[-1] + len(feats))
    shape = (first[-1], front_end.n_mels)
    _raw_to_npy(raw, part / "feats.npy", shape)
    index = {"clips": list(audio), "first_frame": first}
    (part / "index.json").write_text(json.dumps(index))


def _raw_to_npy(raw: Path, path: Path, shape: tuple[int, int]) -> None:
    """Put numpy's header before raw float32 values."""
    with open(path, "wb") as out, open(raw, "rb") as values:
        np.lib.format.write_array_header_1_0(
            out, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        shutil.copyfileobj(values, out, 1 << 22)
    raw.unlink()
