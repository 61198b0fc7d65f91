"""One address into one file, through dropped connections.

Authors
 * The iusp_plugin authors 2026
"""

import errno
import logging
import shutil
import time
from pathlib import Path

import requests
from tqdm import tqdm

logger = logging.getLogger(__name__)

# A drop loses what has come of a chunk, so chunks are small.
_CHUNK = 1 << 14
# Answers that may change by waiting.
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


class _Interrupted(Exception):
    """The connection dropped, or the server asks to come back later."""


def receive(
    url: str,
    part: Path,
    size: int | None,
    retries: int,
    backoff_s: float,
    timeout_s: float,
) -> None:
    """Receive a whole file, going on where ``part`` ends.

    Arguments
    ---------
    url : str
        Address of the file.
    part : Path
        File to append to; bytes that are there are not asked for again,
        unless the server cannot but start anew.
    size : int, optional
        Size of the file in bytes, where known.
    retries : int
        Attempts after one without progress, >= 0.
    backoff_s : float
        Wait before the first of them, in seconds; doubles each time.
    timeout_s : float
        Longest silence of the server, in seconds.

    Raises
    ------
    RuntimeError
        If the server does not give the file, or the disk is full.
    """
    failures, furthest = 0, _size(part)
    while True:
        try:
            _transfer(url, part, size, timeout_s)
            return
        except _Interrupted as reason:
            # Only new ground counts as progress: a server that always starts
            # from zero and always drops must not be asked for ever.
            failures = 0 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures > retries:
                raise RuntimeError(
                    f"{url} could not be fetched: {reason}. {furthest} bytes "
                    f"are kept in {part}: run again to go on, or fetch the "
                    f"file by hand into {part.parent}."
                ) from reason
            wait = backoff_s * 2 ** max(failures - 1, 0)
            logger.warning("%s: %s; again in %g s", url, reason, wait)
            time.sleep(wait)


def _transfer(url: str, part: Path, size: int | None, timeout_s: float) -> None:
    """One request: append to the part, or start it again."""
    offset = _size(part)
    # Compressed transfer would make offsets and lengths meaningless.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        with requests.get(
            url, headers=headers, stream=True, timeout=timeout_s
        ) as response:
            if response.status_code == 416:
                _settle_unsatisfiable(response, part, offset)
                return
            _check_status(url, response)
            if not _continues(response, offset):
                offset = 0
            length = response.headers.get("Content-Length")
            total = size if length is None else offset + int(length)
            _check_space(url, part, (total or 0) - offset)
            _append(response, part, offset, total)
    except requests.RequestException as error:
        raise _Interrupted(f"the connection dropped ({error})") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _disk_full(url, part) from error
    if total is not None and _size(part) < total:
        raise _Interrupted(f"{_size(part)} of {total} bytes came")


def _settle_unsatisfiable(
    response: requests.Response, part: Path, offset: int
) -> None:
    """The server has no byte at the offset: all is there, or too much is."""
    said = response.headers.get("Content-Range", "").rpartition("/")[2]
    if said != str(offset):
        part.unlink()
        raise _Interrupted(f"{part.name} is longer than the file")


def _check_status(url: str, response: requests.Response) -> None:
    """Tell answers that may pass from those that will not."""
    status = response.status_code
    if status in _PASSING_STATUS:
        raise _Interrupted(f"the server answered {status}")
    if status not in (200, 206):
        raise RuntimeError(
            f"{url} answered {status} {response.reason}. Check the record "
            "number and the file name, or fetch the file by hand."
        )


def _continues(response: requests.Response, offset: int) -> bool:
    """True if the body starts at the offset asked for."""
    said = response.headers.get("Content-Range", "")
    return response.status_code == 206 and said.startswith(f"bytes {offset}-")


def _append(
    response: requests.Response, part: Path, offset: int, total: int | None
) -> None:
    """Write the body behind the bytes there are, with a progress bar."""
    bar = tqdm(
        desc=part.stem,
        initial=offset,
        total=total,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with bar, part.open("ab" if offset else "wb") as stream:
        for chunk in response.iter_content(_CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))


def _check_space(url: str, part: Path, needed: int) -> None:
    """Say that the disk is too small before hours of transfer."""
    if shutil.disk_usage(part.parent).free < needed:
        raise _disk_full(url, part, needed)


def _disk_full(url: str, part: Path, needed: int = 0) -> RuntimeError:
    """One wording for a full disk."""
    amount = f" ({needed} more bytes are needed)" if needed else ""
    return RuntimeError(
        f"The disk of {part.parent} is full{amount}: {url} is not complete. "
        "Free some space and run again; what came so far is kept."
    )


def _size(path: Path) -> int:
    """Size in bytes, 0 without a file."""
    return path.stat().st_size if path.exists() else 0
