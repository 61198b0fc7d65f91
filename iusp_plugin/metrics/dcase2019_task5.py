"""The official metrics of DCASE 2019 Task 5, from arrays or from files.

Two independent levels. The coarse level reads the 8 coarse columns and
nothing else, the fine level the 29 fine columns. Both give the micro-AUPRC,
the micro-F1 at 0.5, one AUPRC per coarse category and their plain mean, the
macro-AUPRC.

Rules: those of the official evaluator's code, also where its README differs.
Departure: the official coarse level stops with an exception where truth and
prediction of a category hold one label only. Here counting goes on, the
category stays in the macro mean, and ``one_label_categories`` names it.

Authors
 * The iusp_plugin authors 2026

Example
-------
>>> import numpy as np
>>> truth = np.eye(8)
>>> evaluate_arrays(truth, None, truth, None, "coarse")["coarse"]["micro_f1"]
1.0
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Sequence

import numpy.typing as npt

from iusp_plugin.checks import check_choice
from iusp_plugin.dataio.taxonomy import COARSE_TAGS
from iusp_plugin.metrics.auprc import TIES
from iusp_plugin.metrics.csv_table import PathLike, atomic_writer
from iusp_plugin.metrics.dcase2019_task5_counts import (
    LEVEL_TAGS,
    category_counts,
    level_counts,
    validate,
)
from iusp_plugin.metrics.dcase2019_task5_io import (
    read_predictions,
    read_truth,
    write_predictions,
)
from iusp_plugin.metrics.dcase2019_task5_scores import (
    Scores,
    f1_operating_point,
    one_label_categories,
    score_counts,
)
from iusp_plugin.metrics.dcase2019_task5_table import TagTable

__all__ = [
    "LEVELS",
    "TagTable",
    "category_counts",
    "evaluate",
    "evaluate_arrays",
    "f1_operating_point",
    "level_counts",
    "main",
    "one_label_categories",
    "read_predictions",
    "read_truth",
    "score_counts",
    "validate",
    "write_predictions",
]

logger = logging.getLogger(__name__)

LEVELS: tuple[str, ...] = ("both", *LEVEL_TAGS)


def evaluate_arrays(
    coarse_truth: npt.ArrayLike | None,
    fine_truth: npt.ArrayLike | None,
    coarse_pred: npt.ArrayLike | None,
    fine_pred: npt.ArrayLike | None,
    level: str = "both",
    ties: str = "official",
) -> dict[str, Scores]:
    """Score predictions given as arrays with one row a file.

    Arguments
    ---------
    coarse_truth, coarse_pred : array_like
        Labels 0 or 1 and confidences, shape (files, 8).
    fine_truth, fine_pred : array_like
        The same for the fine tags, shape (files, 29), taxonomy order.
    level : str
        "both", "coarse" or "fine". The arrays of a level that is not asked
        for are not looked at and may be None.
    ties : str
        "official" for figures comparable with published ones, or "stable".

    Returns
    -------
    dict
        A dict a level, "coarse" before "fine", as ``score_counts`` gives.

    Raises
    ------
    ValueError
        If a choice, a shape or a value is not as described.

    Example
    -------
    >>> import numpy as np
    >>> truth = np.eye(8)
    >>> scores = evaluate_arrays(truth, None, truth, None, level="coarse")
    >>> scores["coarse"]["macro_auprc"]
    1.0
    """
    check_choice("level", level, LEVELS)
    check_choice("ties", ties, TIES)
    arrays = {
        "coarse": (coarse_truth, coarse_pred),
        "fine": (fine_truth, fine_pred),
    }
    result = {}
    for name in _levels(level):
        truth, predictions = arrays[name]
        if truth is None or predictions is None:
            raise ValueError(
                f"level={level!r} needs {name}_truth and {name}_pred, one is "
                "None; give both or choose the other level."
            )
        result[name] = score_counts(
            level_counts(truth, predictions, name), ties
        )
    return result


def evaluate(
    truth: TagTable,
    predictions: TagTable,
    level: str = "both",
    ties: str = "official",
) -> dict[str, Scores]:
    """Score one table against another, which must hold the same files.

    Coarse categories that the official evaluator could not score are logged
    as warnings.

    Arguments
    ---------
    truth, predictions : TagTable
        As ``read_truth`` and ``read_predictions`` give them.
    level : str
        "both", "coarse" or "fine".
    ties : str
        "official" or "stable".

    Returns
    -------
    dict
        A dict a level, "coarse" before "fine", as ``score_counts`` gives.

    Raises
    ------
    ValueError
        If the files differ, or a choice or a value is not as described.
    """
    check_choice("level", level, LEVELS)
    check_choice("ties", ties, TIES)
    names = truth.filenames
    _check_same_files(names, predictions.filenames)
    result = {}
    for name in _levels(level):
        counts = level_counts(
            getattr(truth, name), getattr(predictions, name), name, names
        )
        if name == "coarse":
            _warn_of_one_label(one_label_categories(counts, len(names)))
        result[name] = score_counts(counts, ties)
    return result


def _levels(level: str) -> tuple[str, ...]:
    """The levels that a choice stands for."""
    return tuple(LEVEL_TAGS) if level == "both" else (level,)


def _check_same_files(truth: Sequence[str], predicted: Sequence[str]) -> None:
    """Raise ValueError unless both name the same files."""
    faults = []
    for what, names, remedy in (
        ("lack", set(truth) - set(predicted), "add"),
        ("have, beyond the truth,", set(predicted) - set(truth), "remove"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3])
            more = ", ..." if len(names) > 3 else ""
            faults.append(
                f"{what} {len(names)} files ({shown}{more}): {remedy} them"
            )
    if faults:
        raise ValueError(
            f"predictions for {len(predicted)} files, truth for "
            f"{len(truth)}: predictions {'; they '.join(faults)}."
        )


def _warn_of_one_label(categories: Sequence[int]) -> None:
    """Log the coarse categories that have no official value."""
    for c in categories:
        logger.warning(
            "coarse category %s: truth and predictions hold one label only "
            "at some threshold, where the official evaluator stops; counted "
            "plainly, and kept in the macro mean.",
            COARSE_TAGS[c - 1],
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Command ``iusp-evaluate``: score a prediction file.

    Arguments
    ---------
    argv : sequence of str, optional
        Arguments; None takes those of the process.

    Returns
    -------
    int
        Exit status: 0, or 2 after bad input and one line on stderr.
    """
    logging.basicConfig(format="iusp-evaluate: warning: %(message)s")
    args = _parser().parse_args(argv)
    tags = [t for name in _levels(args.level) for t in LEVEL_TAGS[name]]
    try:
        truth = read_truth(args.annotations, args.split)
        predictions = read_predictions(args.predictions, tags)
        scores = evaluate(truth, predictions, args.level, args.ties)
        if args.json is not None:
            _write_json(args.json, scores)
    except (ValueError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}; check the path."
        line = " ".join(message.split())
        print(f"iusp-evaluate: error: {line}", file=sys.stderr)
        return 2
    print(f"{len(truth.filenames)} files, ties {args.ties}")
    print(_format_table(scores))
    return 0


