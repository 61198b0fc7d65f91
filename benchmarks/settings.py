"""What is measured: shapes, bars, and how long to go on.

Authors
 * The iusp_plugin authors 2026
"""

import contextlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timing import Effort

Shape = tuple[int, int, int, int]

# (batch, frames, D of the student, D of the teacher), and how many times
# faster than the plain way the loss has to be there.
BARS: dict[Shape, float] = {
    (16, 124, 512, 4096): 1.2,
    (16, 497, 256, 512): 1.6,
    (16, 1000, 64, 128): 15.0,
    (8, 1500, 256, 256): 5.0,
    (4, 6000, 64, 128): 120.0,
}
QUICK_BARS: dict[Shape, None] = {
    (2, 12, 32, 64): None,
    (2, 50, 16, 32): None,
    (2, 300, 16, 8): None,
}
# The same where the teacher's similarity is given as a matrix.
MATRIX_BARS = {(16, 124, 512, 4096): 6.0, (16, 497, 256, 512): 5.0}
MASKED_BAR = 1.3
RANDOM_BAR = 0.95
MEMORY_BARS = {(4, 6000, 64, 128): 60e6}

LONG = ((1, 60000, 64, 128), (1, 60000, 256, 256))
QUICK_LONG = ((1, 600, 16, 8),)

# (clips, student, teacher): a network's outputs, pooled maps, whole maps of
# 31 frames.
SP_SHAPES = ((64, 31, 527), (64, 512, 2048), (16, 512 * 31, 4096 * 31))
QUICK_SP_SHAPES = ((4, 3, 5), (4, 64, 128))

# Bounds of the random shapes: batch, frames, D of student and of teacher.
RANGES = ((1, 32), (2, 2000), (4, 1024), (4, 4096))
# The plain way then stays below about 0.5 s and 3 GB: entries of its frame
# matrices, of which it holds up to ten, floating point operations, and
# entries of the features.
MOST_PAIRS, MOST_FLOPS, MOST_ENTRIES = 10e6, 50e9, 100e6


@dataclass(frozen=True)
class Settings:
    """One run's options.

    Arguments
    ---------
    device : str
        "cpu" or "cuda".
    quick : bool
        Small shapes, few repetitions: to see that everything runs.
    """

    device: str = "cpu"
    quick: bool = False

    def bars(self) -> dict:
        """Bar by shape, None without one."""
        return QUICK_BARS if self.quick else BARS

    def long(self) -> tuple[Shape, ...]:
        """Shapes of one long clip."""
        return QUICK_LONG if self.quick else LONG

    def sp_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shapes of the loss over clips."""
        return QUICK_SP_SHAPES if self.quick else SP_SHAPES

    def effort(self, seconds: float) -> Effort:
        """How long to go on with one comparison of so many seconds."""
        if self.quick:
            return Effort(0.0, fewest=2, most=2)
        return Effort(seconds)

    def precisions(self) -> tuple[str, ...]:
        """Kinds of arithmetic to compare in."""
        if self.device == "cpu":
            return ("float32",)
        return ("float32", "TF32", "bf16 inputs")

    def random_shapes(self) -> list[Shape]:
        """Shapes that favour nobody."""
        return random_shapes(3 if self.quick else 40)


def random_shapes(count: int, seed: int = 0) -> list[Shape]:
    """Shapes drawn log-uniformly, too large ones left out.

    Arguments
    ---------
    count : int
        How many.
    seed : int
        Same seed, same shapes.

    Returns
    -------
    list of tuple
        As features are made.
    """
    draw = random.Random(seed)
    found: list[Shape] = []
    while len(found) < count:
        batch, frames, student, teacher = (
            round(math.exp(draw.uniform(math.log(low), math.log(high))))
            for low, high in RANGES
        )
        pairs = batch * frames**2
        flops = 2 * pairs * (3 * student + teacher)
        entries = batch * frames * (2 * student + teacher)
        fits = pairs <= MOST_PAIRS and entries <= MOST_ENTRIES
        if fits and flops <= MOST_FLOPS:
            found.append((batch, frames, student, teacher))
    return found


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32, or not.

    Arguments
    ---------
    allowed : bool
        Within the block.

    Yields
    ------
    None
        The setting is as before afterwards.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
