"""Unpacking an archive without letting it write outside its folder.

Authors
 * The iusp_plugin authors 2026
"""

import gzip
import json
import logging
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

logger = logging.getLogger(__name__)

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
)


def marker_path(path: str | Path, folder: str | Path) -> Path:
    """The file that says that an archive has been unpacked into a folder.

    Arguments
    ---------
    path : str or Path
        The archive.
    folder : str or Path
        Where it is, or will be, unpacked.

    Returns
    -------
    Path
        Its marker.

    Example
    -------
    >>> marker_path("audio-dev.tar.gz", "data").name
    '.audio-dev.tar.gz.unpacked'
    """
    return Path(folder) / f".{Path(path).name}.unpacked"


def unpack_archive(path: str | Path, folder: str | Path) -> None:
    """Unpack a tar, tar.gz or zip file, once.

    Every member is looked at before anything is written: absolute names,
    names with "..", links and devices are refused. The files are unpacked
    beside their places and then renamed; a marker makes a second call return
    at once, as long as the archive is the same.

    Arguments
    ---------
    path : str or Path
        The archive.
    folder : str or Path
        Where its members go; made if needed. Files of the same name are
        replaced.

    Raises
    ------
    FileNotFoundError
        If there is no such archive.
    ValueError
        If it is no archive, is damaged, or a member is refused.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with zipfile.ZipFile(folder / "a.zip", "w") as archive:
    ...     archive.writestr("audio/a.txt", "hello")
    >>> unpack_archive(folder / "a.zip", folder / "data")
    >>> (folder / "data" / "audio" / "a.txt").read_text()
    'hello'
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"Archive {path} does not exist. Fetch it.")
    status = path.stat()
    seen = json.dumps([status.st_size, status.st_mtime_ns])
    marker = marker_path(path, folder)
    if marker.exists() and marker.read_text(encoding="utf-8") == seen:
        return
    logger.info("Unpacking %s into %s.", path, folder)
    folder.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that files are renamed and not copied.
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=folder))
    try:
        with _damage_reported(path):
            if zipfile.is_zipfile(path):
                _unpack_zip(path, temporary)
            else:
                _unpack_tar(path, temporary)
        _merge(temporary, folder)
    finally:
        shutil.rmtree(temporary)
    marker.write_text(seen, encoding="utf-8")


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """One clear error for the many that a broken archive raises."""
    try:
        yield
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is no tar or zip archive, or is damaged ({error}). "
            "Remove it and fetch it again."
        ) from error


def _unpack_tar(path: Path, folder: Path) -> None:
    """Check all members of a tar file, then write its files."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        for member in members:
            plain = member.isfile() or member.isdir()
            _check_member(path, member.name, plain)
        for member in members:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                _write(content, folder / member.name)


def _unpack_zip(path: Path, folder: Path) -> None:
    """Check all members of a zip file, then write its files."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            # The upper half holds the Unix mode, or 0 without one.
            kind = stat.S_IFMT(member.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            _check_member(path, member.filename, plain)
        for member in members:
            if not member.is_dir():
                with archive.open(member) as content:
                    _write(content, folder / member.filename)


def _check_member(path: Path, name: str, plain: bool) -> None:
    """Refuse what could write outside the folder."""
    # A Windows path also sees drives and backslashes.
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    rooted = name.startswith(("/", "\\")) or PureWindowsPath(name).drive
    if not plain or rooted or ".." in parts:
        reason = "lies outside the folder" if plain else "is a link or device"
        raise ValueError(
            f"Member {name!r} of {path} {reason}; nothing was unpacked. Do "
            "not use this archive, fetch it from its publisher again."
        )


def _write(content: IO[bytes], target: Path) -> None:
    """Copy one member's bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)


def _merge(source: Path, folder: Path) -> None:
    """Rename every file to its place."""
    for parent, _, names in os.walk(source):
        target = folder / Path(parent).relative_to(source)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(Path(parent) / name, target / name)
