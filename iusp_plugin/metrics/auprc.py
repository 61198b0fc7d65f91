"""Area under precision-recall points, with a defined order where they tie.

Knows nothing about a task. The curve is drawn from (recall 0, precision 1)
through every point to (1, 0), as in the official DCASE 2019 Task 5 evaluator.

Many points share one recall, and the order inside a tie decides which
precisions touch the neighbouring recall. The published numbers come from an
unstable sort. ``ties="official"`` replays it (median-of-three quicksort with
a depth limit, strict comparisons only) in an implementation of our own,
because ``numpy.argsort`` answers differently from one version and processor
to the next. ``ties="stable"`` keeps equal values in list order.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import numpy.typing as npt

from iusp_plugin.checks import check_choice
from iusp_plugin.metrics.curves import Counts, FloatArray, IntArray

TIES: tuple[str, ...] = ("official", "stable")

# Stretches up to this long are ordered stably, longer ones partitioned.
_SMALL_STRETCH = 16


def precision_recall_f(
    counts: Counts,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F at every threshold, all 0 where TP is 0.

    ``P = TP / max(TP + FP, 0.5)``, ``R = TP / max(TP + FN, 0.5)``,
    ``F = 2 / (1 / P + 1 / R)``.

    Arguments
    ---------
    counts : Counts
        The counts.

    Returns
    -------
    tuple of numpy.ndarray
        Precision, recall and F, each (thresholds,), float64, in [0, 1].

    Example
    -------
    >>> one = Counts(*map(np.array, ([1.0, 0.4], [0, 2], [0, 2], [2, 0])))
    >>> [x.tolist() for x in precision_recall_f(one)]
    [[0.0, 0.5], [0.0, 1.0], [0.0, 0.6666666666666666]]
    """
    precision = counts.tp / np.maximum(counts.tp + counts.fp, 0.5)
    recall = counts.tp / np.maximum(counts.tp + counts.fn, 0.5)
    hit = counts.tp > 0
    f_score = np.zeros_like(precision)
    f_score[hit] = 2.0 / (1.0 / precision[hit] + 1.0 / recall[hit])
    return precision, recall, f_score


def area_under_points(
    recall: npt.ArrayLike, precision: npt.ArrayLike, ties: str = "official"
) -> float:
    """Trapezoid area through (0, 1), the points by ascending recall, (1, 0).

    Arguments
    ---------
    recall, precision : array_like
        Coordinates of the points in list order, shape (points,).
    ties : str
        "official" or "stable": order of points that share a recall.

    Returns
    -------
    float
        The area, in [0, 1].

    Raises
    ------
    ValueError
        If ``ties`` is unknown, or the shapes differ.

    Example
    -------
    >>> area_under_points([0.0, 1.0], [0.0, 0.5])
    0.25
    """
    recall = np.asarray(recall, dtype=np.float64)
    precision = np.asarray(precision, dtype=np.float64)
    if recall.ndim != 1 or recall.shape != precision.shape:
        raise ValueError(
            f"recall of shape {recall.shape} and precision of shape "
            f"{precision.shape} must be vectors of one length."
        )
    order = order_points(recall, ties)
    x = np.concatenate(([0.0], recall[order], [1.0]))
    y = np.concatenate(([1.0], precision[order], [0.0]))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2.0)


def auprc(counts: Counts, ties: str = "official") -> float:
    """Area under the precision-recall curve of counts in list order.

    Arguments
    ---------
    counts : Counts
        The counts; their order is the order that "stable" keeps.
    ties : str
        "official" or "stable".

    Returns
    -------
    float
        The area, in [0, 1].

    Example
    -------
    >>> one = Counts(*map(np.array, ([1.0, 0.4], [0, 2], [0, 2], [2, 0])))
    >>> auprc(one)
    0.25
    """
    precision, recall, _ = precision_recall_f(counts)
    return area_under_points(recall, precision, ties)


def order_points(values: npt.ArrayLike, ties: str = "official") -> IntArray:
    """Indices that put the values in ascending order.

    Arguments
    ---------
    values : array_like
        Finite values, shape (points,).
    ties : str
        "official" replays the scalar introsort behind the published numbers;
        "stable" keeps equal values in list order.

    Returns
    -------
    numpy.ndarray
        A permutation, shape (points,), int64.

    Raises
    ------
    ValueError
        If ``ties`` is unknown, or a value is not finite.

    Example
    -------
    >>> order_points([0.3, 0.1, 0.3, 0.2], ties="stable").tolist()
    [1, 3, 0, 2]
    """
    check_choice("ties", ties, TIES)
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(
            "values holds NaN or infinity, which have no place in a curve; "
            "check the counts it comes from."
        )
    if ties == "stable":
        return np.argsort(values, kind="stable").astype(np.int64)
    return np.array(_introsort(values.tolist()), dtype=np.int64)


def _introsort(v: list[float]) -> list[int]:
    """Argsort by median-of-three quicksort with a depth limit.

    Every part longer than 16 entries is partitioned. A part that was set
    aside and comes up with its depth counter below zero is heap-sorted.
    """
    order = list(range(len(v)))
    waiting = [(0, len(v) - 1, 2 * (len(v).bit_length() - 1))]
    while waiting:
        low, high, depth = waiting.pop()
        if depth < 0 and low <= high:
            order[low : high + 1] = _heapsort(v, order[low : high + 1])
            continue
        while high - low >= _SMALL_STRETCH:
            cut = _partition(v, order, low, high)
            depth -= 1
            if cut - low < high - cut:
                waiting.append((cut + 1, high, depth))
                high = cut - 1
            else:
                waiting.append((low, cut - 1, depth))
                low = cut + 1
        # Any stable sort equals the insertion sort of the original here.
        order[low : high + 1] = sorted(order[low : high + 1], key=v.__getitem__)
    return order


def _partition(v: list[float], order: list[int], low: int, high: int) -> int:
    """Split around the median of first, middle and last; where it lands."""
    mid = low + (high - low) // 2
    for left, right in ((low, mid), (mid, high), (low, mid)):
        if v[order[right]] < v[order[left]]:
            order[left], order[right] = order[right], order[left]
    pivot = v[order[mid]]
    order[mid], order[high - 1] = order[high - 1], order[mid]
    i, j = low, high - 1
    while True:
        i += 1
        while v[order[i]] < pivot:
            i += 1
        j -= 1
        while pivot < v[order[j]]:
            j -= 1
        if i >= j:
            break
        order[i], order[j] = order[j], order[i]
    order[i], order[high - 1] = order[high - 1], order[i]
    return i


def _heapsort(v: list[float], part: list[int]) -> list[int]:
    """Order one stretch of indices with a binary max-heap."""
    heap = [-1, *part]  # entries are counted from 1
    for top in range(len(part) // 2, 0, -1):
        _sift_down(v, heap, top, len(part))
    for last in range(len(part), 1, -1):
        heap[1], heap[last] = heap[last], heap[1]
        _sift_down(v, heap, 1, last - 1)
    return heap[1:]


def _sift_down(v: list[float], heap: list[int], top: int, size: int) -> None:
    """Move the entry at ``top`` below every strictly larger child."""
    moved = heap[top]
    child = 2 * top
    while child <= size:
        if child < size and v[heap[child]] < v[heap[child + 1]]:
            child += 1
        if not v[moved] < v[heap[child]]:
            break
        heap[top] = heap[child]
        top, child = child, 2 * child
    heap[top] = moved
