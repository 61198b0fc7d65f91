"""Evaluation as a whole: arrays, tables, published numbers.

Authors
 * The iusp_plugin authors 2026
"""

import json
import time

import numpy as np
import pytest

from iusp_plugin.metrics import dcase2019_task5 as task5
from tests.reference import task5_loops
from tests.reference.task5_small import EXPECTED, FILENAMES, levels, small_set

CASES = ["d1_uniform", "d2_noisy_oracle", "d3_constant", "d4_partial_columns"]


def small_tables():
    """The small set as two tables."""
    return tuple(
        task5.TagTable.from_rows(FILENAMES, part["fine"], part["coarse"])
        for part in map(levels, small_set())
    )


def small_arrays():
    """The small set in the order of evaluate_arrays."""
    truth, values = map(levels, small_set())
    return truth["coarse"], truth["fine"], values["coarse"], values["fine"]


@pytest.fixture(scope="module")
def published(reference_task5):
    """Ground truth and the official numbers."""
    path = reference_task5 / "expected_metrics.json"
    truth = task5.read_truth(reference_task5 / "annotations-dev.csv")
    return reference_task5, truth, json.loads(path.read_text())["cases"]


def assert_scores(found, expected):
    """Every metric within 1e-9."""
    for key in ("micro_auprc", "micro_f1", "macro_auprc"):
        if key in expected:
            assert found[key] == pytest.approx(expected[key], abs=1e-9, rel=0)
    assert found["classwise_auprc"] == pytest.approx(
        expected["classwise_auprc"], abs=1e-9, rel=0
    )


@pytest.mark.parametrize("case", CASES)
def test_published_metrics(published, case):
    folder, truth, cases = published
    expected = cases[case]
    table = task5.read_predictions(folder / expected["prediction"])
    official = task5.evaluate(truth, table)
    stable = task5.evaluate(truth, table, ties="stable")
    for level in ("coarse", "fine"):
        assert_scores(official[level], expected[level])
        assert_scores(
            stable[level], expected[level]["tie_variants"]["stable_sort"]
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_published_counts_at_the_f1_threshold(published, case, level):
    folder, truth, cases = published
    expected = cases[case][level]
    table = task5.read_predictions(folder / cases[case]["prediction"])
    counts = task5.level_counts(
        getattr(truth, level), getattr(table, level), level
    )
    point = task5.f1_operating_point(counts)
    at = expected["f1_at"]
    assert point.pop("threshold") == pytest.approx(at["threshold"], abs=1e-12)
    assert point == {k: at[k] for k in ("TP", "FP", "FN")}
    lengths = {c: len(curve.thresholds) for c, curve in counts.items()}
    assert lengths == expected["n_thresholds"]


def test_filled_columns_are_the_published_ones(published, caplog):
    folder, _, cases = published
    expected = cases["d4_partial_columns"]
    task5.read_predictions(folder / expected["prediction"])
    [record] = caplog.records
    named = record.getMessage().rstrip(".").split("zeros: ")[1].split(", ")
    wanted = [
        tag
        for level in ("coarse", "fine")
        for tag in expected[level]["columns_filled_with_zero"]
    ]
    assert sorted(named) == sorted(wanted)


def test_loops_agree_with_the_published_numbers(published):
    folder, truth, cases = published
    expected = cases["d3_constant"]
    table = task5.read_predictions(folder / expected["prediction"])
    for level in ("coarse", "fine"):
        found = task5_loops.scores(
            getattr(truth, level).tolist(),
            getattr(table, level).tolist(),
            level,
        )
        assert_scores(found, expected[level])


@pytest.mark.parametrize("ties", ["official", "stable"])
def test_arrays_and_tables_give_the_carried_figures(ties):
    by_arrays = task5.evaluate_arrays(*small_arrays(), ties=ties)
    by_tables = task5.evaluate(*small_tables(), ties=ties)
    assert by_arrays == by_tables
    assert list(by_arrays) == ["coarse", "fine"]
    for level, found in by_arrays.items():
        assert found["micro_auprc"] == pytest.approx(
            EXPECTED[level, ties][0], abs=1e-12
        )


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_one_level_looks_at_its_own_arrays_only(level):
    arrays = small_arrays()
    both = task5.evaluate_arrays(*arrays)
    own = [a if a.shape[1] == both_width(level) else None for a in arrays]
    assert task5.evaluate_arrays(*own, level=level) == {level: both[level]}
    with pytest.raises(ValueError, match="level='both' needs .*give both or"):
        task5.evaluate_arrays(*own)


def both_width(level):
    """Columns of a level."""
    return {"coarse": 8, "fine": 29}[level]


def test_default_ties_are_the_official_ones():
    default = task5.evaluate_arrays(*small_arrays())
    assert default != task5.evaluate_arrays(*small_arrays(), ties="stable")
    assert default == task5.evaluate_arrays(*small_arrays(), ties="official")


@pytest.mark.parametrize("function", [task5.evaluate, task5.evaluate_arrays])
def test_unknown_choices_are_refused(function):
    tables = function is task5.evaluate
    data = small_tables() if tables else small_arrays()
    with pytest.raises(ValueError, match="level='coarse_' is unknown. Did you"):
        function(*data, level="coarse_")
    with pytest.raises(ValueError, match="ties='any' is unknown"):
        function(*data, ties="any")


def test_levels_are_independent():
    coarse_truth, fine_truth, coarse_pred, fine_pred = small_arrays()
    before = task5.evaluate_arrays(*small_arrays())
    after = task5.evaluate_arrays(
        coarse_truth, fine_truth, coarse_pred, fine_pred * 0
    )
    assert after["coarse"] == before["coarse"]
    assert after["fine"] != before["fine"]


def test_differing_files_are_named():
    truth, table = small_tables()
    for changed, message in (
        (["zz.wav", *FILENAMES[1:]], "lack 1 files .00_000000.wav.: add them"),
        (["zz.wav", *FILENAMES[1:]], "have, beyond the truth, 1 files .zz"),
        ([f"x{n}" for n in FILENAMES], r"lack 40 files \(.*, \.\.\.\): add"),
    ):
        parts = levels(small_set()[1])
        other = task5.TagTable.from_rows(
            changed, parts["fine"], parts["coarse"]
        )
        with pytest.raises(ValueError, match=message):
            task5.evaluate(truth, other)


def test_class_with_one_label_is_warned_of_on_the_coarse_level(caplog):
    truth, table = small_tables()
    task5.evaluate(truth, table)
    assert caplog.text == ""
    truth.coarse[:, 7] = 0
    truth.fine[:, 28] = 0
    task5.evaluate(truth, table, level="fine")
    assert caplog.text == ""
    found = task5.evaluate(truth, table)
    assert "coarse category 8_dog: truth and predictions hold" in caplog.text
    assert found["coarse"]["classwise_auprc"]["8"] == 0.0


def test_a_validation_set_takes_well_below_a_second():
    draw = np.random.default_rng(0)
    arrays = (
        draw.random((443, 8)) < 0.2,
        draw.random((443, 29)) < 0.2,
        draw.random((443, 8)),
        draw.random((443, 29)),
    )
    start = time.perf_counter()
    task5.evaluate_arrays(*arrays)
    assert time.perf_counter() - start < 0.5
