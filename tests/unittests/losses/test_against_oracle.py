"""IUSP and SP against plain loops: values and gradients of drawn cases.

Authors
 * The iusp_plugin authors 2026
"""

import math
import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import (
    HealthCheck,
    Phase,
    assume,
    find,
    given,
    settings,
    strategies as st,
)

from iusp_plugin.losses import (
    CosineSimilarity,
    SimilarityFactors,
    iusp_loss,
    sp_loss,
)
from tests.reference import similarity_oracle as oracle
from tests.reference.similarity_oracle import Dual, valid_frames

FORMS = ("gram", "covariance", "auto")
# How a teacher's similarity is given, and the forms that can use it.
PARTS = {
    "matrix": ("gram", "auto"),
    "cosine": ("gram", "auto"),
    "factors": FORMS,
    "any factors": FORMS,
}
GARBAGE = (math.nan, math.inf, -math.inf, 1e30, 3.0)
# Of whole clips. Those of one batch are compared with each other by SP.
LEVELS = (1e-12, 1.0, 1.0, 1e12)
HALF_LEVELS = (0.1, 10.0)
SP_LEVELS = (0.01, 1.0, 1.0)
# A norm this near to its threshold (relative to it) is silent or live by
# rounding alone, and frames that cancel this far are nothing but rounding.
MARGINS = {torch.float64: 1e-6, torch.float32: 1e-2}
SPREADS = {torch.float64: 1e8, torch.float32: 1e3}
# Allowed: the first times the expected number, plus the second times the
# size of what it is the difference of and the spread of the rows' norms.
# Values are those of the precision computed in, gradients the student's.
TOLERANCES = {
    torch.float64: (1e-12, 1e-14),
    torch.float32: (2e-6, 2e-6),
    torch.float16: (1e-3, 1e-3),
    torch.bfloat16: (1e-2, 1e-2),
}
DRAWN = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Case:
    """A call of a loss, and the direction its gradient is compared along."""

    student: torch.Tensor
    direction: torch.Tensor
    teacher: torch.Tensor | dict
    lengths: torch.Tensor | None
    reduction: str
    weights: list  # of the clips: turns "batch" into a number to derive
    check_finite: bool
    options: dict  # of the loss and the oracle alike

    @property
    def dtype(self):
        """What the loss computes in."""
        tensors = [self.student]
        if isinstance(self.teacher, dict):
            tensors += self.teacher.values()
        else:
            tensors.append(self.teacher)
        double = any(tensor.dtype == torch.float64 for tensor in tensors)
        return torch.float64 if double else torch.float32


# Drawing


def draw_lengths(draw, batch, steps):
    """None, or lengths: whole frames, half-way between two, anything."""
    if draw(st.booleans()):
        return None
    halves = st.integers(1, 2 * steps).map(lambda half: half / (2 * steps))
    length = halves | st.floats(2**-10, 1, width=32)
    lengths = draw(st.lists(length, min_size=batch, max_size=batch))
    return torch.tensor(lengths, dtype=torch.float32)


def counts_of(lengths, batch, steps):
    """Valid frames of each clip."""
    if lengths is None:
        return [steps] * batch
    return [valid_frames(length, steps) for length in lengths.tolist()]


def draw_row(rng, kind, level, width):
    """The features of one frame."""
    if kind == "whole":  # repeats, opposites and zeros
        return [level * rng.randint(-2, 2) for _ in range(width)]
    drawn = [level * rng.gauss(0, 1) for _ in range(width)]
    return [max(x, 0.0) for x in drawn] if kind == "relu" else drawn


def draw_frames(draw, rng, batch, steps, counts, silence, levels):
    """Float64 (batch, steps, width), with garbage beyond the valid frames."""
    width = draw(st.integers(1, 6))
    kinds = ["normal", "relu", "whole"] if silence else ["normal"]
    kind = draw(st.sampled_from(kinds))
    clips = torch.zeros(batch, steps, width, dtype=torch.float64)
    for clip, count in enumerate(counts):
        level = rng.choice(levels)
        if silence and rng.random() < 0.1:
            level = 0.0
        for step in range(steps):
            factor = rng.choice([0.0, 0.1, 1.0, 1.0])
            faint = level * (factor if silence else max(factor, 0.1))
            row = draw_row(rng, kind, faint, width)
            if step >= count:
                row = [rng.choice(GARBAGE) for _ in range(width)]
            clips[clip, step] = torch.tensor(row, dtype=torch.float64)
    return clips


