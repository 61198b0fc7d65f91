"""From annotation rows to training targets (DCASE 2019 Task 5).

One row of an annotation file is one annotation event: a volunteer's
(``annotator_id > 0``), a team member's (``< 0``), or the truth that the team
agreed on (``0``). ``read_annotations`` reads and checks the rows,
``compute_targets`` turns them into one target vector a clip.

Coarse columns are taken as they stand. In the 2019 release the column
``2_machinery-impact`` is also set where ``3-1_non-machinery-impact`` is, and
the official targets and scores keep it so; ``repair_coarse2=True`` derives
the column from the ``2-*`` tags instead.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from iusp_plugin.checks import first_five, near_names
from iusp_plugin.dataio.taxonomy import (
    ALL_TAGS,
    FINE_TAGS,
    presence_column,
    proximity_column,
)

logger = logging.getLogger(__name__)

SPLITS = ("train", "validate", "test")

PRESENCE_COLUMNS = tuple(presence_column(tag) for tag in ALL_TAGS)
_PROXIMITY_COLUMNS = tuple(proximity_column(tag) for tag in FINE_TAGS)
_KEY_COLUMNS = ("sensor_id", "audio_filename", "annotator_id")
_KNOWN_COLUMNS = (
    "split",
    *_KEY_COLUMNS,
    *PRESENCE_COLUMNS,
    *_PROXIMITY_COLUMNS,
)
# Names that releases and users have given to the evaluation rows.
_TEST_ALIASES = ("test", "evaluate", "evaluation", "eval")
_SPLIT_HINTS = {"valid": "validate", "val": "validate", "dev": "validate"}
_PRESENCE = {text: int(float(text)) for text in ("0", "1", "-1", "0.0", "1.0")}


@dataclass(frozen=True)
class Annotations:
    """The checked rows of an annotation file, column by column.

    Arguments
    ---------
    splits : tuple of str
        Per row: train, validate or test.
    sensors : tuple of str
        Per row: the sensor, as written in the file.
    audio_filenames : tuple of str
        Per row: the recording.
    annotator_ids : np.ndarray
        Integers [rows]; 0 is the agreed truth, > 0 a volunteer.
    presence : np.ndarray
        Integers -1 (not labelled), 0, 1 [rows, 37], in taxonomy order: 29
        fine tags, 8 coarse tags.
    """

    splits: tuple[str, ...]
    sensors: tuple[str, ...]
    audio_filenames: tuple[str, ...]
    annotator_ids: np.ndarray
    presence: np.ndarray


def read_annotations(
    path: str | Path, only_split: str | None = None
) -> Annotations:
    """Read and check an annotation file.

    Arguments
    ---------
    path : str or Path
        CSV with a header line; a byte order mark and CRLF are accepted.
        Proximity columns are optional, columns of neither kind are ignored.
    only_split : str, optional
        The split that all rows belong to (for ``annotations-eval.csv``): the
        split column may then be missing, and naming another split is an
        error. By default every row says its split.

    Returns
    -------
    Annotations
        Rows in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For the first fault found; row 1 is the header line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "annotations.csv"
    >>> header = ["sensor_id", "audio_filename", "annotator_id"]
    >>> header += PRESENCE_COLUMNS
    >>> row = ["7", "07_000001.wav", "0"] + ["0"] * 36 + ["1"]
    >>> _ = path.write_text(",".join(header) + "\\n" + ",".join(row))
    >>> rows = read_annotations(path, only_split="test")
    >>> rows.splits, rows.sensors, int(rows.presence.sum())
    (('test',), ('7',), 1)
    """
    path = Path(path)
    header, rows = _read_rows(path)
    _check_header(path, header, need_split=only_split is None)
    column = {name: k for k, name in enumerate(header)}
    names = tuple(row[column["audio_filename"]].strip() for row in rows)
    for number, name in enumerate(names, 2):
        if not name or "/" in name or "\\" in name:
            raise ValueError(
                f"{path}, row {number}: audio_filename={name!r} must be a "
                "plain file name. Write it without folders."
            )
    annotations = Annotations(
        splits=_read_splits(path, rows, column.get("split"), only_split),
        sensors=tuple(row[column["sensor_id"]].strip() for row in rows),
        audio_filenames=names,
        annotator_ids=_read_annotators(path, rows, column["annotator_id"]),
        presence=_read_presence(path, rows, column),
    )
    _check_consistent(path, annotations)
    return annotations


def join_annotations(tables: Mapping[str, Annotations]) -> Annotations:
    """The rows of several annotation files, one after the other.

    Arguments
    ---------
    tables : mapping of str to Annotations
        Checked rows by the name of their file.

    Returns
    -------
    Annotations
        All rows.

    Raises
    ------
    ValueError
        If a recording of one split is in more than one file.
    """
    table_of: dict[tuple[str, str], str] = {}
    for table, rows in tables.items():
        for split, name in zip(rows.splits, rows.audio_filenames, strict=True):
            first = table_of.setdefault((split, Path(name).stem), table)
            if first != table:
                raise ValueError(
                    f"{name} of split {split!r} is in {first} and in {table}. "
                    "Keep its rows in one of them."
                )
    parts = list(tables.values())
    return Annotations(
        tuple(chain.from_iterable(part.splits for part in parts)),
        tuple(chain.from_iterable(part.sensors for part in parts)),
        tuple(chain.from_iterable(part.audio_filenames for part in parts)),
        np.concatenate([part.annotator_ids for part in parts]),
        np.concatenate([part.presence for part in parts]),
    )


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and data rows, all of one length."""
    if not path.is_file():
        raise FileNotFoundError(f"Annotation file {path} does not exist.")
    try:
        # utf-8-sig drops the byte order mark that spreadsheets write.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a UTF-8 CSV file ({error}). Save it as one."
        ) from error
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        raise ValueError(
            f"{path} has {len(lines)} lines: a header and at least one "
            "annotation row are needed. Fetch the file again."
        )
    header = [name.strip() for name in lines[0]]
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, row {number} has {len(row)} cells and the header "
                f"{len(header)}. Repair the row or fetch the file again."
            )
    return header, lines[1:]


