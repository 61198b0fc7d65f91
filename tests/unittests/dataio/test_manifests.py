"""A marker vouches for whole manifests of the same inputs, and only for them.

Authors
 * The iusp_plugin authors 2026
"""

import json

import pytest

from iusp_plugin.dataio import manifests
from iusp_plugin.dataio.manifests import (
    MARKER,
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
        write_manifests(tmp_path, SPLITS, INPUTS)
    assert not is_prepared(tmp_path, INPUTS)


def test_md5():
    """RFC 1321's own example."""
    assert md5_hex(b"abc") == "900150983cd24fb0d6963f7d28e17f72"
