"""Counts along the thresholds of multi-label taggers, and their sums.

Knows nothing about a task. The thresholds are those of the official DCASE
2019 Task 5 evaluator: values below 0.01 never become one, 1.0 always is one.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Values below this never become thresholds of a curve.
THRESHOLD_FLOOR = 0.01


class Counts(NamedTuple):
    """True positives, false positives, false negatives along thresholds.

    Arguments
    ---------
    thresholds : numpy.ndarray
        Distinct thresholds, in the order of the list.
    tp, fp, fn : numpy.ndarray
        Integer counts at each threshold, for "present iff value >= h".
    """

    thresholds: FloatArray
    tp: IntArray
    fp: IntArray
    fn: IntArray


def threshold_list(values: npt.ArrayLike) -> FloatArray:
    """Distinct values >= 0.01 together with 1.0, in descending order.

    Arguments
    ---------
    values : array_like
        Confidences of every column that owns thresholds, any shape.

    Returns
    -------
    numpy.ndarray
        Thresholds, shape (thresholds,), float64.

    Example
    -------
    >>> threshold_list([0.5, 0.2, 0.5, 0.001]).tolist()
    [1.0, 0.5, 0.2]
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    return np.unique(np.append(flat[flat >= THRESHOLD_FLOOR], 1.0))[::-1]


def pool_counts(curves: Sequence[Counts]) -> Counts:
    """Add up the counts of several classes over their common thresholds.

    The list holds the distinct thresholds of all classes, ascending. At a
    threshold, each class gives its counts at its own smallest threshold that
    is not below.

    Arguments
    ---------
    curves : sequence of Counts
        One a class, thresholds descending, with one largest threshold in
        common (1.0 by construction).

    Returns
    -------
    Counts
        The sums, thresholds ascending.

    Example
    -------
    >>> one = Counts(*map(np.array, ([1.0, 0.4], [0, 2], [0, 1], [2, 0])))
    >>> two = Counts(*map(np.array, ([1.0, 0.3], [1, 1], [0, 4], [0, 0])))
    >>> pooled = pool_counts([one, two])
    >>> pooled.thresholds.tolist(), pooled.tp.tolist(), pooled.fp.tolist()
    ([0.3, 0.4, 1.0], [3, 3, 1], [5, 1, 0])
    """
    thresholds = np.unique(np.concatenate([c.thresholds for c in curves]))
    total = np.zeros((3, len(thresholds)), dtype=np.int64)
    for curve in curves:
        own = curve.thresholds[::-1]
        at = len(own) - 1 - np.searchsorted(own, thresholds, side="left")
        total += np.stack([curve.tp[at], curve.fp[at], curve.fn[at]])
    return Counts(thresholds, *total)