def draw_direction(rng, frames, counts):
    """As loud as the clip, and not zero on frames that must not matter."""
    direction = torch.ones_like(frames)
    for clip, count in enumerate(counts):
        level = frames[clip, :count].abs().max().item() or 1.0
        for step in range(frames.shape[1]):
            for column in range(frames.shape[2]):
                direction[clip, step, column] = level * rng.uniform(-1, 1)
    return direction


def draw_layout(draw, layout, *maps):
    """The same frames as a loss takes them: 3-D or 4-D, in either layout."""
    width = maps[0].shape[-1]
    splits = [(a, width // a) for a in range(1, width + 1) if width % a == 0]
    shapes = [(width,), *splits]
    shape = draw(st.sampled_from(shapes))
    maps = [frames.unflatten(-1, shape) for frames in maps]
    if layout == "channel_first":
        maps = [frames.movedim(1, 2) for frames in maps]
        if draw(st.booleans()):
            maps = [frames.contiguous() for frames in maps]
    return maps


def padded(rows, steps, width=None):
    """A clip's part as a tensor, garbage beyond what is valid."""
    rows = torch.tensor(
        [[x.value for x in row] for row in rows], dtype=torch.float64
    )
    width = rows.shape[1] if width is None else width
    result = torch.full((steps, width), math.nan, dtype=torch.float64)
    result[: rows.shape[0], : rows.shape[1]] = rows
    return result


def parts_of_rows(kind, rows, steps, options, rng):
    """The parts that stand for a teacher with these rows, by name."""
    similarity, eps = options["similarity"], options["eps"]
    if kind == "any factors":
        left, right = (
            [[Dual(rng.gauss(0, 1)) for _ in row] for row in rows]
            for _ in range(2)
        )
        return {"left": padded(left, steps), "right": padded(right, steps)}
    if kind == "matrix":
        matrix = oracle.similarity_of(rows, similarity, eps).rows
        return {"matrix": padded(matrix, steps, steps)}
    if kind == "cosine":
        least = eps if similarity == "cosine" else 0.0
        cosine = oracle.similarity_of(rows, "cosine", least).rows
        norms = padded([[oracle.norm(row)] for row in rows], steps)[:, 0]
        return {"cosine": padded(cosine, steps, steps), "norms": norms}
    if similarity == "cosine":
        unit = padded(oracle.unit_rows(rows, eps).rows, steps)
        return {"left": unit, "right": unit}
    gram = oracle.products(rows, rows)
    left = [
        [x / oracle.norm(long) for x in row]
        if any(x.value for x in short)
        else oracle.silent(row)
        for row, long, short in zip(
            rows, gram, oracle.unit_rows(gram, eps).rows, strict=True
        )
    ]
    return {"left": padded(left, steps), "right": padded(rows, steps)}


def draw_options(draw):
    """What both losses take, and the oracle with them."""
    return {
        "similarity": draw(st.sampled_from(["row_l2", "cosine"])),
        "scaled": draw(st.booleans()),
        "layout": draw(st.sampled_from(["time_first", "channel_first"])),
        "eps": draw(st.sampled_from([1e-4, 0.3, 0.0])),
    }


def draw_case(draw, rng, student, direction, teacher, reductions, **others):
    """A case of these float64 tensors, in some precision."""
    ours, yours = draw(
        st.sampled_from(
            [
                (torch.float64, torch.float64),
                (torch.float64, torch.float64),
                (torch.float32, torch.float32),
                (torch.float32, torch.float64),
                (torch.float64, torch.float32),
            ]
        )
    )
    if isinstance(teacher, dict):
        teacher = {name: part.to(yours) for name, part in teacher.items()}
    else:
        teacher = teacher.to(yours)
    return Case(
        student=student.to(ours),
        direction=direction,
        teacher=teacher,
        reduction=draw(st.sampled_from(reductions)),
        weights=[rng.uniform(-1, 1) for _ in range(student.shape[0])],
        check_finite=draw(st.booleans()),
        **others,
    )


@st.composite
def iusp_cases(draw, kind="features", levels=LEVELS):
    """Arguments of `iusp_loss`, the teacher given in one way."""
    options = draw_options(draw)
    rng = random.Random(draw(st.integers(0, 2**32)))
    batch = draw(st.integers(1, 3))
    steps = teacher_steps = draw(st.integers(1, 9))
    options["alignment"] = draw(
        st.sampled_from(["pool", "interpolate", "error"])
    )
    if kind == "features" and options["alignment"] != "error":
        teacher_steps = draw(st.integers(1, 9))
    lengths = draw_lengths(draw, batch, steps)
    loud = (options["eps"] > 0, levels)
    counts = counts_of(lengths, batch, steps)
    student = draw_frames(draw, rng, batch, steps, counts, *loud)
    direction = draw_direction(rng, student, counts)
    student, direction = draw_layout(
        draw, options["layout"], student, direction
    )
    counts = counts_of(lengths, batch, teacher_steps)
    teacher = draw_frames(draw, rng, batch, teacher_steps, counts, *loud)
    if kind == "features":
        (teacher,) = draw_layout(draw, options["layout"], teacher)
    else:
        valid = [
            oracle.duals(clip[:count].tolist())
            for clip, count in zip(teacher, counts, strict=True)
        ]
        clips = [
            parts_of_rows(kind, rows, steps, options, rng) for rows in valid
        ]
        teacher = {
            name: torch.stack([parts[name] for parts in clips])
            for name in clips[0]
        }
    return draw_case(
        draw,
        rng,
        student,
        direction,
        teacher,
        ["batch", "mean", "batchmean", "sum"],
        lengths=lengths,
        options=options,
    )


@st.composite
def sp_cases(draw, kind="features"):
    """Arguments of `sp_loss`, the teacher given in one way."""
    options = draw_options(draw)
    rng = random.Random(draw(st.integers(0, 2**32)))
    batch = draw(st.integers(1, 4))
    lengths = draw_lengths(draw, batch, 4)
    has_time = draw(
        st.sampled_from(["both", "both", "student", "teacher", "none"])
    )
    maps = []
    for side in ("student", "teacher"):
        timeless = has_time not in (side, "both")
        steps = 1 if timeless else draw(st.integers(1, 4))
        counts = counts_of(lengths, batch, steps)
        frames = draw_frames(
            draw, rng, batch, steps, counts, options["eps"] > 0, SP_LEVELS
        )
        pair = [frames, draw_direction(rng, frames, counts)]
        if timeless:
            maps.append([part[:, 0] for part in pair])
        else:
            maps.append(draw_layout(draw, options["layout"], *pair))
    (student, direction), (teacher, _) = maps
    if kind != "features":
        rows = oracle.clip_rows(
            oracle.duals(teacher.tolist()),
            None if lengths is None else lengths.tolist(),
            options["layout"],
        )
        teacher = parts_of_rows(kind, rows, batch, options, rng)
    return draw_case(
        draw,
        rng,
        student,
        direction,
        teacher,
        ["batch", "mean", "sum"],
        lengths=lengths,
        options=options,
    )


# Comparing


def expected_losses(case, by_clip):
    """The oracle's loss of each clip, where rounding has no say in silence."""
    teacher = case.teacher
    if isinstance(teacher, dict):
        teacher = {name: part.tolist() for name, part in teacher.items()}
    else:
        teacher = teacher.tolist()
    losses = by_clip(
        case.student.tolist(),
        case.direction.tolist(),
        teacher,
        None if case.lengths is None else case.lengths.tolist(),
        **case.options,
    )
    assume(min(loss.margin for loss in losses) > MARGINS[case.dtype])
    assume(max(loss.spread for loss in losses) < SPREADS[case.dtype])
    return losses


def as_argument(teacher):
    """The teacher as a keyword argument of a loss."""
    if not isinstance(teacher, dict):
        return {"teacher_feats": teacher.clone().requires_grad_()}
    if "cosine" in teacher:
        given_parts = CosineSimilarity(**teacher)
    elif "left" in teacher:
        given_parts = SimilarityFactors(**teacher)
    else:
        given_parts = teacher["matrix"]
    return {"teacher_similarity": given_parts}


def value_and_slope(loss, case, **form):
    """What the loss gives, and its gradient along the direction."""
    student = case.student.clone().requires_grad_()
    teacher = as_argument(case.teacher)
    value = loss(
        student,
        lengths=case.lengths,
        reduction=case.reduction,
        check_finite=case.check_finite,
        **teacher,
        **case.options,
        **form,
    )
    assert value.dtype == case.dtype
    by_clip = case.reduction == "batch"
    assert value.shape == ((len(student),) if by_clip else ())
    weights = value.new_tensor(case.weights) if by_clip else 1.0
    (value * weights).sum().backward()
    if "teacher_feats" in teacher:
        assert teacher["teacher_feats"].grad is None
    return value.detach(), (student.grad.double() * case.direction).sum().item()


def comparisons(loss, case, losses, **form):
    """(got, expected, allowed difference) of the values and the slope."""
    value, slope = value_and_slope(loss, case, **form)
    weights = case.weights if case.reduction == "batch" else [1.0] * len(losses)
    values, rounding, slopes = (
        oracle.reduced(numbers, case.reduction)
        for numbers in (
            [clip.value for clip in losses],
            [clip.size * clip.spread for clip in losses],
            [clip.slope * w for clip, w in zip(losses, weights, strict=True)],
        )
    )
    relative, share = TOLERANCES[case.dtype]
    found = [
        (got, wanted, relative * abs(wanted) + share * blur)
        for got, wanted, blur in zip(
            value.reshape(-1).tolist(), values, rounding, strict=True
        )
    ]
    relative, share = TOLERANCES[case.student.dtype]
    wanted = sum(slopes)
    allowed = relative * abs(wanted) + share * sum(rounding)
    return [*found, (slope, wanted, allowed)]


def check(loss, case, losses, **form):
    """The loss and the oracle agree (a NaN agrees with nothing)."""
    for got, wanted, allowed in comparisons(loss, case, losses, **form):
        assert abs(got - wanted) <= allowed, (got, wanted, allowed, form)


# Agreement


@settings(DRAWN, max_examples=500)
@given(case=iusp_cases())
def test_iusp_of_features(case):
    """Any lengths, layout, alignment and precision; in each form."""
    losses = expected_losses(case, oracle.iusp_clips)
    for form in FORMS:
        check(iusp_loss, case, losses, form=form)


@pytest.mark.parametrize("kind", PARTS)
@settings(DRAWN, max_examples=100)
@given(data=st.data())
def test_iusp_of_a_given_similarity(kind, data):
    """The teacher as its matrix, its cosines and norms, or its factors."""
    case = data.draw(iusp_cases(kind))
    losses = expected_losses(case, oracle.iusp_clips)
    for form in PARTS[kind]:
        check(iusp_loss, case, losses, form=form)


@settings(DRAWN, max_examples=300)
@given(case=sp_cases())
def test_sp_of_features(case):
    """Any rank, lengths, layout and precision."""
    check(sp_loss, case, expected_losses(case, oracle.sp_shares))


@pytest.mark.parametrize("kind", PARTS)
@settings(DRAWN, max_examples=50)
@given(data=st.data())
def test_sp_of_a_given_similarity(kind, data):
    """The teacher's clips as their matrix, cosines and norms, or factors."""
    case = data.draw(sp_cases(kind))
    check(sp_loss, case, expected_losses(case, oracle.sp_shares))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@settings(DRAWN, max_examples=50)
@given(data=st.data())
def test_half_precision_features(dtype, data):
    """Computed in float32: only the gradient's own rounding is coarse."""
    case = data.draw(iusp_cases(levels=HALF_LEVELS))
    case.student = case.student.to(dtype)
    case.teacher = case.teacher.to(dtype)
    losses = expected_losses(case, oracle.iusp_clips)
    for form in FORMS:
        check(iusp_loss, case, losses, form=form)


# The comparison can fail


def sum_of_magnitudes(row):
    """L1 norm."""
    signs = [Dual(math.copysign(1.0, x.value)) for x in row]
    return oracle.dot(row, signs)


def floor_to_floor(frames, count):
    """Pooling windows without the frame they only touch."""
    size = len(frames)
    bounds = [step * size // count for step in range(count + 1)]
    return [
        oracle.mixture(frames[a:b], [1 / (b - a)] * (b - a))
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def ends_on_ends(frames, count):
    """Interpolation from the first frame to the last."""
    last = len(frames) - 1
    result = []
    for step in range(count):
        position = step * last / max(count - 1, 1)
        below = int(position)
        pair = [frames[below], frames[min(below + 1, last)]]
        share = position - below
        result.append(oracle.mixture(pair, [1 - share, share]))
    return result


def divided_by_n(ours, theirs, factor, right=oracle.distance):
    """The sum over the frames where the mean is asked for."""
    return right(ours, theirs, factor * len(ours.rows))


def never_silent(rows, eps, right=oracle.unit_rows):
    """Without the threshold."""
    return right(rows, 0.0)


def rounded_down(length, steps):
    """Valid frames without the last half."""
    return max(int(length * steps), 1)


def without_slope(row, right=oracle.norm):
    """The norm as a constant: values right, gradients wrong."""
    return Dual(right(row).value)


def frames_kept(features, lengths, layout, right=oracle.clip_rows):
    """SP on padded frames as they are."""
    return right(features, None, layout)


MISTAKES = [
    ("norm", sum_of_magnitudes),
    ("norm", without_slope),
    ("pooled", floor_to_floor),
    ("interpolated", ends_on_ends),
    ("distance", divided_by_n),
    ("unit_rows", never_silent),
    ("valid_frames", rounded_down),
]
SP_MISTAKES = [*MISTAKES[:2], *MISTAKES[5:], ("clip_rows", frames_kept)]


def differs_somewhere(loss, cases, by_clip, **form):
    """Find a drawn case on which loss and oracle disagree, or raise."""

    def differs(case):
        losses = expected_losses(case, by_clip)
        found = comparisons(loss, case, losses, **form)
        return any(
            not abs(got - wanted) <= allowed for got, wanted, allowed in found
        )

    only_find = settings(DRAWN, max_examples=300, phases=[Phase.generate])
    find(cases, differs, settings=only_find)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name, mistake", MISTAKES)
def test_a_mistake_in_iusp_is_seen(name, mistake, form, monkeypatch):
    """Some drawn case tells the loss from an oracle gone wrong."""
    monkeypatch.setattr(oracle, name, mistake)
    differs_somewhere(iusp_loss, iusp_cases(), oracle.iusp_clips, form=form)


@pytest.mark.parametrize("name, mistake", SP_MISTAKES)
def test_a_mistake_in_sp_is_seen(name, mistake, monkeypatch):
    """Some drawn case tells the loss from an oracle gone wrong."""
    monkeypatch.setattr(oracle, name, mistake)
    differs_somewhere(sp_loss, sp_cases(), oracle.sp_shares)


# The oracle itself


def by_hand(similarity, student, teacher, **options):
    """The oracle's loss of one clip."""
    direction = [[0.0 for _ in frame] for frame in student]
    (loss,) = oracle.iusp_clips(
        [student], [direction], [teacher], similarity=similarity, **options
    )
    return loss.value


def test_oracle_by_hand():
    """Numbers that need no program."""
    apart, alike = [[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]
    # G_S = I; G_T is 1 / sqrt(2) everywhere, or 1 everywhere.
    half = math.sqrt(0.5)
    assert by_hand("row_l2", apart, alike) == pytest.approx(1 - half)
    assert by_hand("cosine", apart, alike) == pytest.approx(0.5)
    assert by_hand("cosine", apart, alike, scaled=True) == pytest.approx(1)
    # The second frame is 0.2 of the first: silent at eps 0.3, G_S[1] = 0.
    faint = [[1.0], [0.2]]
    assert by_hand("cosine", faint, alike, eps=0.1) == pytest.approx(0)
    assert by_hand("cosine", faint, alike, eps=0.3) == pytest.approx(0.75)
    wanted = [[1.0, 0.2], [0.0, 0.0]]
    wanted[0] = [x / math.sqrt(1.04) for x in wanted[0]]
    rows = oracle.similarity_of(oracle.duals(faint), "row_l2", 0.3).rows
    found = [[x.value for x in row] for row in rows]
    assert found == [pytest.approx(row) for row in wanted]


def test_oracle_alignment_by_hand():
    """Five frames to two, two to four, and lengths that end half-way."""
    frames = oracle.duals([[0.0], [1.0], [2.0], [3.0], [4.0]])
    found = [frame[0].value for frame in oracle.pooled(frames, 2)]
    assert found == pytest.approx([1, 3])  # frames 0 1 2 and 2 3 4
    found = [frame[0].value for frame in oracle.interpolated(frames[:2], 4)]
    assert found == pytest.approx([0, 0.25, 0.75, 1])
    counts = [oracle.valid_frames(r, 4) for r in (0.01, 0.375, 0.625, 1.0)]
    assert counts == [1, 2, 2, 4]  # 1.5 and 2.5 both to the even 2


@pytest.mark.parametrize(
    "cases, by_clip",
    [(iusp_cases(), oracle.iusp_clips), (sp_cases(), oracle.sp_shares)],
)
@settings(DRAWN, max_examples=30)
@given(data=st.data())
def test_oracle_slope_is_that_of_its_value(cases, by_clip, data):
    """Dual numbers against central differences."""
    case = data.draw(cases)
    case.student = case.student.double()
    losses = expected_losses(case, by_clip)
    assume(min(loss.margin for loss in losses) > 1e-3)
    middle, step = case.student, 1e-6
    sides = []
    for sign in (1, -1):
        case.student = middle + sign * step * case.direction
        sides.append(expected_losses(case, by_clip))
    for loss, above, below in zip(losses, *sides, strict=True):
        # A silent clip that moves is live at once, and has no derivative.
        assume(abs(above.size - loss.size) <= 1e-3 * loss.size)
        slope = (above.value - below.value) / (2 * step)
        allowed = 1e-6 * loss.size * loss.spread**2
        assert abs(slope - loss.slope) <= allowed
