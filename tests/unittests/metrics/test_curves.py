"""Thresholds and pooled counts.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
from hypothesis import (
    given,
    strategies as st,
)

from iusp_plugin.metrics.curves import Counts, pool_counts, threshold_list

confidences = st.lists(
    st.sampled_from([-1.0, 0.0, 0.0099, 0.01, 0.2, 0.5, 0.99, 1.0])
)


def test_floor_and_one():
    found = threshold_list([[0.01, 0.0099], [0.7, 0.7]])
    assert found.tolist() == [1.0, 0.7, 0.01]
    assert threshold_list([]).tolist() == [1.0]
    assert threshold_list([1.0, 1.0]).tolist() == [1.0]


@given(confidences)
def test_thresholds_descend_from_one(values):
    found = threshold_list(values).tolist()
    assert found == sorted({v for v in values if v >= 0.01} | {1.0})[::-1]


def test_pooling_takes_each_own_threshold_that_is_not_below():
    one = Counts(
        np.array([1.0, 0.5, 0.2]), *(np.array([0, k, 9]) for k in (1, 2, 3))
    )
    two = Counts(np.array([1.0, 0.4]), *(np.array([k, 70]) for k in (4, 5, 6)))
    pooled = pool_counts([one, two])
    assert pooled.thresholds.tolist() == [0.2, 0.4, 0.5, 1.0]
    # At 0.4, the first class is read at 0.5; at 0.2, the second at 0.4.
    assert pooled.tp.tolist() == [79, 71, 5, 4]
    assert pooled.fp.tolist() == [79, 72, 7, 5]
    assert pooled.fn.tolist() == [79, 73, 9, 6]


def test_pooling_one_class_turns_it_round():
    one = Counts(np.array([1.0, 0.5]), *(np.array([0, k]) for k in (1, 2, 3)))
    pooled = pool_counts([one])
    assert [x.tolist() for x in pooled] == [
        [0.5, 1.0],
        [1, 0],
        [2, 0],
        [3, 0],
    ]
