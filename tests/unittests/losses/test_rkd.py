"""RKD's distances of frames: formula, duplicates, padding, precision, errors.

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
from torch.nn import functional as F

from iusp_plugin.losses import RKDDistanceLoss, rkd_distance_loss
from tests.reference.relation_loops import rkd_distance_loops

NAN = float("nan")
same = torch.testing.assert_close


def draw(seed, *shape, dtype=torch.float64):
    """Normal features about a level that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (feats + 0.5).to(dtype)


def rotation(seed, width):
    """A random orthogonal matrix."""
    return torch.linalg.qr(draw(seed, width, width))[0]


def gradient(student, *args, **options):
    """Loss and gradient with respect to the student's features."""
    student = student.detach().clone().requires_grad_()
    loss = rkd_distance_loss(student, *args, **options)
    loss.sum().backward()
    return loss.detach(), student.grad


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    frames=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    lengths=st.none() | st.tuples(*[st.floats(1 / 128, 1, width=32)] * 2),
    alike=st.booleans(),
    outlier=st.sampled_from([1.0, 30.0]),
)
def test_equals_loops(seed, frames, lengths, alike, outlier):
    frames = (frames[0], frames[0] if alike else frames[1])
    student = draw(seed, 2, frames[0], 3)
    teacher = draw(seed + 1, 2, frames[1], 2, 2)
    teacher[0, 0] *= outlier  # the linear part of the Huber loss
    student[1, seed % frames[0]] = student[1, 0]  # the same frame twice
    if seed % 3 == 0:
        student[0] = student[0, 0]  # constant
    if seed % 4 == 0:
        teacher[1] = 0  # silent
    loss = rkd_distance_loss(
        student,
        teacher,
        None if lengths is None else torch.tensor(lengths),
        "batch",
        alignment="pool",
    )
    expected = rkd_distance_loops(
        student.tolist(), teacher.flatten(2).tolist(), lengths
    )
    expected = torch.tensor(expected, dtype=torch.float64)
    same(loss, expected, rtol=1e-7, atol=1e-12)
    assert (loss >= 0).all() and (loss < 2).all()


def test_closed_form():
    """psi = (1, 1, 1) against (3/4, 3/4, 3/2), and the linear part."""
    student = torch.eye(3).unsqueeze(0)
    teacher = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1)
    same(rkd_distance_loss(student, teacher), torch.tensor(1 / 16))
    # 9 of 10 frames at one point: 9 of 45 distances are 1, over a mean of 1/5.
    far = torch.zeros(1, 10, 1)
    far[0, 0] = 1
    expected = (9 * (4 - 0.5) + 36 * 0.5) / 45
    same(rkd_distance_loss(torch.eye(10)[None], far), torch.tensor(expected))


def test_mean_over_all_entries_is_the_authors_normaliser():
    """With the diagonal, and mu over what is not on it."""
    student, teacher = draw(0, 6, 3), draw(1, 6, 4)
    psi = []
    for feats in (student, teacher):
        d = torch.cdist(feats, feats)
        psi.append(d / d[d > 0].mean())
    value = rkd_distance_loss(student[None], teacher[None])
    same(value * 5 / 6, F.smooth_l1_loss(*psi))


def test_identical_gives_zero():
    feats = draw(0, 4, 9, 6, dtype=torch.float32)
    assert rkd_distance_loss(feats, feats) == 0
    for student in (3 * feats, feats @ rotation(1, 6).float(), feats - 5):
        loss = rkd_distance_loss(student, feats, reduction="batch")
        assert (loss >= 0).all() and (loss <= 1e-9).all()


def test_scale_offset_rotation_and_order_do_not_matter():
    student, teacher = draw(0, 2, 7, 4), draw(1, 2, 7, 5)
    value = rkd_distance_loss(student, teacher)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    for other in (
        (-3 * student, 0.1 * teacher),
        (student + draw(2, 1, 1, 4), teacher - 2),
        (student @ rotation(3, 4), teacher @ rotation(4, 5)),
        (student[:, order], teacher[:, order]),
    ):
        same(rkd_distance_loss(*other), value)
    moved = rkd_distance_loss(student[:, order], teacher)
    assert (moved - value).abs() > 1e-3


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_float32_range(scale):
    student = draw(0, 2, 6, 3, dtype=torch.float32)
    teacher = draw(1, 2, 6, 3, dtype=torch.float32)
    value, grad = gradient(student, teacher)
    far, far_grad = gradient(student * scale, teacher * scale)
    same(far, value, rtol=1e-5, atol=1e-6)
    same(far_grad * scale, grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.6])])
