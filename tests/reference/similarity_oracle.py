"""IUSP and SP in plain loops, with exact slopes, from the formulas alone.

float64, one element at a time, no tensor: an oracle for every way the losses
compute the same number. Every number carries its slope along one direction of
the student's features (a dual number), so that a gradient is checked through
`sum(gradient * direction)`, with neither an analytic backward nor a step size.

Features are nested lists, as `tensor.tolist()` gives them.

Authors
 * The iusp_plugin authors 2026
"""

import math
import struct
from typing import NamedTuple


class Dual:
    """A number and its derivative along the direction."""

    __slots__ = ("value", "slope")

    def __init__(self, value, slope=0.0):
        self.value = value
        self.slope = slope

    def __add__(self, other):
        return Dual(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other):
        return Dual(self.value - other.value, self.slope - other.slope)

    def __mul__(self, other):
        return Dual(
            self.value * other.value,
            self.slope * other.value + self.value * other.slope,
        )

    def __truediv__(self, other):
        value = self.value / other.value
        return Dual(value, (self.slope - value * other.slope) / other.value)


class Rows(NamedTuple):
    """Similarity rows and how far rounding could change them."""

    rows: list  # of lists of Dual
    # Relative distance to the silence threshold of the norm nearest to it:
    # at zero, rounding decides what is silent and nothing can be expected.
    margin: float = math.inf
    # Amplifies rounding: the largest over the smallest norm of the live rows,
    # times what frames that cancel in the alignment took from the loudest.
    spread: float = 1.0


class Loss(NamedTuple):
    """What one clip (SP: one row of the batch) is expected to give."""

    value: float
    slope: float
    # What the value is the difference of: rounding is relative to this.
    size: float
    margin: float
    spread: float


# Clips and frames


def valid_frames(length, steps):
    """round(r * T), the product in float32, halves to even; 1 to T."""
    (product,) = struct.unpack("f", struct.pack("f", length * steps))
    return min(max(round(product), 1), steps)


def flat(nested):
    """Every number in a nested list, in order."""
    if not isinstance(nested, list):
        return [nested]
    return [number for part in nested for number in flat(part)]


def duals(values, slopes=None):
    """The same nested list with a Dual for each number."""
    if not isinstance(values, list):
        return Dual(values, 0.0 if slopes is None else slopes)
    if slopes is None:
        slopes = [None] * len(values)
    return [duals(*pair) for pair in zip(values, slopes, strict=True)]


def frames_of(clip, layout):
    """One flat row a frame."""
    if layout == "time_first":
        return [flat(frame) for frame in clip]
    return [
        flat([channel[step] for channel in clip])
        for step in range(len(clip[0]))
    ]


def mixture(frames, weights):
    """The weighted sum of frames, element by element."""
    return [
        total(
            frame[column] * Dual(weight)
            for frame, weight in zip(frames, weights, strict=True)
        )
        for column in range(len(frames[0]))
    ]


