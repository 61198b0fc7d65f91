"""Results as JSON, and the Markdown tables made from nothing but that JSON.

To make the tables anew from a file of results:
> python report.py results/losses.json

Authors
 * The iusp_plugin authors 2026
"""

import json
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tqdm import tqdm

from iusp_plugin.files import replacing

Row = dict[str, object]
Column = tuple[str, str, str]


def table(
    title: str,
    note: str,
    columns: list[Column],
    rows: list[Row],
    closing: str = "",
) -> dict:
    """A table as it stands in the results.

    Arguments
    ---------
    title : str
        Begins with the table's letter.
    note : str
        What a reader has to know.
    columns : list of (heading, key, style)
        The style is one of ``STYLES``.
    rows : list of dict
        Figures by key; there may be more than the columns show.
    closing : str
        A line below the table.

    Returns
    -------
    dict
        These five.
    """
    return {
        "title": title,
        "note": note,
        "columns": columns,
        "rows": rows,
        "closing": closing,
    }


def progress(name: str, items: Collection) -> Iterator:
    """The items, with a bar if there is a terminal.

    Arguments
    ---------
    name : str
        In front of the bar.
    items : collection
        What is gone through.

    Returns
    -------
    iterator
        Over the items.
    """
    return tqdm(items, desc=name, leave=False, disable=None)


def at_least(ratio: dict[str, float], limit: float | None) -> dict | None:
    """A bar that the ratio of medians has to reach.

    Arguments
    ---------
    ratio : dict
        With "value".
    limit : float or None
        None is no bar.

    Returns
    -------
    dict or None
        "limit", and whether it is "met".
    """
    if limit is None:
        return None
    return {"limit": limit, "met": ratio["value"] >= limit}


def at_most(ratio: dict[str, float], limit: float | None) -> dict | None:
    """A bar that the ratio may not pass; see ``at_least``."""
    if limit is None:
        return None
    return {"limit": limit, "met": ratio["value"] <= limit}


def significant(value: float, digits: int = 3) -> str:
    """A number by its first digits, never as a power of ten.

    Arguments
    ---------
    value : float
        Not negative.
    digits : int
        How many of them are kept.

    Returns
    -------
    str
        Such as "0.0123", "1.23" or "12345".
    """
    if value == 0:
        return "0"
    whole = f"{value:.{digits - 1}e}"
    exponent = int(whole.partition("e")[2])
    return f"{float(whole):.{max(0, digits - 1 - exponent)}f}"


def _ratio(value: dict) -> str:
    """A ratio with the quartiles of its repetitions."""
    low, high = significant(value["low"]), significant(value["high"])
    return f"{significant(value['value'])} ({low} to {high})"


def _bar(value: dict, unit: float = 1.0) -> str:
    """A limit, and on which side of it the figure lies."""
    met = "met" if value["met"] else "**missed**"
    return f"{value['limit'] / unit:g} {met}"


STYLES: dict[str, Callable] = {
    "text": str,
    "shape": lambda sizes: " x ".join(str(size) for size in sizes),
    "ms": lambda seconds: significant(1e3 * seconds),
    "MB": lambda count: significant(count / 1e6),
    "number": significant,
    "percent": lambda share: f"{100 * share:.0f} %",
    "error": lambda value: f"{value:.0e}",
    "value": lambda value: f"{value:.3e}",
    "ratio": _ratio,
    "bar": _bar,
    "MB bar": lambda value: _bar(value, unit=1e6),
}


def cell(row: Row, key: str, style: str) -> str:
    """One figure in words; a dash where there is none.

    Arguments
    ---------
    row : dict
        Figures by key.
    key : str
        Which one.
    style : str
        One of ``STYLES``.

    Returns
    -------
    str
        For a cell of a table.
    """
    value = row.get(key)
    return "-" if value is None else STYLES[style](value)


def markdown_table(table: dict) -> str:
    """Title, note, rows and closing lines of one table.

    Arguments
    ---------
    table : dict
        "title", "note", "columns" as (heading, key, style), "rows" and
        "closing".

    Returns
    -------
    str
        Markdown.
    """
    columns = table["columns"]
    lines = [
        "| " + " | ".join(heading for heading, _, _ in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for row in table["rows"]:
        cells = [cell(row, key, style) for _, key, style in columns]
        lines.append("| " + " | ".join(cells) + " |")
    parts = [f"## {table['title']}", table["note"], "\n".join(lines)]
    return "\n\n".join([*parts, table["closing"]]).rstrip()


def _facts(record: dict) -> str:
    """With what, when and how the figures were made, as a list."""
    facts = {"command": f"`{record['command']}`", **record["machine"]}
    for name, rates in record.get("ceilings", {}).items():
        unit = "GFLOP/s" if name == "matmul" else "GB/s"
        facts[f"{name}, {unit}"] = ", ".join(
            f"{size}: {significant(rate)}" for size, rate in rates.items()
        )
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def markdown(record: dict) -> str:
    """The whole page.

    Arguments
    ---------
    record : dict
        As written by ``write``.

    Returns
    -------
    str
        Markdown.
    """
    title = "# " + record.get("title", "How fast the losses are")
    note = "Made by `make bench`; see [README.md](../README.md) for its words."
    tables = [markdown_table(table) for table in record["tables"].values()]
    return "\n\n".join([title, note, _facts(record), *tables]) + "\n"


def write(record: dict, path: Path) -> None:
    """Write the results as JSON and, beside them, as Markdown.

    Arguments
    ---------
    record : dict
        "command", "machine", "tables", perhaps "title" and "ceilings".
    path : Path
        Of the JSON; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        text = json.dumps(record, indent=1, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    with replacing(path.with_suffix(".md")) as part:
        part.write_text(markdown(record), encoding="utf-8")


if __name__ == "__main__":
    results = Path(sys.argv[1])
    write(json.loads(results.read_text(encoding="utf-8")), results)