def test_gradcheck(lengths):
    student, teacher = draw(0, 2, 5, 3).requires_grad_(), draw(1, 2, 5, 2)

    def loss(feats):
        return rkd_distance_loss(feats, teacher, lengths, "batch")

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


@pytest.mark.parametrize("fill", [50.0, NAN, float("inf")])
def test_padded_batch_equals_each_clip_alone(fill):
    student, teacher = draw(0, 3, 8, 3), draw(1, 3, 8, 4)
    frames = (8, 4, 1)
    for i, n in enumerate(frames):
        student[i, n:] = fill
        teacher[i, n:] = fill
    lengths = torch.tensor(frames) / 8
    value, grad = gradient(student, teacher, lengths, "batch")
    for i, n in enumerate(frames):
        alone, alone_grad = gradient(
            student[i : i + 1, :n], teacher[i : i + 1, :n]
        )
        same(value[i], alone)
        same(grad[i : i + 1, :n], alone_grad)
        assert (grad[i, n:] == 0).all()


def test_layouts_agree():
    student, teacher = draw(0, 2, 6, 3, 2), draw(1, 2, 6, 4)
    value = rkd_distance_loss(student, teacher)
    turned = rkd_distance_loss(
        student.permute(0, 2, 1, 3), teacher.mT, layout="channel_first"
    )
    same(turned, value)


def test_reductions_and_independence_of_clips():
    student, teacher = draw(0, 3, 5, 4), draw(1, 3, 5, 2)
    each = rkd_distance_loss(student, teacher, reduction="batch")
    assert each.shape == (3,)
    for i in range(3):  # a batch of one
        alone = rkd_distance_loss(student[i : i + 1], teacher[i : i + 1])
        same(alone, each[i])
    same(rkd_distance_loss(student, teacher), each.mean())
    mean = rkd_distance_loss(student, teacher, reduction="batchmean")
    same(mean, each.mean())
    total = rkd_distance_loss(student, teacher, reduction="sum")
    same(total, each.sum())


def test_teacher_gets_no_gradient():
    student, teacher = draw(0, 2, 5, 3), draw(1, 2, 5, 3)
    student.requires_grad_(), teacher.requires_grad_()
    rkd_distance_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("frames", [1, 6])
