"""SP: the formula, its invariances, padding, precision, errors.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from iusp_plugin.losses import SPLoss, sp_loss
from tests.reference.loss_loops import count_frames, sp_loops

SIMILARITIES = ("row_l2", "cosine")
NAN = float("nan")


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def gradient(student, *args, **options):
    """Loss and gradient with respect to the student's features."""
    student = student.detach().clone().requires_grad_()
    loss = sp_loss(student, *args, **options)
    loss.sum().backward()
    return loss.detach(), student.grad


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 6),
    frames=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    masked=st.booleans(),
    similarity=st.sampled_from(SIMILARITIES),
    scaled=st.booleans(),
)
def test_equals_loops(seed, batch, frames, masked, similarity, scaled):
    student, teacher = (
        draw(seed, batch, frames[0], 3),
        draw(seed + 1, batch, frames[1], 2, 2),
    )
    student[seed % batch] *= (seed % 3) / 2  # sometimes silent
    lengths = None
    rows = [student.clone(), teacher.clone()]
    if masked:
        lengths = torch.rand(batch).clamp(min=0.01)
        for feats in rows:
            for clip, length in zip(feats, lengths.tolist(), strict=True):
                clip[count_frames(length, len(clip)) :] = 0
    options = {"similarity": similarity, "scaled": scaled}
    loss = sp_loss(student, teacher, lengths, **options)
    expected = sp_loops(*(r.flatten(1).tolist() for r in rows), **options)
    torch.testing.assert_close(
        loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scaled", [False, True])
def test_gradcheck(similarity, scaled):
    student = draw(0, 3, 4, 2).requires_grad_()
    teacher, lengths = draw(1, 3, 5), torch.tensor([1.0, 0.5, 0.75])

    def loss(feats):
        options = {"similarity": similarity, "scaled": scaled}
        return sp_loss(feats, teacher, lengths, "batch", **options)

    assert torch.autograd.gradcheck(loss, (student,))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("batch", [1, 2, 32])
def test_identical_inputs_give_nothing(similarity, batch):
    feats = draw(0, batch, 7, 16, dtype=torch.float32)
    rotation = torch.linalg.qr(draw(1, 112, 112, dtype=torch.float32))[0]
    for teacher in (feats, 3.7 * feats, feats.flatten(1) @ rotation):
        loss = sp_loss(feats, teacher, similarity=similarity)
        assert 0 <= loss <= 1e-6 * 4 / batch


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_invariances(similarity):
    student, teacher = draw(0, 5, 6, 4), draw(1, 5, 9)
    clips = torch.tensor([2, 0, 4, 1, 3])

    def loss(s, t, reduction="mean"):
        return sp_loss(s, t, reduction=reduction, similarity=similarity)

    value = loss(student, teacher)
    same = torch.testing.assert_close
    assert value > 0.01
    same(loss(student * 1e-6, teacher * 1e6), value)
    same(loss(-student, teacher), value)
    same(loss(student[clips], teacher[clips]), value)
    same(
        loss(student[clips], teacher[clips], "batch"),
        loss(student, teacher, "batch")[clips],
    )
    # The frames of all clips may be reordered alike: a rotation of the rows.
    same(loss(student[:, torch.randperm(6)], teacher), value)
    assert abs(loss(student.flip(0), teacher) - value) > 1e-4


def test_value_depends_on_which_clips_share_a_batch():
    student, teacher = draw(0, 4, 5), draw(1, 4, 5)
    halves = [sp_loss(student[i::2], teacher[i::2]) for i in (0, 1)]
    assert abs(sum(halves) / 2 - sp_loss(student, teacher)) > 1e-3


@pytest.mark.parametrize("fill", [7.0, NAN, float("inf")])
def test_what_padding_holds_does_not_matter(fill):
    student, teacher = draw(0, 3, 8, 3), draw(1, 3, 4, 5)
    lengths = torch.tensor([1.0, 0.5, 0.25])
    clean = gradient(student, teacher, lengths)
    for i, length in enumerate(lengths.tolist()):
        student[i, int(8 * length) :] = fill
        teacher[i, int(4 * length) :] = fill
    loss, grad = gradient(student, teacher, lengths)
    torch.testing.assert_close((loss, grad), clean)
    assert (grad[1, 4:] == 0).all() and (grad[2, 2:] == 0).all()
    # Cropped to the longest valid part, the batch has the same value.
    short = lengths[1:] * 2
    alone = sp_loss(student[1:, :4], teacher[1:, :2], short)
    torch.testing.assert_close(
        sp_loss(student[1:], teacher[1:], lengths[1:]), alone
    )


def test_clip_wise_features_have_no_time_axis_to_mask():
    student, teacher = draw(0, 3, 31), draw(1, 3, 8, 4)
    lengths = torch.tensor([1.0, 0.5, 0.25])
    masked = teacher.clone()
    masked[1, 4:] = masked[2, 2:] = 0
    torch.testing.assert_close(
        sp_loss(student, teacher, lengths), sp_loss(student, masked)
    )


def test_teacher_gets_no_gradient():
    student = draw(0, 3, 5).requires_grad_()
    teacher = draw(1, 3, 5).requires_grad_()
    sp_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    "case",
    ["batch of one", "silent clip", "all silent", "constant", "1e-20", "1e20"],
)
def test_degenerate_inputs_stay_finite(case, similarity):
    student = draw(0, 1 if case == "batch of one" else 4, 5, 3).float()
    good = draw(1, len(student), 6).float()
    if case.startswith("1e"):
        student = student * float(case)
    elif case == "silent clip":
        student[1] = 0
    elif case == "all silent":
        student = student * 0
    elif case == "constant":
        student = torch.full_like(student, 2.5)
    for s, t in ((student, good), (good, student), (student, student)):
        loss, grad = gradient(s, t, similarity=similarity)
        assert loss.isfinite() and grad.isfinite().all()
        limit = 4 / len(s) if similarity == "row_l2" else 4
        assert 0 <= loss <= limit
    if case == "batch of one":
        loss, grad = gradient(student, good, similarity=similarity)
        assert loss < 1e-12 and grad.abs().max() < 1e-6


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_of_float32_features_does_not_matter(scale):
    student, teacher = draw(0, 4, 9).float(), draw(1, 4, 9).float()
    value, grad = gradient(student, teacher)
    scaled, scaled_grad = gradient(student * scale, teacher / scale)
    torch.testing.assert_close(scaled, value)
    torch.testing.assert_close(scaled_grad * scale, grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-12])
