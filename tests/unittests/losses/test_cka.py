"""CKA of frames: formula, forms, invariances, padding, precision, errors.

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

from iusp_plugin.losses import CKALoss, cka_loss
from iusp_plugin.losses.cka import _cheaper_form
from tests.reference.relation_loops import cka_loops

NAN = float("nan")
same = torch.testing.assert_close

both_forms = pytest.mark.parametrize("form", ["gram", "covariance"])


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
    loss = cka_loss(student, *args, **options)
    loss.sum().backward()
    return loss.detach(), student.grad


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    frames=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    lengths=st.none() | st.tuples(*[st.floats(1 / 128, 1, width=32)] * 2),
    form=st.sampled_from(["gram", "covariance", "auto"]),
    alike=st.booleans(),
)
def test_equals_loops(seed, frames, lengths, form, alike):
    frames = (frames[0], frames[0] if alike else frames[1])
    student = draw(seed, 2, frames[0], 3)
    teacher = draw(seed + 1, 2, frames[1], 2, 2)
    if seed % 3 == 0:
        student[0] = student[0, 0]  # constant
    if seed % 4 == 0:
        teacher[1] = 0  # silent
    loss = cka_loss(
        student,
        teacher,
        None if lengths is None else torch.tensor(lengths),
        "batch",
        alignment="pool",
        form=form,
    )
    expected = cka_loops(student.tolist(), teacher.flatten(2).tolist(), lengths)
    expected = torch.tensor(expected, dtype=torch.float64)
    same(loss, expected, rtol=1e-8, atol=1e-12)
    assert (loss >= 0).all() and (loss <= 1).all()


@both_forms
def test_closed_form(form):
    """One channel: the squared correlation. Orthogonal channels: 1."""
    student = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1)
    teacher = torch.tensor([-1.0, -1.0, 2.0]).view(1, 3, 1)
    same(cka_loss(student, teacher, form=form), torch.tensor(0.25))
    teacher = torch.tensor([1.0, -2.0, 1.0]).view(1, 3, 1)
    same(cka_loss(student, teacher, form=form), torch.tensor(1.0))
    both = torch.cat([student / 2**0.5, teacher / 6**0.5], dim=2)
    expected = torch.tensor(1 - 0.5**0.5)
    same(cka_loss(student, both, form=form), expected)


@both_forms
def test_identical_gives_zero(form):
    feats = draw(0, 4, 9, 6, dtype=torch.float32)
    limit = 1e-12 if form == "gram" else 1e-6
    for student in (feats, 3 * feats, feats @ rotation(1, 6).float()):
        loss = cka_loss(student, feats, reduction="batch", form=form)
        assert (loss >= 0).all() and (loss <= limit).all()


@both_forms
def test_scale_offset_rotation_and_order_do_not_matter(form):
    student, teacher = draw(0, 2, 7, 4), draw(1, 2, 7, 5)
    value = cka_loss(student, teacher, form=form)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    for other in (
        (-3 * student, 0.1 * teacher),
        (student + draw(2, 1, 1, 4), teacher - 2),
        (student @ rotation(3, 4), teacher @ rotation(4, 5)),
        (student[:, order], teacher[:, order]),
    ):
        same(cka_loss(*other, form=form), value)
    moved = cka_loss(student[:, order], teacher, form=form)
    assert (moved - value).abs() > 0.01


@both_forms
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_float32_range(form, scale):
    student = draw(0, 2, 6, 3, dtype=torch.float32)
    teacher = draw(1, 2, 6, 3, dtype=torch.float32)
    value, grad = gradient(student, teacher, form=form)
    far, far_grad = gradient(student * scale, teacher * scale, form=form)
    same(far, value, rtol=1e-5, atol=1e-6)
    same(far_grad * scale, grad, rtol=1e-3, atol=1e-5)


@both_forms
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.6])])
def test_gradcheck(form, lengths):
    student, teacher = draw(0, 2, 5, 3).requires_grad_(), draw(1, 2, 5, 2)

    def loss(feats):
        return cka_loss(feats, teacher, lengths, "batch", form=form)

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


@both_forms
@pytest.mark.parametrize("fill", [50.0, NAN, float("inf")])
def test_padded_batch_equals_each_clip_alone(form, fill):
    student, teacher = draw(0, 3, 8, 3), draw(1, 3, 8, 4)
    frames = (8, 4, 1)
    for i, n in enumerate(frames):
        student[i, n:] = fill
        teacher[i, n:] = fill
    lengths = torch.tensor(frames) / 8
    value, grad = gradient(student, teacher, lengths, "batch", form=form)
    for i, n in enumerate(frames):
        alone, alone_grad = gradient(
            student[i : i + 1, :n], teacher[i : i + 1, :n], form=form
        )
        same(value[i], alone)
        same(grad[i : i + 1, :n], alone_grad)
        assert (grad[i, n:] == 0).all()


def test_layouts_agree():
    student, teacher = draw(0, 2, 6, 3, 2), draw(1, 2, 6, 4)
    value = cka_loss(student, teacher)
    turned = cka_loss(
        student.permute(0, 2, 1, 3), teacher.mT, layout="channel_first"
    )
    same(turned, value)


def test_reductions_and_independence_of_clips():
    student, teacher = draw(0, 3, 5, 4), draw(1, 3, 5, 2)
    each = cka_loss(student, teacher, reduction="batch")
    assert each.shape == (3,)
    for i in range(3):  # a batch of one
        same(cka_loss(student[i : i + 1], teacher[i : i + 1]), each[i])
    same(cka_loss(student, teacher), each.mean())
    same(cka_loss(student, teacher, reduction="batchmean"), each.mean())
    same(cka_loss(student, teacher, reduction="sum"), each.sum())


def test_teacher_gets_no_gradient():
    student, teacher = draw(0, 2, 5, 3), draw(1, 2, 5, 3)
    student.requires_grad_(), teacher.requires_grad_()
    cka_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@both_forms
@pytest.mark.parametrize("frames", [1, 6])
@pytest.mark.parametrize("level", [0.0, 0.3, 1e15])
def test_a_side_that_does_not_vary(form, frames, level):
    """0 if the teacher's is constant, 1 if only the student's, no gradient."""
    live = draw(0, 1, frames, 3, dtype=torch.float32)
    dead = torch.full((1, frames, 3), level)
    for student, teacher in ((live, dead), (dead, dead)):
        value, grad = gradient(student, teacher, form=form)
        assert value == 0 and (grad == 0).all()
    value, grad = gradient(dead, live, form=form)
    assert value == (frames > 1) and (grad == 0).all()


@both_forms
@pytest.mark.parametrize("spread, lives", [(2e-4, True), (0.5e-4, False)])
def test_floor_is_relative_to_the_level(form, spread, lives):
    wave = torch.tensor([1.0, -1.0, 1.0, -1.0]).double().view(1, 4, 1)
    teacher = wave + torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 4, 1)
    value, grad = gradient(1 + spread * wave, teacher, form=form)
    assert (grad.abs().sum() > 0) == lives
    assert value < 1 if lives else value == 1


@both_forms
def test_one_silent_frame_has_no_large_gradient(form):
    student = draw(0, 1, 20, 8, dtype=torch.float32)
    student[0, 7] = 0
    _, grad = gradient(student, draw(1, 1, 20, 8).float(), form=form)
    sizes = grad[0].norm(dim=1)
    assert sizes[7] <= 100 * sizes.median()


def test_auto_is_the_form_of_fewer_multiplications():
    assert _cheaper_form(124, 512, 4096) == "gram"
    assert _cheaper_form(1000, 64, 128) == "covariance"
    student, teacher = draw(0, 1, 40, 3), draw(1, 1, 40, 2)
    auto = cka_loss(student, teacher)
    assert torch.equal(auto, cka_loss(student, teacher, form="covariance"))
    auto = cka_loss(student[:, :3], teacher[:, :3])
    gram = cka_loss(student[:, :3], teacher[:, :3], form="gram")
    assert torch.equal(auto, gram)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    student, teacher = draw(0, 2, 9, 8), draw(1, 2, 9, 8)
    exact = cka_loss(student, teacher)
    low = cka_loss(student.to(dtype), teacher.to(dtype))
    assert low.dtype == torch.float32
    same(low.double(), exact, rtol=0.02, atol=0)
    student, teacher = student.float(), teacher.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = cka_loss(student, teacher)
    assert torch.equal(cast, cka_loss(student, teacher))
    same(cast.double(), exact, rtol=1e-5, atol=1e-6)


YAML = """
loss: !new:iusp_plugin.losses.CKALoss
    alignment: pool
    form: gram
    reduction: sum
    check_finite: False