@pytest.mark.parametrize("level", [0.0, 0.3, 1e15])
def test_a_side_without_distances(frames, level):
    """0 if it is the teacher; psi of 0 if it is the student; no gradient."""
    live = draw(0, 1, frames, 3, dtype=torch.float32)
    dead = torch.full((1, frames, 3), level)
    for student, teacher in ((live, dead), (dead, dead)):
        value, grad = gradient(student, teacher)
        assert value == 0 and (grad == 0).all()
    value, grad = gradient(dead, live)
    assert (grad == 0).all()
    expected = rkd_distance_loops(dead.tolist(), live.tolist())
    same(value, torch.tensor(expected[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_frames_have_no_gradient_between_them(dtype):
    """Moving only one of two equal frames is felt from the others alone."""
    student, teacher = draw(0, 1, 6, 40), draw(1, 1, 6, 40)
    student[0, 4] = student[0, 1]
    teacher[0, 4] = teacher[0, 1]
    _, exact = gradient(student, teacher)
    value, grad = gradient(student.to(dtype), teacher.to(dtype))
    assert value.isfinite() and grad.isfinite().all()
    same(grad.double(), exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())
    same(exact[0, 4], exact[0, 1])  # by symmetry
    teacher[0, 4] = draw(2, 40)
    _, grad = gradient(student.to(dtype), teacher.to(dtype))
    assert grad.norm(dim=2).max() < 10 * grad.norm(dim=2).median()


def test_floor_is_relative_to_the_largest_frame():
    teacher = draw(1, 1, 3, 2)
    for factor, apart in ((0.5, False), (2.0, True)):
        student = torch.zeros(1, 3, 2).double()
        student[0, 0, 0] = 1
        student[0, 1, 1] = factor * 1e-4
        _, grad = gradient(student, teacher)
        assert (grad[0, 1, 1].abs() > 0.1) == apart


def test_equal_frames_cancel_in_float32():
    """Where only the student's are equal, an error of d counts in full."""
    student, teacher = draw(0, 2, 30, 2048).float(), draw(1, 2, 30, 64).float()
    student[:, 5:20] = student[:, 5:6]
    exact, exact_grad = gradient(student.double(), teacher.double())
    value, grad = gradient(student, teacher)
    same(value.double(), exact, rtol=0, atol=1e-6)
    limit = 1e-5 * exact_grad.abs().max().item()
    same(grad.double(), exact_grad, rtol=0, atol=limit)


def test_one_silent_frame_has_no_large_gradient():
    student = draw(0, 1, 20, 8, dtype=torch.float32)
    student[0, 7] = 0
    _, grad = gradient(student, draw(1, 1, 20, 8).float())
    sizes = grad[0].norm(dim=1)
    assert sizes[7] <= 100 * sizes.median()


@pytest.mark.parametrize("offset, within", [(0.0, 1e-6), (100.0, 1e-5)])
def test_float32_is_close_to_float64(offset, within):
    """Centring first: the level of the features costs little precision."""
    student, teacher = draw(0, 2, 30, 64) + offset, draw(1, 2, 30, 64) + offset
    student[:, 3] = student[:, 4] * (1 + 1e-6)
    student, teacher = student.float(), teacher.float()
    exact, exact_grad = gradient(student.double(), teacher.double())
    value, grad = gradient(student, teacher)
    same(value.double(), exact, rtol=0, atol=within)
    limit = 3e-3 * exact_grad.abs().max().item()
    same(grad.double(), exact_grad, rtol=0, atol=limit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    student, teacher = draw(0, 2, 9, 8), draw(1, 2, 9, 8)
    exact = rkd_distance_loss(student, teacher)
    low = rkd_distance_loss(student.to(dtype), teacher.to(dtype))
    assert low.dtype == torch.float32
    same(low.double(), exact, rtol=0.02, atol=0)
    student, teacher = student.float(), teacher.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rkd_distance_loss(student, teacher)
    assert torch.equal(cast, rkd_distance_loss(student, teacher))
    same(cast.double(), exact, rtol=1e-5, atol=1e-6)


YAML = """
loss: !new:iusp_plugin.losses.RKDDistanceLoss
    alignment: interpolate
    reduction: sum
    check_finite: False
"""


def test_yaml_built_equals_python_built():
    student, teacher = draw(0, 2, 8, 3), draw(1, 2, 4, 3)
    options = {"alignment": "interpolate", "reduction": "sum"}
    module = RKDDistanceLoss(check_finite=False, **options)
    from_yaml = load_hyperpyyaml(YAML)["loss"]
    value = from_yaml(student, teacher)
    assert torch.equal(value, module(student, teacher))
    assert torch.equal(value, rkd_distance_loss(student, teacher, **options))
    assert from_yaml(student * NAN, teacher).isnan()


def test_compiling_does_not_change_the_value():
    student, teacher = draw(0, 2, 6, 3), draw(1, 2, 6, 2)
    lengths = torch.tensor([1.0, 0.5])
    torch.compiler.reset()
    module = RKDDistanceLoss()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    value = module(student, teacher, lengths)
    same(compiled(student, teacher, lengths), value)


@pytest.mark.parametrize(
    "student, teacher, options, match",
    [
        ((2, 8, 3), (2, 4, 3), {}, "student_feats has 8 frames.*'pool'"),
        ((2, 8, 3), (3, 8, 3), {}, "student_feats holds 2 clips"),
        ((8,), (8,), {}, r"student_feats has shape \(8,\)"),
        ((2, 8), (2, 0), {}, "teacher_feats .*non-empty"),
        ((2, 8), (2, 8), {"eps": -1.0}, "eps=-1.0 must be >= 0"),
        ((2, 8), (2, 8), {"reduction": "meann"}, "Did you mean 'mean'"),
        ((2, 8), (2, 8), {"layout": "time"}, "layout='time'"),
        ((2, 8), (2, 8), {"alignment": "pol"}, "Did you mean 'pool'"),
        ((2, 8), (2, 8), {"lengths": torch.ones(3)}, r"shape \(3,\)"),
        ((1, 8), (1, 8), {"lengths": torch.zeros(1)}, r"lengths\[0\]"),
    ],
)
def test_errors(student, teacher, options, match):
    with pytest.raises(ValueError, match=match):
        rkd_distance_loss(torch.ones(student), torch.ones(teacher), **options)


def test_types_and_modules_are_checked():
    with pytest.raises(TypeError, match="teacher_feats is torch.int64"):
        rkd_distance_loss(torch.ones(1, 2), torch.ones(1, 2).long())
    with pytest.raises(ValueError, match="eps=-1 must be >= 0"):
        RKDDistanceLoss(eps=-1)


def test_non_finite_input_is_named():
    good, bad = draw(0, 2, 4, 3), draw(1, 2, 4, 3)
    bad[1, 2, 0] = NAN
    with pytest.raises(ValueError, match="student_feats holds 1 non-finite"):
        rkd_distance_loss(bad, good)
    with pytest.raises(ValueError, match="teacher_feats holds 1 non-finite"):
        rkd_distance_loss(good, bad)
