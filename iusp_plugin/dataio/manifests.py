"""Manifests of a prepared data set, written once and recognised again.

A marker beside the manifests holds the inputs they were made from and their
MD5. It is written last, so whatever interrupts a preparation, a marker
vouches for whole manifests.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
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
) -> None:
    """Write ``<split>.json`` for each split, then the marker.

    Manifests of splits that are not given are removed: an earlier
    preparation may have had them.

    Arguments
    ---------
    folder : str or Path
        Folder of the manifests; made if needed.
    splits : mapping
        For each split, the entries by example id, of JSON types.
    inputs : mapping
        What the manifests depend on, of JSON types.

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
    for name in (MARKER, *(f"{split}.json" for split in SPLITS)):
        (folder / name).unlink(missing_ok=True)
    written = {}
    for split, entries in splits.items():
        content = _serialize(entries)
        with replacing(folder / f"{split}.json") as part:
            part.write_bytes(content)
        written[f"{split}.json"] = md5_hex(content)
    marker = {"inputs": inputs, "manifests_md5": written}
    with replacing(folder / MARKER) as part:
        part.write_text(json.dumps(marker, indent=1), encoding="utf-8")


def _serialize(entries: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A manifest, one line an example."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(entry)}"
        for key, entry in entries.items()
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
