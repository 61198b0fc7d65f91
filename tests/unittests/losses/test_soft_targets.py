"""Cross-entropies with labels and with a teacher's outputs.

Authors
 * The iusp_plugin authors 2026
"""

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import (
    given,
    settings,
    strategies as st,
)
from torch.nn import functional as F

from iusp_plugin.losses import SoftTargetLoss, masked_bce_loss, soft_target_loss
from tests.reference.loss_loops import masked_bce_loops, soft_target_loops

NAN = float("nan")


def draw(seed, *shape):
    """Logits of a plausible size, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * 3


def gradient(loss, logits, *args, **options):
    """Value and gradient with respect to the logits."""
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, *args, **options)
    value.sum().backward()
    return value.detach(), logits.grad


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 6),
    lengths=st.none() | st.tuples(*[st.floats(1 / 128, 1, width=32)] * 2),
    temperature=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
)
def test_soft_targets_equal_loops(seed, frames, lengths, temperature):
    shape = (2, frames, 3) if frames else (2, 3)
    student, teacher = draw(seed, *shape), draw(seed + 1, *shape)
    loss = soft_target_loss(
        student,
        teacher,
        None if lengths is None else torch.tensor(lengths),
        "batch",
        temperature=temperature,
    )
    expected = soft_target_loops(
        student.tolist(), teacher.tolist(), temperature, lengths
    )
    torch.testing.assert_close(
        loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_closed_form_and_smallest_value(temperature):
    """Zero logits give T^2 log 2; the minimum is the teacher's entropy."""
    zeros = torch.zeros(2, 3).double()
    value = soft_target_loss(zeros, zeros, temperature=temperature)
    assert float(value) == pytest.approx(temperature**2 * math.log(2))
    teacher = draw(0, 2, 3)
    p = (teacher / temperature).sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    value, grad = gradient(
        soft_target_loss, teacher, teacher, temperature=temperature
    )
    torch.testing.assert_close(value, temperature**2 * entropy)
    assert grad.abs().max() < 1e-15
    for step in (-0.1, 0.1):
        moved = soft_target_loss(
            teacher + step, teacher, temperature=temperature
        )
        assert moved > value


def test_gradient_is_comparable_across_temperatures():
    student, teacher = draw(0, 4, 8) / 10, draw(1, 4, 8) / 10
    sizes = [
        gradient(soft_target_loss, student, teacher, temperature=t)[1].norm()
        for t in (1.0, 10.0)
    ]
    assert 0.8 < sizes[1] / sizes[0] < 1.25


@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5])])
def test_soft_targets_gradcheck(lengths):
    student, teacher = draw(0, 2, 4, 3).requires_grad_(), draw(1, 2, 4, 3)

    def loss(logits):
        return soft_target_loss(
            logits, teacher, lengths, "batch", temperature=2.0
        )

    assert torch.autograd.gradcheck(loss, (student,))


@pytest.mark.parametrize("fill", [50.0, NAN, float("inf")])
def test_padded_frames_do_not_matter(fill):
    student, teacher = draw(0, 3, 8, 2), draw(1, 3, 8, 2)
    frames = (8, 4, 1)
    for i, n in enumerate(frames):
        student[i, n:] = fill
        teacher[i, n:] = fill
    lengths = torch.tensor(frames) / 8
    value, grad = gradient(soft_target_loss, student, teacher, lengths, "batch")
    for i, n in enumerate(frames):
        alone, alone_grad = gradient(
            soft_target_loss, student[i : i + 1, :n], teacher[i : i + 1, :n]
        )
        torch.testing.assert_close(value[i], alone)
        torch.testing.assert_close(grad[i : i + 1, :n], alone_grad)
        assert (grad[i, n:] == 0).all()


def test_clip_wise_outputs_ignore_lengths():
    student, teacher = draw(0, 2, 31), draw(1, 2, 31)
    assert torch.equal(
        soft_target_loss(student, teacher, torch.tensor([1.0, 0.1])),
        soft_target_loss(student, teacher),
    )


