"""Collected outputs of a validation stage.

Authors
 * The iusp_plugin authors 2026
"""

import math

import numpy as np
import pytest
import torch

from iusp_plugin.metrics import stats as module
from iusp_plugin.metrics.dcase2019_task5 import evaluate_arrays
from iusp_plugin.metrics.stats import TaggingStats
from tests.reference.task5_small import FILENAMES, levels, small_set


def small_arrays():
    """coarse_pred, fine_pred, coarse_true, fine_true of the small set."""
    truth, values = map(levels, small_set())
    return values["coarse"], values["fine"], truth["coarse"], truth["fine"]


def append(stats, rows, dtype=torch.float64, arrays=None):
    """Append some rows of the small set as one batch."""
    arrays = small_arrays() if arrays is None else arrays
    ids = [FILENAMES[i] for i in rows]
    stats.append(ids, *(torch.tensor(a[rows]).to(dtype) for a in arrays))


def expected(level="both", ties="official"):
    """Scores of the small set."""
    coarse_pred, fine_pred, coarse_true, fine_true = small_arrays()
    return evaluate_arrays(
        coarse_true, fine_true, coarse_pred, fine_pred, level, ties
    )


@pytest.fixture
def full():
    """Stats that hold the small set, appended in two batches."""
    stats = TaggingStats()
    append(stats, list(range(25)))
    append(stats, list(range(25, 40)))
    return stats


def test_batches_score_as_the_whole(full):
    assert full.summarize() == expected()
    assert full.summary == expected()
    assert full.ids == FILENAMES


@pytest.mark.parametrize("level", ["both", "coarse", "fine"])
@pytest.mark.parametrize("ties", ["official", "stable"])
def test_level_and_ties_are_passed_on(level, ties):
    stats = TaggingStats(level=level, ties=ties)
    append(stats, list(range(40)))
    assert stats.summarize() == expected(level, ties)


def test_default_ties_are_official(full):
    assert full.summarize() != expected(ties="stable")


# The small set's confidences are multiples of 1/32: exact in every type.
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
def test_any_float_type(dtype):
    stats = TaggingStats()
    append(stats, list(range(40)), dtype)
    assert stats.summarize() == expected()
    _, fine, coarse = stats.predictions()
    assert fine.dtype == coarse.dtype == np.float64


def test_integer_and_boolean_targets():
    coarse_pred, fine_pred, *truth = map(torch.tensor, small_arrays())
    for dtype in (torch.bool, torch.int64):
        stats = TaggingStats()
        stats.append(
            FILENAMES, coarse_pred, fine_pred, *(t.to(dtype) for t in truth)
        )
        assert stats.summarize() == expected()


def test_outputs_that_require_gradients_are_detached():
    coarse_pred, fine_pred, *truth = map(torch.tensor, small_arrays())
    stats = TaggingStats()
    stats.append(FILENAMES, coarse_pred.requires_grad_(), fine_pred, *truth)
    assert stats.summarize() == expected()


def test_appended_tensors_may_change_afterwards():
    tensors = [torch.tensor(a) for a in small_arrays()]
    stats = TaggingStats()
    stats.append(FILENAMES, *tensors)
    for tensor in tensors:
        tensor.zero_()
    assert stats.summarize() == expected()


def test_first_of_a_repeated_clip_is_kept(full):
    arrays = [np.ones_like(a) for a in small_arrays()]
    append(full, [3, 4], arrays=arrays)
    assert len(full.ids) == 40
    assert full.summarize() == expected()
    within = TaggingStats()
    append(within, [*range(40), 39, 39])
    assert within.summarize() == expected()


def test_fields(full):
    scores = expected()
    found = full.summarize("coarse.micro_auprc")
    assert type(found) is float
    assert found == scores["coarse"]["micro_auprc"]
    assert (
        full.summarize("fine.classwise_auprc.3")
        == (scores["fine"]["classwise_auprc"]["3"])
    )
    assert full.summarize("fine") == scores["fine"]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("coarse_.micro_f1", "'coarse_' is unknown. Did you mean 'coarse'"),
        ("coarse.micro_f2", "'micro_f2' is unknown. Did you mean 'micro_f1'"),
        ("coarse.micro_f1.x", "'x' is unknown. Known: .none."),
        ("", "field='': '' is unknown"),
    ],
)
def test_unknown_fields_are_named(full, field, message):
    with pytest.raises(ValueError, match=message):
        full.summarize(field)


