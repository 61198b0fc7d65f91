"""IUSP: the formula, its invariances, padding, precision, errors.

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

from iusp_plugin.losses import (
    IUSPLoss,
    cosine_similarity,
    iusp_loss,
    similarity_matrix,
)
from tests.reference.loss_loops import iusp_loops

SIMILARITIES = ("row_l2", "cosine")
NAN = float("nan")


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def gradient(student, *args, **options):
    """Loss and gradient with respect to the student's features."""
    student = student.detach().clone().requires_grad_()
    loss = iusp_loss(student, *args, **options)
    loss.sum().backward()
    return loss.detach(), student.grad


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    frames=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    lengths=st.none() | st.tuples(*[st.floats(1 / 128, 1, width=32)] * 2),
    similarity=st.sampled_from(SIMILARITIES),
    scaled=st.booleans(),
    frame_weights=st.sampled_from(("equal", "energy")),
    same=st.booleans(),
)
def test_equals_loops(
    seed, frames, lengths, similarity, scaled, frame_weights, same
):
    if same:
        frames = (frames[0], frames[0])
    student = draw(seed, 2, frames[0], 3)
    teacher = draw(seed + 1, 2, frames[1], 2, 2)
    student[0, seed % frames[0]] *= (seed % 3) / 2  # sometimes silent
    options = {"similarity": similarity, "scaled": scaled}
    options["frame_weights"] = frame_weights
    loss = iusp_loss(
        student,
        teacher,
        None if lengths is None else torch.tensor(lengths),
        "batch",
        alignment="pool",
        **options,
    )
    expected = iusp_loops(
        student.tolist(), teacher.flatten(2).tolist(), lengths, **options
    )
    torch.testing.assert_close(
        loss, torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("frames", [(4, 4), (7, 4), (4, 7)])
def test_gradcheck(similarity, scaled, frames):
    student = draw(0, 2, frames[0], 3).requires_grad_()
    teacher = draw(1, 2, frames[1], 5)
    lengths = torch.tensor([1.0, 0.75])

    def loss(feats):
        return iusp_loss(
            feats,
            teacher,
            lengths,
            "batch",
            similarity=similarity,
            scaled=scaled,
            alignment="pool",
        )

    assert torch.autograd.gradcheck(loss, (student,))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("t", [1, 2, 124])
def test_identical_inputs_give_nothing(similarity, t):
    feats = draw(0, 2, t, 16, dtype=torch.float32)
    rotation = torch.linalg.qr(draw(1, 16, 16, dtype=torch.float32))[0]
    for teacher in (feats, 3.7 * feats, feats @ rotation):
        loss = iusp_loss(feats, teacher, similarity=similarity)
        assert 0 <= loss <= 1e-6 * 4 / t


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_invariances(similarity):
    student, teacher = draw(0, 3, 6, 4), draw(1, 3, 6, 5)

    def loss(s, t, reduction="mean"):
        return iusp_loss(s, t, reduction=reduction, similarity=similarity)

    value = loss(student, teacher)
    assert value > 0.01
    scale = torch.tensor([1e-6, 1.0, 1e6]).double().view(3, 1, 1)
    rotation = torch.linalg.qr(draw(2, 4, 4))[0]
    frames, clips = torch.randperm(6), torch.tensor([2, 0, 1])
    same = torch.testing.assert_close
    same(loss(student * scale, teacher), value)
    same(loss(student, teacher * scale), value)
    same(loss(-student, teacher), value)
    same(loss(student @ rotation, teacher), value)
    same(loss(student[:, frames], teacher[:, frames]), value)
    same(
        loss(student[clips], teacher[clips], "batch"),
        loss(student, teacher, "batch")[clips],
    )
    # What is no invariance: the order of one side's frames, a frame's scale.
    assert abs(loss(student.flip(1), teacher) - value) > 1e-4
    louder = student * torch.arange(1.0, 7).view(1, 6, 1)
    assert (abs(loss(louder, teacher) - value) > 1e-4) == (
        similarity == "row_l2"
    )


@pytest.mark.parametrize("fill", [7.0, NAN, float("inf")])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("teacher_frames", [12, 6, 24])
def test_padded_batch_is_each_clip_alone(
    fill, similarity, scaled, teacher_frames
):
    n = [12, 8, 2, 4]
    ratio = teacher_frames / 12
    student, teacher = draw(0, 4, 12, 3), draw(1, 4, teacher_frames, 5)
    for i, k in enumerate(n):
        student[i, k:] = fill
        teacher[i, int(k * ratio) :] = fill
    options = {
        "reduction": "batch",
        "similarity": similarity,
        "scaled": scaled,
        "alignment": "pool",
    }
    lengths = torch.tensor(n) / 12
    loss, grad = gradient(student, teacher, lengths, **options)
    for i, k in enumerate(n):
        alone, grad_alone = gradient(
            student[i : i + 1, :k],
            teacher[i : i + 1, : int(k * ratio)],
            **options,
        )
        torch.testing.assert_close(loss[i : i + 1], alone)
        torch.testing.assert_close(grad[i : i + 1, :k], grad_alone)
        assert (grad[i, k:] == 0).all()


def test_full_lengths_are_no_lengths():
    student, teacher = draw(0, 2, 5, 3), draw(1, 2, 5, 4)
    full = iusp_loss(student, teacher, torch.ones(2))
    torch.testing.assert_close(full, iusp_loss(student, teacher))


def test_batch_is_the_mean_of_its_clips():
    student, teacher = draw(0, 3, 5, 3), draw(1, 3, 5, 4)
    alone = [
        iusp_loss(s[None], t[None])
        for s, t in zip(student, teacher, strict=True)
    ]
    values = torch.stack(alone)
    same = torch.testing.assert_close
    same(iusp_loss(student, teacher), values.mean())
    same(iusp_loss(student, teacher, reduction="batchmean"), values.mean())
    same(iusp_loss(student, teacher, reduction="sum"), values.sum())
    same(iusp_loss(student, teacher, reduction="batch"), values)


def test_scaled_multiplies_by_each_clip_s_own_frames():
    student, teacher = draw(0, 2, 8, 3), draw(1, 2, 8, 3)
    lengths = torch.tensor([1.0, 0.25])
    plain = iusp_loss(student, teacher, lengths, "batch")
    scaled = iusp_loss(student, teacher, lengths, "batch", scaled=True)
    torch.testing.assert_close(scaled, plain * torch.tensor([8.0, 2.0]))


@pytest.mark.parametrize("alignment, frames", [("error", 5), ("pool", 10)])
def test_teacher_gets_no_gradient(alignment, frames):
    student = draw(0, 2, 5, 3).requires_grad_()
    teacher = draw(1, 2, frames, 3).requires_grad_()
    iusp_loss(student, teacher, alignment=alignment).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    given_matrix = similarity_matrix(draw(2, 2, 5, 3)).requires_grad_()
    iusp_loss(student, teacher_similarity=given_matrix).backward()
    assert given_matrix.grad is None


def silent_clip(feats):
    feats[0] = 0
    return feats


DEGENERATE = {
    "one frame": lambda: draw(0, 2, 1, 3),
    "batch of one": lambda: draw(0, 1, 5, 3),
    "one number": lambda: draw(0, 1, 1, 1),
    "silent clip": lambda: silent_clip(draw(0, 2, 5, 3)),
    "all silent": lambda: torch.zeros(2, 5, 3),
    "constant": lambda: torch.full((2, 5, 3), 2.5),
    "two axes": lambda: draw(0, 2, 5),
    "tiny": lambda: draw(0, 2, 5, 3, dtype=torch.float32) * 1e-20,
    "huge": lambda: draw(0, 2, 5, 3, dtype=torch.float32) * 1e20,
}


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_inputs_stay_finite(case, similarity):
    student = DEGENERATE[case]()
    t = student.shape[1]
    good = draw(9, *student.shape[:2], 4).to(student.dtype)
    for s, u in ((student, good), (good, student), (student, student)):
        loss, grad = gradient(s, u, similarity=similarity)
        assert loss.isfinite() and grad.isfinite().all()
        assert 0 <= loss <= (4 / t if similarity == "row_l2" else 4)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_scale_of_float32_features_does_not_matter(scale, similarity):
    student, teacher = (draw(i, 2, 9, 4, dtype=torch.float32) for i in (0, 1))
    value, grad = gradient(student, teacher, similarity=similarity)
    scaled, scaled_grad = gradient(
        student * scale, teacher / scale, similarity=similarity
    )
    torch.testing.assert_close(scaled, value)
    torch.testing.assert_close(scaled_grad * scale, grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-12])
