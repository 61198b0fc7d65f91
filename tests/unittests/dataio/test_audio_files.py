"""Finding clips whatever their ending, and refusing broken ones.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import pytest
import soundfile

from iusp_plugin.dataio.annotations import read_annotations
from iusp_plugin.dataio.audio_files import check_audio, find_audio
from tests.reference.tiny_release import write_clip

NAME = "01_000000.wav"


@pytest.mark.parametrize(
    "split, folder",
    [
        ("train", "audio-dev/train"),
        ("train", "audio-dev"),
        ("train", "audio/train"),
        ("validate", "audio-dev/validate"),
        ("validate", "audio"),
        ("test", "audio-eval"),
        ("test", "audio-eval/test"),
        ("test", "audio/test"),
        ("test", "audio"),
    ],
)
@pytest.mark.parametrize("ending", [".wav", ".OGG", ".flac"])
def test_every_place_and_ending(tmp_path, split, folder, ending):
    """The annotations say .wav, the disk may say otherwise."""
    path = tmp_path / folder / f"01_000000{ending}"
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "01_000000.txt").touch()
    assert find_audio(tmp_path, {split: [NAME]}) == {split: {NAME: path}}


def test_missing_files(tmp_path):
    """How many, the first five, and where they were looked for."""
    names = [f"01_{k:06d}.wav" for k in range(8)]
    folder = tmp_path / "audio-dev" / "train"
    folder.mkdir(parents=True)
    (folder / names[0]).touch()
    with pytest.raises(
        FileNotFoundError,
        match="7 of 8 annotated files of split 'train' are not on disk: "
        "01_000001.wav, .*01_000005.wav and 2 more. Searched audio-dev/train",
    ):
        find_audio(tmp_path, {"train": names})


@pytest.mark.parametrize(
    "second", ["audio-dev/train/01_000000.ogg", "audio/01_000000.wav"]
)
def test_clip_there_twice(tmp_path, second):
    """Nobody could tell which one was meant."""
    for place in ("audio-dev/train/01_000000.wav", second):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    with pytest.raises(ValueError, match=f"{NAME} is there 2 times: .*Keep"):
        find_audio(tmp_path, {"train": [NAME]})


def test_one_recording_in_two_splits(tmp_path):
    """The same file, or a copy of it, is a leak."""
    write_clip(tmp_path / "audio-dev" / NAME, 0.1)
    names = {"train": [NAME], "validate": [NAME]}
    message = f"{NAME} is in the splits 'train' and 'validate'"
    with pytest.raises(ValueError, match=message):
        find_audio(tmp_path, names)
    content = (tmp_path / "audio-dev" / NAME).read_bytes()
    (tmp_path / "audio-dev" / NAME).unlink()
    for split in names:
        (tmp_path / "audio-dev" / split).mkdir()
        (tmp_path / "audio-dev" / split / NAME).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_audio(tmp_path, names)


def test_two_recordings_of_one_name(tmp_path):
    """Different sounds in the folders of two splits are two clips."""
    for split, duration in (("train", 0.1), ("validate", 0.2)):
        write_clip(tmp_path / "audio-dev" / split / NAME, duration)
    found = find_audio(tmp_path, {"train": [NAME], "validate": [NAME]})
    assert found["train"][NAME] != found["validate"][NAME]


@pytest.mark.parametrize("ending", ["wav", "ogg", "flac"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_description(tmp_path, ending, rate):
    """Any rate, mono or stereo; the path is relative."""
    path = tmp_path / "audio" / f"a.{ending}"
    path.parent.mkdir()
    soundfile.write(path, np.zeros((rate // 2, 2)), rate)
    info = check_audio(tmp_path, [path])[path]
    assert info.path == f"audio/a.{ending}"
    assert (info.duration, info.sample_rate) == (0.5, rate)
    assert (info.channels, info.frames) == (2, rate // 2)


@pytest.mark.parametrize("ending", ["wav", "ogg", "flac"])
@pytest.mark.parametrize("kept", [0, 40, 0.5, 0.999])
def test_truncated(tmp_path, ending, kept):
    """A download that stopped, at any point."""
    path = write_clip(tmp_path / f"a.{ending}")
    content = path.read_bytes()
    length = round(kept * len(content)) if kept < 1 else kept
    path.write_bytes(content[:length])
    with pytest.raises(
        ValueError,
        match=f"1 of 1 audio files cannot be used: a.{ending} "
        "(is truncated|cannot be decoded)",
    ):
        check_audio(tmp_path, [path])


def test_ogg_cut_inside_a_page_header(tmp_path):
    """The last page then has no flags that could be asked."""
    path = write_clip(tmp_path / "a.ogg")
    content = path.read_bytes()
    path.write_bytes(content[: content.rfind(b"OggS") + 10])
    with pytest.raises(ValueError, match="a.ogg is truncated"):
        check_audio(tmp_path, [path])


def _write_without_samples(path):
    soundfile.write(path, np.zeros(0), 8000)


def _write_not_finite(path):
    samples = np.zeros(8000, dtype=np.float32)
    samples[-1] = np.nan
    soundfile.write(path, samples, 8000, subtype="FLOAT")


def _write_three_channels(path):
    soundfile.write(path, np.zeros((800, 3)), 8000)


def _write_text(path):
    path.write_text("404 not found")


@pytest.mark.parametrize(
    "write, message",
    [
        (_write_without_samples, "a.wav holds no samples"),
        (_write_not_finite, "a.wav holds samples that are not finite"),
        (_write_three_channels, "a.wav has 3 channels, not 1 or 2"),
        (_write_text, "a.wav cannot be decoded"),
    ],
)
def test_unusable_files(tmp_path, write, message):
    """Each says what is wrong with it."""
    write(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=message):
        check_audio(tmp_path, [tmp_path / "a.wav"])


def test_streamed_wav_is_whole(tmp_path):
    """Writers that stream cannot know the size that the header holds."""
    path = write_clip(tmp_path / "a.wav", 1.0)
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert check_audio(tmp_path, [path])[path].frames == 8000


def test_all_faults_are_counted(tmp_path):
    """Seven of eight, five of them named."""
    good = write_clip(tmp_path / "good.wav", 0.1)
    paths = [good]
    for k in range(7):
        paths.append(tmp_path / f"{k}.wav")
        paths[-1].touch()
    with pytest.raises(ValueError, match="7 of 8 .*4.wav[^;]*Replace them"):
        check_audio(tmp_path, paths)


def test_durations(tmp_path):
    """Within the tolerance, beyond it, and beyond it with "error"."""
    near = write_clip(tmp_path / "near.wav", 9.96)
    short = write_clip(tmp_path / "short.wav", 9.9)
    options = {"duration_policy": "error"}
    assert check_audio(tmp_path, [near], **options)[near].duration == 9.96
    assert check_audio(tmp_path, [short])[short].duration == 9.9
    with pytest.raises(ValueError, match="short.wav lasts 9.9 s, not 10 s"):
        check_audio(tmp_path, [near, short], **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"duration_policy": "pad"}, "duration_policy='pad' is unknown"),
        ({"clip_duration_s": 0.0}, "clip_duration_s=0.0 must be > 0"),
        ({"num_workers": 0}, "num_workers=0 must be >= 1"),
    ],
)
def test_bad_options(tmp_path, options, message):
    """Before any file is read."""
    with pytest.raises(ValueError, match=message):
        check_audio(tmp_path, [], **options)


def test_real_recordings(real_ust):
    """Every annotated clip is found; a few are decoded."""
    rows = read_annotations(real_ust / "annotations-dev.csv")
    names = {"train": set(), "validate": set()}
    for split, name in zip(rows.splits, rows.audio_filenames, strict=True):
        names[split].add(name)
    found = find_audio(real_ust, names)
    assert len(found["train"]) == 1600 and len(found["validate"]) == 400
    few = [*found["train"].values()][:3]
    for info in check_audio(real_ust, few).values():
        assert (info.duration, info.sample_rate) == (10.0, 16000)