def _parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="iusp-evaluate",
        description="Score predictions by the rules of DCASE 2019 Task 5.",
    )
    add = parser.add_argument
    add("--predictions", required=True, help="CSV in submission format")
    add("--annotations", required=True, help="CSV of the data release")
    add("--split", help="default: the split that holds ground truth")
    add("--level", choices=LEVELS, default="both")
    add(
        "--ties",
        choices=TIES,
        default="official",
        help="order of points of equal recall; official is comparable with "
        "published figures",
    )
    add("--json", help="file to write the scores to")
    return parser


def _write_json(path: PathLike, scores: dict[str, Scores]) -> None:
    """Write the scores, full precision."""
    with atomic_writer(path) as file:
        json.dump(scores, file, indent=2)
        file.write("\n")


def _format_table(scores: dict[str, Scores]) -> str:
    """A line a metric, a column a level."""

    def line(label: str, cells: Iterable[str]) -> str:
        return f"{label:30}" + "".join(f"{cell:>10}" for cell in cells)

    lines = [line("", scores)]
    for key, label in (
        ("micro_auprc", "micro-AUPRC"),
        ("micro_f1", "micro-F1 at 0.5"),
        ("macro_auprc", "macro-AUPRC"),
    ):
        lines.append(line(label, (f"{s[key]:.6f}" for s in scores.values())))
    for c, tag in enumerate(COARSE_TAGS, 1):
        cells = (s["classwise_auprc"][str(c)] for s in scores.values())
        lines.append(line(f"AUPRC {tag}", (f"{v:.6f}" for v in cells)))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