def test_silent_frame_among_live_ones_has_a_sane_gradient(similarity, level):
    student = draw(0, 1, 20, 8, dtype=torch.float32)
    student[0, 7] *= level
    teacher = draw(1, 1, 20, 8, dtype=torch.float32)
    _, grad = gradient(student, teacher, similarity=similarity)
    sizes = grad[0].norm(dim=1)
    assert sizes.median() > 0
    assert sizes.max() < 100 * sizes.median()
    assert sizes[7] < 10 * sizes.median()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(dtype):
    student = draw(0, 2, 12, 6).to(dtype)
    teacher = draw(1, 2, 12, 6).to(dtype)
    loss, grad = gradient(student, teacher)
    exact = iusp_loss(student.float(), teacher.float())
    assert loss.dtype == torch.float32 and grad.dtype == dtype
    assert torch.equal(loss, exact)


def test_autocast_changes_no_bit():
    student, teacher = (draw(i, 2, 12, 6, dtype=torch.float32) for i in (0, 1))
    longer = draw(2, 2, 24, 6, dtype=torch.float32)
    for other in (teacher, longer):
        plain, grad = gradient(student, other, alignment="pool")
        leaf = student.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = iusp_loss(leaf, other, alignment="pool")
        cast.backward()
        assert torch.equal(plain, cast) and torch.equal(grad, leaf.grad)


