"""Resumable download of the files of a Zenodo record.

Which record and which files is said by the caller (a recipe's YAML file);
nothing of it is known here. A file is received as ``<name>.part``, checked,
and then renamed, so a file under its own name is whole. ``download_log.json``
keeps size and MD5 of what was received.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import hexdigits
from typing import Any

from iusp_plugin.checks import check_range, near_names
from iusp_plugin.dataio.transfer import receive
from iusp_plugin.files import replacing

ZENODO_URL = "https://zenodo.org/records/{record}/files/{name}?download=1"
LOG_NAME = "download_log.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release.

    Arguments
    ---------
    name : str
        Its name, without folders.
    size : int, optional
        Its size in bytes, where known.
    md5 : str, optional
        Its MD5 in hexadecimal digits, where known.
    """

    name: str
    size: int | None = None
    md5: str | None = None


def fetch_release(
    record: int | str,
    files: Iterable[str | Mapping[str, Any]],
    folder: str | Path,
    base_url: str = ZENODO_URL,
    retries: int = 5,
    backoff_s: float = 1.0,
    timeout_s: float = 30.0,
) -> dict[str, Path]:
    """Fetch files of a record, going on where an earlier run stopped.

    Files that are whole already are not fetched again: their size and MD5 are
    those given, or those in the log. A file without either is taken as it is.

    Arguments
    ---------
    record : int or str
        Number of the record.
    files : iterable of str or mapping
        Names, or mappings with ``name`` and, where known, ``size``, ``md5``.
    folder : str or Path
        Where the files go; made if needed.
    base_url : str
        Address with the fields ``{record}`` and ``{name}``.
    retries : int
        Attempts after one without progress, >= 0.
    backoff_s : float
        Wait before the first of them, in seconds; doubles each time.
    timeout_s : float
        Longest silence of the server, in seconds.

    Returns
    -------
    dict of str to Path
        Path of each file by its name.

    Raises
    ------
    ValueError
        If ``files`` is malformed, or a file differs from its size or MD5.
    RuntimeError
        If the server does not give the file, or the disk is full.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "readme.txt").write_bytes(b"already here")
    >>> fetch_release(1, [{"name": "readme.txt", "size": 12}], folder)
    {'readme.txt': ...Path('.../readme.txt')}
    """
    check_range("retries", retries, low=0)
    check_range("backoff_s", backoff_s, low=0)
    wanted = [_parse_file(file) for file in files]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log = _read_log(folder)
    paths = {}
    for file in wanted:
        path = paths[file.name] = folder / file.name
        url = base_url.format(record=record, name=file.name)
        if path.exists():
            entry = _known_or_hashed(log, path)
            _check_kept(url, path, file, entry)
        else:
            part = folder / f"{file.name}.part"
            receive(url, part, file.size, retries, backoff_s, timeout_s)
            entry = _hashed(part)
            _check_received(url, part, file, entry)
            os.replace(part, path)
        log[file.name] = {"url": url, **entry}
        _write_log(folder, log)
    return paths


def _parse_file(file: str | Mapping[str, Any]) -> ReleaseFile:
    """One entry of the file list, checked."""
    entry: dict[str, Any] = (
        {"name": file} if isinstance(file, str) else dict(file)
    )
    for key in entry:
        if key not in ("name", "size", "md5"):
            raise ValueError(
                f"Key {key!r} of release file {entry} is unknown. "
                f"{near_names(str(key), ('name', 'size', 'md5'))}"
            )
    name = str(entry.get("name", ""))
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(
            f"Release file {entry} has the name {name!r}. Give a plain file "
            "name."
        )
    size, md5 = entry.get("size"), entry.get("md5")
    if size is not None and not (isinstance(size, int) and size >= 0):
        raise ValueError(
            f"size of {name}={size!r} must be a number of bytes. Leave it out "
            "where it is not known."
        )
    md5 = None if md5 is None else str(md5).lower()
    if md5 is not None and not (len(md5) == 32 and set(md5) <= set(hexdigits)):
        raise ValueError(
            f"md5 of {name}={md5!r} must be 32 hexadecimal digits. Leave it "
            "out where it is not known."
        )
    return ReleaseFile(name, size, md5)


def _hashed(path: Path) -> dict[str, Any]:
    """Size, time and MD5 of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    status = path.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "md5": digest.hexdigest(),
    }


def _known_or_hashed(
    log: Mapping[str, Mapping[str, Any]], path: Path
) -> dict[str, Any]:
    """The log's entry of a file, unless it was touched since."""
    logged = log.get(path.name, {})
    status = path.stat()
    if (logged.get("size"), logged.get("mtime_ns")) == (
        status.st_size,
        status.st_mtime_ns,
    ):
        return {key: logged[key] for key in ("size", "mtime_ns", "md5")}
    return _hashed(path)


def _difference(file: ReleaseFile, entry: Mapping[str, Any]) -> str | None:
    """Words on how a file differs from what is known of it, or None."""
    for key, expected in (("size", file.size), ("md5", file.md5)):
        if expected not in (None, entry[key]):
            return f"has {key} {entry[key]}, expected {expected}"
    return None


def _check_received(
    url: str, part: Path, file: ReleaseFile, entry: Mapping[str, Any]
) -> None:
    """Refuse a wrong transfer; kept, it would be resumed for ever."""
    if problem := _difference(file, entry):
        part.unlink()
        raise ValueError(
            f"The file from {url} {problem}. It was removed: run again, and "
            "if the release has changed correct the file list."
        )


def _check_kept(
    url: str, path: Path, file: ReleaseFile, entry: Mapping[str, Any]
) -> None:
    """Refuse a wrong file of the user's, but leave it alone."""
    if problem := _difference(file, entry):
        raise ValueError(
            f"{path} {problem}. Remove it to fetch it again from {url}."
        )


def _read_log(folder: Path) -> dict[str, dict[str, Any]]:
    """What earlier runs received."""
    path = folder / LOG_NAME
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Remove it: the files it tells of "
            "are then hashed again."
        ) from error


def _write_log(folder: Path, log: Mapping[str, Any]) -> None:
    """Write the log whole or not at all."""
    content = json.dumps(log, indent=1, sort_keys=True)
    with replacing(folder / LOG_NAME) as part:
        part.write_text(content, encoding="utf-8")
