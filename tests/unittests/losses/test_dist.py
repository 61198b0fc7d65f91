"""DIST's intra-class relation: formula, both axes, precision, errors.

Authors
 * The iusp_plugin authors 2026
"""

import math

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import (
    given,
    settings,
    strategies as st,
)

from iusp_plugin.losses import DISTIntraLoss, dist_intra_loss
from tests.reference.relation_loops import dist_intra_loops

NAN = float("nan")
same = torch.testing.assert_close


def draw(seed, *shape, dtype=torch.float64):
    """Logits of a plausible size: most tags are absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (logits * 2 - 2).to(dtype)


def gradient(student, *args, **options):
    """Loss and gradient with respect to the student's logits."""
    student = student.detach().clone().requires_grad_()
    loss = dist_intra_loss(student, *args, **options)
    loss.sum().backward()
    return loss.detach(), student.grad


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 5),
    frames=st.integers(0, 6),
    lengths=st.none() | st.tuples(*[st.floats(1 / 128, 1, width=32)] * 5),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_equals_loops(seed, batch, frames, lengths, temperature):
    shape = (batch, frames, 3) if frames else (batch, 3)
    student, teacher = draw(seed, *shape), draw(seed + 1, *shape)
    if seed % 3 == 0:
        student[..., 0] = -1.0  # constant
    if seed % 4 == 0:
        teacher[..., seed % 2] = 0.0
    lengths = None if lengths is None else lengths[:batch]
    loss = dist_intra_loss(
        student,
        teacher,
        None if lengths is None else torch.tensor(lengths),
        "batch",
        temperature=temperature,
    )
    expected = dist_intra_loops(
        student.tolist(), teacher.tolist(), temperature, lengths
    )
    expected = torch.tensor(expected, dtype=torch.float64)
    same(loss, expected, rtol=1e-8, atol=1e-12)
    assert (loss >= 0).all()
    assert loss.mean() <= 2 * temperature**2 * (1 + 1e-12)


def test_is_one_minus_numpy_s_correlation():
    student, teacher = draw(0, 6, 4), draw(1, 6, 4)
    outputs = [x.sigmoid().T.numpy() for x in (student, teacher)]
    rho = [np.corrcoef(s, t)[0, 1] for s, t in zip(*outputs, strict=True)]
    value = dist_intra_loss(student, teacher)
    assert float(value) == pytest.approx(1 - np.mean(rho), rel=1e-10)
    # The clips of a batch as the frames of one clip: the same correlation.
    same(dist_intra_loss(student[None], teacher[None]), value)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_closed_form(temperature):
    student = torch.tensor([[-2.0], [0.0], [2.0]]).double()
    teacher = torch.tensor([[0.0], [0.0], [2.0]]).double()
    square = temperature**2
    value = dist_intra_loss(student, teacher, temperature=temperature)
    assert float(value) == pytest.approx(square * (1 - math.sqrt(0.75)))
    value = dist_intra_loss(-student, student, temperature=temperature)
    assert float(value) == pytest.approx(2 * square)


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)])
def test_identical_gives_zero(shape):
    logits = draw(0, *shape, dtype=torch.float32)
    value, grad = gradient(logits, logits)
    assert value == 0 and (grad == 0).all()


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)])
def test_level_and_spread_of_a_tag_s_outputs_do_not_matter(shape):
    student, teacher = draw(0, *shape), draw(1, *shape)
    value = dist_intra_loss(student, teacher)
    moved = (0.05 + 0.3 * student.sigmoid()).logit()
    same(dist_intra_loss(moved, teacher), value)
    moved = (0.6 * teacher.sigmoid()).logit()
    same(dist_intra_loss(student, moved), value)


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)])
def test_order_of_clips_frames_and_tags_does_not_matter(shape):
    student, teacher = draw(0, *shape), draw(1, *shape)
    value = dist_intra_loss(student, teacher)
    for dim, size in enumerate(shape):
        order = torch.arange(size).roll(1)
        turned = [x.index_select(dim, order) for x in (student, teacher)]
        same(dist_intra_loss(*turned), value)
        if size != 3:  # clips of frames do not know one another
            other = dist_intra_loss(turned[0], teacher)
            assert (other - value).abs() > 1e-3


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_gradcheck(shape):
    student, teacher = draw(0, *shape).requires_grad_(), draw(1, *shape)
    lengths = torch.tensor([1.0, 0.6]) if len(shape) == 3 else None

    def loss(logits):
        return dist_intra_loss(
            logits, teacher, lengths, "batch", temperature=2.0
        )

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