def test_features_of_an_autocast_network_are_close_to_float32():
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 8)
    inputs, teacher = (draw(i, 2, 12, 6, dtype=torch.float32) for i in (0, 1))
    exact = iusp_loss(layer(inputs), teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student = layer(inputs)
        assert student.dtype == torch.bfloat16
        loss = iusp_loss(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)


def test_wider_input_decides_the_precision():
    student, teacher = draw(0, 1, 4, 3), draw(1, 1, 4, 3)
    assert iusp_loss(student.float(), teacher).dtype == torch.float64
    assert iusp_loss(student.float(), teacher.half()).dtype == torch.float32


def test_layout_and_memory_format_do_not_matter():
    image, teacher = draw(0, 2, 3, 6, 4), draw(1, 2, 5, 6)
    value = iusp_loss(image.permute(0, 2, 3, 1), teacher.mT)
    last = image.to(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    strided = draw(2, 2, 3, 12, 4)
    strided[:, :, ::2] = image
    for same in (image, last, strided[:, :, ::2]):
        loss = iusp_loss(same, teacher, layout="channel_first")
        torch.testing.assert_close(loss, value)
    assert not torch.isclose(
        iusp_loss(image, teacher.mT[:, :3]), value, rtol=1e-3
    )


def test_closed_forms():
    """Frames e1, e2 against equal frames; then three frames by hand."""
    root = 2**0.5
    student = torch.eye(2).double().unsqueeze(0)
    constant = torch.ones(1, 2, 5).double()
    assert float(iusp_loss(student, constant)) == pytest.approx(
        (2 - root) / 2, abs=1e-12
    )
    # Student rows e1, e1, e2: G rows (1,1,0)/root, the same, (0,0,1).
    # Teacher rows e1, e2, e3: G is the identity.
    student = torch.eye(2).double()[[0, 0, 1]].unsqueeze(0)
    teacher = torch.eye(3).double().unsqueeze(0)
    row = (1 - 1 / root) ** 2 + 1 / 2
    loss = iusp_loss(student, teacher)
    assert float(loss) == pytest.approx(2 * row / 9, abs=1e-12)
    loss = iusp_loss(student, teacher, similarity="cosine")
    assert float(loss) == pytest.approx(2 / 9, abs=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), t=st.integers(1, 12))
def test_bounds(seed, t):
    student, teacher = draw(seed, 2, t, 2) ** 3, draw(seed + 1, 2, t, 1) ** 3
    loss = iusp_loss(student, teacher, reduction="batch")
    assert (loss >= 0).all() and (loss <= 4 / t).all()
    loss = iusp_loss(student, teacher, scaled=True)
    assert 0 <= loss <= 4
    assert 0 <= iusp_loss(student, teacher, similarity="cosine") <= 4


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_given_similarity_equals_given_features(similarity):
    student, teacher = draw(0, 2, 6, 3), draw(1, 2, 6, 4)
    lengths = torch.tensor([1.0, 0.5])
    matrix = similarity_matrix(teacher, similarity=similarity)
    value = gradient(student, teacher, similarity=similarity)
    other = gradient(student, similarity=similarity, teacher_similarity=matrix)
    torch.testing.assert_close(value, other)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    matrix = similarity_matrix(teacher, mask, similarity=similarity)
    matrix[1, 3:] = NAN
    matrix[1, :, 3:] = NAN
    value = gradient(student, teacher, lengths, similarity=similarity)
    other = gradient(
        student, None, lengths, similarity=similarity, teacher_similarity=matrix
    )
    torch.testing.assert_close(value, other)


YAML = """
loss: !new:iusp_plugin.losses.IUSPLoss
    similarity: cosine
    scaled: True
    frame_weights: energy
    alignment: pool
    layout: channel_first
    reduction: sum
    check_finite: False
    eps: 0.9
"""


def test_yaml_built_equals_python_built():
    options = {
        "similarity": "cosine",
        "scaled": True,
        "frame_weights": "energy",
        "alignment": "pool",
        "layout": "channel_first",
        "reduction": "sum",
        "check_finite": False,
        "eps": 0.9,
    }
    student, teacher = draw(0, 2, 3, 8), draw(1, 2, 5, 4)
    from_yaml = load_hyperpyyaml(YAML)["loss"](student, teacher)
    assert torch.equal(from_yaml, IUSPLoss(**options)(student, teacher))
    assert torch.equal(from_yaml, iusp_loss(student, teacher, **options))
    # Each option arrives: without it the value is another.
    for name in (
        "similarity",
        "scaled",
        "frame_weights",
        "reduction",
        "eps",
    ):
        rest = {k: v for k, v in options.items() if k != name}
        assert not torch.equal(from_yaml, IUSPLoss(**rest)(student, teacher))
    spoiled = student * NAN
    assert IUSPLoss(**options)(spoiled, teacher).isnan()


def test_module_takes_a_given_similarity_and_lengths():
    student, teacher = draw(0, 2, 4, 3), draw(1, 2, 4, 3)
    matrix, lengths = similarity_matrix(teacher), torch.tensor([1.0, 0.5])
    module = IUSPLoss()
    assert torch.equal(
        module(student, teacher_similarity=matrix),
        iusp_loss(student, teacher_similarity=matrix),
    )
    assert torch.equal(
        module(student, teacher, lengths=lengths),
        iusp_loss(student, teacher, lengths),
    )


# The tracer instantiates autograd functions, and warns of it.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiling_does_not_change_the_value(backend):
    student, teacher = (draw(i, 2, t, 3) for i, t in ((0, 8), (1, 4)))
    lengths = torch.tensor([1.0, 0.5])
    module = IUSPLoss(alignment="pool")
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    grads = []
    for loss in (module, compiled):
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher, lengths)
        value.backward()
        grads.append((value.detach(), leaf.grad))
    torch.testing.assert_close(grads[0], grads[1])
    spoiled = compiled(student * NAN, teacher, lengths)
    assert spoiled.isnan()


