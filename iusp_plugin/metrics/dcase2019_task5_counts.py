"""Counts behind the DCASE 2019 Task 5 metrics, at every threshold.

Both levels work in the 8 coarse categories. The coarse level reads the 8
coarse columns as they stand. The fine level judges the incomplete ("X") tag
of a category together with its complete tags; only the complete tags own
thresholds, and the incomplete one is cut at the same.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from iusp_plugin.checks import check_choice
from iusp_plugin.dataio.taxonomy import (
    COARSE_IDS,
    COARSE_TAGS,
    FINE_TAGS,
    INCOMPLETE_FINE_TAGS,
    fine_tags_of,
    incomplete_tag_of,
)
from iusp_plugin.metrics.curves import (
    Counts,
    FloatArray,
    IntArray,
    pool_counts,
    threshold_list,
)

BoolArray = npt.NDArray[np.bool_]

# The columns that each level reads.
LEVEL_TAGS: dict[str, tuple[str, ...]] = {
    "coarse": COARSE_TAGS,
    "fine": FINE_TAGS,
}


def validate(
    truth: npt.ArrayLike,
    predictions: npt.ArrayLike,
    level: str,
    filenames: Sequence[str] | None = None,
) -> tuple[BoolArray, FloatArray]:
    """Check one level's arrays and bring them into computing form.

    Arguments
    ---------
    truth : array_like
        0 or 1, shape (files, 8) or (files, 29), columns in taxonomy order.
    predictions : array_like
        Confidences of the same shape, at most 1. Values below 0.01, negative
        ones included, are never predicted present. NaN counts as absent in
        an incomplete ("X") column, as officially, and is an error elsewhere.
    level : str
        "coarse" or "fine".
    filenames : sequence of str, optional
        Names of the rows, for the messages.

    Returns
    -------
    tuple of numpy.ndarray
        Truth (bool) and predictions (float64, no NaN).

    Raises
    ------
    ValueError
        If the level, a shape or a value is not as described.

    Example
    -------
    >>> validate(np.zeros((1, 8)), np.full((1, 8), 1.5), "coarse")
    Traceback (most recent call last):
    ...
    ValueError: predictions of row 0, column 1_engine: 1.5 is above 1; ...
    """
    check_choice("level", level, LEVEL_TAGS)
    true = np.asarray(truth, dtype=np.float64)
    pred = np.asarray(predictions, dtype=np.float64)
    _check_shapes(true, pred, level)
    owning = [tag not in INCOMPLETE_FINE_TAGS for tag in LEVEL_TAGS[level]]
    missing = np.isnan(pred)
    for name, array, bad, remedy in (
        ("truth", true, (true != 0) & (true != 1), "give 0 or 1"),
        ("predictions", pred, missing & owning, "give a number from 0 to 1"),
        ("predictions", pred, pred > 1, "give a number from 0 to 1"),
    ):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            where = f"row {row}" if filenames is None else filenames[row]
            raise ValueError(
                f"{name} of {where}, column {LEVEL_TAGS[level][column]}: "
                f"{_fault(array[row, column])}; {remedy}."
            )
    return true != 0, np.where(missing, -np.inf, pred)


def _check_shapes(true: FloatArray, pred: FloatArray, level: str) -> None:
    """Raise ValueError unless both are (files >= 1, the level's columns)."""
    width = len(LEVEL_TAGS[level])
    for name, array in (("truth", true), ("predictions", pred)):
        if array.ndim != 2 or array.shape[1] != width or not len(array):
            raise ValueError(
                f"{level} {name} has shape {array.shape}; give one row a "
                f"file, at least one, and {width} columns."
            )
    if len(true) != len(pred):
        raise ValueError(
            f"{level} truth has {len(true)} rows and predictions have "
            f"{len(pred)}; give the same files in the same order."
        )


def _fault(value: float) -> str:
    """What is wrong with a refused value, in words."""
    if np.isnan(value):
        return "no number (an empty cell or NaN)"
    return f"{value:g} is above 1" if value > 1 else f"{value:g} is no label"


def category_counts(
    truth: BoolArray,
    predictions: FloatArray,
    truth_x: BoolArray | None = None,
    predictions_x: FloatArray | None = None,
) -> Counts:
    """Counts of one category along its own thresholds, descending.

    Without an incomplete tag these are plain counts. A true incomplete tag
    forgives every false positive of its category in its file, and any
    prediction in the category is worth one true positive unless a complete
    tag matched already. A predicted one is a false positive only where the
    category is truly empty and not all complete tags are predicted at once.

    Arguments
    ---------
    truth : numpy.ndarray
        Complete tags (or the coarse tag alone), bool, shape (files, tags).
    predictions : numpy.ndarray
        Their confidences, float64 without NaN; they own the thresholds.
    truth_x, predictions_x : numpy.ndarray, optional
        The incomplete tag's, shape (files,); None is never present.

    Returns
    -------
    Counts
        Summed over the files.

    Example
    -------
    >>> counts = category_counts(
    ...     np.array([[True], [False]]), np.array([[0.3], [0.6]])
    ... )
    >>> [x.tolist() for x in counts]
    [[1.0, 0.6, 0.3], [0, 0, 1], [0, 1, 1], [1, 1, 0]]
    """
    thresholds = threshold_list(predictions)
    size = len(thresholds)
    # A cell is predicted from index `on` of the list onwards, size is never.
    on = _first_index(thresholds, predictions)
    on_x = np.full(len(truth), size)
    if truth_x is None:
        truth_x = np.zeros(len(truth), dtype=bool)
    if predictions_x is not None:
        on_x = _first_index(thresholds, predictions_x)
    any_on = np.minimum(on.min(axis=1), on_x)
    first_match = np.where(truth, on, size).min(axis=1)
    empty = ~truth.any(axis=1)
    blank = empty & ~truth_x

    matched = _held(on[truth], size, size)
    rescued = _held(any_on[truth_x], first_match[truth_x], size)
    false_tags = _held(on[~truth & ~truth_x[:, None]], size, size)
    until = np.maximum(on_x, on.max(axis=1))
    false_x = _held(on_x[blank], until[blank], size)
    missed_x = _held(0, any_on[truth_x & empty], size)
    return Counts(
        thresholds,
        tp=matched + rescued,
        fp=false_tags + false_x,
        fn=int(truth.sum()) - matched + missed_x,
    )


def _first_index(thresholds: FloatArray, values: FloatArray) -> IntArray:
    """How many of the descending thresholds lie above each value."""
    reached = np.searchsorted(thresholds[::-1], values, side="right")
    return len(thresholds) - reached


def _held(start: IntArray | int, stop: IntArray | int, size: int) -> IntArray:
    """How many intervals [start, stop) hold each index 0..size-1."""
    start, stop = np.broadcast_arrays(start, stop)
    begun = np.bincount(start, minlength=size + 1)
    ended = np.bincount(stop, minlength=size + 1)
    return np.cumsum(begun - ended)[:size]


def level_counts(
    truth: npt.ArrayLike,
    predictions: npt.ArrayLike,
    level: str,
    filenames: Sequence[str] | None = None,
) -> dict[str, Counts]:
    """Counts of every category and of all pooled, at every threshold.

    Arguments
    ---------
    truth : array_like
        0 or 1, shape (files, 8) or (files, 29), columns in taxonomy order.
    predictions : array_like
        Confidences of the same shape, see ``validate``.
    level : str
        "coarse" or "fine".
    filenames : sequence of str, optional
        Names of the rows, for the messages.

    Returns
    -------
    dict
        "1".."8": Counts with descending thresholds; "micro": Counts with
        ascending ones.

    Raises
    ------
    ValueError
        As ``validate``.

    Example
    -------
    >>> counts = level_counts(np.ones((3, 8)), np.full((3, 8), 0.5), "coarse")
    >>> counts["8"].tp.tolist(), counts["micro"].tp.tolist()
    ([0, 3], [24, 0])
    """
    true, pred = validate(truth, predictions, level, filenames)
    curves = {}
    for c in COARSE_IDS:
        tags, x_tag = fine_tags_of(c), incomplete_tag_of(c)
        if level == "coarse":
            tags, x_tag = (COARSE_TAGS[COARSE_IDS.index(c)],), None
        columns = [LEVEL_TAGS[level].index(tag) for tag in tags]
        truth_x = predictions_x = None
        if x_tag is not None:
            x = LEVEL_TAGS[level].index(x_tag)
            truth_x, predictions_x = true[:, x], pred[:, x]
        curves[str(c)] = category_counts(
            true[:, columns], pred[:, columns], truth_x, predictions_x
        )
    curves["micro"] = pool_counts(list(curves.values()))
    return curves