def pooled(frames, count):
    """Each output frame is the mean of the input frames it touches."""
    size = len(frames)
    result = []
    for step in range(count):
        window = frames[step * size // count : -(-(step + 1) * size // count)]
        result.append(mixture(window, [1 / len(window)] * len(window)))
    return result


def interpolated(frames, count):
    """Frames at count evenly spaced centres, between their neighbours."""
    last = len(frames) - 1
    result = []
    for step in range(count):
        position = (step + 0.5) * len(frames) / count - 0.5
        position = min(max(position, 0), last)
        below = min(math.floor(position), last)
        above = min(below + 1, last)
        share = position - below
        pair = [frames[below], frames[above]]
        result.append(mixture(pair, [1 - share, share]))
    return result


def aligned(frames, count, alignment):
    """The valid frames of a clip brought to another number."""
    bring = {"pool": pooled, "interpolate": interpolated}[alignment]
    return bring(frames, count)


def cancelled(before, after):
    """How many times louder the loudest frame was before the alignment."""
    loudest = [
        max(norm(frame).value for frame in frames) for frames in (before, after)
    ]
    if loudest[0] <= loudest[1]:
        return 1.0
    return loudest[0] / loudest[1] if loudest[1] else math.inf


# Similarity


def total(numbers):
    """The sum of dual numbers."""
    result = Dual(0.0)
    for number in numbers:
        result = result + number
    return result


def dot(left, right):
    """Inner product of two rows."""
    return total(a * b for a, b in zip(left, right, strict=True))


def products(left, right):
    """left right^T."""
    return [[dot(a, b) for b in right] for a in left]


def norm(row):
    """Euclidean length of a row; slope 0 where it has none."""
    square = dot(row, row)
    root = math.sqrt(square.value)
    return Dual(root, square.slope / (2 * root) if root else 0.0)


def unit_rows(rows, eps):
    """Rows of length one; zero where not above eps x the largest norm."""
    norms = [norm(row) for row in rows]
    sizes = [size.value for size in norms]
    largest = max(sizes)
    threshold = eps * largest
    result = [
        [x / size for x in row] if size.value > threshold else silent(row)
        for row, size in zip(rows, norms, strict=True)
    ]
    if largest == 0:
        return Rows(result)
    # At eps 0 rounding blurs the threshold itself.
    blur = max(threshold, 1e-6 * largest)
    margin = min(abs(size - threshold) for size in sizes) / blur
    live = [size for size in sizes if size > threshold]
    return Rows(result, margin, largest / min(live, default=largest))


def silent(row):
    """A row of zeros."""
    return [Dual(0.0) for _ in row]


def similarity_of(frames, similarity, eps):
    """G of some rows, the frames of a clip or the clips of a batch."""
    if similarity == "row_l2":
        return unit_rows(products(frames, frames), eps)
    unit = unit_rows(frames, eps)
    return unit._replace(rows=products(unit.rows, unit.rows))


def similarity_of_parts(part, count, similarity, eps):
    """G of a teacher given as a matrix, cosines and norms, or factors.

    `part` holds "matrix", or "cosine" and "norms", or "left" and "right";
    only the first count rows (and columns) of each are looked at. Rows of
    "row_l2" are brought to length one.
    """
    part = {name: duals(value[:count]) for name, value in part.items()}
    for name in {"matrix", "cosine"} & part.keys():
        part[name] = [row[:count] for row in part[name]]
    if "cosine" not in part:
        matrix = part.get("matrix") or products(part["left"], part["right"])
        return (
            unit_rows(matrix, eps) if similarity == "row_l2" else Rows(matrix)
        )
    if similarity == "cosine":
        return Rows(part["cosine"])
    gram = [
        [
            cosine * ours * theirs
            for cosine, theirs in zip(row, part["norms"], strict=True)
        ]
        for row, ours in zip(part["cosine"], part["norms"], strict=True)
    ]
    return unit_rows(gram, eps)


# Losses


def squares(rows):
    """The squared Frobenius norm."""
    return total(dot(row, row) for row in rows)


def distance(ours, theirs, factor):
    """factor x ||G_T - G_S||_F^2 over the given rows."""
    difference = squares(
        [a - b for a, b in zip(*pair, strict=True)]
        for pair in zip(theirs.rows, ours.rows, strict=True)
    )
    both = squares(theirs.rows).value ** 0.5 + squares(ours.rows).value ** 0.5
    return Loss(
        factor * difference.value,
        factor * difference.slope,
        factor * both**2,
        min(ours.margin, theirs.margin),
        max(ours.spread, theirs.spread),
    )


def clip_similarity(frames, length, target, alignment, similarity, eps):
    """G of a clip, its map brought to target frames."""
    valid = frames[: valid_frames(length, len(frames))]
    mixed = valid
    if len(frames) != target:
        mixed = aligned(valid, valid_frames(length, target), alignment)
    found = similarity_of(mixed, similarity, eps)
    return found._replace(spread=found.spread * cancelled(valid, mixed))


def iusp_clips(
    student,
    direction,
    teacher,
    lengths=None,
    *,
    similarity="row_l2",
    scaled=False,
    alignment="error",
    layout="time_first",
    eps=1e-4,
):
    """The loss of each clip: (1/n^2) ||G_T - G_S||_F^2, n valid frames.

    `direction` has the shape of student. `teacher` is a nested list of
    features, or a dict of what `similarity_of_parts` takes, by clip.
    """
    ours = [frames_of(clip, layout) for clip in duals(student, direction)]
    steps = [len(ours[0])]
    if not isinstance(teacher, dict):
        theirs = [frames_of(clip, layout) for clip in duals(teacher)]
        steps.append(len(theirs[0]))
    target = max(steps) if alignment == "interpolate" else min(steps)
    how = (target, alignment, similarity, eps)
    losses = []
    for clip, length in enumerate(lengths or [1.0] * len(ours)):
        count = valid_frames(length, target)
        given = clip_similarity(ours[clip], length, *how)
        if isinstance(teacher, dict):
            part = {name: value[clip] for name, value in teacher.items()}
            wanted = similarity_of_parts(part, count, similarity, eps)
        else:
            wanted = clip_similarity(theirs[clip], length, *how)
        factor = (count if scaled else 1) / count**2
        losses.append(distance(given, wanted, factor))
    return losses


def clip_rows(features, lengths, layout):
    """One flat row a clip, the frames beyond its length set to zero."""
    if lengths is None or not isinstance(features[0][0], list):
        return [flat(clip) for clip in features]
    rows = []
    for clip, length in zip(features, lengths, strict=True):
        frames = frames_of(clip, layout)
        count = valid_frames(length, len(frames))
        kept = frames[:count] + [silent(frame) for frame in frames[count:]]
        rows.append(flat(kept))
    return rows


def sp_shares(
    student,
    direction,
    teacher,
    lengths=None,
    *,
    similarity="row_l2",
    scaled=False,
    layout="time_first",
    eps=1e-4,
):
    """The share of each clip: (1/b) ||row of G_T - row of G_S||^2.

    Arguments as in `iusp_clips`; the dict of a teacher's parts has no clips
    to choose from, its rows are the clips.
    """
    ours = clip_rows(duals(student, direction), lengths, layout)
    given = similarity_of(ours, similarity, eps)
    count = len(ours)
    if isinstance(teacher, dict):
        wanted = similarity_of_parts(teacher, count, similarity, eps)
    else:
        theirs = clip_rows(duals(teacher), lengths, layout)
        wanted = similarity_of(theirs, similarity, eps)
    return [
        distance(
            given._replace(rows=[mine]),
            wanted._replace(rows=[yours]),
            (count if scaled else 1) / count,
        )
        for mine, yours in zip(given.rows, wanted.rows, strict=True)
    ]


def reduced(numbers, reduction):
    """What the numbers of clips become: a list, of one but for "batch"."""
    if reduction == "batch":
        return numbers
    return [sum(numbers) / (1 if reduction == "sum" else len(numbers))]
