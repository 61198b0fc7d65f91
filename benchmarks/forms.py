"""What the choice between the two forms loses, and the constants behind it.

Times both forms of ``iusp_loss`` at shapes drawn with a fixed seed, prints how
much slower the form that ``iusp_plugin.losses.costs`` chooses is than the
faster one, and tries other constants for it.

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import itertools
import math
import random
import statistics
import time

import torch

from iusp_plugin.losses import costs, iusp_loss

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
CONSTANTS = {
    "GRAM_ELEMENT": (200.0, 300.0, 400.0, 600.0),
    "COVARIANCE_ELEMENT": (200.0, 400.0, 600.0, 800.0, 1000.0),
    "COVARIANCE_CALL": (0.0, 5e6, 1e7, 2e7, 4e7),
    "FLOAT64": (1.5, 2.0, 3.0, 4.0),
}


def draw_shape(generator: random.Random) -> tuple[int, int, int, int]:
    """(batch, t, D_S, D_T), log-uniform, of bearable cost in both forms."""
    while True:
        batch, t, s, u = (
            round(math.exp(generator.uniform(math.log(low), math.log(high))))
            for low, high in ((1, 32), (4, 2000), (4, 512), (4, 1024))
        )
        most = max(t * t * (2 * s + u), t * (4 * s * s + 4 * s * u + 2 * u * u))
        if 2.0 * batch * most < 4e10 and batch * t * t < 7.5e7:
            return batch, t, s, u


def seconds(student, teacher, similarity: str, form: str) -> float:
    """Median time of loss and gradient."""
    times, stop = [], time.perf_counter() + 0.3
    while len(times) < 5 or time.perf_counter() < stop:
        begin = time.perf_counter()
        loss = iusp_loss(student, teacher, similarity=similarity, form=form)
        torch.autograd.grad(loss, student)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def measure(count: int) -> list[tuple[tuple, str, dict[str, float]]]:
    """Shape, similarity, and seconds by form."""
    generator, rows = random.Random(1), []
    for i in range(count):
        batch, t, s, u = shape = draw_shape(generator)
        torch.manual_seed(i)
        student = torch.randn(batch, t, s).relu().requires_grad_()
        teacher = torch.randn(batch, t, u).relu()
        for name in SIMILARITIES:
            times = {f: seconds(student, teacher, name, f) for f in FORMS}
            rows.append((shape, name, times))
        print(f"\r{i + 1} of {count} shapes", end="", flush=True)
    print()
    return rows


def regrets(rows) -> list[float]:
    """Time of the chosen form over that of the faster one."""
    return [
        times[costs.choose_form(*shape, name)] / min(times.values())
        for shape, name, times in rows
    ]


def main():
    """Measure, then print the regret of today's and of better constants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=90)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments.shapes)
    tried = []
    today = tuple(getattr(costs, name) for name in CONSTANTS)
    for values in [today, *itertools.product(*CONSTANTS.values())]:
        for name, value in zip(CONSTANTS, values, strict=True):
            setattr(costs, name, value)
        ratios = regrets(rows)
        tried.append((statistics.mean(ratios), max(ratios), values))
    print("mean and largest ratio to the faster form, by constants:")
    for mean, largest, values in [tried[0], *sorted(tried)[:5]]:
        named = dict(zip(CONSTANTS, values, strict=True))
        print(f"{mean:.3f} {largest:.2f} {named}")


if __name__ == "__main__":
    main()
