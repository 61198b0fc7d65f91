"""The statistics of a study, against scipy and by hand.

Authors
 * The iusp_plugin authors 2026
"""

import math

import numpy as np
import pytest
from scipy import stats


@pytest.fixture
def statistics(scripts):
    """The module."""
    return scripts("study_statistics")


@pytest.mark.parametrize("n", [2, 5, 10])
def test_interval_is_scipys(n, statistics):
    """The paired interval is that of scipy's paired t test."""
    rng = np.random.default_rng(n)
    plain, method = rng.normal(0.6, 0.01, n), rng.normal(0.62, 0.02, n)
    columns = [dict(enumerate(values)) for values in (method, plain)]
    found = statistics.gain(*columns)
    expected = stats.ttest_rel(method, plain).confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low, abs=1e-15)
    assert found.high == pytest.approx(expected.high, abs=1e-15)
    assert found.mean == pytest.approx(np.mean(method - plain), abs=1e-15)
    assert found.sd == pytest.approx(np.std(method - plain, ddof=1))


def test_five_seeds_are_covered_as_often_as_said(statistics):
    """95 % of intervals hold the mean; a percentile bootstrap holds 84 %."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 0.02, size=(4000, 5))
    found = [statistics.estimate(draw) for draw in draws]
    share = np.mean([e.low < 0.3 < e.high for e in found])
    assert abs(share - 0.95) < 0.012


def test_only_common_seeds_are_paired(statistics):
    """A seed that one side lacks does not count."""
    found = statistics.gain({1: 0.75, 2: 0.5, 9: 5.0}, {2: 0.25, 1: 0.25})
    assert (found.n, found.mean) == (2, 0.375)
    assert statistics.gain({1: 1.0}, {2: 1.0}) is None


def test_one_seed_has_no_interval(statistics):
    """And excludes nothing."""
    found = statistics.estimate([0.5])
    assert found.mean == 0.5
    assert math.isnan(found.low) and math.isnan(found.sd)
    assert found.sign == 0
    with pytest.raises(ValueError, match="at least one value"):
        statistics.estimate([])


@pytest.mark.parametrize(
    "values, sign",
    [([1.0, 1.1, 0.9], 1), ([-1.0, -1.1, -0.9], -1), ([1.0, -1.0], 0)],
)
def test_sign(values, sign, statistics):
    """Where the interval excludes zero."""
    assert statistics.estimate(values).sign == sign


def test_claim(statistics):
    """d by hand, for gains of SP of either sign."""
    plain = {1: 0.5, 2: 0.25}
    iusp = {1: 0.75, 2: 0.5}
    sp = {1: 0.625, 2: 0.125}
    # (.25 - 2 * .125, .25 + 2 * .125) = (0, .5)
    found = statistics.claim_difference(iusp, sp, plain, ratio=2.0)
    assert found.mean == 0.25
    assert found.n == 2
    assert math.isnan(statistics.gain_ratio(iusp, sp, plain))
    assert statistics.gain_ratio(iusp, {1: 0.625, 2: 0.375}, plain) == 2.0
    assert statistics.CLAIMED_RATIO == 1.27
    same = statistics.claim_difference(plain, plain, plain)
    assert (same.mean, same.sd) == (0.0, 0.0)


def test_gap_closed(statistics):
    """A gain of half the gap closes half of it, interval and all."""
    plain, method = {1: 0.5, 2: 0.5}, {1: 0.625, 2: 0.625}
    found = statistics.gap_closed(method, plain, teacher=0.75)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    assert statistics.gap_closed(method, plain, teacher=0.4) is None
    assert statistics.gap_closed(method, {3: 0.5}, teacher=0.75) is None