def _check_header(path: Path, header: list[str], need_split: bool) -> None:
    """Every needed column once; no misspelt tag column."""
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{path}: column {repeated[0]!r} occurs more than once. Keep one."
        )
    others = [name for name in header if name not in _KNOWN_COLUMNS]
    for name in others:
        # A misspelt tag would otherwise silently be a tag without positives.
        if name.endswith(("_presence", "_proximity")):
            raise ValueError(
                f"{path}: column {name!r} names no tag of the taxonomy. "
                f"{near_names(name, _KNOWN_COLUMNS)}"
            )
    needed = (*(("split",) if need_split else ()), *_KEY_COLUMNS)
    missing = [n for n in (*needed, *PRESENCE_COLUMNS) if n not in header]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} columns: {first_five(missing)}. "
            "Use an annotation file of the DCASE 2019 Task 5 release."
        )
    if others:
        logger.info("%s: columns not used here: %s", path, ", ".join(others))


def _read_splits(
    path: Path,
    rows: Sequence[Sequence[str]],
    column: int | None,
    only_split: str | None,
) -> tuple[str, ...]:
    """The split of every row, checked against the known names."""
    if column is None:
        return (str(only_split),) * len(rows)
    splits = []
    for number, row in enumerate(rows, 2):
        split = row[column].strip()
        if only_split is not None:
            _check_only_split(path, number, split, only_split)
            split = only_split
        elif split not in SPLITS:
            hint = _SPLIT_HINTS.get(split.lower(), split.lower())
            raise ValueError(
                f"{path}, row {number}: split={split!r} is unknown. "
                f"{near_names(hint, SPLITS)}"
            )
        splits.append(split)
    return tuple(splits)


def _check_only_split(path: Path, row: int, split: str, only: str) -> None:
    """Refuse a row of another split in a file of one split."""
    accepted = _TEST_ALIASES if only == "test" else (only,)
    if split.lower() not in accepted:
        raise ValueError(
            f"{path}, row {row}: split={split!r}, but all rows of this file "
            f"belong to {only!r}. Move the row to the development file."
        )


def _read_annotators(
    path: Path, rows: Sequence[Sequence[str]], column: int
) -> np.ndarray:
    """Annotator of every row as an integer."""
    ids = np.empty(len(rows), dtype=np.int64)
    for k, row in enumerate(rows):
        try:
            value = float(row[column])
            ids[k] = int(value)
        except (ValueError, OverflowError):
            value = np.nan
        if value != ids[k]:
            raise ValueError(
                f"{path}, row {k + 2}: annotator_id={row[column]!r} must be "
                "an integer (0 is the agreed truth)."
            )
    return ids


def _read_presence(
    path: Path, rows: Sequence[Sequence[str]], column: dict[str, int]
) -> np.ndarray:
    """Presence of every row and tag as -1, 0 or 1 [rows, 37]."""
    presence = np.empty((len(rows), len(PRESENCE_COLUMNS)), dtype=np.int8)
    for t, name in enumerate(PRESENCE_COLUMNS):
        k = column[name]
        for r, row in enumerate(rows):
            value = _PRESENCE.get(row[k])
            if value is None:
                value = _parse_presence(path, r + 2, name, row[k])
            presence[r, t] = value
    return presence


def _parse_presence(path: Path, row: int, name: str, text: str) -> int:
    """A presence in an unusual spelling, such as ``1.00``."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if value not in (-1, 0, 1):
        raise ValueError(
            f"{path}, row {row}: {name}={text!r} must be 0, 1 or -1 (not "
            "labelled in this row)."
        )
    return int(value)


def _check_consistent(path: Path, rows: Annotations) -> None:
    """One truth row a file, one file a clip id, split by split.

    A name in two splits may be two recordings, which only a look at the audio
    can tell; ``find_audio`` refuses it where it is one.
    """
    names: dict[tuple[str, str], str] = {}
    truths: set[tuple[str, str]] = set()
    keys = zip(rows.splits, rows.audio_filenames, strict=True)
    for number, (split, name) in enumerate(keys, 2):
        other = names.setdefault((split, Path(name).stem), name)
        if other != name:
            raise ValueError(
                f"{path}, row {number}: {name} and {other} differ in their "
                "ending only. Rename one of them."
            )
        if rows.annotator_ids[number - 2] == 0:
            if (split, name) in truths:
                raise ValueError(
                    f"{path}, row {number}: {name} has a second row with "
                    "annotator_id 0. Keep one truth row a file."
                )
            truths.add((split, name))