GOOD, T4 = torch.ones(2, 4, 3), torch.ones(2, 4, 5)
ERRORS = [
    ((torch.ones(4), T4), {}, ValueError, r"student_feats has shape \(4,\)"),
    ((GOOD, torch.ones(4)), {}, ValueError, r"teacher_feats has shape \(4,\)"),
    ((torch.ones(2, 0, 3), T4), {}, ValueError, "non-empty"),
    ((GOOD.int(), T4), {}, TypeError, "student_feats is torch.int32"),
    ((GOOD, T4.long()), {}, TypeError, "teacher_feats is torch.int64"),
    ((GOOD, T4[:, :3]), {}, ValueError, "4 frames and teacher_feats 3"),
    ((GOOD, T4[:1]), {}, ValueError, "2 clips and teacher_feats 1"),
    ((GOOD, T4[:1]), {"alignment": "pool"}, ValueError, "2 clips"),
    ((GOOD,), {}, ValueError, "exactly one of teacher_feats"),
    (
        (GOOD, T4),
        {"teacher_similarity": torch.ones(2, 4, 4)},
        ValueError,
        "exactly one",
    ),
    (
        (GOOD,),
        {"teacher_similarity": torch.ones(2, 3, 3)},
        ValueError,
        "4 frames and teacher_similarity 3; a similarity cannot be resampled",
    ),
    (
        (GOOD,),
        {"teacher_similarity": torch.ones(2, 5, 5), "alignment": "pool"},
        ValueError,
        "alignment='interpolate' from fewer",
    ),
    (
        (GOOD,),
        {"teacher_similarity": torch.ones(2, 4, 3)},
        ValueError,
        r"\(matrix\) has shape \(2, 4, 3\), expected \(2, 4, 4\)",
    ),
    (
        (GOOD,),
        {"teacher_similarity": torch.ones(1, 4, 4)},
        ValueError,
        r"\(1, 4, 4\), expected \(2, 4, 4\): 2 clips",
    ),
    (
        (GOOD,),
        {"teacher_similarity": [torch.ones(2, 4, 4)]},
        TypeError,
        "teacher_similarity is list, expected a tensor, CosineSimilarity",
    ),
    (
        (GOOD,),
        {"teacher_similarity": torch.ones(2, 4, 4), "form": "covariance"},
        ValueError,
        "form='covariance' has no use for a t x t matrix",
    ),
    (
        (GOOD,),
        {"teacher_similarity": torch.ones(2, 4, 4), "frame_weights": "energy"},
        ValueError,
        "give teacher_feats or a CosineSimilarity in place of Matrix",
    ),
    (
        (GOOD, T4),
        {"form": "covariance", "frame_weights": "energy"},
        ValueError,
        "has no covariance form",
    ),
    ((GOOD, T4), {"frame_weights": "enregy"}, ValueError, "mean 'energy'"),
    ((GOOD, T4), {"form": "grm"}, ValueError, "mean 'gram'"),
    ((GOOD, T4), {"similarity": "row_l1"}, ValueError, "mean 'row_l2'"),
    ((GOOD, T4), {"reduction": "avg"}, ValueError, "reduction='avg'"),
    ((GOOD, T4), {"alignment": "pol"}, ValueError, "mean 'pool'"),
    ((GOOD, T4), {"layout": "time_frst"}, ValueError, "mean 'time_first'"),
    ((GOOD[0], T4), {"layout": "channel_first"}, ValueError, "channel, time"),
    ((GOOD, T4), {"eps": -0.1}, ValueError, "eps=-0.1 must be >= 0"),
    ((GOOD, T4, torch.ones(3)), {}, ValueError, r"lengths has shape \(3,\)"),
    ((GOOD, T4, torch.ones(2, 1)), {}, ValueError, "one relative length per"),
    ((GOOD, T4, torch.tensor([1, 0.0])), {}, ValueError, r"lengths\[1\]=0.0"),
    ((GOOD, T4, torch.tensor([4.0, 2])), {}, ValueError, r"lengths\[0\]=4.0"),
    ((GOOD, T4, torch.tensor([1, NAN])), {}, ValueError, r"lengths\[1\]=nan"),
]