def test_silent_clip_among_live_ones_has_a_sane_gradient(similarity, level):
    student, teacher = draw(0, 20, 8).float(), draw(1, 20, 8).float()
    student[7] *= level
    _, grad = gradient(student, teacher, similarity=similarity)
    sizes = grad.norm(dim=1)
    assert sizes.median() > 0
    assert sizes.max() < 100 * sizes.median()
    assert sizes[7] < 10 * sizes.median()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(dtype):
    student, teacher = draw(0, 4, 12).to(dtype), draw(1, 4, 12).to(dtype)
    loss, grad = gradient(student, teacher)
    assert loss.dtype == torch.float32 and grad.dtype == dtype
    assert torch.equal(loss, sp_loss(student.float(), teacher.float()))


def test_autocast_changes_no_bit():
    student, teacher = draw(0, 4, 12).float(), draw(1, 4, 12).float()
    plain, grad = gradient(student, teacher)
    leaf = student.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sp_loss(leaf, teacher)
    cast.backward()
    assert torch.equal(plain, cast) and torch.equal(grad, leaf.grad)


@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5, 0.5])])
def test_layout_and_memory_format_do_not_matter(lengths):
    image, teacher = draw(0, 3, 2, 6, 4), draw(1, 3, 5, 6)
    value = sp_loss(image.permute(0, 2, 3, 1), teacher.mT, lengths)
    last = image.to(memory_format=torch.channels_last)
    strided = draw(2, 3, 2, 12, 4)
    strided[:, :, ::2] = image
    for same in (image, last, strided[:, :, ::2]):
        loss = sp_loss(same, teacher, lengths, layout="channel_first")
        torch.testing.assert_close(loss, value)


