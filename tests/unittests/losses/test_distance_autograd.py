"""The engine's own backward: graphs, second derivatives, autocast.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from iusp_plugin.losses import (
    cosine_similarity,
    distance,
    iusp_loss,
    similarity_factors,
    sp_loss,
)

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
EVERY_FORM = pytest.mark.parametrize(
    "similarity, form", [(s, f) for s in SIMILARITIES for f in FORMS]
)
CHUNKS = pytest.mark.parametrize("chunk", [1, 2**19])


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def sides(dtype=torch.float32):
    """Student, a leaf; teacher; lengths."""
    student = draw(0, 3, 8, 4, dtype=dtype).requires_grad_()
    return student, draw(1, 3, 8, 5, dtype=dtype), torch.tensor([1, 0.5, 0.8])


# First backward, and others after it


@EVERY_FORM
@CHUNKS
@pytest.mark.parametrize("scale", [1.0, 1e-20])
@pytest.mark.parametrize("reduction", ["mean", "batch"])
def test_a_second_backward_is_the_first(
    similarity, form, chunk, scale, reduction, monkeypatch
):
    """The gradient of the forward is handed out once, then made again."""
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", chunk)
    leaf, teacher, lengths = sides()
    leaf = (leaf.detach() * scale).requires_grad_()
    loss = iusp_loss(
        leaf, teacher, lengths, reduction, similarity=similarity, form=form
    )
    loss.sum().backward(retain_graph=True)
    first = leaf.grad.clone()
    assert loss.grad_fn.gradient is None
    loss.sum().backward(retain_graph=True)
    assert torch.equal(leaf.grad, 2 * first)
    loss.sum().backward()
    assert torch.equal(leaf.grad, 3 * first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.sum().backward()


@EVERY_FORM
def test_losses_that_share_a_student(similarity, form):
    """The gradient is scaled in place: in no one else's memory."""
    leaf, teacher, lengths = sides()
    options = {"similarity": similarity, "form": form}
    losses = [
        iusp_loss(leaf, teacher, **options),
        iusp_loss(leaf, teacher.flip(1), lengths, **options),
    ]
    grads = [
        torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in losses
    ]
    kept = [grad.clone() for grad in grads]
    for loss in losses:
        loss.backward(retain_graph=True)
    assert all(map(torch.equal, grads, kept))
    assert torch.equal(leaf.grad, kept[0] + kept[1])
    # Both at once, and each with its factor.
    leaf.grad = None
    (2 * losses[0] - 3 * losses[1]).backward()
    torch.testing.assert_close(leaf.grad, 2 * kept[0] - 3 * kept[1])


@EVERY_FORM
def test_the_first_gradient_survives_the_second_loss(similarity, form):
    leaf, teacher, _ = sides()
    options = {"similarity": similarity, "form": form}
    iusp_loss(leaf, teacher, **options).backward()
    first, copy = leaf.grad, leaf.grad.clone()
    leaf.grad = None
    iusp_loss(leaf, 2 * teacher.flip(1), **options).backward()
    assert torch.equal(first, copy)
    assert not torch.allclose(leaf.grad, copy, rtol=0.01)


@EVERY_FORM
def test_factors_of_the_loss_are_factors_of_the_gradient(similarity, form):
    leaf, teacher, lengths = sides(torch.float64)
    options = {"similarity": similarity, "form": form}
    (grad,) = torch.autograd.grad(
        iusp_loss(leaf, teacher, lengths, **options), leaf
    )
    (-3 * iusp_loss(leaf, teacher, lengths, **options)).backward()
    torch.testing.assert_close(leaf.grad, -3 * grad)
    weights = torch.tensor([2.0, 0.0, -0.5]).double()
    by_clip = iusp_loss(leaf, teacher, lengths, "batch", **options)
    (weighted,) = torch.autograd.grad((by_clip * weights).sum(), leaf)
    expected = grad * (3 * weights).view(3, 1, 1)
    torch.testing.assert_close(weighted, expected)
    assert (weighted[1] == 0).all() and weighted[0].abs().sum() > 0


@EVERY_FORM
def test_gradient_goes_on_to_what_made_the_student(similarity, form):
    """Not only leaves: a layer before, checkpointed or not."""
    _, teacher, lengths = sides()
    inputs = draw(2, 3, 8, 6, dtype=torch.float32)
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4)

    def loss(feats):
        return iusp_loss(
            layer(feats), teacher, lengths, similarity=similarity, form=form
        )

    loss(inputs).backward()
    grad = layer.weight.grad.clone()
    leaf = layer(inputs).detach().requires_grad_()
    options = {"similarity": similarity, "form": form}
    iusp_loss(leaf, teacher, lengths, **options).backward()
    by_hand = leaf.grad.flatten(0, 1).T @ inputs.flatten(0, 1)
    torch.testing.assert_close(grad, by_hand)
    layer.weight.grad = None
    checkpoint(loss, inputs, use_reentrant=False).backward()
    assert torch.equal(layer.weight.grad, grad)


