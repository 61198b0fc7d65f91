"""The embedded data set: layout, annotations, audio, reuse.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import hashlib
import json
import logging
import re
import wave
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iusp_plugin.dataio import soundscapes
from iusp_plugin.dataio.soundscapes import (
    ANNOTATION_COLUMNS,
    MARKER,
    SENSORS,
    generate_soundscapes,
)
from iusp_plugin.dataio.taxonomy import (
    COARSE_IDS,
    COARSE_TAGS,
    COMPLETE_FINE_TAGS,
    FINE_TAGS,
    INCOMPLETE_FINE_TAGS,
    coarse_id_of,
    presence_column,
    proximity_column,
)

Rows = list[dict[str, str]]
SIZES: dict[str, Any] = {"n_train": 9, "n_validate": 6, "n_test": 2}


def read(path: Path) -> Rows:
    """The rows of an annotation file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file by its place in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(path: Path) -> np.ndarray:
    """The integers of a wav file."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getframerate() == 16000
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set with audio of all three parts."""
    folder = tmp_path_factory.mktemp("data") / "deep" / "street"
    return generate_soundscapes(folder, **SIZES)


@pytest.fixture(scope="module")
def rows(street: Path) -> Rows:
    """Its development annotations."""
    return read(street / "annotations-dev.csv")


def annotated(sizes: dict[str, int], seed: int = 2019) -> Rows:
    """Annotations of a set of any size; they need no audio."""
    return [
        dict(zip(ANNOTATION_COLUMNS, row, strict=True))
        for split, count in sizes.items()
        for index in range(count)
        for row in soundscapes._annotate(
            soundscapes._plan(split, index, seed, 10.0)
        )
    ]


@pytest.fixture(scope="module")
def many_rows() -> Rows:
    """Annotations of the default sizes."""
    return annotated({"train": 320, "validate": 100})


def present(row: dict[str, str], tags: tuple[str, ...]) -> list[str]:
    """The tags that a row says are there."""
    return [t for t in tags if float(row[presence_column(t)]) == 1]


# ---------------------------------------------------------------- layout


def test_layout_is_that_of_the_release(street: Path, rows: Rows) -> None:
    folders = {"train": "audio-dev/train", "validate": "audio-dev/validate"}
    on_disk = {str(p.relative_to(street)) for p in street.rglob("*.wav")}
    named = {f"{folders[r['split']]}/{r['audio_filename']}" for r in rows}
    test_rows = read(street / "annotations-eval.csv")
    named |= {f"audio-eval/{r['audio_filename']}" for r in test_rows}
    assert on_disk == named and len(named) == sum(SIZES.values())
    assert {r["split"] for r in test_rows} == {"test"}
    assert {path.name for path in street.iterdir()} == {
        "annotations-dev.csv",
        "annotations-eval.csv",
        "audio-dev",
        "audio-eval",
        "dcase-ust-taxonomy.yaml",
        MARKER,
    }
    assert [p.name for p in street.parent.iterdir()] == ["street"]


def test_without_test_clips_there_is_no_evaluation_part(tmp_path: Path) -> None:
    folder = generate_soundscapes(tmp_path / "s", 1, 1, clip_duration_s=1.0)
    assert not list(folder.glob("*eval*"))


def test_columns_and_taxonomy_equal_the_release(
    street: Path, reference_task5: Path
) -> None:
    real = (reference_task5 / "annotations-dev.csv").read_bytes()
    ours = (street / "annotations-dev.csv").read_bytes()
    assert ours.split(b"\n")[0] == real.split(b"\n")[0]
    name = "dcase-ust-taxonomy.yaml"
    assert (street / name).read_bytes() == (reference_task5 / name).read_bytes()


