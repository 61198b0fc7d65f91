"""Counts of the two levels against slow loops and published truth tables.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import gzip
import itertools

import numpy as np
import pytest
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from iusp_plugin.metrics.dcase2019_task5 import read_predictions, read_truth
from iusp_plugin.metrics.dcase2019_task5_counts import (
    category_counts,
    level_counts,
    validate,
)
from tests.reference import task5_loops
from tests.reference.task5_small import levels, small_set

WIDTH = {"coarse": 8, "fine": 29}

# Around the floor, around one half, at the end; many ties.
CONFIDENCES = [-1.0, 0.0, 0.0099, 0.01, 0.3, 0.4999, 0.5, 0.9, 1.0]


@st.composite
def tables(draw):
    """A level, its truth and its confidences, one to five files."""
    level = draw(st.sampled_from(["coarse", "fine"]))
    size = draw(st.integers(1, 5)) * WIDTH[level]
    truth = draw(
        st.lists(st.sampled_from([0, 1]), min_size=size, max_size=size)
    )
    values = draw(
        st.lists(st.sampled_from(CONFIDENCES), min_size=size, max_size=size)
    )
    shape = (-1, WIDTH[level])
    return level, np.reshape(truth, shape), np.reshape(values, shape)


def assert_equals_loops(truth, values, level):
    """Every threshold and count equals the loops'."""
    found = level_counts(truth, values, level)
    expected = task5_loops.curves(truth.tolist(), values.tolist(), level)
    for c, points in expected.items():
        assert list(zip(*found[str(c)], strict=True)) == points


@settings(max_examples=150, deadline=None)
@given(tables())
def test_counts_equal_the_loops(table):
    level, truth, values = table
    assert_equals_loops(truth, values, level)


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_counts_of_the_small_set_equal_the_loops(level):
    truth, values = (levels(table)[level] for table in small_set())
    assert_equals_loops(truth, values, level)


@pytest.mark.parametrize("num_tags", [1, 2, 3])
def test_every_combination_in_one_file_equals_the_loops(num_tags):
    bits = [0, 1]
    for case in itertools.product(bits, repeat=2 * num_tags + 2):
        t, t_x = case[:num_tags], case[num_tags]
        y, y_x = case[num_tags + 1 : -1], case[-1]
        found = category_counts(
            np.array([t], dtype=bool),
            np.array([y], dtype=float),
            np.array([t_x], dtype=bool),
            np.array([y_x], dtype=float),
        )
        assert found.thresholds.tolist() == [1.0]
        one = tuple(int(x[0]) for x in found[1:])
        assert one == task5_loops.file_counts(t, t_x, y, y_x)


def test_rules_of_the_incomplete_tag_by_hand():
    def count(t, t_x, y, y_x):
        found = category_counts(
            *(np.array([x]) for x in (t, y)),
            *(np.array([x]) for x in (t_x, y_x)),
        )
        return tuple(int(x[0]) for x in found[1:])

    yes, no = [True, False, False], [False, False, False]
    # A true X forgives, and any prediction is worth one hit.
    assert count(no, True, [0.0, 1.0, 1.0], 0.0) == (1, 0, 0)
    assert count(yes, True, [0.0, 1.0, 0.0], 0.0) == (1, 0, 1)
    assert count(yes, True, [1.0, 1.0, 0.0], 1.0) == (1, 0, 0)
    assert count(no, True, [0.0, 0.0, 0.0], 0.0) == (0, 0, 1)
    # A predicted X is wrong only where the category is truly empty ...
    assert count(no, False, [0.0, 1.0, 0.0], 1.0) == (0, 2, 0)
    assert count(yes, False, [0.0, 0.0, 0.0], 1.0) == (0, 0, 1)
    # ... and not where all complete tags are predicted at once.
    assert count(no, False, [1.0, 1.0, 1.0], 1.0) == (0, 3, 0)


def test_incomplete_tag_owns_no_threshold():
    truth, values = np.zeros((1, 29)), np.zeros((1, 29))
    values[0, 3] = 0.7
    counts = level_counts(truth, values, "fine")
    assert counts["1"].thresholds.tolist() == [1.0]
    assert counts["micro"].fp.tolist() == [0]


