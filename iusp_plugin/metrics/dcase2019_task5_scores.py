"""Scores of DCASE 2019 Task 5 from the counts of one level.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from iusp_plugin.dataio.taxonomy import COARSE_IDS
from iusp_plugin.metrics.auprc import auprc, precision_recall_f
from iusp_plugin.metrics.curves import Counts

# Micro-F1 is read at the smallest threshold of the list that is not below.
F1_THRESHOLD = 0.5

Scores = dict[str, Any]


def score_counts(
    counts: Mapping[str, Counts], ties: str = "official"
) -> Scores:
    """The metrics of one level from its counts.

    Arguments
    ---------
    counts : dict
        As ``level_counts`` gives.
    ties : str
        "official" or "stable".

    Returns
    -------
    dict
        "micro_auprc", "micro_f1", "macro_auprc": float in [0, 1];
        "classwise_auprc": dict "1".."8" to float. The macro mean leaves no
        category out, whatever its support.
    """
    classwise = {str(c): auprc(counts[str(c)], ties) for c in COARSE_IDS}
    _, _, f_score = precision_recall_f(counts["micro"])
    return {
        "micro_auprc": auprc(counts["micro"], ties),
        "micro_f1": float(f_score[_f1_index(counts)]),
        "macro_auprc": sum(classwise.values()) / len(classwise),
        "classwise_auprc": classwise,
    }


def f1_operating_point(counts: Mapping[str, Counts]) -> dict[str, float]:
    """Threshold and pooled counts behind the micro-F1 of one level.

    Arguments
    ---------
    counts : dict
        As ``level_counts`` gives.

    Returns
    -------
    dict
        "threshold" (the smallest of the list that is >= 0.5), "TP", "FP",
        "FN".

    Example
    -------
    >>> from iusp_plugin.metrics.dcase2019_task5_counts import level_counts
    >>> truth = np.eye(8)
    >>> f1_operating_point(level_counts(truth, truth * 0.7, "coarse"))
    {'threshold': 0.7, 'TP': 8, 'FP': 0, 'FN': 0}
    """
    at = _f1_index(counts)
    values = (column[at].item() for column in counts["micro"])
    return dict(zip(("threshold", "TP", "FP", "FN"), values, strict=True))


def one_label_categories(
    counts: Mapping[str, Counts], num_files: int
) -> list[int]:
    """Coarse categories at which the official evaluator would stop.

    It cannot count where, at some threshold, truth and prediction together
    hold one label only: nothing true and nothing predicted, or every file
    true and every file predicted.

    Arguments
    ---------
    counts : dict
        Coarse counts, as ``level_counts`` gives.
    num_files : int
        Number of files counted.

    Returns
    -------
    list of int
        The category numbers.

    Example
    -------
    >>> from iusp_plugin.metrics.dcase2019_task5_counts import level_counts
    >>> half = np.full((3, 8), 0.5)
    >>> truth = np.array([[1, 0, 0, 0, 0, 0, 0, 1], [0] * 7 + [1], [1] * 8])
    >>> one_label_categories(level_counts(truth, half, "coarse"), 3)
    [8]
    """
    found = []
    for c in COARSE_IDS:
        _, tp, fp, fn = counts[str(c)]
        if np.any(tp + fp + fn == 0) or np.any(tp == num_files):
            found.append(c)
    return found


def _f1_index(counts: Mapping[str, Counts]) -> int:
    """Index of the micro list at which F1 is read."""
    return int(np.searchsorted(counts["micro"].thresholds, F1_THRESHOLD))