def test_closed_forms():
    """Two orthogonal clips against equal ones; then three clips by hand."""
    root = 2**0.5
    loss = sp_loss(torch.eye(2).double(), torch.ones(2, 5).double())
    assert float(loss) == pytest.approx((2 - root) / 2, abs=1e-12)
    student = torch.eye(2).double()[[0, 0, 1]]
    teacher = torch.eye(3).double()
    row = (1 - 1 / root) ** 2 + 1 / 2
    loss = sp_loss(student, teacher)
    assert float(loss) == pytest.approx(2 * row / 9, abs=1e-12)
    scaled = sp_loss(student, teacher, scaled=True)
    assert float(scaled) == pytest.approx(2 * row / 3, abs=1e-12)
    loss = sp_loss(student, teacher, similarity="cosine")
    assert float(loss) == pytest.approx(2 / 9, abs=1e-12)
    shares = sp_loss(student, teacher, reduction="batch")
    expected = torch.tensor([row / 3, row / 3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(shares, expected)


def test_reductions():
    student, teacher = draw(0, 5, 6), draw(1, 5, 7)
    shares = sp_loss(student, teacher, reduction="batch")
    same = torch.testing.assert_close
    assert shares.shape == (5,)
    same(sp_loss(student, teacher), shares.mean())
    same(sp_loss(student, teacher, reduction="batchmean"), shares.mean())
    same(sp_loss(student, teacher, reduction="sum"), shares.sum())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 12))
def test_bounds(seed, batch):
    student, teacher = draw(seed, batch, 2) ** 3, draw(seed + 1, batch, 1)
    assert 0 <= sp_loss(student, teacher) <= 4 / batch
    assert 0 <= sp_loss(student, teacher, scaled=True) <= 4
    assert 0 <= sp_loss(student, teacher, similarity="cosine") <= 4


YAML = """
loss: !new:iusp_plugin.losses.SPLoss
    similarity: cosine
    scaled: True
    layout: channel_first
    reduction: sum
    check_finite: False
    eps: 0.9
"""


def test_yaml_built_equals_python_built():
    options = {
        "similarity": "cosine",
        "scaled": True,
        "layout": "channel_first",
        "reduction": "sum",
        "check_finite": False,
        "eps": 0.9,
    }
    student, teacher = draw(0, 4, 3, 8), draw(1, 4, 5, 8)
    lengths = torch.tensor([1.0, 0.5, 0.5, 0.25])
    from_yaml = load_hyperpyyaml(YAML)["loss"](student, teacher, lengths)
    assert torch.equal(from_yaml, SPLoss(**options)(student, teacher, lengths))
    assert torch.equal(from_yaml, sp_loss(student, teacher, lengths, **options))
    for name in ("similarity", "scaled", "layout", "reduction", "eps"):
        rest = {k: v for k, v in options.items() if k != name}
        other = SPLoss(**rest)(student, teacher, lengths)
        assert not torch.isclose(from_yaml, other)
    assert SPLoss(**options)(student * NAN, teacher).isnan()


# The tracer instantiates autograd functions, and warns of it.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
def test_compiling_does_not_change_the_value():
    student, teacher = draw(0, 3, 4, 2), draw(1, 3, 4, 5)
    lengths = torch.tensor([1.0, 0.5, 0.5])
    torch.compiler.reset()
    compiled = torch.compile(SPLoss(), fullgraph=True, backend="aot_eager")
    results = []
    for loss in (SPLoss(), compiled):
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher, lengths)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])
    assert compiled(student * NAN, teacher, lengths).isnan()


GOOD, OTHER = torch.ones(2, 4, 3), torch.ones(2, 7)
ERRORS = [
    ((torch.ones(4), OTHER), {}, ValueError, r"student_feats has shape \(4,\)"),
    ((GOOD, torch.ones(2)), {}, ValueError, r"teacher_feats has shape \(2,\)"),
    ((torch.ones(0, 3), OTHER), {}, ValueError, "non-empty"),
    ((GOOD.int(), OTHER), {}, TypeError, "student_feats is torch.int32"),
    ((GOOD, OTHER.long()), {}, TypeError, "teacher_feats is torch.int64"),
    ((GOOD, OTHER[:1]), {}, ValueError, "2 clips and teacher_feats 1"),
    ((GOOD, OTHER), {"similarity": "cosin"}, ValueError, "mean 'cosine'"),
    ((GOOD, OTHER), {"reduction": "summ"}, ValueError, "mean 'sum'"),
    ((GOOD, OTHER), {"layout": "time_frst"}, ValueError, "mean 'time_first'"),
    ((GOOD, OTHER), {"eps": -0.1}, ValueError, "eps=-0.1 must be >= 0"),
    ((GOOD, GOOD, torch.ones(3)), {}, ValueError, r"lengths has shape \(3,\)"),
    ((GOOD, GOOD, torch.tensor([1, 0.0])), {}, ValueError, r"lengths\[1\]=0.0"),
    ((GOOD, GOOD, torch.tensor([4.0, 2])), {}, ValueError, r"lengths\[0\]=4.0"),
    (
        (GOOD, torch.ones(2, 3, 4, 5, 6), torch.ones(2)),
        {"layout": "channel_first"},
        ValueError,
        "teacher_feats has shape .*channel, time",
    ),
]