def test_printed_values_are_those_of_the_release(
    many_rows: Rows, reference_task5: Path
) -> None:
    def printed(rows: Rows) -> dict[tuple[str, int], set[str]]:
        kinds: dict[tuple[str, int], set[str]] = defaultdict(set)
        for row in rows:
            sign = int(np.sign(int(row["annotator_id"])))
            for tag in (*FINE_TAGS, *COARSE_TAGS):
                form = "3" if tag.startswith("3_") else tag[1]
                kinds[form, sign].add(row[presence_column(tag)])
            for tag in FINE_TAGS:
                kinds["proximity", sign].add(row[proximity_column(tag)])
        return kinds

    real = printed(read(reference_task5 / "annotations-dev.csv"))
    ours = printed(many_rows)
    assert set(ours) == set(real)
    for (form, sign), values in ours.items():
        # Team rows are too few here to print every value of every form.
        assert values == real[form, sign] or (
            sign < 0 and values < real[form, sign]
        )


def test_marker_states_the_options(street: Path) -> None:
    marker = json.loads((street / MARKER).read_text())
    assert marker == {
        **SIZES,
        "seed": 2019,
        "sample_rate": 16000,
        "clip_duration_s": 10.0,
        "format_version": soundscapes.FORMAT_VERSION,
        "synthetic": True,
    }


# ----------------------------------------------------------- annotations


def test_names_sensors_and_splits_agree(rows: Rows) -> None:
    assert len(rows[0]) == 70
    for row in rows:
        match = re.fullmatch(r"(\d\d)_\d{6}\.wav", row["audio_filename"])
        assert match and int(match[1]) == int(row["sensor_id"])
        assert int(row["sensor_id"]) in SENSORS[row["split"]]
    sensors = [set(ids) for ids in SENSORS.values()]
    assert len(set.union(*sensors)) == sum(map(len, sensors))
    assert len({row["sensor_id"] for row in rows}) >= 5


def test_who_annotates_what(many_rows: Rows) -> None:
    ids = defaultdict(list)
    for row in many_rows:
        ids[row["split"], row["audio_filename"]].append(
            int(row["annotator_id"])
        )
    for (split, _), annotators in ids.items():
        volunteers = [a for a in annotators if a > 0]
        assert len(set(volunteers)) == len(volunteers) == 3
        assert annotators.count(0) == (split == "validate")
        assert split == "validate" or len(annotators) == 3
    team = [a for annotators in ids.values() for a in annotators if a < 0]
    assert 10 <= len(team) <= 30 and set(team) <= {-1, -2, -3, -4, -5}


def test_minus_one_is_the_unlabelled_part_of_a_team_row(
    many_rows: Rows,
) -> None:
    for row in many_rows:
        groups = {
            coarse_id_of(tag)
            for tag in (*FINE_TAGS, *COARSE_TAGS)
            if float(row[presence_column(tag)]) >= 0
        }
        if int(row["annotator_id"]) >= 0:
            assert groups == set(COARSE_IDS)
        else:
            assert len(groups) == 1 or groups == {2, 3}


def test_coarse_is_the_maximum_of_fine(many_rows: Rows) -> None:
    for row in many_rows:
        for tag in COARSE_TAGS:
            fine = [
                float(row[presence_column(f)])
                for f in FINE_TAGS
                if coarse_id_of(f) == coarse_id_of(tag)
            ]
            assert float(row[presence_column(tag)]) == max(fine)


def test_proximity_belongs_to_what_a_volunteer_heard(many_rows: Rows) -> None:
    kinds: Counter[str] = Counter()
    for row in many_rows:
        heard = present(row, FINE_TAGS) if int(row["annotator_id"]) > 0 else []
        for tag in FINE_TAGS:
            value = row[proximity_column(tag)]
            assert (value != "-1") == (tag in heard)
            kinds[value] += 1
    assert all(kinds[kind] > 50 for kind in ("near", "far", "notsure"))


@pytest.mark.parametrize("seed", [0, 1, 2019])
def test_every_category_in_every_split_of_a_small_set(seed: int) -> None:
    rows = annotated({"train": 24, "validate": 12, "test": 9}, seed)
    for split in SENSORS:
        votes = [
            row
            for row in rows
            if row["split"] == split
            and (split == "train" or row["annotator_id"] == "0")
        ]
        found = {tag for row in votes for tag in present(row, COARSE_TAGS)}
        assert found == set(COARSE_TAGS), split