@EVERY_FORM
def test_a_teacher_made_in_inference_mode(similarity, form):
    leaf, teacher, lengths = sides()
    options = {"similarity": similarity, "form": form}
    iusp_loss(leaf, teacher, lengths, **options).backward()
    expected, leaf.grad = leaf.grad, None
    with torch.inference_mode():
        frozen = teacher * 1
    iusp_loss(leaf, frozen, lengths, **options).backward()
    assert torch.equal(leaf.grad, expected)


@pytest.fixture
def wanted(monkeypatch):
    """Whether each kernel called was to compute a gradient."""
    asked = []
    for key, kernel in list(distance.KERNELS.items()):

        def spy(student, target, eps, need_gradient, kernel=kernel):
            asked.append(need_gradient)
            return kernel(student, target, eps, need_gradient)

        monkeypatch.setitem(distance.KERNELS, key, spy)
    return asked


@EVERY_FORM
def test_no_gradient_without_need(similarity, form, wanted):
    leaf, teacher, lengths = sides()
    options = {"similarity": similarity, "form": form}
    value = iusp_loss(leaf, teacher, lengths, **options)
    assert wanted == [True] and value.requires_grad
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            plain = iusp_loss(leaf.detach(), teacher, lengths, **options)
            assert not plain.requires_grad and torch.equal(plain, value)
    assert wanted == [True] + 3 * [False]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_of_a_leaf_in_validation(mode, wanted):
    leaf, teacher, lengths = sides()
    with mode():
        assert not iusp_loss(leaf, teacher, lengths).requires_grad
    assert wanted == [False]


# Second derivatives


@EVERY_FORM
@pytest.mark.parametrize("reduction", ["mean", "batch"])
@pytest.mark.parametrize("scaled", [False, True])
def test_second_derivatives(similarity, form, reduction, scaled):
    student, teacher = draw(0, 2, 5, 3).requires_grad_(), draw(1, 2, 5, 4)
    lengths = torch.tensor([1.0, 0.6])

    def loss(feats):
        return iusp_loss(
            feats,
            teacher,
            lengths,
            reduction,
            similarity=similarity,
            form=form,
            scaled=scaled,
        )

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("reduction", ["mean", "batch"])
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5, 0.5])])
def test_second_derivatives_of_sp(similarity, reduction, lengths):
    student, teacher = draw(0, 3, 2, 2).requires_grad_(), draw(1, 3, 4)

    def loss(feats):
        return sp_loss(
            feats, teacher, lengths, reduction, similarity=similarity
        )

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


@EVERY_FORM
@pytest.mark.parametrize(
    "builder", [None, cosine_similarity, similarity_factors]
)
def test_create_graph_gives_the_gradient_itself(similarity, form, builder):
    """In every form of the teacher, before or after a plain backward."""
    leaf, teacher, lengths = sides(torch.float64)
    options = {"similarity": similarity, "form": form}
    given = {"teacher_feats": teacher}
    if builder is cosine_similarity:
        given = {"teacher_similarity": builder(teacher)}
        options["form"] = "gram"
    elif builder is similarity_factors:
        kept = builder(teacher, lengths, similarity=similarity)
        given = {"teacher_similarity": kept}
    loss = iusp_loss(leaf, lengths=lengths, **given, **options)

    def grad(**how):
        return torch.autograd.grad(loss, leaf, retain_graph=True, **how)[0]

    before, plain = grad(create_graph=True), grad()
    after = grad(create_graph=True)
    assert before.requires_grad and not plain.requires_grad
    torch.testing.assert_close(before, plain)
    assert torch.equal(before, after)


# Autocast


@EVERY_FORM
@pytest.mark.parametrize("create_graph", [False, True])
def test_later_backwards_under_autocast(similarity, form, create_graph):
    """Gradients computed after the forward are computed as in it."""
    leaf, teacher, lengths = sides()
    options = {"similarity": similarity, "form": form}
    loss = iusp_loss(leaf, teacher, lengths, **options)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (second,) = torch.autograd.grad(
            loss, leaf, retain_graph=True, create_graph=create_graph
        )
    size = first.abs().max()
    assert ((second - first).abs() <= 1e-5 * size).all()