def test_soft_target_reductions_and_independence_of_clips():
    student, teacher = draw(0, 3, 5), draw(1, 3, 5)
    each = soft_target_loss(student, teacher, reduction="batch")
    for i in range(3):
        alone = soft_target_loss(student[i : i + 1], teacher[i : i + 1])
        torch.testing.assert_close(each[i], alone)
    same = torch.testing.assert_close
    same(soft_target_loss(student, teacher), each.mean())
    same(soft_target_loss(student, teacher, reduction="batchmean"), each.mean())
    same(soft_target_loss(student, teacher, reduction="sum"), each.sum())


def test_teacher_gets_no_gradient():
    student = draw(0, 2, 3).requires_grad_()
    teacher = draw(1, 2, 3).requires_grad_()
    soft_target_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_sure_logits_stay_finite(size):
    student = torch.tensor([[size, -size, size]])
    teacher = torch.tensor([[size, size, -size]])
    value, grad = gradient(soft_target_loss, student, teacher)
    assert value.isfinite() and grad.isfinite().all()
    torch.testing.assert_close(grad, torch.tensor([[0.0, -1.0, 1.0]]) / 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    student, teacher = draw(0, 4, 8).to(dtype), draw(1, 4, 8).to(dtype)
    targets = torch.randint(0, 2, (4, 8))
    soft = soft_target_loss(student, teacher)
    hard = masked_bce_loss(student, targets)
    assert soft.dtype == hard.dtype == torch.float32
    exact = student.float()
    assert torch.equal(soft, soft_target_loss(exact, teacher.float()))
    assert torch.equal(hard, masked_bce_loss(exact, targets))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = soft_target_loss(exact, teacher.float())
        assert torch.equal(cast, soft)
        assert torch.equal(masked_bce_loss(exact, targets), hard)


YAML = """
loss: !new:iusp_plugin.losses.SoftTargetLoss
    temperature: 2.5
    reduction: sum
    check_finite: False
"""


def test_yaml_built_equals_python_built():
    student, teacher = draw(0, 2, 3), draw(1, 2, 3)
    module = SoftTargetLoss(2.5, "sum", check_finite=False)
    from_yaml = load_hyperpyyaml(YAML)["loss"]
    value = from_yaml(student, teacher)
    assert torch.equal(value, module(student, teacher))
    assert torch.equal(
        value,
        soft_target_loss(student, teacher, reduction="sum", temperature=2.5),
    )
    assert from_yaml(student * NAN, teacher).isnan()


def test_compiling_does_not_change_the_value():
    student, teacher = draw(0, 2, 4, 3), draw(1, 2, 4, 3)
    lengths = torch.tensor([1.0, 0.5])
    torch.compiler.reset()
    compiled = torch.compile(SoftTargetLoss(), fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(student, teacher, lengths),
        SoftTargetLoss()(student, teacher, lengths),
    )


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
        ((2, 3), (2, 3), {"temperature": NAN}, "temperature=nan"),
        ((2, 3), (2, 3), {"reduction": "meann"}, "Did you mean 'mean'"),
        ((2, 3, 4), (2, 3, 4), {"lengths": torch.ones(3)}, r"shape \(3,\)"),
        ((1, 3, 4), (1, 3, 4), {"lengths": torch.zeros(1)}, r"lengths\[0\]"),
    ],
)
def test_soft_target_errors(student, teacher, options, match):
    with pytest.raises(ValueError, match=match):
        soft_target_loss(torch.zeros(student), torch.zeros(teacher), **options)


def test_module_checks_its_options_when_built():
    with pytest.raises(ValueError, match="temperature=-1 must be > 0"):
        SoftTargetLoss(temperature=-1)
    with pytest.raises(ValueError, match="Did you mean 'sum'"):
        SoftTargetLoss(reduction="summ")


