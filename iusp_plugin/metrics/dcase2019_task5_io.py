"""Files of DCASE 2019 Task 5: predictions and ground truth.

A prediction file has the columns ``audio_filename``, 29 fine tags, 8 coarse
tags, found by exact name in any order, and one row a file. The ground truth
is the rows of the annotation file that the annotators agreed on
(``annotator_id`` 0). A byte order mark and CRLF line ends are accepted.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import difflib
import logging
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from iusp_plugin.dataio.taxonomy import (
    ALL_TAGS,
    FINE_TAGS,
    INCOMPLETE_FINE_TAGS,
    presence_column,
)
from iusp_plugin.metrics.csv_table import (
    PathLike,
    atomic_writer,
    parse_number,
    read_table,
)
from iusp_plugin.metrics.dcase2019_task5_table import FloatArray, TagTable

logger = logging.getLogger(__name__)

FILENAME_COLUMN = "audio_filename"


def read_predictions(
    path: PathLike, tags: Sequence[str] = ALL_TAGS
) -> TagTable:
    """Read a file in submission format.

    Columns and rows may come in any order; unknown columns are ignored. A
    missing tag column is filled with zeros, negative values and missing
    numbers of incomplete tags are never predicted: as officially, and each
    with a logged warning. Missing numbers elsewhere are read as NaN, which
    ``validate`` refuses, as it refuses values above 1.

    Arguments
    ---------
    path : path-like
        The CSV file.
    tags : sequence of str
        Columns to read, the others become zeros without a word.

    Returns
    -------
    TagTable
        Confidences.

    Raises
    ------
    ValueError
        If the file is no such table, naming file, line and column.
    """
    table = read_table(path)
    table.require(FILENAME_COLUMN)
    _warn_of_missing_columns(path, table.columns, tags)
    names: list[str] = []
    values = np.zeros((len(table.rows), len(ALL_TAGS)))
    present = [tag for tag in tags if tag in table.columns]
    seen: set[str] = set()
    for i, (line, row) in enumerate(table.rows):
        name = row[table.columns[FILENAME_COLUMN]]
        if name in seen:
            raise ValueError(
                f"{path}, line {line}: {name!r} has a row already; keep one."
            )
        seen.add(name)
        names.append(name)
        for tag in present:
            values[i, ALL_TAGS.index(tag)] = parse_number(
                row[table.columns[tag]], f"{path}, line {line} ({name})", tag
            )
    _warn_of_odd_values(path, values)
    n_fine = len(FINE_TAGS)
    return TagTable.from_rows(names, values[:, :n_fine], values[:, n_fine:])


def _warn_of_missing_columns(
    path: PathLike,
    columns: Collection[str],
    tags: Sequence[str],
) -> None:
    """Log the tag columns that are not there, with near names."""
    extra = [c for c in columns if c not in ALL_TAGS and c != FILENAME_COLUMN]
    missing = []
    for tag in tags:
        if tag not in columns:
            near = difflib.get_close_matches(tag, extra, n=1, cutoff=0.8)
            missing.append(tag + "".join(f" (has {n!r})" for n in near))
    if missing:
        logger.warning(
            "%s lacks %d tag columns, filled with zeros: %s.",
            path,
            len(missing),
            ", ".join(missing),
        )


def _warn_of_odd_values(path: PathLike, values: FloatArray) -> None:
    """Log the columns whose values count as absent without saying so."""
    incomplete = [tag in INCOMPLETE_FINE_TAGS for tag in ALL_TAGS]
    for what, odd in (
        ("negative values", values < 0),
        ("missing numbers", np.isnan(values) & incomplete),
    ):
        if odd.any():
            tags = [ALL_TAGS[i] for i in np.flatnonzero(odd.any(axis=0))]
            logger.warning(
                "%s has %s, which are never predicted present, in: %s.",
                path,
                what,
                ", ".join(tags),
            )


def read_truth(path: PathLike, split: str | None = None) -> TagTable:
    """Read the agreed ground truth of one split.

    Arguments
    ---------
    path : path-like
        The annotation file; only rows with annotator_id 0 are read. The
        coarse columns are taken as they stand.
    split : str, optional
        Which split; None is the one that holds agreed rows.

    Returns
    -------
    TagTable
        0 or 1 in every cell.

    Raises
    ------
    ValueError
        If the file is no such table, no or several splits qualify, a file
        has two agreed rows, or a presence is neither 0 nor 1.
    """
    table = read_table(path)
    presence = [presence_column(tag) for tag in ALL_TAGS]
    table.require("split", FILENAME_COLUMN, "annotator_id", *presence)
    who, which, what = (
        table.columns[c] for c in ("annotator_id", "split", FILENAME_COLUMN)
    )
    agreed = [
        (line, row)
        for line, row in table.rows
        if parse_number(row[who], f"{path}, line {line}", "annotator_id") == 0
    ]
    split = _choose_split(path, split, {row[which] for _, row in agreed})
    agreed = [(line, row) for line, row in agreed if row[which] == split]
    at = [table.columns[c] for c in presence]
    values = np.array(
        [
            [
                _label(row[i], f"{path}, line {line} ({row[what]})", c)
                for i, c in zip(at, presence, strict=True)
            ]
            for line, row in agreed
        ]
    )
    n_fine = len(FINE_TAGS)
    names = [row[what] for _, row in agreed]
    return TagTable.from_rows(names, values[:, :n_fine], values[:, n_fine:])


def _label(text: str, where: str, column: str) -> float:
    """The 0 or 1 in a truth cell."""
    value = parse_number(text, where, column)
    if value not in (0.0, 1.0):
        raise ValueError(
            f"{where}, column {column}: {text!r} is no agreed label; "
            "give 0 or 1."
        )
    return value


def _choose_split(path: PathLike, split: str | None, having: set[str]) -> str:
    """The split to read, given those that hold agreed rows."""
    names = ", ".join(sorted(having)) or "none"
    if split is None and len(having) == 1:
        return next(iter(having))
    if split is None and having:
        raise ValueError(
            f"{path} has ground truth in several splits ({names}); "
            "choose one with --split."
        )
    if split not in having:
        raise ValueError(
            f"{path} has no ground truth (annotator_id 0) in "
            f"split={split!r}; splits that have some: {names}."
        )
    return split


def write_predictions(
    path: PathLike,
    filenames: Sequence[str],
    fine: npt.ArrayLike,
    coarse: npt.ArrayLike,
) -> None:
    """Write a file in submission format, sorted by file name, atomically.

    Arguments
    ---------
    path : path-like
        The CSV file; its folder must exist.
    filenames : sequence of str
        Distinct values of the column ``audio_filename``.
    fine, coarse : array_like
        Confidences from 0 to 1, shapes (files, 29) and (files, 8). Full
        float64 precision is written.

    Raises
    ------
    ValueError
        If a shape, a name or a value is not as described.
    """
    table = TagTable.from_rows(filenames, fine, coarse)
    values = np.hstack([table.fine, table.coarse])
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"predictions of {table.filenames[row]}, column "
            f"{ALL_TAGS[column]}: {values[row, column]:g} is no confidence; "
            "give a number from 0 to 1."
        )
    with atomic_writer(path) as file:
        writer = csv.writer(file)
        writer.writerow([FILENAME_COLUMN, *ALL_TAGS])
        for name, row in zip(table.filenames, values.tolist(), strict=True):
            writer.writerow([name, *row])