@pytest.mark.parametrize("level", [0.0, -80.0])
@pytest.mark.parametrize("fill", [50.0, NAN, float("inf")])
def test_padded_batch_equals_each_clip_alone(fill, level):
    student, teacher = draw(0, 3, 8, 2) + level, draw(1, 3, 8, 2)
    student, teacher = student.float(), teacher.float()
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


def test_clip_wise_outputs_ignore_lengths_but_know_their_batch():
    student, teacher = draw(0, 4, 3), draw(1, 4, 3)
    value = dist_intra_loss(student, teacher)
    lengths = torch.tensor([1.0, 0.1, 0.5, 0.5])
    assert torch.equal(dist_intra_loss(student, teacher, lengths), value)
    assert (dist_intra_loss(student[:3], teacher[:3]) - value).abs() > 1e-3


@pytest.mark.parametrize("shape", [(5, 4), (5, 6, 4)])
def test_reductions(shape):
    student, teacher = draw(0, *shape), draw(1, *shape)
    each = dist_intra_loss(student, teacher, reduction="batch")
    assert each.shape == (5,)
    same(dist_intra_loss(student, teacher), each.mean())
    mean = dist_intra_loss(student, teacher, reduction="batchmean")
    same(mean, each.mean())
    total = dist_intra_loss(student, teacher, reduction="sum")
    same(total, each.sum())


def test_teacher_gets_no_gradient():
    student, teacher = draw(0, 4, 3), draw(1, 4, 3)
    student.requires_grad_(), teacher.requires_grad_()
    dist_intra_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 3), (2, 1, 3)])
def test_one_clip_or_one_frame_has_no_relation(shape):
    value, grad = gradient(draw(0, *shape), draw(1, *shape))
    assert value == 0 and (grad == 0).all()


@pytest.mark.parametrize("shape", [(5, 2), (2, 5, 2)])
@pytest.mark.parametrize("level", [-90.0, 0.3, 90.0])
def test_a_tag_that_does_not_vary(shape, level):
    """0 if it is the teacher's, 1 if only the student's, no gradient."""
    student, teacher = draw(0, *shape).float(), draw(1, *shape).float()
    other = dist_intra_loss(student[..., 1:], teacher[..., 1:])
    dead, dead_teacher = student.clone(), teacher.clone()
    dead[..., 0] = dead_teacher[..., 0] = level
    for s, t, value_of_tag in (
        (student, dead_teacher, 0.0),
        (dead, dead_teacher, 0.0),
        (dead, teacher, 1.0),
    ):
        value, grad = gradient(s, t)
        same(value, (value_of_tag + other) / 2)
        assert grad.isfinite().all() and (grad[..., 0] == 0).all()


@pytest.mark.parametrize("level", [-30.0, -80.0, -1000.0])
def test_rare_tags_keep_their_relation(level):
    """Outputs whose squares vanish in float32, or they themselves."""
    wave = torch.tensor([[0.0], [1.0], [3.0], [1.5]])
    teacher = torch.tensor([[0.2], [1.0], [2.0], [2.5]])
    value, grad = gradient(wave + level, teacher + level)
    p_s, p_t = wave.exp().flatten(), teacher.exp().flatten()
    rho = np.corrcoef(p_s.numpy(), p_t.numpy())[0, 1]
    assert float(value) == pytest.approx(1 - rho, rel=1e-3)
    assert grad.abs().max() > 1e-3


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_sure_logits_stay_finite(size):
    student = torch.tensor([[size, -size], [-size, -size], [size, 2 * -size]])
    teacher = torch.tensor([[size, -size], [size, -size], [-size, size]])
    value, grad = gradient(student, teacher)
    assert value.isfinite() and grad.isfinite().all()
    # The first tag is (1, 0, 1) and (1, 1, 0): correlation -1/2.
    first = dist_intra_loss(student[:, :1], teacher[:, :1])
    same(first, torch.tensor(1.5))


