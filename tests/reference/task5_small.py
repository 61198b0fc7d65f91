"""A made-up data set of 40 files, small enough to carry its scores.

Values come from a linear congruential generator, so that every machine makes
the same ones. Confidences are multiples of 1/32: exact, and full of ties.

Authors
 * The iusp_plugin authors 2026
"""

import csv

import numpy as np

from iusp_plugin.dataio.taxonomy import (
    ALL_TAGS,
    FINE_TAGS,
    presence_column,
    proximity_column,
)

NUM_FILES = 40
FILENAMES = [f"{k % 7:02d}_{k:06d}.wav" for k in range(NUM_FILES)]

# Level and tie order to micro-AUPRC, micro-F1 at 0.5, the AUPRC of categories
# 1..8; threshold, TP, FP, FN behind the F1. From the slow loops of
# task5_loops.py, which agree with the official program on the reference set.
EXPECTED = {
    ("coarse", "official"): (
        0.6145926071488264,
        0.4666666666666667,
        [
            0.5147058823529411,
            0.40989702517162474,
            0.5134565830994403,
            0.5701970443349753,
            0.6882761437908498,
            0.23816738816738814,
            0.6472222222222223,
            0.31958333333333333,
        ],
    ),
    ("coarse", "stable"): (
        0.6122892690625865,
        0.4666666666666667,
        [
            0.6666666666666667,
            0.40989702517162474,
            0.5247467131865629,
            0.6190476190476191,
            0.7126331593243358,
            0.254265873015873,
            0.6472222222222223,
            0.31958333333333333,
        ],
    ),
    ("fine", "official"): (
        0.7047358403283416,
        0.5687645687645688,
        [
            0.6730552662029792,
            0.6769685200639608,
            0.1695048920377868,
            0.8150498763263951,
            0.626658838497812,
            0.7105046370371715,
            0.7200664491011067,
            0.6291666666666667,
        ],
    ),
    ("fine", "stable"): (
        0.7034240819433761,
        0.5687645687645688,
        [
            0.6730552662029792,
            0.6769685200639608,
            0.1695048920377868,
            0.8150498763263951,
            0.627254058241894,
            0.7105046370371715,
            0.7200664491011067,
            0.6975524475524475,
        ],
    ),
}
OPERATING_POINTS = {
    "coarse": {"threshold": 0.5, "TP": 28, "FP": 46, "FN": 18},
    "fine": {"threshold": 0.5, "TP": 122, "FP": 111, "FN": 74},
}


def _draws(seed):
    """Endless integers 0..31."""
    while True:
        seed = (seed * 1103515245 + 12345) % 2**31
        yield seed >> 26


def small_set():
    """Truth (files, 37) of 0 and 1, and confidences (files, 37)."""
    draw = _draws(2019)
    truth = np.zeros((NUM_FILES, len(ALL_TAGS)))
    confidences = np.zeros_like(truth)
    for i in range(NUM_FILES):
        for k in range(len(ALL_TAGS)):
            truth[i, k] = next(draw) < 6
            noise = next(draw) / 32
            confidences[i, k] = (truth[i, k] + noise + noise**2) / 3
    return truth, np.floor(confidences * 32) / 32


def levels(table):
    """The coarse and the fine part of a (files, 37) table."""
    fine = len(FINE_TAGS)
    return {"coarse": table[:, fine:], "fine": table[:, :fine]}


def write_annotations(path, truth=None, split="validate"):
    """An annotation file with agreed rows and others to be ignored."""
    truth = small_set()[0] if truth is None else truth
    header = ["split", "sensor_id", "audio_filename", "annotator_id"]
    header += [presence_column(tag) for tag in FINE_TAGS]
    header += [proximity_column(tag) for tag in FINE_TAGS]
    header += [presence_column(tag) for tag in ALL_TAGS[len(FINE_TAGS) :]]
    near = ["-1"] * len(FINE_TAGS)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, row in zip(FILENAMES, truth, strict=True):
            others = [("17", 1 - row), ("0", row), ("-2", 0 * row - 1)]
            for annotator, values in others:
                part = levels(values[None])
                writer.writerow(
                    [split, int(name[:2]), name, annotator]
                    + [f"{v:.1f}" for v in part["fine"][0]]
                    + near
                    + [f"{v:.0f}" for v in part["coarse"][0]]
                )