"""


def test_yaml_built_equals_python_built():
    student, teacher = draw(0, 2, 8, 3), draw(1, 2, 4, 3)
    module = CKALoss(
        alignment="pool", form="gram", reduction="sum", check_finite=False
    )
    from_yaml = load_hyperpyyaml(YAML)["loss"]
    value = from_yaml(student, teacher)
    assert torch.equal(value, module(student, teacher))
    options = {"alignment": "pool", "form": "gram", "reduction": "sum"}
    assert torch.equal(value, cka_loss(student, teacher, **options))
    assert from_yaml(student * NAN, teacher).isnan()


@both_forms
def test_compiling_does_not_change_the_value(form):
    student, teacher = draw(0, 2, 6, 3), draw(1, 2, 6, 2)
    lengths = torch.tensor([1.0, 0.5])
    torch.compiler.reset()
    module = CKALoss(form=form)
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
        ((2, 8), (2, 8), {"form": "grim"}, "Did you mean 'gram'"),
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
        cka_loss(torch.ones(student), torch.ones(teacher), **options)


def test_types_and_modules_are_checked():
    with pytest.raises(TypeError, match="teacher_feats is torch.int64"):
        cka_loss(torch.ones(1, 2), torch.ones(1, 2).long())
    with pytest.raises(ValueError, match="form='grm' is unknown"):
        CKALoss(form="grm")


def test_non_finite_input_is_named():
    good, bad = draw(0, 2, 4, 3), draw(1, 2, 4, 3)
    bad[1, 2, 0] = NAN
    with pytest.raises(ValueError, match="student_feats holds 1 non-finite"):
        cka_loss(bad, good)
    with pytest.raises(ValueError, match="teacher_feats holds 1 non-finite"):
        cka_loss(good, bad)
