"""Time several ways to one result side by side.

A machine's speed drifts: other work, clock rates, caches. So every repetition
times each contender once, in a new random order, within one process, and a
ratio is judged by the spread of the repetitions' own ratios.

Authors
 * The iusp_plugin authors 2026
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]

# One sample lasts at least this long; faster calls are repeated within it.
SAMPLE_SECONDS = 2e-3
# How many times slower than the fastest an optional contender may be.
HOPELESS = 20.0


@dataclass(frozen=True)
class Effort:
    """How long to go on measuring.

    Arguments
    ---------
    seconds : float
        Wanted length of one comparison.
    fewest, most : int
        Bounds of the number of repetitions, which go before ``seconds``.
    """

    seconds: float = 4.0
    fewest: int = 5
    most: int = 60


def use_threads(threads: int) -> None:
    """Fix the number of threads of torch's operators.

    Arguments
    ---------
    threads : int
        For the CPU; on a GPU it matters little.
    """
    torch.set_num_threads(threads)


def synchronise(device: str) -> None:
    """Wait for a GPU to finish; nothing on the CPU.

    Arguments
    ---------
    device : str
        "cpu" or "cuda".
    """
    if device == "cuda":
        torch.cuda.synchronize()


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile.

    Arguments
    ---------
    values : list of float
        At least one.

    Returns
    -------
    tuple of float
        All three the value itself if there is one only.
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass(frozen=True)
class Times:
    """Seconds of each contender, repetition by repetition.

    Arguments
    ---------
    seconds : dict
        Lists of equal length by contender; a hopeless one has one entry.
    """

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Median seconds of one contender."""
        return statistics.median(self.seconds[name])

    def repetitions(self) -> dict[str, int]:
        """How often each contender was timed."""
        return {name: len(values) for name, values in self.seconds.items()}

    def ratio(self, slow: str, fast: str) -> dict[str, float]:
        """How many times longer one takes than another.

        Arguments
        ---------
        slow, fast : str
            Contenders.

        Returns
        -------
        dict
            "value", the ratio of the medians; "low" and "high", quartiles of
            the ratios within each repetition.
        """
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=False)
        low, _, high = quartiles([a / b for a, b in pairs])
        value = self.median(slow) / self.median(fast)
        return {"value": value, "low": low, "high": high}


def _time(call: Call, calls: int, device: str) -> float:
    """Mean seconds of a call over ``calls`` of them."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronise(device)
    return (time.perf_counter() - start) / calls


def _warm_up(call: Call, device: str) -> float:
    """Seconds of a call once everything it needs is loaded."""
    first = _time(call, 1, device)
    return first if first > 0.5 else _time(call, 2, device)


def interleave(
    contenders: Mapping[str, Call],
    effort: Effort,
    *,
    optional: tuple[str, ...] = (),
    device: str = "cpu",
    seed: int = 0,
) -> Times:
    """Time every contender once a repetition, in random order.

    Arguments
    ---------
    contenders : dict
        Calls without arguments by name.
    effort : Effort
        How long to go on.
    optional : tuple of str
        Contenders that are timed by their warm-up alone if it takes more
        than ``HOPELESS`` times that of the fastest.
    device : str
        "cpu" or "cuda"; a GPU is waited for.
    seed : int
        Of the order.

    Returns
    -------
    Times
        Their seconds.
    """
    once = {name: _warm_up(call, device) for name, call in contenders.items()}
    limit = HOPELESS * min(once.values())
    names = [n for n in once if n not in optional or once[n] <= limit]
    calls = {n: max(1, math.ceil(SAMPLE_SECONDS / once[n])) for n in names}
    total = sum(calls[name] * once[name] for name in names)
    wanted = round(effort.seconds / total)
    shuffled = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(min(max(wanted, effort.fewest), effort.most)):
        for name in shuffled.sample(names, len(names)):
            took = _time(contenders[name], calls[name], device)
            seconds[name].append(took)
    return Times({name: seconds.get(name, [once[name]]) for name in once})
