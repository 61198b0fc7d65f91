"""From a data folder in the release's layout to manifests.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import importlib
import json
import logging
import os
import runpy
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.reference.tiny_release import (
    TEST,
    TRAIN,
    VALIDATE,
    annotation,
    development_rows,
    evaluation_rows,
    write_annotations,
    write_clip,
    write_tiny_release,
)

MANIFESTS = ("train", "validate", "test")


@pytest.fixture
def prepare_module(project_root, monkeypatch):
    """The recipe's module, imported as train.py does."""
    folder = project_root / "recipes" / "DCASE2019_Task5"
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("dcase2019_task5_prepare")


@pytest.fixture
def prepare(prepare_module, tmp_path):
    """Prepare tmp_path/data into tmp_path/manifests and read these."""

    def prepare(**options):
        manifests = tmp_path / "manifests"
        prepare_module.prepare_dcase2019_task5(
            tmp_path / "data", manifests, **options
        )
        return {
            split: json.loads((manifests / f"{split}.json").read_text())
            for split in MANIFESTS
            if (manifests / f"{split}.json").exists()
        }

    return prepare


@pytest.fixture
def data(tmp_path):
    """A tiny data folder with all three splits."""
    return write_tiny_release(tmp_path / "data", with_test=True)


def test_manifests(data, prepare):
    """Every clip of every split, with what the loader needs."""
    manifests = prepare()
    assert [*manifests["train"]] == [Path(name).stem for name in TRAIN]
    assert [*manifests["validate"]] == [Path(name).stem for name in VALIDATE]
    assert [*manifests["test"]] == [Path(name).stem for name in TEST]
    assert manifests["train"]["01_000001"] == {
        "wav": "{data_root}/audio-dev/train/01_000001.wav",
        "duration": 10.0,
        "sensor": "1",
        "audio_filename": "01_000001.wav",
        "coarse": [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "fine": [0.0] * 29,
    }
    assert manifests["validate"]["00_000003"]["coarse"] == [1.0] + [0.0] * 7
    assert manifests["test"]["03_000005"]["wav"].startswith(
        "{data_root}/audio-eval/"
    )


def test_speechbrain_reads_the_manifests(data, prepare, tmp_path):
    """The paths exist once data_root is filled."""
    from speechbrain.dataio.dataset import DynamicItemDataset

    prepare()
    dataset = DynamicItemDataset.from_json(
        tmp_path / "manifests" / "train.json",
        replacements={"data_root": str(data)},
        output_keys=["id", "wav", "fine"],
    )
    assert len(dataset) == 3
    assert all(os.path.isfile(item["wav"]) for item in dataset)


@pytest.mark.parametrize(
    "rule, expected",
    [
        ("any", {"01_000000": [1, 1]}),
        ("majority", {"01_000000": [1, 0]}),
        ("mean", {"01_000000": [2 / 3, 1 / 3]}),
        (
            "each",
            {
                "01_000000@11": [1, 1],
                "01_000000@12": [1, 0],
                "01_000000@13": [0, 0],
            },
        ),
    ],
)
def test_target_rules(data, prepare, rule, expected):
    """Train targets follow the rule; validate stays the truth."""
    manifests = prepare(target_rule=rule)
    for key, coarse in expected.items():
        entry = manifests["train"][key]
        assert entry["coarse"][:2] == pytest.approx(coarse)
        assert entry["audio_filename"] == "01_000000.wav"
    assert len(manifests["train"]) == 3 * len(expected)
    assert [*manifests["validate"]] == ["00_000003", "00_000004"]


def test_repair_of_coarse_2(data, prepare):
    """The tiny crowd votes coarse 2 without any 2-* tag."""
    entry = prepare(repair_coarse2=True)["train"]["01_000001"]
    assert entry["coarse"][:3] == [0.0, 0.0, 1.0]


def _touch(data):
    path = data / "audio-dev" / "train" / TRAIN[0]
    os.utime(path, ns=(1, 1))


def _change_vote(data):
    rows = development_rows()
    rows[0]["8_dog_presence"] = "1"
    write_annotations(data / "annotations-dev.csv", rows)


def _longer_clip(data):
    write_clip(data / "audio-dev" / "validate" / VALIDATE[0], 11.0)


def _drop_test_split(data):
    (data / "annotations-eval.csv").unlink()


def _other_option(data):
    return {"target_rule": "mean"}


def _remove_manifest(data):
    (data.parent / "manifests" / "validate.json").unlink()


@pytest.mark.parametrize(
    "change",
    [
        _touch,
        _change_vote,
        _longer_clip,
        _drop_test_split,
        _other_option,
        _remove_manifest,
    ],
)
def test_redone_when_something_changed(data, prepare, prepare_module, change):
    """The result is that of a preparation into an empty folder."""
    prepare()
    options = change(data) or {}
    changed = prepare(**options)
    shutil.rmtree(data.parent / "manifests")
    assert changed == prepare(**options)


def test_not_redone_when_nothing_changed(
    data, prepare, prepare_module, monkeypatch
):
    """No audio is decoded the second time."""
    first = prepare()

    def fail(*args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(prepare_module, "check_audio", fail)
    assert prepare() == first
    with pytest.raises(AssertionError, match="decoded again"):
        prepare(repair_coarse2=True)


def test_failed_preparation_leaves_the_last_one(data, prepare, tmp_path):
    """A faulty file stops it before a manifest is touched."""
    before = prepare()
    (data / "audio-dev" / "train" / TRAIN[0]).write_bytes(b"no audio")
    with pytest.raises(ValueError, match="1 of 6 audio files cannot be used"):
        prepare()
    manifest = tmp_path / "manifests" / "train.json"
    assert json.loads(manifest.read_text()) == before["train"]


def test_skip_prep(prepare):
    """Not even the data folder is looked at."""
    assert prepare(skip_prep=True) == {}


def test_evaluation_alone(tmp_path, prepare):
    """audio-eval and its annotations are enough; no split column needed."""
    rows = evaluation_rows()
    for row in rows:
        del row["split"]
    (tmp_path / "data").mkdir()
    write_annotations(tmp_path / "data" / "annotations-eval.csv", rows)
    write_clip(tmp_path / "data" / "audio-eval" / "test" / TEST[0])
    manifests = prepare()
    assert [*manifests] == ["test"] and [*manifests["test"]] == ["03_000005"]


def test_names_shared_by_splits(tmp_path, prepare):
    """Other recordings of the same name: ids differ, names stay."""
    data = tmp_path / "data"
    data.mkdir()
    name = "01_000000.wav"
    rows = [annotation("train", name, 11), annotation("validate", name, 0)]
    write_annotations(data / "annotations-dev.csv", rows)
    row = annotation("test", name, 0, ("8_dog",))
    write_annotations(data / "annotations-eval.csv", [row])
    for k, folder in enumerate(
        ("audio-dev/train", "audio-dev/validate", "audio-eval")
    ):
        write_clip(data / folder / name, 9.0 + k)
    manifests = prepare()
    ids = [key for part in manifests.values() for key in part]
    assert ids == ["01_000000", "01_000000@validate", "01_000000@test"]
    entry = manifests["test"]["01_000000@test"]
    assert entry["audio_filename"] == name and entry["duration"] == 11.0
    assert entry["coarse"][-1] == 1.0
    shutil.copy(data / "audio-dev" / "train" / name, data / "audio-eval" / name)
    with pytest.raises(ValueError, match="its recording is the same"):
        prepare()


def test_usage(project_root):
    """Without its two folders the script says how to call it."""
    script = "recipes/DCASE2019_Task5/dcase2019_task5_prepare.py"
    with pytest.raises(SystemExit, match="DATA_FOLDER MANIFEST_FOLDER"):
        runpy.run_path(str(project_root / script), run_name="__main__")


def test_one_table_of_all_splits(data, prepare):
    """Later releases name it annotations.csv."""
    (data / "annotations-dev.csv").unlink()
    (data / "annotations-eval.csv").unlink()
    rows = development_rows() + evaluation_rows()
    write_annotations(data / "annotations.csv", rows)
    assert [*prepare()] == ["train", "validate", "test"]


def test_other_formats_and_rates(data, prepare):
    """The ending in the annotations is kept for prediction files."""
    folder = data / "audio-dev" / "train"
    (folder / TRAIN[0]).unlink()
    write_clip(folder / "01_000000.OGG", sample_rate=16000)
    entry = prepare()["train"]["01_000000"]
    assert entry["wav"].endswith("/01_000000.OGG")
    assert entry["audio_filename"] == "01_000000.wav"


def test_braces_in_names(tmp_path, prepare):
    """The loader's str.format gives the name back."""
    (tmp_path / "data").mkdir()
    rows = [annotation("test", "03_{x}.wav", 0)]
    write_annotations(tmp_path / "data" / "annotations-eval.csv", rows)
    write_clip(tmp_path / "data" / "audio-eval" / "03_{x}.wav")
    entry = prepare()["test"]["03_{x}"]
    assert entry["wav"].format(data_root="r") == "r/audio-eval/03_{x}.wav"


def test_summary(data, prepare, caplog):
    """Clips, hours, sensors, positives and clips of other durations."""
    write_clip(data / "audio-dev" / "train" / TRAIN[0], 4.0)
    write_clip(data / "audio-dev" / "train" / TRAIN[1], 16.0)
    with caplog.at_level(logging.INFO):
        prepare()
    line = next(m for m in caplog.messages if m.startswith("train:"))
    assert "3 clips, 3 examples, 0.01 h, 2 sensors" in line
    assert "1 shorter (to be padded), 1 longer (to be cropped)" in line
    assert "1_engine 1, 2_machinery-impact 2" in line


def test_durations_refused(data, prepare):
    """Where other durations are not wanted."""
    write_clip(data / "audio-dev" / "train" / TRAIN[0], 4.0)
    with pytest.raises(ValueError, match="01_000000.wav lasts 4 s, not 10 s"):
        prepare(duration_policy="error")


def _no_folder(data):
    shutil.rmtree(data)


def _no_annotations(data):
    (data / "annotations-dev.csv").unlink()
    (data / "annotations-eval.csv").unlink()


def _two_tables(data):
    write_annotations(data / "annotations.csv", development_rows())


def _clip_in_two_tables(data):
    write_annotations(
        data / "annotations-dev.csv", development_rows() + evaluation_rows()
    )


def _missing_audio(data):
    for name in TRAIN[:2]:
        (data / "audio-dev" / "train" / name).unlink()


def _train_rows_as_test(data):
    write_annotations(data / "annotations-eval.csv", development_rows())


def _no_truth(data):
    rows = [r for r in development_rows() if r["annotator_id"] != "0"]
    write_annotations(data / "annotations-dev.csv", rows)


def _other_taxonomy(data):
    path = data / "dcase-ust-taxonomy.yaml"
    path.write_text(path.read_text().replace("siren", "sirens"))


def _broken_taxonomy(data):
    (data / "dcase-ust-taxonomy.yaml").write_text("fine: [1, 2")


def _tags_in_taxonomy(data):
    path = data / "dcase-ust-taxonomy.yaml"
    path.write_text("!!python/object/apply:os.getcwd []")


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (_no_folder, FileNotFoundError, "does not exist.*--download=True"),
        (_no_folder, FileNotFoundError, "(?s)omit data_folder.*audio-dev/tr"),
        (_no_annotations, FileNotFoundError, "holds no annotation file"),
        (_two_tables, ValueError, "annotations-dev.csv and annotations.csv"),
        (
            _clip_in_two_tables,
            ValueError,
            "03_000005.wav of split 'test' is in annotations-dev.csv and in",
        ),
        (_missing_audio, FileNotFoundError, "2 of 3 .*01_000000.wav, 01_0000"),
        (_train_rows_as_test, ValueError, "split='train', but all rows of"),
        (_no_truth, ValueError, "2 files of split 'validate' have no truth"),
        (_other_taxonomy, ValueError, "differs .* 5-3_siren, 5-3_sirens"),
        (_broken_taxonomy, ValueError, "is no taxonomy file"),
        (_tags_in_taxonomy, ValueError, "is no taxonomy file"),
    ],
)
def test_faulty_folders(data, prepare, spoil, error, message):
    """One error each, before any manifest is written."""
    spoil(data)
    with pytest.raises(error, match=message):
        prepare()
    assert not (data.parent / "manifests").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target_rule": "all"}, "target_rule='all' is unknown"),
        ({"duration_policy": "crop"}, "duration_policy='crop' is unknown"),
        ({"clip_duration_s": -1.0}, "clip_duration_s=-1.0 must be > 0"),
        ({"download": True}, "needs zenodo_record and release_files"),
    ],
)
def test_faulty_options(data, prepare, options, message):
    """Named with the value received."""
    with pytest.raises(ValueError, match=message):
        prepare(**options)


