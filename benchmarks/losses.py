#!/usr/bin/env python3
"""Measure the losses: time, memory, and how near the machine's limits.

To run it, use the following commands:
> python losses.py
> python losses.py --quick
> python losses.py --only A,C --threads 1

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from command_line import command, letters_among
from limit_tables import long, memory, roofline
from machine import copy_ceiling, describe, matmul_ceiling
from report import markdown_table, write
from settings import Settings
from sp_table import sp
from speed_tables import bars, drawn, given, masked
from timing import use_threads

RESULTS = Path(__file__).resolve().parent / "results"
LETTERS = "ABCDEFGH"


def makers(settings: Settings, ceilings: dict) -> dict[str, Callable]:
    """What makes each table, by letter.

    Arguments
    ---------
    settings : Settings
        The run's.
    ceilings : dict
        The machine's own rates, for the last table.

    Returns
    -------
    dict
        Calls without arguments.
    """
    tables = [bars, masked, given, drawn, memory, long, sp]
    made = {
        letter: lambda make=make: make(settings)
        for letter, make in zip(LETTERS, tables, strict=False)
    }
    return made | {"H": lambda: roofline(settings, ceilings)}


def file_name(settings: Settings, only: str) -> str:
    """Name of the results; parts and trials never replace the whole.

    Arguments
    ---------
    settings : Settings
        The run's.
    only : str
        Letters of the tables that were made.

    Returns
    -------
    str
        Without a folder.
    """
    parts = ["losses"]
    parts += ["cuda"] if settings.device == "cuda" else []
    parts += ["quick"] if settings.quick else []
    parts += [only] if only != LETTERS else []
    return "_".join(parts) + ".json"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options from the command line.

    Arguments
    ---------
    arguments : list of str, optional
        In place of the command line.

    Returns
    -------
    argparse.Namespace
        quick, only, threads, device, output.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="small shapes, to try it out")
    add(
        "--only",
        type=letters_among(LETTERS),
        default=LETTERS,
        help="tables, such as A,C",
    )
    add("--threads", type=int, default=2, help="threads (default: 2)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


def main() -> None:
    """Make the tables, show each one, write all of them."""
    options = parse()
    use_threads(options.threads)
    settings = Settings(options.device, options.quick)
    start = time.monotonic()
    ceilings = {
        "matmul": matmul_ceiling(settings.device, settings.quick),
        "copy": copy_ceiling(settings.device, settings.quick),
    }
    record = {
        "command": command("losses.py", sys.argv[1:]),
        "machine": describe(settings.device),
        "ceilings": ceilings,
        "tables": {},
    }
    for letter, make in makers(settings, ceilings).items():
        if letter in options.only:
            record["tables"][letter] = make()
            print(markdown_table(record["tables"][letter]), "\n", flush=True)
    record["seconds"] = round(time.monotonic() - start)
    path = options.output / file_name(settings, options.only)
    write(record, path)
    print(f"{record['seconds']} s; written to {path} and .md")


if __name__ == "__main__":
    main()