@pytest.mark.parametrize("args, options, error, match", ERRORS)
def test_what_does_not_belong_together_is_refused(args, options, error, match):
    with pytest.raises(error, match=match):
        iusp_loss(*args, **options)


@pytest.mark.parametrize(
    "option, near",
    [
        ("similarity", "cosine"),
        ("alignment", "pool"),
        ("layout", "channel_first"),
        ("reduction", "batchmean"),
    ],
)
def test_module_checks_its_options_when_built(option, near):
    with pytest.raises(ValueError, match=f"{option}=.*Did you mean '{near}'"):
        IUSPLoss(**{option: near + "x"})


@pytest.mark.parametrize("bad", [NAN, float("inf")])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_non_finite_input_is_named(bad, similarity):
    student, teacher = draw(0, 2, 5, 3), draw(1, 2, 5, 3)
    options = {"similarity": similarity}
    spoiled = teacher.clone()
    spoiled[1, 2, 0] = bad
    with pytest.raises(ValueError, match="student_feats holds 1 non-finite"):
        iusp_loss(spoiled, teacher, **options)
    with pytest.raises(ValueError, match="teacher_feats holds 1 non-finite"):
        iusp_loss(student, spoiled, **options)
    matrix = torch.full((2, 5, 5), bad)
    with pytest.raises(ValueError, match="teacher_similarity holds 50"):
        iusp_loss(student, teacher_similarity=matrix, **options)
    loss = iusp_loss(spoiled, teacher, check_finite=False, **options)
    assert not loss.isfinite()