def test_cells_at_a_threshold_are_predicted():
    truth = np.ones((1, 8))
    counts = level_counts(truth, np.full((1, 8), 0.01), "coarse")["4"]
    assert counts.thresholds.tolist() == [1.0, 0.01]
    assert counts.tp.tolist() == [0, 1]
    counts = level_counts(truth, np.full((1, 8), 0.009), "coarse")["4"]
    assert counts.thresholds.tolist() == [1.0]


@pytest.mark.parametrize("num_tags", [1, 2])
def test_published_truth_tables(reference_task5, num_tags):
    path = reference_task5 / f"fine_truth_table_K{num_tags}.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 ** (num_tags + 1)
    names = range(1, num_tags + 1)
    for row in rows:
        case = {k: int(v) for k, v in row.items()}
        found = category_counts(
            np.array([[case[f"t{k}"] for k in names]], dtype=bool),
            np.array([[case[f"y{k}"] for k in names]], dtype=float),
            np.array([case["tX"]], dtype=bool),
            np.array([case["yX"]], dtype=float),
        )
        one = [int(x[0]) for x in found[1:]]
        assert one == [case["TP"], case["FP"], case["FN"]], case


@pytest.mark.parametrize("case", ["d2_noisy_oracle", "d4_partial_columns"])
def test_published_counts_at_every_threshold(reference_task5, case):
    truth = read_truth(reference_task5 / "annotations-dev.csv")
    table = read_predictions(reference_task5 / f"predictions/{case}.csv")
    found = {
        level: level_counts(getattr(truth, level), getattr(table, level), level)
        for level in ("coarse", "fine")
    }
    published: dict[tuple[str, str], list[list[float]]] = {}
    path = reference_task5 / f"curves_{case}.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            published.setdefault((row["level"], row["category"]), []).append(
                [float(row[k]) for k in ("threshold", "TP", "FP", "FN")]
            )
    assert len(published) == 2 * 9
    for (level, category), rows in published.items():
        expected = np.array(rows).T
        counts = found[level][category]
        np.testing.assert_allclose(
            counts.thresholds, expected[0], rtol=0, atol=1e-12
        )
        np.testing.assert_array_equal(np.stack(counts[1:]), expected[1:])


def test_validate_names_row_column_value_and_remedy():
    good = np.zeros((2, 29))
    for value, row, column, text in (
        (1.5, 1, 0, "row 1, column 1-1_small.*: 1.5 is above 1; give"),
        (1.5, 0, 3, "column 1-X_engine.*: 1.5 is above 1"),
        (np.nan, 0, 9, "column 3-1_non.*: no number .an empty cell"),
    ):
        bad = good.copy()
        bad[row, column] = value
        with pytest.raises(ValueError, match="predictions of .*" + text):
            validate(good, bad, "fine")
    bad = good.copy()
    bad[0, 0] = -1
    with pytest.raises(ValueError, match="truth of b.wav, .*-1 is no label"):
        validate(bad, good, "fine", ["b.wav", "c.wav"])


def test_validate_names_wrong_shapes():
    with pytest.raises(ValueError, match=r"coarse truth has shape \(2, 29\)"):
        validate(np.zeros((2, 29)), np.zeros((2, 8)), "coarse")
    with pytest.raises(ValueError, match=r"predictions has shape \(0, 8\)"):
        validate(np.zeros((2, 8)), np.zeros((0, 8)), "coarse")
    with pytest.raises(ValueError, match="2 rows and predictions have 3"):
        validate(np.zeros((2, 8)), np.zeros((3, 8)), "coarse")
    with pytest.raises(ValueError, match="level='fin' .* Did you mean 'fine'"):
        validate(np.zeros((2, 8)), np.zeros((2, 8)), "fin")


def test_missing_number_of_an_incomplete_tag_is_absent():
    truth, values = (levels(table)["fine"] for table in small_set())
    values[:, 3] = 0.0
    absent = level_counts(truth, values, "fine")
    values[:, 3] = np.nan
    missing = level_counts(truth, values, "fine")
    for c in absent:
        np.testing.assert_array_equal(absent[c], missing[c])
