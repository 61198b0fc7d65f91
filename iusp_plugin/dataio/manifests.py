"""Manifests of a prepared data set, written once and recognised again.

A marker beside the manifests holds the inputs they were made from, their MD5
and that of the audio. It is written last, so whatever interrupts a
preparation, a marker vouches for whole manifests.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from iusp_plugin.dataio.annotations import SPLITS
from iusp_plugin.files import replacing

MARKER = "prepared.json"


def md5_hex(content: bytes) -> str:
    """Hexadecimal MD5 of some bytes; finds changes, protects from nothing.

    Arguments
    ---------
    content : bytes
        The bytes.

    Returns
    -------
    str
        32 digits.

    Example
    -------
    >>> md5_hex(b"")
    'd41d8cd98f00b204e9800998ecf8427e'
    """
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_prepared(folder: str | Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a folder holds the manifests of these inputs, unchanged.

    Arguments
    ---------
    folder : str or Path
        Folder of the manifests.
    inputs : mapping
        What manifests depend on, of JSON types.

    Returns
    -------
    bool
        False also without a marker, or with an unreadable one.

    Example
    -------
    >>> is_prepared(getfixture("tmp_path"), {"seed": 1})
    False
    """
    folder = Path(folder)
    try:
        marker = _marker(folder)
        return marker["inputs"] == inputs and all(
            md5_hex((folder / name).read_bytes()) == md5
            for name, md5 in marker["manifests_md5"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Nothing that vouches for the manifests: they are made anew.
        return False


def write_manifests(
    folder: str | Path,
    splits: Mapping[str, Mapping[str, Mapping[str, Any]]],
    inputs: Mapping[str, Any],
    audio_md5: Mapping[str, str] | None = None,
) -> None:
    """Write ``<split>.json`` for each split, then the marker.

    Manifests of splits that are not given are removed: an earlier
    preparation may have had them. Where the manifests are there already, of
    earlier inputs or from a process that prepares the same at the same time,
    the marker alone is replaced, and nobody finds them missing.

    Arguments
    ---------
    folder : str or Path
        Folder of the manifests; made if needed.
    splits : mapping
        For each split, the entries by example id, of JSON types.
    inputs : mapping
        What the manifests depend on, of JSON types.
    audio_md5 : mapping of str to str, optional
        Digest of each split's audio, kept for ``audio_source`` and
        ``content_md5``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_manifests(folder, {"test": {"a": {"duration": 1.0}}}, {"seed": 1})
    >>> (folder / "test.json").read_text()
    '{\\n"a": {"duration": 1.0}\\n}\\n'
    >>> is_prepared(folder, {"seed": 1}), is_prepared(folder, {"seed": 2})
    (True, False)
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    old = [folder / f"{split}.json" for split in SPLITS if split not in splits]
    new = {
        folder / f"{split}.json": _serialize(entries)
        for split, entries in splits.items()
    }
    gone = [path for path in old if path.is_file()]
    changed = [
        path
        for path, content in new.items()
        if not path.is_file() or path.read_bytes() != content
    ]
    if gone or changed:
        (folder / MARKER).unlink(missing_ok=True)
    for path in gone:
        path.unlink(missing_ok=True)
    for path in changed:
        with replacing(path) as part:
            part.write_bytes(new[path])
    marker = {
        "inputs": inputs,
        "manifests_md5": {
            path.name: md5_hex(content) for path, content in new.items()
        },
        "audio_md5": dict(audio_md5 or {}),
    }
    with replacing(folder / MARKER) as part:
        part.write_text(json.dumps(marker, indent=1), encoding="utf-8")


def audio_source(folder: str | Path, split: str) -> str:
    """Fingerprint of a split's audio, as its preparation found it.

    It is of the names and bytes of the files, so it is the same for every
    copy of them and for all options of the preparation.

    Arguments
    ---------
    folder : str or Path
        Folder of finished manifests.
    split : str
        Which one.

    Returns
    -------
    str
        The split and a digest.
    """
    return f"{split}, {_marker(folder)['audio_md5'][split]}"


def content_md5(folder: str | Path) -> str:
    """MD5 of what the manifests say and of the audio they name.

    Arguments
    ---------
    folder : str or Path
        Folder of finished manifests.

    Returns
    -------
    str
        The same for every copy of the data, wherever it lies.
    """
    marker = _marker(folder)
    facts = [marker["manifests_md5"], marker["audio_md5"]]
    return md5_hex(json.dumps(facts, sort_keys=True).encode())


def _marker(folder: str | Path) -> Any:
    """What the marker says."""
    return json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))


def _serialize(entries: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A manifest, one line an example."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(entry)}"
        for key, entry in entries.items()
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


class Manifest(Mapping[str, dict[str, Any]]):
    """A manifest whose entries are read when they are asked for.

    What ``write_manifests`` writes is the JSON that SpeechBrain reads, one
    line an example. So the ids and the places of the lines are enough to keep,
    and 200 000 examples neither take seconds to open nor gigabytes.

    Arguments
    ---------
    path : str or Path
        The manifest.
    replacements : mapping of str to str, optional
        Fills the placeholders in the texts of an entry, as
        ``speechbrain.dataio.dataio.load_data_json`` does.

    Raises
    ------
    ValueError
        If the file is not a manifest of one line an example, or is empty.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> clip = {"wav": "{data_root}/a.wav", "coarse": [0, 1]}
    >>> write_manifests(folder, {"train": {"a": clip}}, {"seed": 1})
    >>> manifest = Manifest(folder / "train.json", {"data_root": "/data"})
    >>> len(manifest), manifest["a"]
    (1, {'wav': '/data/a.wav', 'coarse': [0, 1]})
    """

    def __init__(
        self,
        path: str | Path,
        replacements: Mapping[str, str] | None = None,
    ):
        self.path = Path(path)
        self._replacements = dict(replacements or {})
        self._row: dict[str, int] = {}
        starts = [0]
        with open(self.path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                starts.append(starts[-1] + len(line))
                # Braces stand alone on the first and on the last line.
                if line.rstrip() not in (b"{", b"}", b""):
                    self._row[self._key(line, number)] = number - 1
        if not self._row:
            raise ValueError(f"{self.path} holds no examples.")
        self._starts = np.array(starts)

    def _key(self, line: bytes, number: int) -> str:
        """The example's id, with which a line begins."""
        key, colon, _ = line.partition(b'": {')
        if not colon or not key.startswith(b'"'):
            raise ValueError(
                f"Line {number} of {self.path} is not one example; write it "
                "with write_manifests, one line an example."
            )
        if b"\\" not in key:
            return key[1:].decode()
        # An escaped quote may stand before a colon within the id.
        (example_id,) = self._parsed(line)
        return example_id

    @staticmethod
    def _parsed(line: bytes) -> dict[str, Any]:
        """The entry of a line, by its id."""
        return json.loads(b"{" + line.rstrip(b",\r\n") + b"}")

    @cached_property
    def _content(self) -> mmap.mmap:
        """The file's bytes, mapped when the first entry is read."""
        with open(self.path, "rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __getitem__(self, example_id: str) -> dict[str, Any]:
        """One entry, its placeholders filled."""
        row = self._row[example_id]
        line = self._content[self._starts[row] : self._starts[row + 1]]
        (entry,) = self._parsed(line).values()
        return self._filled(entry)

    def _filled(self, value: Any) -> Any:
        """The same with the placeholders of all its texts filled."""
        if isinstance(value, str):
            return value.format_map(self._replacements)
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        return value

    def __contains__(self, example_id: object) -> bool:
        return example_id in self._row

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the file itself."""
        state = dict(self.__dict__)
        state.pop("_content", None)
        return state