@pytest.fixture
def release_url(tmp_path):
    """A server that holds the tiny release as the archives of a record."""
    release = write_tiny_release(tmp_path / "release" / "data")
    record = tmp_path / "release" / "77"
    record.mkdir()
    with tarfile.open(record / "audio-dev.tar.gz", "w:gz") as archive:
        archive.add(release / "audio-dev", "audio-dev")
    shutil.move(release / "annotations-dev.csv", record)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """Tests print nothing."""

    handler = partial(Handler, directory=str(record.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{{record}}/{{name}}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_and_prepare(release_url, prepare, tmp_path):
    """From a record to manifests; the archive may be removed then."""
    options = {
        "download": True,
        "zenodo_record": 77,
        "release_files": ["annotations-dev.csv", {"name": "audio-dev.tar.gz"}],
        "release_url": release_url,
    }
    manifests = prepare(**options)
    assert [*manifests["train"]] == [Path(name).stem for name in TRAIN]
    (tmp_path / "data" / "audio-dev.tar.gz").unlink()
    assert prepare(**options) == manifests
    assert not (tmp_path / "data" / "audio-dev.tar.gz").exists()


def test_given_data_folder(prepare_module, tmp_path):
    """It is used as it is; nothing is generated."""
    folder = prepare_module.resolve_data_folder("/my/data", tmp_path / "none")
    assert folder == "/my/data"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("data_folder", [None, ""])
def test_embedded_data(prepare_module, tmp_path, caplog, data_folder):
    """Generated, prepared without an option, and loudly no result."""
    with caplog.at_level(logging.WARNING):
        folder = prepare_module.resolve_data_folder(
            data_folder, tmp_path / "embedded", n_train=2, n_validate=1, seed=3
        )
    assert "FIGURES ON THEM ARE NOT RESULTS" in caplog.text
    prepare_module.prepare_dcase2019_task5(folder, tmp_path / "manifests")
    text = (tmp_path / "manifests" / "train.json").read_text()
    assert len(json.loads(text)) == 2


def test_real_recordings(real_ust, prepare, tmp_path):
    """Some clips of a real folder, linked so that few are decoded."""
    with (real_ust / "annotations-dev.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = {
        split: sorted(
            {r["audio_filename"] for r in rows if r["split"] == split}
        )
        for split in ("train", "validate")
    }
    kept = {(split, name) for split in names for name in names[split][:4]}
    rows = [r for r in rows if (r["split"], r["audio_filename"]) in kept]
    for split, name in kept:
        folder = tmp_path / "data" / "audio-dev" / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(real_ust / "audio-dev" / split / name)
    write_annotations(tmp_path / "data" / "annotations-dev.csv", rows)
    manifests = prepare()
    assert len(manifests["train"]) == len(manifests["validate"]) == 4
    for entry in manifests["train"].values():
        assert entry["duration"] == 10.0 and entry["wav"].endswith(".ogg")