@pytest.mark.parametrize("level", [-40.0, -10.0])
@pytest.mark.parametrize("spread, lives", [(2e-4, True), (0.5e-4, False)])
def test_floor_is_relative_to_the_level(level, spread, lives):
    wave = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double()
    teacher = wave + torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    value, grad = gradient(level + spread * wave, teacher)
    assert (grad.abs().sum() > 0) == lives
    assert grad.abs().max() < 1e4
    assert value < 1 if lives else value == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    student, teacher = draw(0, 6, 8), draw(1, 6, 8)
    exact = dist_intra_loss(student, teacher)
    low = dist_intra_loss(student.to(dtype), teacher.to(dtype))
    assert low.dtype == torch.float32
    same(low.double(), exact, rtol=0.02, atol=0)
    student, teacher = student.float(), teacher.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = dist_intra_loss(student, teacher)
    assert torch.equal(cast, dist_intra_loss(student, teacher))
    same(cast.double(), exact, rtol=1e-5, atol=1e-6)


YAML = """
loss: !new:iusp_plugin.losses.DISTIntraLoss
    temperature: 2.5
    reduction: sum
    check_finite: False
"""


def test_yaml_built_equals_python_built():
    student, teacher = draw(0, 4, 3), draw(1, 4, 3)
    module = DISTIntraLoss(2.5, "sum", check_finite=False)
    from_yaml = load_hyperpyyaml(YAML)["loss"]
    value = from_yaml(student, teacher)
    assert torch.equal(value, module(student, teacher))
    options = {"reduction": "sum", "temperature": 2.5}
    assert torch.equal(value, dist_intra_loss(student, teacher, **options))
    assert from_yaml(student * NAN, teacher).isnan()


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_compiling_does_not_change_the_value(shape):
    student, teacher = draw(0, *shape), draw(1, *shape)
    lengths = torch.tensor([1.0, 0.5]) if len(shape) == 3 else None
    torch.compiler.reset()
    module = DISTIntraLoss()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    value = module(student, teacher, lengths)
    same(compiled(student, teacher, lengths), value)


@pytest.mark.parametrize(
    "student, teacher, options, match",
    [
        ((2, 8), (2, 6), {}, r"student_logits .*\(2, 8\).*\(2, 6\)"),
        ((2, 8), (1, 8), {}, "same tags in the same order"),
        ((2, 4, 8), (2, 8), {}, "teacher_logits"),
        ((8,), (8,), {}, r"\(batch, classes\)"),
        ((2, 0), (2, 0), {}, "classes"),
        ((2, 2, 2, 2), (2, 2, 2, 2), {}, r"\(batch, time, classes\)"),
        ((2, 3), (2, 3), {"temperature": 0.0}, "temperature=0.0 must be > 0"),
        ((2, 3), (2, 3), {"eps": -1.0}, "eps=-1.0 must be >= 0"),
        ((2, 3), (2, 3), {"reduction": "meann"}, "Did you mean 'mean'"),
        ((2, 3, 4), (2, 3, 4), {"lengths": torch.ones(3)}, r"shape \(3,\)"),
        ((1, 3, 4), (1, 3, 4), {"lengths": torch.zeros(1)}, r"lengths\[0\]"),
    ],
)
def test_errors(student, teacher, options, match):
    with pytest.raises(ValueError, match=match):
        dist_intra_loss(torch.zeros(student), torch.zeros(teacher), **options)


def test_types_and_modules_are_checked():
    with pytest.raises(TypeError, match="teacher_logits is torch.int64"):
        dist_intra_loss(torch.ones(2, 2), torch.ones(2, 2).long())
    with pytest.raises(TypeError, match="missing .* .teacher_logits"):
        DISTIntraLoss()(torch.ones(2, 2))
    with pytest.raises(ValueError, match="temperature=-1 must be > 0"):
        DISTIntraLoss(temperature=-1)


def test_non_finite_input_is_named():
    good, bad = draw(0, 4, 3), draw(1, 4, 3)
    bad[1, 2] = NAN
    with pytest.raises(ValueError, match="student_logits holds 1 non-finite"):
        dist_intra_loss(bad, good)
    with pytest.raises(ValueError, match="teacher_logits holds 1 non-finite"):
        dist_intra_loss(good, bad)