def test_the_written_rows_are_the_annotations_by_file_name(
    rows: Rows,
) -> None:
    expected = annotated({"train": 9, "validate": 6})
    assert rows == sorted(expected, key=lambda row: row["audio_filename"])


def test_default_sizes_cover_the_tags(many_rows: Rows) -> None:
    truth = [row for row in many_rows if row["annotator_id"] == "0"]
    counts = Counter(t for row in truth for t in present(row, COARSE_TAGS))
    assert min(counts[tag] for tag in COARSE_TAGS) >= 6
    fine = {t for row in truth for t in present(row, COMPLETE_FINE_TAGS)}
    assert len(fine) >= 15
    votes = [row for row in many_rows if row["split"] == "train"]
    fine = {t for row in votes for t in present(row, COMPLETE_FINE_TAGS)}
    assert fine == set(COMPLETE_FINE_TAGS)


def test_a_clip_has_up_to_four_events() -> None:
    clips = [soundscapes._plan("train", k, 2019, 10.0) for k in range(320)]
    assert {len(clip.events) for clip in clips} == {0, 1, 2, 3, 4}
    for event in (event for clip in clips for event in clip.events):
        assert event.onset_s >= 0
        assert event.onset_s + event.duration_s <= 10.0


def test_volunteers_miss_blur_and_invent_at_their_rates() -> None:
    counts: Counter[str] = Counter()
    for index in range(300):
        clip = soundscapes._plan("train", index, 7, 10.0)
        sounding = set(clip.snr_of)
        for values in soundscapes._annotate(clip):
            row = dict(zip(ANNOTATION_COLUMNS, values, strict=True))
            heard = set(present(row, COMPLETE_FINE_TAGS))
            counts["chances"] += len(sounding)
            counts["found"] += len(heard & sounding)
            counts["silent"] += len(COMPLETE_FINE_TAGS) - len(sounding)
            counts["invented"] += len(heard - sounding)
            counts["x"] += len(present(row, INCOMPLETE_FINE_TAGS))
    found = counts["found"] + counts["x"]
    assert 0.78 < found / counts["chances"] < 0.88
    assert 0.04 < counts["x"] / found < 0.1
    assert 0.002 < counts["invented"] / counts["silent"] < 0.006


def test_truth_has_a_few_incomplete_tags(many_rows: Rows) -> None:
    truth = [row for row in many_rows if row["annotator_id"] == "0"]
    incomplete = sum(len(present(r, INCOMPLETE_FINE_TAGS)) for r in truth)
    total = sum(len(present(r, FINE_TAGS)) for r in truth)
    assert 0.01 < incomplete / total < 0.08


# ----------------------------------------------------------------- audio


def test_audio_is_ten_seconds_and_never_clips(street: Path) -> None:
    for path in street.rglob("*.wav"):
        wav = samples(path)
        assert len(wav) == 160000
        assert 100 < np.abs(wav.astype(int)).max() < 0.96 * 32768


def test_events_raise_the_energy_where_they_sound() -> None:
    for index in range(8):
        clip, silent = (
            soundscapes._plan("train", index, 0, 2.0) for _ in range(2)
        )
        silent = replace(silent, events=())
        loud = soundscapes._mix(clip, 16000, 2.0)
        quiet = soundscapes._mix(silent, 16000, 2.0)
        event = clip.events[0]
        start = int(event.onset_s * 16000)
        part = slice(start, start + int(event.duration_s * 16000))
        assert np.mean(loud[part] ** 2) > 1.05 * np.mean(quiet[part] ** 2)
        outside = np.ones(len(loud), bool)
        for event in clip.events:
            start = int(event.onset_s * 16000)
            outside[start : start + int(event.duration_s * 16000)] = False
        np.testing.assert_array_equal(loud[outside], quiet[outside])


