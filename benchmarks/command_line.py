"""What the benchmarks' command lines share.

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path


def letters_among(known: str) -> Callable[[str], str]:
    """What reads a choice of tables, such as "A,C".

    Arguments
    ---------
    known : str
        Letters of all tables.

    Returns
    -------
    callable
        From the text to its letters, in order; argparse's error for others.
    """

    def letters(text: str) -> str:
        found = set(text.upper()) - set(", ")
        if not found or not found <= set(known):
            raise argparse.ArgumentTypeError(
                f"{text!r} must be letters of {known}, such as A,C"
            )
        return "".join(sorted(found))

    return letters


def command(script: str, arguments: list[str]) -> str:
    """How the run was started, without folders of this machine.

    Arguments
    ---------
    script : str
        Name of the script.
    arguments : list of str
        After the script's name.

    Returns
    -------
    str
        To be typed in the project's folder.
    """
    words = []
    for word in arguments:
        option, equals, value = word.rpartition("=")
        if os.path.isabs(value):
            value = Path(value).name
        words.append(option + equals + value)
    return shlex.join(["python", f"benchmarks/{script}", *words])
