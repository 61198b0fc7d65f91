"""Files that are complete or absent.

Authors
 * The iusp_plugin authors 2026
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block ends well.

    Arguments
    ---------
    path : path-like
        The file to be; its folder must exist.

    Yields
    ------
    Path
        Where to write. After an exception nothing is left, and an older file
        named ``path`` is untouched.

    Example
    -------
    >>> path = getfixture("tmp_path") / "scores.json"
    >>> with replacing(path) as part:
    ...     _ = part.write_text("{}")
    ...     path.exists()
    False
    >>> [file.name for file in path.parent.iterdir()]
    ['scores.json']
    """
    path = Path(path)
    # Not a process id: machines that share a folder may have the same ones.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
