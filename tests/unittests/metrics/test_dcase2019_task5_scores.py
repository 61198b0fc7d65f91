"""Scores of one level: carried figures, limits, official edge cases.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import pytest
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from iusp_plugin.metrics.dcase2019_task5_counts import level_counts
from iusp_plugin.metrics.dcase2019_task5_scores import (
    f1_operating_point,
    one_label_categories,
    score_counts,
)
from tests.reference import task5_loops
from tests.reference.task5_small import (
    EXPECTED,
    OPERATING_POINTS,
    levels,
    small_set,
)

LEVELS = ["coarse", "fine"]


def score(truth, values, level, ties="official"):
    """Scores straight from arrays."""
    return score_counts(level_counts(truth, values, level), ties)


def part(level):
    """Truth and confidences of one level of the small set."""
    return tuple(levels(table)[level] for table in small_set())


@pytest.mark.parametrize(("level", "ties"), EXPECTED)
def test_carried_figures(level, ties):
    micro, f1, classwise = EXPECTED[level, ties]
    found = score(*part(level), level, ties)
    assert found["micro_auprc"] == pytest.approx(micro, abs=1e-12)
    assert found["micro_f1"] == pytest.approx(f1, abs=1e-12)
    assert found["macro_auprc"] == pytest.approx(np.mean(classwise), abs=1e-12)
    assert list(found["classwise_auprc"]) == list("12345678")
    assert list(found["classwise_auprc"].values()) == pytest.approx(
        classwise, abs=1e-12
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ties", ["official", "stable"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_scores_equal_the_loops(level, ties, seed):
    draw = np.random.default_rng(seed)
    width = {"coarse": 8, "fine": 29}[level]
    truth = (draw.random((12, width)) < 0.3).astype(int)
    values = draw.integers(0, 33, (12, width)) / 32
    found = score(truth, values, level, ties)
    expected = task5_loops.scores(truth.tolist(), values.tolist(), level, ties)
    assert found.pop("classwise_auprc") == pytest.approx(
        expected.pop("classwise_auprc"), abs=1e-12
    )
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_operating_point(level):
    point = f1_operating_point(level_counts(*part(level), level))
    assert point == OPERATING_POINTS[level]
    assert [type(v) for v in point.values()] == [float, int, int, int]


@pytest.mark.parametrize("level", LEVELS)
def test_numbers_are_plain_floats(level):
    found = score(*part(level), level)
    numbers = [*found.pop("classwise_auprc").values(), *found.values()]
    assert {type(x) for x in numbers} == {float}


@pytest.mark.parametrize("level", LEVELS)
def test_perfect_predictor(level):
    truth = part(level)[0]
    if level == "fine":
        # An incomplete tag beside a complete one has no perfect answer.
        truth[:, [3, 8, 13, 18, 22, 27]] = 0
    found = score(truth, truth, level)
    assert found["micro_f1"] == 1.0
    assert found["micro_auprc"] == found["macro_auprc"] == 1.0


def test_inverted_predictor():
    truth = part("coarse")[0]
    found = score(truth, 1 - truth, "coarse")
    assert found["micro_f1"] == found["micro_auprc"] == 0.0
    # At 0.5 nothing true is reached, but at 0.1 everything is.
    found = score(truth, 0.1 + 0.8 * (1 - truth), "coarse")
    assert found["micro_f1"] == 0.0
    assert 0.0 < found["micro_auprc"] < truth.mean()


@pytest.mark.parametrize("value", [0.0, 0.0099, -3.0])
@pytest.mark.parametrize("level", LEVELS)
def test_nothing_predicted_scores_zero(level, value):
    truth, values = part(level)
    counts = level_counts(truth, np.full_like(values, value), level)
    assert counts["micro"].thresholds.tolist() == [1.0]
    found = score_counts(counts)
    assert set(found.pop("classwise_auprc").values()) == {0.0}
    assert set(found.values()) == {0.0}


def test_constant_one_is_half_of_one_plus_prevalence():
    truth = part("coarse")[0]
    found = score(truth, np.ones_like(truth), "coarse")
    for c in range(8):
        expected = (1 + truth[:, c].mean()) / 2
        assert found["classwise_auprc"][str(c + 1)] == pytest.approx(expected)


def test_constant_half_is_half_of_the_prevalence():
    truth = part("coarse")[0]
    found = score(truth, np.full_like(truth, 0.5), "coarse")
    assert found["micro_auprc"] == pytest.approx(truth.mean() / 2)
    p = truth.mean()
    assert found["micro_f1"] == pytest.approx(2 * p / (1 + p))


@pytest.mark.parametrize("level", LEVELS)
def test_class_without_positives_stays_in_the_mean(level):
    truth, values = part(level)
    truth[:, -1] = 0
    found = score(truth, values, level)
    assert found["classwise_auprc"]["8"] == 0.0
    rest = sum(found["classwise_auprc"].values())
    assert found["macro_auprc"] == pytest.approx(rest / 8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ties", ["official", "stable"])
def test_row_order_does_not_matter(level, ties):
    truth, values = part(level)
    rows = np.random.default_rng(1).permutation(len(truth))
    assert score(truth, values, level, ties) == score(
        truth[rows], values[rows], level, ties
    )


def test_incomplete_tag_is_cut_at_its_category_threshold_for_f1():
    truth, values = np.zeros((1, 29)), np.zeros((1, 29))
    truth[0, 3], values[0, 3] = 1, 0.9  # 1-X
    values[0, 9] = 0.5  # 3-1, a false positive, makes 0.5 a threshold
    point = f1_operating_point(level_counts(truth, values, "fine"))
    # No complete tag of category 1 reaches 0.5: 1-X is cut at 1.0, a miss.
    assert point == {"threshold": 0.5, "TP": 0, "FP": 1, "FN": 1}
    values[0, 0] = 0.6  # now it is cut at 0.6
    point = f1_operating_point(level_counts(truth, values, "fine"))
    assert point == {"threshold": 0.5, "TP": 1, "FP": 1, "FN": 0}


def test_one_label_categories():
    truth = np.zeros((4, 8))
    truth[0] = 1
    values = np.full((4, 8), 0.5)
    truth[:, 1] = 0  # nothing true, nothing predicted at 1.0
    truth[:, 2] = 1  # all true, all predicted at 0.5
    truth[:, 3], values[0, 3] = 0, 1.0  # a prediction at every threshold
    truth[:, 4], values[0, 4] = 1, 0.0  # never all predicted
    assert one_label_categories(level_counts(truth, values, "coarse"), 4) == [
        2,
        3,
    ]
