"""Comma-separated tables with errors that name file, line and column.

Nothing here knows the task. A byte order mark and CRLF line ends are
accepted; columns are found by exact name.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from iusp_plugin.checks import near_names
from iusp_plugin.files import replacing

PathLike = str | os.PathLike[str]

# Spellings of a missing number, lower case.
_MISSING = frozenset({"", "nan", "na", "n/a", "null"})


@dataclass(frozen=True)
class CsvTable:
    """The cells of one file.

    Arguments
    ---------
    path : path-like
        The file, for messages.
    columns : dict
        Index of each column name.
    rows : list of (int, list of str)
        Line number and cells of every row that is not blank.
    """

    path: PathLike
    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]

    def require(self, *names: str) -> None:
        """Raise ValueError naming the first column that is not there."""
        for name in names:
            if name not in self.columns:
                raise ValueError(
                    f"{self.path} has no column {name!r}. "
                    f"{near_names(name, self.columns)}"
                )


def read_table(path: PathLike) -> CsvTable:
    """Read a comma-separated file with one header line.

    Arguments
    ---------
    path : path-like
        The file, UTF-8.

    Returns
    -------
    CsvTable
        Its cells, as text.

    Raises
    ------
    ValueError
        If it is not such a file: empty, other encoding, a column name twice,
        a row of another length than the header.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not comma-separated UTF-8 text ({error}); "
            "export it again as such."
        ) from error
    if not header:
        raise ValueError(f"{path} is empty; its first line names the columns.")
    columns = {name: i for i, name in enumerate(header)}
    if len(columns) < len(header):
        twice = next(n for n in header if header.count(n) > 1)
        raise ValueError(
            f"{path} has two columns {twice!r}; remove or rename one."
        )
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(row)} cells under {len(header)} "
                "column names; give one cell a column."
            )
    return CsvTable(path, columns, rows)


def parse_number(text: str, where: str, column: str) -> float:
    """The number in a cell, NaN for an empty one.

    Arguments
    ---------
    text : str
        The cell.
    where, column : str
        Place of the cell, for the message.

    Returns
    -------
    float
        The number, not necessarily finite.

    Raises
    ------
    ValueError
        If the text is no number.

    Example
    -------
    >>> parse_number("0.5", "p.csv, line 2", "8_dog"), parse_number("", "", "")
    (0.5, nan)
    >>> parse_number("0,5", "p.csv, line 2", "8_dog")
    Traceback (most recent call last):
    ...
    ValueError: p.csv, line 2, column 8_dog: '0,5' is no number; ...
    """
    text = text.strip()
    if text.lower() in _MISSING:
        return float("nan")
    try:
        # Python reads 1_0 as 10; a table means something else by it.
        return float(text if "_" not in text else "no number")
    except ValueError:
        raise ValueError(
            f"{where}, column {column}: {text!r} is no number; "
            "write it like 0.25."
        ) from None


@contextmanager
def atomic_writer(path: PathLike) -> Iterator[TextIO]:
    """Open a text file that appears under its name only when complete.

    Arguments
    ---------
    path : path-like
        The file to be; its folder must exist.

    Yields
    ------
    file
        UTF-8, line ends as written. After an exception nothing is left and
        an older file of that name is untouched.
    """
    with (
        replacing(path) as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        yield file
