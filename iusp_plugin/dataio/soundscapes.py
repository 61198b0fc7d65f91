"""The embedded data set: synthetic street soundscapes in the release layout.

Everything a recipe reads from the real release of DCASE 2019 Task 5 is written
here from a seed: wav files, crowd annotations with their mistakes, and the
taxonomy. The audio is synthetic: figures on it are no results of any method.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import json
import logging
import shutil
import uuid
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from iusp_plugin.checks import check_range
from iusp_plugin.dataio.sound_events import (
    synthesize_background,
    synthesize_event,
)
from iusp_plugin.dataio.synth import Signal, Synth
from iusp_plugin.dataio.taxonomy import (
    COARSE_IDS,
    COARSE_TAGS,
    COMPLETE_FINE_TAGS,
    FINE_TAGS,
    coarse_id_of,
    fine_tags_of,
    incomplete_tag_of,
    presence_column,
    proximity_column,
)

logger = logging.getLogger(__name__)

MARKER = "soundscapes.json"
# Raise it whenever the same options would give other bytes.
FORMAT_VERSION = 1

ANNOTATION_COLUMNS: tuple[str, ...] = (
    "split",
    "sensor_id",
    "audio_filename",
    "annotator_id",
    *map(presence_column, FINE_TAGS),
    *map(proximity_column, FINE_TAGS),
    *map(presence_column, COARSE_TAGS),
)

# No split hears a street through another split's microphone.
SENSORS: dict[str, tuple[int, ...]] = {
    "train": (1, 2, 8, 11, 12, 13, 14, 15, 16, 17, 18, 19),
    "validate": (0, 3, 4, 5, 6, 7),
    "test": (20, 21, 22, 23, 24, 25),
}
_SPLITS = tuple(SENSORS)
_MAX_CLIPS = 100_000  # a split's share of the six digits of a file name
# Chosen so that a small network learns much and a larger one learns more.
_SNR_RANGE_DB = (2.0, 17.0)
_NUM_VOLUNTEERS = 3

# What a volunteer does to a tag (the real crowd is about as careless).
_MISS_RATE = 0.17
_INVENT_RATE = 0.004
_VOLUNTEER_X_RATE = 0.08
_TRUTH_X_RATE = 0.04
_TEAM_ROW_RATE = 0.2
# The team labelled one group of categories at a time.
_TEAM_GROUPS = ((1,), (2, 3), (4,), (5,), (6,), (7,), (8,))
# Extra events follow the street: engines and voices most, dogs least.
_EXTRA_WEIGHTS = np.array([3, 1, 1, 1, 1.5, 1, 2, 0.5]) / 11


@dataclass(frozen=True)
class _Event:
    """One sounding event: what, when, and how far above the background."""

    tag: str
    onset_s: float
    duration_s: float
    snr_db: float


@dataclass(frozen=True)
class _Clip:
    """A clip's name and events; its rng has drawn nothing else so far."""

    split: str
    sensor_id: int
    filename: str
    events: tuple[_Event, ...]
    rng: np.random.Generator

    @property
    def snr_of(self) -> dict[str, float]:
        """The sounding tags, each with its loudest level."""
        events = sorted(self.events, key=lambda event: event.snr_db)
        return {event.tag: event.snr_db for event in events}


