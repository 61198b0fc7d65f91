"""A marker vouches for whole manifests of the same inputs, and only for them.

Authors
 * The iusp_plugin authors 2026
"""

import json
import pickle

import pytest
from speechbrain.dataio.dataio import load_data_json
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader

from iusp_plugin.dataio import manifests
from iusp_plugin.dataio.manifests import (
    MARKER,
    Manifest,
    audio_source,
    content_md5,
    is_prepared,
    md5_hex,
    write_manifests,
)

SPLITS = {"train": {"a": {"fine": [0.0, 1.0]}, "b": {"fine": []}}, "test": {}}
INPUTS = {"options": {"target_rule": "any"}, "format_version": 1}


def test_round_trip(tmp_path):
    """Entries come back, one line each."""
    write_manifests(tmp_path / "new" / "folder", SPLITS, INPUTS)
    folder = tmp_path / "new" / "folder"
    text = (folder / "train.json").read_text()
    assert json.loads(text) == SPLITS["train"]
    assert len(text.splitlines()) == 4
    assert json.loads((folder / "test.json").read_text()) == {}
    assert {p.name for p in folder.iterdir()} == {
        MARKER,
        "train.json",
        "test.json",
    }
    assert is_prepared(folder, INPUTS)


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"inputs": 1}', "null", '{"a"']
)
def test_unreadable_marker(tmp_path, content):
    """Prepared anew rather than trusted."""
    write_manifests(tmp_path, SPLITS, INPUTS)
    (tmp_path / MARKER).unlink()
    if content is not None:
        (tmp_path / MARKER).write_text(content)
    assert not is_prepared(tmp_path, INPUTS)


def test_changed_inputs_or_manifests(tmp_path):
    """Whatever differs asks for a new preparation."""
    write_manifests(tmp_path, SPLITS, INPUTS)
    assert not is_prepared(tmp_path, {**INPUTS, "format_version": 2})
    with (tmp_path / "train.json").open("a") as stream:
        stream.write(" ")
    assert not is_prepared(tmp_path, INPUTS)
    (tmp_path / "train.json").unlink()
    assert not is_prepared(tmp_path, INPUTS)


def test_split_that_is_gone(tmp_path):
    """Its old manifest would be read as current."""
    write_manifests(tmp_path, SPLITS, INPUTS)
    write_manifests(tmp_path, {"validate": {}}, INPUTS)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {MARKER, "validate.json"}


def test_interrupted_preparation(tmp_path, monkeypatch):
    """No marker of an earlier preparation outlives its manifests."""
    write_manifests(tmp_path, SPLITS, INPUTS)

    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifests, "replacing", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_manifests(tmp_path, {**SPLITS, "train": {}}, INPUTS)
    assert not is_prepared(tmp_path, INPUTS)


def test_the_same_manifests_are_never_missing(tmp_path, monkeypatch):
    """Two processes that prepare the same data do not disturb each other."""
    write_manifests(tmp_path, SPLITS, INPUTS)

    def unlink(path, missing_ok=False):
        assert path.name.endswith(".part"), f"{path} is removed"

    monkeypatch.setattr(type(tmp_path), "unlink", unlink)
    newer = {**INPUTS, "format_version": 2}
    write_manifests(tmp_path, SPLITS, newer)
    assert is_prepared(tmp_path, newer)


def test_content_is_what_files_say_not_when_they_were_written(tmp_path):
    """Copies of the data have the same content; other audio has another."""
    audio = {"train": "1" * 32, "test": "2" * 32}
    write_manifests(tmp_path / "a", SPLITS, INPUTS, audio)
    write_manifests(tmp_path / "b", SPLITS, {"other": "inputs"}, audio)
    write_manifests(tmp_path / "c", SPLITS, INPUTS, {**audio, "test": "3"})
    write_manifests(tmp_path / "d", {**SPLITS, "test": {"c": {}}}, {}, audio)
    sources = [audio_source(tmp_path / name, "test") for name in "abcd"]
    assert sources[0] == sources[1] == sources[3] != sources[2]
    contents = [content_md5(tmp_path / name) for name in "abcd"]
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


def test_md5():
    """RFC 1321's own example."""
    assert md5_hex(b"abc") == "900150983cd24fb0d6963f7d28e17f72"


ODD = {
    'quoted "id".wav': {"wav": "{data_root}/a.wav", "note": 'x": {y}'},
    "back\\slash": {"wav": "{data_root}/{{brace}}.wav", "note": "}, {"},
    "straße": {"wav": "ä,\n{data_root}", "fine": [0.5, 1], "sensor": None},
}


@pytest.fixture
def odd(tmp_path):
    """A manifest of awkward texts."""
    entries = {
        key: {**entry, "note": entry.get("note", "").replace("{", "{{")}
        for key, entry in ODD.items()
    }
    for entry in entries.values():
        entry["note"] = entry["note"].replace("}", "}}")
    write_manifests(tmp_path, {"train": entries}, INPUTS)
    return tmp_path / "train.json"


def test_a_lazy_manifest_equals_the_host_s(odd):
    root = {"data_root": "/data"}
    manifest, known = Manifest(odd, root), load_data_json(odd, root)
    assert list(manifest) == list(known) == list(ODD)
    assert {key: manifest[key] for key in manifest} == known
    assert len(manifest) == 3 and "straße" in manifest
    assert "other" not in manifest
    with pytest.raises(KeyError, match="other"):
        manifest["other"]


def test_each_reading_is_a_new_entry(odd):
    manifest = Manifest(odd, {"data_root": "/data"})
    manifest["straße"]["fine"].append(2)
    assert manifest["straße"]["fine"] == [0.5, 1]


def test_a_placeholder_without_a_value(odd):
    with pytest.raises(KeyError, match="data_root"):
        Manifest(odd)["straße"]


def test_a_lazy_manifest_in_workers(odd):
    """Each maps the file for itself, however it was started."""
    manifest = Manifest(odd, {"data_root": "/data"})
    assert manifest["straße"]
    again = pickle.loads(pickle.dumps(manifest))
    assert dict(again) == dict(manifest)
    dataset = DynamicItemDataset(manifest, output_keys=["id", "wav"])
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert [item["id"] for item in loader] == list(ODD)


def test_other_json_is_refused(tmp_path):
    path = tmp_path / "indented.json"
    path.write_text(json.dumps({"a": {"wav": "x"}}, indent=1))
    with pytest.raises(ValueError, match="Line 2 of .*is not one example"):
        Manifest(path)
    path.write_text("{\n}\n")
    with pytest.raises(ValueError, match="holds no examples"):
        Manifest(path)
    with pytest.raises(FileNotFoundError):
        Manifest(tmp_path / "absent.json")
