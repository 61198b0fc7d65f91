"""Statistics of a study against textbook values, simulations and doctests.

Authors
 * The iusp_plugin authors 2026
"""

import doctest
import math

import numpy as np
import pytest

MODULES = [
    "gradients",
    "processes",
    "study_plan",
    "study_queue",
    "study_results",
    "study_search",
    "study_statistics",
]


@pytest.fixture
def statistics(scripts):
    """The module."""
    return scripts("study_statistics")


def test_interval_by_hand(statistics):
    """t(0.975, 4) = 2.776445 in any table; sd of 1..5 is sqrt(2.5)."""
    found = statistics.estimate([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert found.n == 5 and found.mean == 3.0
    assert found.sd == pytest.approx(math.sqrt(2.5))
    assert found.low == pytest.approx(3 - half, abs=1e-6)
    assert found.high == pytest.approx(3 + half, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 10])
def test_intervals_cover_what_they_say(statistics, n):
    """95 % of 4000 draws, within four standard errors of the count."""
    draws = np.random.default_rng(n).normal(0.3, 2.0, (4000, n))
    found = [statistics.estimate(row) for row in draws]
    covered = np.mean([e.low <= 0.3 <= e.high for e in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize(
    "values, sign",
    [([1.0, 1.1, 0.9], 1), ([-1.0, -1.3], 0), ([-1.0, -1.01], -1), ([3.0], 0)],
)
def test_sign_is_that_of_an_interval_without_zero(statistics, values, sign):
    """One seed decides nothing; two seldom do."""
    assert statistics.estimate(values).sign == sign


def test_no_values_are_refused(statistics):
    """Rather than a mean of nothing."""
    with pytest.raises(ValueError, match="at least one"):
        statistics.estimate([])


def test_pairs_are_of_common_seeds(statistics):
    """A seed that one side lacks says nothing about the difference."""
    plain = {1: 0.5, 2: 0.7, 9: 0.1}
    method = {2: 0.8, 1: 0.55, 3: 0.9}
    found = statistics.gain(method, plain)
    assert found.n == 2
    assert found.mean == pytest.approx(0.075)
    assert statistics.gain({1: 0.5}, {2: 0.5}) is None


def test_pairing_takes_the_seeds_luck_out(statistics):
    """A constant gain has no spread, however far apart the seeds are."""
    plain = {seed: 0.1 * seed for seed in range(5)}
    better = {seed: value + 0.02 for seed, value in plain.items()}
    found = statistics.gain(better, plain)
    assert found.sd == pytest.approx(0.0, abs=1e-12)
    assert found.sign == 1


def test_the_claim_is_linear_in_each_seed(statistics):
    """d of each seed by hand; its ratio; both where SP gains nothing."""
    plain = {1: 0.50, 2: 0.52}
    sp = {1: 0.52, 2: 0.53}
    iusp = {1: 0.56, 2: 0.55}
    d = [0.06 - 1.27 * 0.02, 0.03 - 1.27 * 0.01]
    found = statistics.claim_difference(iusp, sp, plain)
    assert found.mean == pytest.approx(sum(d) / 2)
    assert found.sd == pytest.approx(abs(d[0] - d[1]) / math.sqrt(2))
    assert statistics.gain_ratio(iusp, sp, plain) == pytest.approx(3.0)
    assert math.isnan(statistics.gain_ratio(iusp, plain, plain))
    worse = statistics.claim_difference(iusp, {1: 0.4, 2: 0.4}, plain)
    assert worse.mean > found.mean
    assert statistics.claim_difference(iusp, {}, plain) is None


def test_gap_closed(statistics):
    """1 at the teacher, 0 at the plain student; none above the teacher."""
    plain = {1: 0.5, 2: 0.6}
    teacher = 0.75
    same = dict.fromkeys(plain, teacher)
    assert statistics.gap_closed(same, plain, teacher).mean == pytest.approx(1)
    assert statistics.gap_closed(plain, plain, teacher).mean == 0.0
    assert statistics.gap_closed(plain, plain, 0.55) is None
    assert statistics.gap_closed({}, plain, teacher) is None


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_scripts(name, scripts):
    """Their docstrings give what they say."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(scripts(name), optionflags=flags)
    assert found.failed == 0