def generate_soundscapes(
    folder: str | Path,
    n_train: int = 320,
    n_validate: int = 100,
    n_test: int = 0,
    seed: int = 2019,
    sample_rate: int = 16000,
    clip_duration_s: float = 10.0,
) -> Path:
    """Write the embedded data set, or find it already written.

    Clip k of a split depends on the seed, the split and k alone, so a smaller
    set is the beginning of a larger one. From 8 clips on, every coarse
    category sounds in a split. The folder appears all at once or not at all.

    Arguments
    ---------
    folder : str or Path
        Where to write; new, empty, or from an earlier call.
    n_train, n_validate, n_test : int
        Clips a split; ``n_test`` > 0 adds ``audio-eval`` and its annotations.
    seed : int
        Every random choice follows from it; at least 0.
    sample_rate : int
        Samples a second, 8000 to 48000.
    clip_duration_s : float
        Length of every clip in seconds, at least 1.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If an option is out of range, or the folder was written with others.
    FileExistsError
        If the folder holds something that is not an embedded data set.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as base:
    ...     folder = generate_soundscapes(
    ...         f"{base}/street", 2, 1, clip_duration_s=1.0
    ...     )
    ...     sorted(path.name for path in folder.rglob("*.wav"))
    ['00_100000.wav', '11_000000.wav', '11_000001.wav']
    """
    counts = {"train": n_train, "validate": n_validate, "test": n_test}
    options = _checked_options(counts, seed, sample_rate, clip_duration_s)
    folder = Path(folder).absolute()
    reused = _is_reusable(folder, options)
    if not reused:
        _write_all_or_nothing(folder, counts, options)
    logger.warning(
        "%s synthetic soundscapes in %s. This is SYNTHETIC audio: figures on "
        "it are no results of any method.",
        "Reused the" if reused else "Generated",
        folder,
    )
    return folder


def _checked_options(
    counts: dict[str, int], seed: int, sample_rate: int, clip_duration_s: float
) -> dict[str, float]:
    """All that the content follows from, or an error that names one."""
    for split, count in counts.items():
        low = 0 if split == "test" else 1
        check_range(f"n_{split}", count, low=low, high=_MAX_CLIPS)
    check_range("seed", seed, low=0)
    check_range("sample_rate", sample_rate, low=8000, high=48000)
    check_range("clip_duration_s", clip_duration_s, low=1.0)
    return {f"n_{split}": count for split, count in counts.items()} | {
        "seed": seed,
        "sample_rate": sample_rate,
        "clip_duration_s": float(clip_duration_s),
        "format_version": FORMAT_VERSION,
        "synthetic": True,
    }


def _is_reusable(folder: Path, options: dict[str, float]) -> bool:
    """True if the folder holds these options, False if it is free."""
    marker = folder / MARKER
    if not marker.is_file():
        if folder.exists() and (folder.is_file() or any(folder.iterdir())):
            raise FileExistsError(
                f"folder={str(folder)!r} holds something without a {MARKER}; "
                "choose another folder, or delete this one."
            )
        return False
    found = json.loads(marker.read_text(encoding="utf-8"))
    differ = [
        f"{name}={found.get(name)!r} there, {options.get(name)!r} asked for"
        for name in options | found
        if found.get(name) != options.get(name)
    ]
    if differ:
        raise ValueError(
            f"folder={str(folder)!r} was written with other options: "
            f"{'; '.join(differ)}. Choose another folder, or delete this one."
        )
    return True


