"""Order of tied points, precision / recall / F, area under the points.

Authors
 * The iusp_plugin authors 2026
"""

import json
import time

import numpy as np
import pytest
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from iusp_plugin.metrics import auprc as module
from iusp_plugin.metrics.auprc import (
    area_under_points,
    auprc,
    order_points,
    precision_recall_f,
)
from iusp_plugin.metrics.curves import Counts
from tests.reference.task5_loops import area, official_order

few_values = st.lists(st.integers(0, 6).map(lambda k: k / 6), max_size=120)


def counts(tp, fp, fn):
    """Counts with thresholds that do not matter."""
    tp, fp, fn = (np.array(x) for x in (tp, fp, fn))
    return Counts(np.linspace(1.0, 0.1, len(tp)), tp, fp, fn)


def killer(n):
    """A sequence on which median-of-three always picks a bad pivot."""
    half = n // 2
    up = [k if k % 2 else half + k - 1 for k in range(1, half + 1)]
    return [float(x) for x in up + [2 * k for k in range(1, half + 1)]]


# Fifths, and their order by the argsort of numpy 1.16.2.
FIFTHS = "312014033435222351133444520305025"
# fmt: off
FIFTHS_ORDER = [
    28, 26, 3, 6, 30, 1, 4, 18, 17, 25, 31, 13, 14, 2, 12, 10, 27, 15, 8, 7,
    19, 20, 0, 9, 21, 22, 23, 5, 29, 16, 11, 24, 32,
]
# fmt: on


def test_official_order_of_a_carried_table():
    values = [int(digit) / 5 for digit in FIFTHS]
    assert order_points(values).tolist() == FIFTHS_ORDER
    assert official_order(values) == FIFTHS_ORDER
    assert order_points(values, "stable").tolist() != FIFTHS_ORDER


@settings(max_examples=200, deadline=None)
@given(few_values)
def test_official_order_equals_the_loops(values):
    assert order_points(values).tolist() == official_order(values)


@given(few_values)
def test_stable_order_is_by_value_then_position(values):
    expected = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert order_points(values, "stable").tolist() == expected


needs_scalar_sort = pytest.mark.skipif(
    np.dtype(np.longdouble).itemsize == 8,
    reason="long double is float64 here, which numpy sorts with SIMD",
)


@needs_scalar_sort
@pytest.mark.parametrize("shape", ["ascending", "descending", "any"])
def test_official_order_equals_the_scalar_sort_of_numpy(shape):
    values = np.random.default_rng(3).integers(0, 300, 5000) / 300
    if shape != "any":
        values = np.sort(values)[:: 1 if shape == "ascending" else -1]
    expected = np.argsort(values.astype(np.longdouble))
    np.testing.assert_array_equal(order_points(values), expected)


def test_bad_pivots_end_in_the_heap_sort(monkeypatch):
    heaps = []
    original = module._heapsort

    def spy(v, part):
        heaps.append(len(part))
        return original(v, part)

    monkeypatch.setattr(module, "_heapsort", spy)
    values = killer(2000)
    order = order_points(values)
    assert max(heaps) > 50
    assert [values[i] for i in order] == sorted(values)
    assert sorted(order.tolist()) == list(range(2000))


@needs_scalar_sort
@pytest.mark.parametrize("num_points", [400, 1000, 5000])
def test_heap_sort_equals_the_scalar_sort_of_numpy(num_points):
    # Halving makes ties of neighbours; most pivots stay bad.
    for values in (
        killer(num_points),
        np.floor(np.divide(killer(num_points), 2)),
    ):
        expected = np.argsort(np.asarray(values, dtype=np.longdouble))
        np.testing.assert_array_equal(order_points(values), expected)


def test_heap_sort_of_ties_by_hand():
    # Heap 2,1,2: the first 2 goes last, then 2,1 is exchanged.
    assert module._heapsort([2.0, 1.0, 2.0], [0, 1, 2]) == [1, 2, 0]


def test_order_vectors_of_the_reference(reference_task5):
    data = json.loads((reference_task5 / "tie_order_vectors.json").read_text())
    for vector in data["vectors"]:
        values = vector["values"]
        assert order_points(values).tolist() == vector["argsort"]
        assert order_points(values, "stable").tolist() == vector["stable"]
    assert len(data["vectors"]) == 12


def test_twenty_thousand_points_take_less_than_a_second():
    values = np.random.default_rng(0).integers(0, 700, 20_000) / 700
    start = time.perf_counter()
    order_points(values)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize("values", [[], [0.5]])
def test_nothing_to_order(values):
    assert order_points(values).tolist() == list(range(len(values)))


def test_order_refuses_bad_input():
    with pytest.raises(ValueError, match="ties='best' is unknown"):
        order_points([0.1], ties="best")
    with pytest.raises(ValueError, match="NaN or infinity"):
        order_points([0.1, float("nan")])


def test_precision_recall_f_by_hand():
    found = precision_recall_f(counts([0, 1, 3], [0, 1, 1], [4, 3, 0]))
    expected = [[0, 1 / 2, 3 / 4], [0, 1 / 4, 1], [0, 1 / 3, 6 / 7]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_without_truth_or_prediction_all_are_zero():
    found = precision_recall_f(counts([0], [0], [0]))
    np.testing.assert_array_equal(found, np.zeros((3, 1)))


def test_area_by_hand():
    # (0, 1) - (0.5, 1) - (1, 0.5) - (1, 0)
    assert area_under_points([0.5, 1.0], [1.0, 0.5]) == 0.5 + 0.375
    # Ascending recall is found, whatever the list order.
    assert area_under_points([1.0, 0.5], [0.5, 1.0]) == 0.875


def test_order_inside_a_tie_changes_the_area():
    recall, precision = [0.5, 0.5, 1.0], [1.0, 0.2, 0.2]
    first = area_under_points(recall, precision, "stable")
    second = area_under_points(recall, [0.2, 1.0, 0.2], "stable")
    assert first == pytest.approx(0.5 + 0.1)
    assert second == pytest.approx(0.3 + 0.3)
    recall = [0.5] * 30 + [1.0]
    precision = [k / 30 for k in range(31)]
    assert area_under_points(recall, precision) != area_under_points(
        recall, precision, "stable"
    )


def test_area_refuses_unequal_lengths():
    with pytest.raises(ValueError, match=r"recall of shape \(2,\)"):
        area_under_points([0.1, 0.2], [0.5])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 5)] * 3).map(lambda x: (0.5, *x)),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from(["official", "stable"]),
)
def test_area_equals_the_loops(points, ties):
    _, tp, fp, fn = zip(*points, strict=True)
    found = auprc(counts(tp, fp, fn), ties)
    assert found == pytest.approx(area(points, ties), abs=1e-12)