def test_non_finite_input_is_named():
    good = torch.zeros(2, 3)
    bad = torch.tensor([[0.0, NAN, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="student_logits holds 1 non-finite"):
        soft_target_loss(bad, good)
    with pytest.raises(ValueError, match="teacher_logits holds 1 non-finite"):
        soft_target_loss(good, bad)


def test_unmasked_bce_is_torch_s():
    logits = draw(0, 5, 7)
    for targets in (torch.rand(5, 7).double(), torch.randint(0, 2, (5, 7))):
        expected = F.binary_cross_entropy_with_logits(logits, targets.double())
        torch.testing.assert_close(masked_bce_loss(logits, targets), expected)
        ones = torch.ones(5, 7)
        torch.testing.assert_close(
            masked_bce_loss(logits, targets, ones), expected
        )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_masked_bce_equals_loops(seed):
    logits, targets = draw(seed, 3, 4), draw(seed + 1, 3, 4).sigmoid()
    mask = (draw(seed + 2, 3, 4).clamp(-1, 1) + 1) / 2  # 0, between, and 1
    loss = masked_bce_loss(logits, targets, mask, "batch")
    expected = masked_bce_loops(
        logits.tolist(), targets.tolist(), mask.tolist()
    )
    torch.testing.assert_close(
        loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


def test_masked_element_stays_in_the_divisor():
    """The official loss is a sum: masking changes no other element's weight."""
    logits, targets = draw(0, 2, 4), torch.ones(2, 4).double()
    mask = torch.ones(2, 4)
    _, before = gradient(masked_bce_loss, logits, targets, mask)
    mask[0, :3] = 0
    value, after = gradient(masked_bce_loss, logits, targets, mask)
    assert (after[0, :3] == 0).all()
    assert torch.equal(after[0, 3], before[0, 3])
    assert torch.equal(after[1], before[1])
    terms = F.binary_cross_entropy_with_logits(
        logits, targets, reduction="none"
    )
    torch.testing.assert_close(value, (terms[0, 3] + terms[1].sum()) / 8)
    assert masked_bce_loss(logits, targets, mask * 0) == 0


@pytest.mark.parametrize("fill", [NAN, float("inf")])
def test_what_a_masked_element_holds_does_not_matter(fill):
    logits, targets = draw(0, 2, 4), torch.zeros(2, 4).double()
    mask = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    clean = gradient(masked_bce_loss, logits, targets, mask)
    out = mask == 0
    spoiled = gradient(
        masked_bce_loss,
        logits.masked_fill(out, fill),
        targets.masked_fill(out, NAN),
        mask,
    )
    torch.testing.assert_close(spoiled, clean)


def test_no_clip_depends_on_another_s_mask():
    logits, targets = draw(0, 3, 4), torch.ones(3, 4)
    mask = torch.ones(3, 4)
    each = masked_bce_loss(logits, targets, mask, "batch")
    mask[1] = 0
    after = masked_bce_loss(logits, targets, mask, "batch")
    assert torch.equal(after[[0, 2]], each[[0, 2]]) and after[1] == 0
    same = torch.testing.assert_close
    same(masked_bce_loss(logits, targets), each.mean())
    same(masked_bce_loss(logits, targets, reduction="batchmean"), each.mean())
    same(masked_bce_loss(logits, targets, reduction="sum"), each.sum())


def test_masked_bce_gradcheck():
    logits, targets = draw(0, 2, 3).requires_grad_(), draw(1, 2, 3).sigmoid()
    mask = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]])
    assert torch.autograd.gradcheck(
        lambda x: masked_bce_loss(x, targets, mask), (logits,)
    )


@pytest.mark.parametrize(
    "logits, targets, mask, match",
    [
        ((2, 8), (2, 29), None, r"logits .*\(2, 8\) and targets \(2, 29\)"),
        ((2, 8), (8,), None, "targets"),
        ((2, 8), (2, 8), (2, 1), r"mask \(2, 1\)"),
        ((0, 8), (0, 8), None, r"\(0, 8\)"),
    ],
)
def test_masked_bce_errors(logits, targets, mask, match):
    tensors = [None if s is None else torch.ones(s) for s in (targets, mask)]
    with pytest.raises(ValueError, match=match):
        masked_bce_loss(torch.zeros(logits), *tensors)
    with pytest.raises(ValueError, match="reduction='men'"):
        masked_bce_loss(torch.zeros(1, 2), torch.zeros(1, 2), None, "men")