def _write_all_or_nothing(
    folder: Path, counts: dict[str, int], options: dict[str, float]
) -> None:
    """Write beside the folder, then rename: no reader sees half a set."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        _write_release(temporary, counts, options)
        if folder.exists():  # empty, as checked before
            folder.rmdir()
        temporary.rename(folder)
    except OSError:
        # Another process may have been quicker with the same options.
        if not _is_reusable(folder, options):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_release(
    folder: Path, counts: dict[str, int], options: dict[str, float]
) -> None:
    """Audio, annotations, taxonomy and marker of all splits."""
    seed, rate = int(options["seed"]), int(options["sample_rate"])
    rows: dict[str, list[list[str]]] = {"dev": []}
    with tqdm(total=sum(counts.values()), desc="soundscapes") as bar:
        for split, count in counts.items():
            part, subfolder = "dev", folder / "audio-dev" / split
            if split == "test":
                part, subfolder = "eval", folder / "audio-eval"
            if count:
                subfolder.mkdir(parents=True)
                rows.setdefault(part, [])
            for index in range(count):
                clip = _plan(split, index, seed, options["clip_duration_s"])
                rows[part] += _annotate(clip)
                wav = _render(clip, rate, options["clip_duration_s"])
                _write_wav(subfolder / clip.filename, wav, rate)
                bar.update()
    for part, part_rows in rows.items():
        _write_annotations(folder / f"annotations-{part}.csv", part_rows)
    _write_taxonomy(folder / "dcase-ust-taxonomy.yaml")
    text = json.dumps(options, indent=2) + "\n"
    (folder / MARKER).write_text(text, encoding="utf-8")


def _plan(split: str, index: int, seed: int, clip_s: float) -> _Clip:
    """Decide what sounds in a clip, from its own random stream."""
    number = _SPLITS.index(split)
    stream = np.random.SeedSequence([seed, number, index])
    rng = np.random.Generator(np.random.PCG64(stream))
    sensor_id = int(rng.choice(SENSORS[split]))
    tags = _first_tag(index)
    # A clip without a first event is a street where nothing happens.
    num_extra = int(rng.choice(4, p=[0.35, 0.35, 0.2, 0.1])) * len(tags)
    for category in rng.choice(COARSE_IDS, num_extra, p=_EXTRA_WEIGHTS):
        tags += (str(rng.choice(fine_tags_of(int(category)))),)
    events = []
    for tag in tags:
        duration = clip_s * float(rng.uniform(0.25, 0.9))
        onset = float(rng.uniform(0, clip_s - duration))
        snr_db = float(rng.uniform(*_SNR_RANGE_DB))
        events.append(_Event(tag, onset, duration, snr_db))
    file_number = number * _MAX_CLIPS + index
    filename = f"{sensor_id:02d}_{file_number:06d}.wav"
    return _Clip(split, sensor_id, filename, tuple(events), rng)


def _first_tag(index: int) -> tuple[str, ...]:
    """Cycle through the categories and their tags; every ninth clip: none."""
    lap, place = divmod(index, len(COARSE_IDS) + 1)
    if place == len(COARSE_IDS):
        return ()
    tags = fine_tags_of(COARSE_IDS[place])
    return (tags[lap % len(tags)],)


def _mix(clip: _Clip, sample_rate: int, clip_s: float) -> Signal:
    """Background and events at their levels, as heard in the street."""
    num_samples = round(clip_s * sample_rate)
    wav = synthesize_background(clip.rng, num_samples, sample_rate)
    for event in clip.events:
        start = int(event.onset_s * sample_rate)
        length = int(event.duration_s * sample_rate)
        sound = synthesize_event(event.tag, clip.rng, length, sample_rate)
        gain = 10 ** (event.snr_db / 20) / _active_rms(sound, sample_rate)
        wav[start : start + length] += gain * sound
    return wav


def _render(clip: _Clip, sample_rate: int, clip_s: float) -> Signal:
    """The clip as its sensor records it: quiet or loud, never clipped."""
    wav = _sensor(_mix(clip, sample_rate, clip_s), clip, sample_rate)
    level = 10 ** (clip.rng.uniform(-32, -22) / 20)
    wav *= level / np.sqrt(np.mean(wav**2))
    return wav * min(1.0, 0.95 / float(np.abs(wav).max()))


def _active_rms(sound: Signal, sample_rate: int) -> float:
    """RMS of the loudest quarter: pauses must not make an event louder."""
    frame = min(len(sound), sample_rate // 50)
    frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
    energies = np.sort(np.mean(frames**2, axis=1))
    return float(np.sqrt(np.mean(energies[-(len(energies) // 4 + 1) :])))


def _sensor(wav: Signal, clip: _Clip, sample_rate: int) -> Signal:
    """Colour a clip as its sensor does: equaliser and noise floor.

    Both depend on the sensor id alone, whatever the seed: a sensor is a thing.
    """
    rng = np.random.Generator(np.random.PCG64(clip.sensor_id))
    low, high = rng.uniform(30, 120), rng.uniform(4000, 8000)
    peak, gain_db = np.exp(rng.uniform(5, 8.5)), rng.uniform(-8, 8)
    tilt = rng.uniform(-0.3, 0.3)
    floor = 10 ** (rng.uniform(-35, -20) / 20)

    def gain(freq: Signal) -> Signal:
        octaves = np.log2(np.maximum(freq, 20.0) / peak)
        bump = gain_db * np.exp(-(octaves**2)) + 6 * tilt * octaves
        edges = (1 + (low / np.maximum(freq, 1)) ** 4) * (
            1 + (freq / high) ** 8
        )
        return 10 ** (bump / 20) / np.sqrt(edges)

    synth = Synth(clip.rng, len(wav), sample_rate)
    hiss = clip.rng.standard_normal(len(wav))
    return synth.shape(wav, gain, normalize=True) + floor * hiss


def _annotate(clip: _Clip) -> list[list[str]]:
    """All annotation rows of a clip, of volunteers first."""
    rows = list(_volunteer_rows(clip))
    if clip.split == "train":
        return rows
    truth = {_maybe_x(tag, _TRUTH_X_RATE, clip.rng) for tag in clip.snr_of}
    if clip.rng.random() < _TEAM_ROW_RATE:
        group = _TEAM_GROUPS[int(clip.rng.integers(len(_TEAM_GROUPS)))]
        annotator_id = -int(clip.rng.integers(1, 6))
        rows.append(_row(clip, annotator_id, dict.fromkeys(truth, "-1"), group))
    rows.append(_row(clip, 0, dict.fromkeys(truth, "-1")))
    return rows


def _volunteer_rows(clip: _Clip) -> Iterator[list[str]]:
    """Three volunteers who overlook, blur and imagine."""
    rng = clip.rng
    for volunteer in 1 + rng.choice(200, _NUM_VOLUNTEERS, False):
        heard = {}
        for tag in COMPLETE_FINE_TAGS:
            snr_db = clip.snr_of.get(tag)
            rate = _INVENT_RATE if snr_db is None else 1 - _MISS_RATE
            if rng.random() < rate:
                named = _maybe_x(tag, _VOLUNTEER_X_RATE, rng)
                heard[named] = _proximity(snr_db, rng)
        yield _row(clip, int(volunteer), heard)


def _maybe_x(tag: str, rate: float, rng: np.random.Generator) -> str:
    """The tag, or now and then the incomplete tag of its category."""
    incomplete = incomplete_tag_of(coarse_id_of(tag))
    return incomplete if incomplete and rng.random() < rate else tag


def _proximity(snr_db: float | None, rng: np.random.Generator) -> str:
    """Loud is near, quiet is far, and one in eight would not say."""
    if rng.random() < 0.125:
        return "notsure"
    level = 7.5 if snr_db is None else snr_db
    return "near" if level + rng.normal(0, 3) > 7.5 else "far"


def _row(
    clip: _Clip,
    annotator_id: int,
    proximity_of: dict[str, str],
    group: tuple[int, ...] = COARSE_IDS,
) -> list[str]:
    """One line of the file; -1 outside the group that was labelled."""
    present = {
        tag: int(tag in proximity_of) if coarse_id_of(tag) in group else -1
        for tag in FINE_TAGS
    }
    coarse = {
        c: max(v for tag, v in present.items() if coarse_id_of(tag) == c)
        for c in COARSE_IDS
    }
    return [
        clip.split,
        str(clip.sensor_id),
        clip.filename,
        str(annotator_id),
        *(str(float(value)) for value in present.values()),
        *(proximity_of.get(tag, "-1") for tag in FINE_TAGS),
        # The release prints the category without an X tag as a float.
        *(str(float(v) if c == 3 else v) for c, v in coarse.items()),
    ]


def _write_wav(path: Path, wav: Signal, sample_rate: int) -> None:
    """Write 16-bit PCM, one channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(wav * 32767).astype("<i2").tobytes())


def _write_annotations(path: Path, rows: list[list[str]]) -> None:
    """Write the rows by file name, line ends as in the release."""
    # A stable sort: the rows of a clip keep their order.
    ordered = sorted(rows, key=lambda row: row[2])
    with path.open("w", encoding="ascii", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [ANNOTATION_COLUMNS, *ordered]
        )


def _write_taxonomy(path: Path) -> None:
    """Write the tags as the release does: by category, X last."""
    lines = ["fine:"]
    for category in COARSE_IDS:
        lines.append(f"    {category}:")
        for tag in FINE_TAGS:
            if coarse_id_of(tag) == category:
                key, name = tag.split("-", 1)[1].split("_", 1)
                lines.append(f"        {key}: {name}")
    lines += ["", "coarse:"]
    lines += [f"    {tag.replace('_', ': ', 1)}" for tag in COARSE_TAGS]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
