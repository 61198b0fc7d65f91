"""Finding and checking the audio of a data folder.

Annotations name files of the release (``38_000000.wav``); a data folder may
hold them in another format, so a file is found by its stem, whatever its
ending.

Authors
 * The iusp_plugin authors 2026
"""

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from iusp_plugin.checks import check_choice, check_range, first_five
from iusp_plugin.dataio.manifests import md5_hex

ENDINGS = (".wav", ".ogg", ".flac")

# Folders searched for the clips of a split, relative to the data folder.
SEARCHED_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("audio-dev/train", "audio-dev", "audio/train", "audio"),
    "validate": ("audio-dev/validate", "audio-dev", "audio/validate", "audio"),
    "test": ("audio-eval/test", "audio-eval", "audio/test", "audio"),
}

# A page of an Ogg file is no longer than this.
_MAX_OGG_PAGE = 65307

DURATION_POLICIES = ("pad_or_crop", "error")


@dataclass(frozen=True)
class AudioFile:
    """What is known of one checked audio file.

    Arguments
    ---------
    path : str
        Relative to the data folder, with forward slashes.
    duration : float
        In seconds.
    sample_rate : int
        In Hz.
    channels : int
        1 or 2.
    frames : int
        Samples per channel.
    md5 : str
        Of the file's bytes; finds changes, protects from nothing.
    """

    path: str
    duration: float
    sample_rate: int
    channels: int
    frames: int
    md5: str


def find_audio(
    data_folder: str | Path, names: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, Path]]:
    """Find every annotated file on disk by its stem.

    Arguments
    ---------
    data_folder : str or Path
        Folder in the layout of the release, see ``SEARCHED_FOLDERS``.
    names : mapping of str to iterable of str
        Names of the annotated files of each split.

    Returns
    -------
    dict of str to dict of str to Path
        For each split, the path of each annotated name.

    Raises
    ------
    ValueError
        If one clip is found in two files, or one recording in two splits.
    FileNotFoundError
        If clips are not found.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "audio-eval"
    >>> folder.mkdir()
    >>> _ = (folder / "00_000001.OGG").write_bytes(b"")
    >>> find_audio(folder.parent, {"test": ["00_000001.wav"]})
    {'test': {'00_000001.wav': ...Path('.../audio-eval/00_000001.OGG')}}
    """
    root = Path(data_folder)
    listed: dict[str, dict[str, list[Path]]] = {}
    found: dict[str, dict[str, Path]] = {}
    for split, wanted in names.items():
        candidates: dict[str, list[Path]] = defaultdict(list)
        for sub in SEARCHED_FOLDERS[split]:
            if sub not in listed:
                listed[sub] = _list_audio(root / sub)
            for stem, paths in listed[sub].items():
                candidates[stem] += paths
        wanted = list(wanted)
        _check_all_there(root, split, wanted, candidates)
        found[split] = {
            name: _only_one(candidates[Path(name).stem], name)
            for name in wanted
        }
    _check_splits_differ(found)
    return found


def _check_all_there(
    root: Path, split: str, wanted: list[str], stems: Iterable[str]
) -> None:
    """Every annotated file is on disk."""
    stems = set(stems)
    missing = [name for name in wanted if Path(name).stem not in stems]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(wanted)} annotated files of split "
            f"{split!r} are not on disk: {first_five(missing)}. Searched "
            f"{', '.join(SEARCHED_FOLDERS[split])} under {root} for "
            f"{', '.join(ENDINGS)}. Unpack the archives there."
        )


def _check_splits_differ(found: Mapping[str, Mapping[str, Path]]) -> None:
    """A name in two splits is two recordings, or training leaks into tests."""
    seen: dict[str, tuple[str, Path]] = {}
    for split, paths in found.items():
        for name, path in paths.items():
            first, other = seen.setdefault(Path(name).stem, (split, path))
            # Equal paths first: it spares reading the file twice.
            if first != split and (
                path == other or filecmp.cmp(path, other, shallow=False)
            ):
                raise ValueError(
                    f"{name} is in the splits {first!r} and {split!r}, and "
                    "its recording is the same. Keep it in one of them."
                )


def _list_audio(folder: Path) -> dict[str, list[Path]]:
    """The audio files of one folder by stem, not looking into subfolders."""
    files: dict[str, list[Path]] = defaultdict(list)
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                stem, ending = os.path.splitext(entry.name)
                if ending.lower() in ENDINGS and entry.is_file():
                    files[stem].append(folder / entry.name)
    return files


def _only_one(paths: list[Path], name: str) -> Path:
    """The one file of a clip."""
    if len(paths) > 1:
        raise ValueError(
            f"{name} is there {len(paths)} times: "
            f"{', '.join(map(str, paths))}. Keep one of them."
        )
    return paths[0]


