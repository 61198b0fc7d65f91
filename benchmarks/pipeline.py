#!/usr/bin/env python3
"""Measure the data pipeline: front end, stores, teacher cache, processes.

To run it, use the following commands:
> python pipeline.py
> python pipeline.py --quick
> python pipeline.py --data_folder=FOLDER --teacher_folder=FOLDER --only B,G

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from command_line import command, letters_among
from epoch_tables import light, live, profile
from front_end_table import front_end
from growth import growth
from machine import describe
from process_table import processes
from recipe_runs import Workshop
from report import markdown_table, write
from shift_table import shifts
from timing import Effort, use_threads

RESULTS = Path(__file__).resolve().parent / "results"
LETTERS = "ABCDEFG"
TITLE = "How fast the data pipeline is"


def makers(options: argparse.Namespace, folder: Path) -> dict[str, Callable]:
    """What makes each table, by letter.

    Arguments
    ---------
    options : argparse.Namespace
        The command line.
    folder : Path
        For everything that is made.

    Returns
    -------
    dict
        Calls without arguments.
    """
    quick = options.quick
    sizes = {"n_clips": 400, "batch_size": 32, "embedded": (400, 8)}
    if quick:
        sizes = {"n_clips": 8, "batch_size": 4, "embedded": (8, 4)}
    shop = Workshop(folder / "recipe", options.data_folder, **sizes)
    widths = (32,) if quick else (32, 64)
    few, many = (1, 1) if quick else (3, 9)
    effort = Effort(0.05, 2, 3) if quick else Effort(4.0)
    clips = 2000 if quick else 200_000
    teacher = {
        "teacher_folder": options.teacher_folder,
        "teacher_width": options.teacher_width,
    }
    if not options.teacher_folder:
        teacher = shop.teacher(32)
    return {
        "A": lambda: front_end(folder / "a", 1.0 if quick else 10.0, effort),
        "B": lambda: light(shop, many),
        "C": lambda: live(shop, few, widths),
        "D": lambda: growth(folder / "d", clips, few),
        "E": lambda: profile(shop, few),
        "F": lambda: processes(shop, min(few, 2)),
        "G": lambda: shifts(shop, teacher, 4 if quick else 64),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options from the command line.

    Arguments
    ---------
    arguments : list of str, optional
        In place of the command line.

    Returns
    -------
    argparse.Namespace
        data_folder, teacher_folder, teacher_width, quick, only, threads,
        output.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data_folder", help="clips to train on; soundscapes if left out")
    add("--teacher_folder", help="trained teacher of table G; else random")
    add("--teacher_width", type=int, default=32, help="its width")
    add("--quick", action="store_true", help="tiny sizes, to try it out")
    add(
        "--only",
        type=letters_among(LETTERS),
        default=LETTERS,
        help="tables, such as A,C",
    )
    add("--threads", type=int, default=2, help="threads (default: 2)")
    add("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


def main() -> None:
    """Make the tables, show each one, write all of them."""
    options = parse()
    for name in ("data_folder", "teacher_folder"):
        given = getattr(options, name)
        if given and not Path(given).is_dir():
            raise FileNotFoundError(f"--{name}={given} is not a folder.")
        setattr(options, name, str(Path(given).resolve()) if given else None)
    use_threads(options.threads)
    logging.disable(logging.WARNING)
    start = time.monotonic()
    record = {
        "title": TITLE,
        "command": command("pipeline.py", sys.argv[1:]),
        "machine": describe("cpu"),
        "tables": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for letter, make in makers(options, Path(folder)).items():
            if letter in options.only:
                record["tables"][letter] = make()
                shown = markdown_table(record["tables"][letter])
                print(shown, "\n", flush=True)
    record["seconds"] = round(time.monotonic() - start)
    parts = ["pipeline"]
    parts += ["quick"] if options.quick else []
    parts += [options.only] if options.only != LETTERS else []
    path = options.output / ("_".join(parts) + ".json")
    write(record, path)
    print(f"{record['seconds']} s; written to {path} and .md")


if __name__ == "__main__":
    main()
