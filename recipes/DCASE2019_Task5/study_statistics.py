"""Statistics of a study: paired by seed, with t intervals.

Authors
 * The iusp_plugin authors 2026
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

# The smaller end of what the paper reports: IUSP's gain over SP's gain.
CLAIMED_RATIO = 1.27


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its spread and its interval.

    Arguments
    ---------
    n : int
        Number of values.
    mean, sd : float
        Of the values; the standard deviation has n - 1 below.
    low, high : float
        Ends of the 95 % interval of the mean; NaN for a single value.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def sign(self):
        """1 or -1 where the interval excludes zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def scaled(self, factor):
        """The estimate of a positive multiple."""
        numbers = (self.mean, self.sd, self.low, self.high)
        return Estimate(self.n, *(factor * number for number in numbers))


def estimate(values, confidence=0.95):
    """Mean, standard deviation and Student's t interval of the mean.

    With n values the interval is mean +- t(n - 1) sd / sqrt(n). It covers what
    it says for values from a normal distribution however few there are, which
    a percentile bootstrap does not.

    Arguments
    ---------
    values : sequence of float
        One a seed.
    confidence : float
        Of the interval, in (0, 1).

    Returns
    -------
    Estimate

    Example
    -------
    >>> e = estimate([1.0, 2.0, 3.0])
    >>> round(e.low, 3), e.mean, round(e.high, 3)
    (-0.484, 2.0, 4.484)
    """
    values = np.asarray(list(values), dtype=np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("An estimate needs at least one value.")
    mean = float(values.mean())
    if n == 1:
        return Estimate(1, mean, math.nan, math.nan, math.nan)
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def paired(*columns):
    """Rows of the seeds that all columns have.

    Arguments
    ---------
    *columns : dict of int to float
        A figure by seed.

    Returns
    -------
    numpy.ndarray
        (seeds, columns), by rising seed.

    Example
    -------
    >>> paired({1: 0.5, 2: 0.75}, {2: 0.25, 3: 0.0})
    array([[0.75, 0.25]])
    """
    seeds = sorted(set(columns[0]).intersection(*columns[1:]))
    rows = [[column[seed] for column in columns] for seed in seeds]
    return np.array(rows).reshape(len(seeds), len(columns))


def gain(method, plain):
    """Estimate of the paired difference, or None without common seeds.

    Arguments
    ---------
    method, plain : dict of int to float
        A figure by seed.

    Returns
    -------
    Estimate or None
    """
    rows = paired(method, plain)
    return estimate(rows[:, 0] - rows[:, 1]) if len(rows) else None


def claim_difference(iusp, sp, plain, ratio=CLAIMED_RATIO):
    """Estimate of d = (IUSP - plain) - ratio (SP - plain), paired by seed.

    The claim that IUSP gains at least ``ratio`` times what SP gains is d > 0,
    which is defined whatever the sign of SP's gain.

    Arguments
    ---------
    iusp, sp, plain : dict of int to float
        A figure by seed.
    ratio : float
        Of the claim.

    Returns
    -------
    Estimate or None
        None without common seeds.

    Example
    -------
    >>> claim_difference({1: 0.5}, {1: 0.25}, {1: 0.0}, ratio=1.5).mean
    0.125
    """
    rows = paired(iusp, sp, plain)
    if not len(rows):
        return None
    i, s, p = rows.T
    return estimate((i - p) - ratio * (s - p))


def gain_ratio(iusp, sp, plain):
    """Ratio of the mean gains over common seeds; NaN where SP gains nothing.

    Arguments
    ---------
    iusp, sp, plain : dict of int to float
        A figure by seed.
    """
    rows = paired(iusp, sp, plain)
    if not len(rows):
        return math.nan
    i, s, p = rows.mean(axis=0)
    return float((i - p) / (s - p)) if s > p else math.nan


def gap_closed(method, plain, teacher):
    """Share of the way from plain student to teacher: gain / gap.

    Arguments
    ---------
    method, plain : dict of int to float
        A figure by seed.
    teacher : float
        The teacher's figure.

    Returns
    -------
    Estimate or None
        1 is the teacher; None without common seeds, or without a gap. The
        gap is taken as known: its own spread is not in the interval.
    """
    rows = paired(method, plain)
    if not len(rows) or teacher <= rows[:, 1].mean():
        return None
    difference = estimate(rows[:, 0] - rows[:, 1])
    return difference.scaled(1 / (teacher - rows[:, 1].mean()))
