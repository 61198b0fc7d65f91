"""A data folder in the layout of the release, small enough for a test.

Authors
 * The iusp_plugin authors 2026
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile

from iusp_plugin.dataio.taxonomy import (
    ALL_TAGS,
    COARSE_IDS,
    FINE_TAGS,
    presence_column,
    proximity_column,
)

HEADER = (
    "split",
    "sensor_id",
    "audio_filename",
    "annotator_id",
    *(presence_column(tag) for tag in FINE_TAGS),
    *(proximity_column(tag) for tag in FINE_TAGS),
    *(presence_column(tag) for tag in ALL_TAGS[len(FINE_TAGS) :]),
)

TRAIN = ("01_000000.wav", "01_000001.wav", "02_000002.wav")
VALIDATE = ("00_000003.wav", "00_000004.wav")
TEST = ("03_000005.wav",)


def annotation(
    split: str, name: str, annotator: int, tags: Iterable[str] = ()
) -> dict[str, str]:
    """One row; every tag is absent but those given."""
    row = dict.fromkeys(HEADER, "0")
    row |= {proximity_column(tag): "-1" for tag in FINE_TAGS}
    row |= {presence_column(tag): "1" for tag in tags}
    row |= {
        "split": split,
        "sensor_id": str(int(name[:2])),
        "audio_filename": name,
        "annotator_id": str(annotator),
    }
    return row


def development_rows() -> list[dict[str, str]]:
    """Three volunteers a train clip, and a truth row a validate clip.

    Clip k of the train split: volunteer 11 hears coarse tags k and k + 1,
    volunteer 12 tag k alone, volunteer 13 nothing.
    """
    coarse = ALL_TAGS[len(FINE_TAGS) :]
    rows = []
    for k, name in enumerate(TRAIN):
        rows += [
            annotation("train", name, 11, coarse[k : k + 2]),
            annotation("train", name, 12, coarse[k : k + 1]),
            annotation("train", name, 13),
        ]
    for k, name in enumerate(VALIDATE):
        rows += [
            annotation("validate", name, 11, coarse),
            annotation("validate", name, 0, coarse[k : k + 1]),
        ]
    return rows


def evaluation_rows() -> list[dict[str, str]]:
    """A truth row a test clip."""
    return [annotation("test", name, 0, ("8_dog",)) for name in TEST]


def write_annotations(path: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    """Write rows; the first row's keys are the header."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_clip(
    path: Path, duration_s: float = 10.0, sample_rate: int = 8000
) -> Path:
    """Write quiet noise; the ending chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num = round(duration_s * sample_rate)
    noise = np.random.default_rng(0).standard_normal(num) * 0.1
    soundfile.write(path, noise, sample_rate)
    return path


def write_taxonomy(path: Path) -> Path:
    """Write the taxonomy in the release's YAML layout."""
    lines = ["fine:"]
    for coarse_id in COARSE_IDS:
        lines.append(f"    {coarse_id}:")
        for tag in FINE_TAGS:
            key, _, name = tag.partition("_")
            if key.startswith(f"{coarse_id}-"):
                lines.append(f"        {key[2:]}: {name}")
    lines.append("coarse:")
    for tag in ALL_TAGS[len(FINE_TAGS) :]:
        key, _, name = tag.partition("_")
        lines.append(f"    {key}: {name}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_tiny_release(folder: Path, with_test: bool = False) -> Path:
    """Write a whole data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_annotations(folder / "annotations-dev.csv", development_rows())
    write_taxonomy(folder / "dcase-ust-taxonomy.yaml")
    for name in TRAIN:
        write_clip(folder / "audio-dev" / "train" / name)
    for name in VALIDATE:
        write_clip(folder / "audio-dev" / "validate" / name)
    if with_test:
        write_annotations(folder / "annotations-eval.csv", evaluation_rows())
        for name in TEST:
            write_clip(folder / "audio-eval" / name)
    return folder
