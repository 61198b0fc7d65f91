"""A run's folder: who it belongs to, what it was run with, safe writes.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iusp_plugin.checks import differences
from iusp_plugin.files import replacing

RUN_FILE = "run.json"
_PACKAGES = ("iusp-plugin", "speechbrain", "torch", "torchaudio", "numpy")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON so that the file is complete or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of what a result depends on.

    Example
    -------
    >>> sorted(versions())[0]
    'iusp-plugin'
    """
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def plain_hparams(
    hparams: Mapping[str, Any], without: set[str]
) -> dict[str, Any]:
    """The hyper-parameters that are plain values, in JSON's types.

    Arguments
    ---------
    hparams : mapping
        A loaded YAML; its objects are left out.
    without : set of str
        Keys that do not change what a run computes.

    Returns
    -------
    dict

    Example
    -------
    >>> plain_hparams({"lr": 1e-3, "model": object(), "log": "x"}, {"log"})
    {'lr': 0.001}
    """
    plain = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in hparams.items()
        if key not in without
        and (
            isinstance(value, plain)
            or isinstance(value, list)
            and all(isinstance(item, plain) for item in value)
        )
    }


def claim_run_folder(folder: str | Path, facts: Mapping[str, Any]) -> bool:
    """Take a run folder, or refuse one that belongs to another run.

    Arguments
    ---------
    folder : str or Path
        The run's folder; made if absent.
    facts : mapping
        What determines the run: hyper-parameters and fingerprints, JSON types.

    Returns
    -------
    bool
        True if the folder already belonged to this run, which then resumes.

    Raises
    ------
    ValueError
        If it belongs to a run with other facts; names the differing keys.
    """
    path = Path(folder) / RUN_FILE
    facts = json.loads(json.dumps(facts))
    if not path.is_file():
        write_json(path, facts)
        return False
    known = json.loads(path.read_text(encoding="utf-8"))
    differing = differences(known, facts)
    if differing:
        raise ValueError(
            f"{folder} belongs to a run with other settings:\n"
            + "\n".join(differing)
            + "\nChoose another --output_folder, or delete that folder."
        )
    return True