def test_sensors_colour_alike_within_and_differently_between() -> None:
    def spectrum(index: int, sensor_id: int) -> np.ndarray:
        clip = soundscapes._plan("train", index, 0, 1.0)
        noise = np.random.default_rng(index).standard_normal(16000)
        clip = replace(clip, sensor_id=sensor_id)
        wav = soundscapes._sensor(noise, clip, 16000)
        power = np.abs(np.fft.rfft(wav))[:8000] ** 2
        return np.log(power.reshape(40, 200).mean(axis=1))

    same = np.abs(spectrum(0, 1) - spectrum(1, 1)).mean()
    other = np.abs(spectrum(0, 1) - spectrum(0, 2)).mean()
    assert other > 2 * same


# --------------------------------------------------- determinism and reuse


def test_same_seed_same_bytes_and_other_seed_other_bytes(
    tmp_path: Path,
) -> None:
    sets = [
        digests(
            generate_soundscapes(
                tmp_path / str(k), 3, 2, seed=seed, clip_duration_s=1.0
            )
        )
        for k, seed in enumerate((5, 5, 6))
    ]
    assert sets[0] == sets[1]
    shared = set(sets[0]) & set(sets[2]) - {"dcase-ust-taxonomy.yaml"}
    assert all(sets[0][name] != sets[2][name] for name in shared)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(
    tmp_path: Path,
) -> None:
    small = generate_soundscapes(tmp_path / "a", 2, 1, clip_duration_s=1.0)
    large = generate_soundscapes(tmp_path / "b", 3, 2, clip_duration_s=1.0)
    wavs = {k: v for k, v in digests(small).items() if k.endswith("wav")}
    assert wavs.items() <= digests(large).items() and len(wavs) == 3


def test_a_second_call_reuses_and_both_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "street"
    folder.mkdir()  # an empty folder is as good as none
    with caplog.at_level(logging.WARNING):
        generate_soundscapes(folder, 1, 1, clip_duration_s=1.0)
        stamp = (folder / MARKER).stat().st_mtime_ns
        generate_soundscapes(str(folder), 1, 1, clip_duration_s=1.0)
    assert (folder / MARKER).stat().st_mtime_ns == stamp
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("Generated") and second.startswith("Reused")
    assert all("no results of any method" in text for text in (first, second))


def test_other_options_are_refused_by_name(tmp_path: Path) -> None:
    folder = generate_soundscapes(tmp_path / "s", 1, 1, clip_duration_s=1.0)
    with pytest.raises(ValueError) as error:
        generate_soundscapes(folder, 1, 1, seed=1, clip_duration_s=1.0)
    text = str(error.value)
    assert str(folder) in text and "seed=2019 there, 1 asked for" in text
    assert "n_train" not in text and "Choose another folder" in text


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="choose another folder"):
        generate_soundscapes(tmp_path, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(soundscapes, "_write_taxonomy", fail)
    with pytest.raises(OSError, match="No space left"):
        generate_soundscapes(tmp_path / "s", 1, 1, clip_duration_s=1.0)
    assert not list(tmp_path.iterdir())


def test_a_quicker_process_with_the_same_options_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = generate_soundscapes(tmp_path / "a", 1, 1, clip_duration_s=1.0)
    late, write = tmp_path / "b", soundscapes._write_taxonomy

    def overtaken(path: Path) -> None:
        write(path)
        done.rename(late)

    monkeypatch.setattr(soundscapes, "_write_taxonomy", overtaken)
    generate_soundscapes(late, 1, 1, clip_duration_s=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_train", 0),
        ("n_validate", 0),
        ("n_test", -1),
        ("n_train", 100_001),
        ("seed", -1),
        ("sample_rate", 4000),
        ("clip_duration_s", 0.5),
    ],
)
def test_options_out_of_range_are_refused_by_name(
    tmp_path: Path, option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"{option}={value}"):
        generate_soundscapes(tmp_path / "s", **{option: value})