def test_predictions_are_sorted_by_id():
    stats = TaggingStats()
    append(stats, list(range(39, -1, -1)))
    ids, fine, coarse = stats.predictions()
    assert ids == sorted(FILENAMES)
    order = np.argsort(FILENAMES)
    np.testing.assert_array_equal(coarse, small_arrays()[0][order])
    np.testing.assert_array_equal(fine, small_arrays()[1][order])


def test_empty_stats_say_so(full):
    full.clear()
    assert full.ids == []
    assert full.summary == {}
    for ask in (full.summarize, full.predictions):
        with pytest.raises(ValueError, match="0 clips; append a batch"):
            ask()


def test_classes_without_positives_are_finite():
    arrays = [np.zeros_like(a) for a in small_arrays()]
    stats = TaggingStats()
    append(stats, list(range(40)), arrays=arrays)
    for scores in stats.summarize().values():
        classwise = scores.pop("classwise_auprc").values()
        assert all(map(math.isfinite, [*classwise, *scores.values()]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -2.5, 1.1])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_no_probability_is_refused_and_not_stored(value, which):
    arrays = small_arrays()
    arrays[which][2, 1] = value
    name = ["coarse_pred", "fine_pred"][which]
    stats = TaggingStats()
    with pytest.raises(
        ValueError, match=f"{name} of '{FILENAMES[2]}' holds .*the sigmoid"
    ):
        append(stats, list(range(40)), arrays=arrays)
    assert stats.ids == []


def test_rounding_beyond_one_is_clipped():
    arrays = small_arrays()
    arrays[0][0, 0], arrays[1][1, 2] = 1 + 2.0**-7, -(2.0**-7)
    stats = TaggingStats()
    append(stats, list(range(40)), arrays=arrays)
    _, fine, coarse = stats.predictions()
    assert coarse.max() == 1.0
    assert fine.min() == 0.0


def test_wrong_shapes_are_named():
    tensors = [torch.tensor(a) for a in small_arrays()]
    stats = TaggingStats()
    with pytest.raises(
        ValueError, match=r"coarse_pred has shape \(40, 8\); .* 39 ids"
    ):
        stats.append(FILENAMES[1:], *tensors)
    tensors[3] = tensors[3][:, :23]
    with pytest.raises(
        ValueError, match=r"fine_true has shape \(40, 23\); .* 29 columns"
    ):
        stats.append(FILENAMES, *tensors)


def test_targets_that_are_no_labels_are_refused():
    arrays = small_arrays()
    arrays[2][0, 0] = 0.5
    stats = TaggingStats()
    append(stats, list(range(40)), arrays=arrays)
    with pytest.raises(ValueError, match="column 1_engine: 0.5 is no label"):
        stats.summarize()


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="level='all' is unknown"):
        TaggingStats(level="all")
    with pytest.raises(ValueError, match="ties='any' is unknown"):
        TaggingStats(ties="any")


def test_the_order_of_arrival_does_not_matter(full):
    """Ties included: processes bring their clips in another order."""
    stats = TaggingStats()
    for rows in (range(30, 40), range(10), range(10, 30)):
        append(stats, list(rows))
    assert stats.summarize() == full.summarize()


def test_mean_loss():
    """Each clip once, the first of its losses."""
    stats = TaggingStats()
    assert stats.mean_loss() == 0.0
    arrays = [torch.tensor(array[:2]) for array in small_arrays()]
    stats.append(FILENAMES[:2], *arrays, torch.tensor([1.0, 2.0]))
    stats.append(FILENAMES[1:3], *arrays, torch.tensor([9.0, 6.0]))
    assert stats.mean_loss() == 3.0
    stats.clear()
    assert stats.mean_loss() == 0.0


def test_one_process_has_nothing_to_gather(full):
    before = full.summarize()
    full.gather()
    assert full.summarize() == before


def test_gathered_clips_count_once(full, monkeypatch):
    """What two processes hold, one clip on both, is one process's set."""
    shares = [TaggingStats(), TaggingStats()]
    append(shares[0], list(range(21)))
    append(shares[1], list(range(20, 40)))

    def all_gather(found, own):
        assert own == (shares[0]._clips, shares[0]._losses)
        found[:] = [(share._clips, share._losses) for share in shares]

    dist = module.dist
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", all_gather)
    shares[0].gather()
    assert sorted(shares[0].ids) == sorted(FILENAMES)
    assert shares[0].summarize() == full.summarize()