def test_energy_by_hand():
    """Teacher's norms 1 and 3: the factors are 1/2 and 3/2."""
    student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    teacher = torch.tensor([[[1.0], [3.0]]])
    # G_teacher: both rows (1, 3) / sqrt(10); G_student is the unit matrix.
    first, second = 2 - 2 / 10**0.5, 2 - 6 / 10**0.5
    expected = (0.5 * first + 1.5 * second) / 4
    loss = iusp_loss(student, teacher, frame_weights="energy")
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_energy_invariances(similarity):
    """Of frames of one norm: the paper's form; scale does not matter."""
    student = draw(0, 2, 5, 3)
    teacher = torch.nn.functional.normalize(draw(1, 2, 5, 4), dim=2)
    plain, energy = (
        gradient(student, teacher, similarity=similarity, frame_weights=name)
        for name in ("equal", "energy")
    )
    torch.testing.assert_close(energy, plain)
    teacher = draw(2, 2, 5, 4)
    options = {"similarity": similarity, "frame_weights": "energy"}
    one = iusp_loss(student, teacher, **options)
    other = iusp_loss(student, teacher * 1e-9, **options)
    torch.testing.assert_close(one, other)
    assert iusp_loss(teacher, teacher, **options) < 1e-6 * 4 / 5
    assert one != iusp_loss(student, teacher, similarity=similarity)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_energy_of_a_kept_record_and_of_padded_clips(similarity):
    """From features, from the record, and from each clip alone."""
    student, teacher = draw(0, 2, 6, 3), draw(1, 2, 6, 4)
    lengths = torch.tensor([1.0, 0.5])
    options = {
        "similarity": similarity,
        "frame_weights": "energy",
        "reduction": "batch",
    }
    loss, grad = gradient(student, teacher, lengths, **options)
    kept = cosine_similarity(teacher, lengths)
    again = gradient(student, None, lengths, teacher_similarity=kept, **options)
    torch.testing.assert_close(again, (loss, grad))
    alone = iusp_loss(student[1:, :3], teacher[1:, :3], **options)
    torch.testing.assert_close(loss[1:], alone)
    assert torch.equal(grad[1, 3:], torch.zeros(3, 3, dtype=grad.dtype))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_energy_gradcheck(similarity):
    student = draw(0, 2, 4, 3).requires_grad_()
    teacher, lengths = draw(1, 2, 4, 5), torch.tensor([1.0, 0.75])

    def loss(feats):
        return iusp_loss(
            feats,
            teacher,
            lengths,
            similarity=similarity,
            frame_weights="energy",
        )

    assert torch.autograd.gradcheck(loss, student)
    assert torch.autograd.gradgradcheck(loss, student)


@pytest.mark.parametrize("silent", ["teacher", "student", "both"])
def test_energy_of_silent_clips(silent):
    """Finite, and a silent teacher weighs its frames equally."""
    student, teacher = draw(0, 1, 4, 3), draw(1, 1, 4, 3)
    student = student * (silent == "teacher")
    teacher = teacher * (silent == "student")
    loss, grad = gradient(student, teacher, frame_weights="energy")
    assert loss.isfinite() and grad.isfinite().all()
    if silent != "student":
        torch.testing.assert_close(loss, iusp_loss(student, teacher))


def test_energy_under_autocast_and_compiled():
    """Float32 whatever is around; the compiler changes no value."""
    student, teacher = (draw(i, 2, 7, 3, dtype=torch.float32) for i in (0, 1))
    loss = IUSPLoss(frame_weights="energy")
    plain = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher), plain)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(student, teacher), plain)