@pytest.mark.parametrize("args, options, error, match", ERRORS)
def test_what_does_not_belong_together_is_refused(args, options, error, match):
    with pytest.raises(error, match=match):
        sp_loss(*args, **options)


@pytest.mark.parametrize(
    "option, near",
    [
        ("similarity", "cosine"),
        ("layout", "channel_first"),
        ("reduction", "batchmean"),
    ],
)
def test_module_checks_its_options_when_built(option, near):
    with pytest.raises(ValueError, match=f"{option}=.*Did you mean '{near}'"):
        SPLoss(**{option: near + "x"})


@pytest.mark.parametrize("bad", [NAN, float("inf")])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_non_finite_input_is_named(bad, similarity):
    good = draw(0, 4, 5)
    spoiled = good.clone()
    spoiled[1, 2] = bad
    options = {"similarity": similarity}
    with pytest.raises(ValueError, match="student_feats holds 1 non-finite"):
        sp_loss(spoiled, good, **options)
    with pytest.raises(ValueError, match="teacher_feats holds 1 non-finite"):
        sp_loss(good, spoiled, **options)
    assert not sp_loss(spoiled, good, check_finite=False, **options).isfinite()


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("layout", ["time_first", "channel_first"])
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.4, 0.2])])
def test_pooled_clips(similarity, layout, lengths):
    """The loss of the means of each clip's own frames."""
    student, teacher = draw(0, 3, 5, 4), draw(1, 3, 10, 2, 3)
    pooled = []
    for feats in (student, teacher):
        n = [feats.shape[1]] * 3
        if lengths is not None:
            n = [round(float(share) * feats.shape[1]) for share in lengths]
        rows = [clip[:k].mean(0) for clip, k in zip(feats, n, strict=True)]
        pooled.append(torch.stack(rows).flatten(1))
    expected = sp_loss(*pooled, similarity=similarity)
    if layout == "channel_first":
        student, teacher = student.movedim(-1, 1), teacher.movedim(-1, 1)
    options = {"pooling": "mean", "layout": layout, "similarity": similarity}
    found = sp_loss(student, teacher, lengths, **options)
    torch.testing.assert_close(found, expected)
    # A teacher's means may be given ready-made, as a cache keeps them.
    found = sp_loss(student, pooled[1], lengths, **options)
    torch.testing.assert_close(found, expected)


def test_padding_is_not_pooled():
    student, teacher = draw(0, 2, 4, 3), draw(1, 2, 4, 3)
    lengths, options = torch.tensor([1.0, 0.5]), {"pooling": "mean"}
    expected, slope = gradient(student, teacher, lengths, **options)
    student[1, 2:], teacher[1, 2:] = NAN, NAN
    found, again = gradient(student, teacher, lengths, **options)
    assert torch.equal(found, expected)
    assert torch.equal(again[1, :2], slope[1, :2])
    assert not again[1, 2:].any()


def test_pooled_gradient():
    student = draw(0, 3, 4, 2).requires_grad_()
    teacher, lengths = draw(1, 3, 4, 2), torch.tensor([1.0, 0.5, 0.75])

    def loss(feats):
        return sp_loss(feats, teacher, lengths, pooling="mean")

    assert torch.autograd.gradcheck(loss, student)


def test_half_precision_is_pooled_in_full():
    """Sums of many halves would overflow."""
    student = torch.full((2, 4000, 2), 60.0, dtype=torch.float16)
    student[1, :, 0] = 0
    loss = sp_loss(student, torch.eye(2), pooling="mean")
    expected = sp_loss(student[:, 0].float(), torch.eye(2))
    torch.testing.assert_close(loss, expected)


def test_unknown_pooling():
    with pytest.raises(ValueError, match="pooling='max' is unknown"):
        SPLoss(pooling="max")
    with pytest.raises(ValueError, match="Known: none, mean"):
        sp_loss(draw(0, 2, 3), draw(1, 2, 3), pooling="max")


def test_what_is_kept_of_the_teacher():
    assert SPLoss().teacher_record == "features"
    yaml = "loss: !new:iusp_plugin.losses.SPLoss\n    pooling: mean\n"
    assert load_hyperpyyaml(yaml)["loss"].teacher_record == "mean"