def check_audio(
    data_folder: str | Path,
    files: Iterable[Path],
    clip_duration_s: float = 10.0,
    tolerance_s: float = 0.05,
    duration_policy: str = "pad_or_crop",
    num_workers: int = 2,
) -> dict[Path, AudioFile]:
    """Decode every file in full and describe it.

    A header can promise what the data do not hold, so nothing less than a
    full decode finds truncated files and non-finite samples.

    Arguments
    ---------
    data_folder : str or Path
        Folder that the paths returned are relative to.
    files : iterable of Path
        Files to check.
    clip_duration_s : float
        Duration every clip should have, in seconds, > 0.
    tolerance_s : float
        Accepted difference from it, in seconds, >= 0.
    duration_policy : str
        ``pad_or_crop`` accepts other durations, since the loader pads or
        crops; ``error`` refuses them.
    num_workers : int
        Threads that decode, >= 1.

    Returns
    -------
    dict of Path to AudioFile
        In the order of ``files``.

    Raises
    ------
    ValueError
        If files cannot be used: how many, and what is wrong with the first
        five.

    Example
    -------
    >>> root = getfixture("tmp_path")
    >>> soundfile.write(root / "a.wav", np.zeros(8000), 16000)
    >>> check_audio(root, [root / "a.wav"])[root / "a.wav"].duration
    0.5
    """
    check_choice("duration_policy", duration_policy, DURATION_POLICIES)
    check_range("clip_duration_s", clip_duration_s, low=0.0, low_open=True)
    check_range("num_workers", num_workers, low=1)
    root, files = Path(data_folder), list(files)

    def check(path: Path) -> AudioFile | str:
        result = _describe(root, path)
        if isinstance(result, AudioFile) and duration_policy == "error":
            if abs(result.duration - clip_duration_s) > tolerance_s:
                return f"lasts {result.duration:g} s, not {clip_duration_s:g} s"
        return result

    with ThreadPoolExecutor(num_workers) as pool:
        bar = tqdm(total=len(files), desc="audio", unit="file", disable=None)
        results = {}
        with bar:
            for path, result in zip(files, pool.map(check, files), strict=True):
                results[path] = result
                bar.update()
    return _raise_or_return(results)


def _describe(root: Path, path: Path) -> AudioFile | str:
    """One file's description, or words on why it cannot be used."""
    try:
        with soundfile.SoundFile(path) as sound:
            frames, rate = sound.frames, sound.samplerate
            channels = sound.channels
            samples = sound.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        return f"cannot be decoded ({error})"
    if len(samples) < frames or _is_cut(path):
        return f"is truncated ({len(samples)} samples can be read)"
    if not len(samples):
        return "holds no samples"
    if channels > 2:
        return f"has {channels} channels, not 1 or 2"
    if not np.isfinite(samples).all():
        return "holds samples that are not finite"
    return AudioFile(
        path.relative_to(root).as_posix(),
        len(samples) / rate,
        rate,
        channels,
        len(samples),
        md5_hex(path.read_bytes()),
    )


def _is_cut(path: Path) -> bool:
    """True if a WAV or Ogg file ends before its own end.

    libsndfile reads such files without complaint, as shorter ones.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        stream.seek(max(0, size - _MAX_OGG_PAGE))
        tail = stream.read()
    if head[:4] == b"RIFF":
        promised = int.from_bytes(head[4:8], "little")
        # Writers that stream leave the field at one of these.
        streamed = promised in (0, 0x7FFFFFFF, 0xFFFFFFFF)
        return not streamed and promised + 8 > size
    page = tail[tail.rfind(b"OggS") :]
    return head[:4] == b"OggS" and not _is_whole_last_page(page)


def _is_whole_last_page(page: bytes) -> bool:
    """True for an Ogg page that says it is the last, with all its bytes."""
    if len(page) < 27:
        return False
    # Byte 5 holds flags, 4 marks the last page of a stream; byte 26 the
    # length of a table, whose sum is the length of the content behind it.
    flags, table = page[5], page[27 : 27 + page[26]]
    return bool(flags & 4) and len(page) >= 27 + page[26] + sum(table)


def _raise_or_return(
    results: Mapping[Path, AudioFile | str],
) -> dict[Path, AudioFile]:
    """The descriptions, or one error on all the files without one."""
    bad = [f"{p.name} {r}" for p, r in results.items() if isinstance(r, str)]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(results)} audio files cannot be used: "
            f"{'; '.join(bad[:5])}. Replace them, or drop them from the "
            "annotation file."
        )
    return {p: r for p, r in results.items() if isinstance(r, AudioFile)}
