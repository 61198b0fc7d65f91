"""The engine of SP and IUSP: chunks, strides, choice of the form.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import (
    cosine_similarity,
    distance,
    iusp,
    iusp_loss,
    similarity_factors,
    similarity_matrix,
)

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
EVERY_FORM = pytest.mark.parametrize(
    "similarity, form", [(s, f) for s in SIMILARITIES for f in FORMS]
)
NAN = float("nan")


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def gradient(student, *args, weights=None, **options):
    """Loss and gradient with respect to the student's features."""
    student = student.detach().clone().requires_grad_()
    value = iusp_loss(student, *args, **options)
    value.backward(weights)
    return value.detach(), student.grad


# Chunks


@pytest.fixture
def parts(monkeypatch):
    """Shapes of what the kernels are given."""
    seen = []
    kernel = distance.Comparison._kernel

    def spy(self, student, *rest):
        seen.append(tuple(student.shape[:2]))
        return kernel(self, student, *rest)

    monkeypatch.setattr(distance.Comparison, "_kernel", spy)
    return seen


COUNTS = [9, 4, 1, 6, 9]
LENGTHS = torch.tensor(COUNTS) / 9
# Frames that go through together: of one clip, of two, of all.
CHUNKS = {
    1: [(1, 9)] * 5,
    2: [(2, 9), (2, 9), (1, 9)],
    5: [(5, 9)],
    1000: [(5, 9)],
}


def spoil(feats):
    """NaN in padding."""
    feats = feats.clone()
    for clip, n in enumerate(COUNTS):
        feats[clip, n:] = NAN
    return feats


def as_features(feats, lengths, similarity):
    """A teacher's features, NaN in padding."""
    return {"teacher_feats": feats if lengths is None else spoil(feats)}


def as_cosines(feats, lengths, similarity):
    """Cosines and norms."""
    return {"teacher_similarity": cosine_similarity(feats)}


def as_factors(feats, lengths, similarity):
    """Factors of what is not padding."""
    kept = similarity_factors(feats, lengths, similarity=similarity)
    return {"teacher_similarity": kept}


GIVEN = [(as_cosines, "gram")]
GIVEN += [(kind, f) for kind in (as_features, as_factors) for f in FORMS]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("clips", CHUNKS)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("teacher, form", GIVEN)
@pytest.mark.parametrize("may_look", [True, False])
def test_chunks_change_nothing(
    similarity, form, clips, lengths, teacher, may_look, parts, monkeypatch
):
    student, feats = draw(0, 5, 9, 3), draw(1, 5, 9, 4)
    if lengths is not None:
        student = spoil(student)
    options = {"similarity": similarity, "form": form, "reduction": "batch"}
    options |= teacher(feats, lengths, similarity)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.0, 0.5]).double()
    one = 9 * 9 if form == "gram" else 9 * (3 + 4)
    if lengths is not None and teacher is not as_cosines:
        one = max(one, 9 * (3 + 4))
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", clips * one)
    if not may_look:  # as on a device, where looking would wait
        monkeypatch.setattr(distance, "_may_look", lambda tensor: False)
    got = gradient(student, lengths=lengths, weights=weights, **options)
    shapes = CHUNKS[clips]
    if clips == 1 and lengths is not None and may_look:
        shapes = [(1, n) for n in COUNTS]  # cut to the clip's own frames
    assert parts == shapes
    alone = []
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", 2**19)
    for i, n in enumerate(COUNTS if lengths is not None else [9] * 5):
        options |= teacher(feats[i : i + 1, :n], None, similarity)
        value, grad = gradient(
            student[i : i + 1, :n], weights=weights[i : i + 1], **options
        )
        padded = torch.zeros(1, 9, 3).double()
        padded[:, :n] = grad
        alone.append((value, padded))
    values, grads = (torch.cat(x) for x in zip(*alone, strict=True))
    assert (values[[0, 1, 3, 4]] > 0.01).all()
    torch.testing.assert_close(got[0], values, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got[1], grads, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("clips", [1, 2])
def test_chunks_without_gradient(clips, monkeypatch):
    student, teacher = spoil(draw(0, 5, 9, 3)), spoil(draw(1, 5, 9, 4))
    value = iusp_loss(student, teacher, LENGTHS, form="gram")
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", clips * 81)
    again = iusp_loss(student, teacher, LENGTHS, form="gram")
    torch.testing.assert_close(again, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_forms_agree_on_factors_of_what_is_now_padding(similarity):
    student, feats = draw(0, 5, 9, 3), draw(1, 5, 9, 4)
    kept = similarity_factors(feats, similarity=similarity)
    gram, covariance = (
        iusp_loss(
            student,
            lengths=LENGTHS,
            teacher_similarity=kept,
            similarity=similarity,
            form=form,
        )
        for form in FORMS
    )
    torch.testing.assert_close(gram, covariance)


def test_chunks_of_another_device():
    """Larger there, and without regard to a core's cache."""
    here, there = (torch.empty(64, 124, 8, device=d) for d in ("cpu", "meta"))
    comparison = distance.Comparison(
        distance.Frames(there), None, "row_l2", "gram", 1e-4
    )
    assert comparison._step(here) < 64 <= comparison._step(there)
    long = torch.empty(4, 2**14, 1, device="meta")
    assert comparison._step(long) == 1


# Memory formats


@EVERY_FORM
@pytest.mark.parametrize("chunk", [1, 2**19])
def test_strides_do_not_matter(similarity, form, chunk, monkeypatch):
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", chunk)
    image = draw(0, 2, 3, 8, 4)  # channel, time, frequency
    teacher = draw(1, 2, 5, 8)
    lengths = torch.tensor([1.0, 0.5])
    options = {"similarity": similarity, "form": form}
    options["layout"] = "channel_first"
    leaf = image.requires_grad_()
    value = iusp_loss(leaf, teacher, lengths, **options)
    (grad,) = torch.autograd.grad(value, leaf)
    image = image.detach()
    wide = draw(2, 2, 3, 16, 9)
    wide[:, :, ::2, 1::2] = image
    mapped = image.to(memory_format=torch.channels_last)
    swapped = image.mT.contiguous().mT
    for same in (mapped, wide[:, :, ::2, 1::2], swapped):
        assert not same.is_contiguous()
        leaf = same.detach().requires_grad_()
        again = iusp_loss(leaf, teacher, lengths, **options)
        (other,) = torch.autograd.grad(again, leaf)
        torch.testing.assert_close(again, value, rtol=1e-12, atol=0)
        torch.testing.assert_close(other, grad, rtol=1e-11, atol=1e-13)


@EVERY_FORM
def test_one_clip_expanded_to_a_batch(similarity, form):
    leaf, teacher = draw(0, 1, 6, 3).requires_grad_(), draw(1, 3, 6, 4)
    options = {"similarity": similarity, "form": form}
    value = iusp_loss(leaf.expand(3, 6, 3), teacher, **options)
    (grad,) = torch.autograd.grad(value, leaf)
    expected, repeated = gradient(leaf.repeat(3, 1, 1), teacher, **options)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, repeated.sum(dim=0, keepdim=True))


# Which form


@pytest.mark.parametrize("choice", FORMS)
def test_auto_is_what_the_costs_say(choice, monkeypatch):
    asked = []

    def choose(*sizes):
        asked.append(sizes)
        return choice

    monkeypatch.setattr(iusp, "choose_form", choose)
    taken = []
    for key, kernel in list(distance.KERNELS.items()):

        def spy(*args, key=key, kernel=kernel):
            taken.append(key)
            return kernel(*args)

        monkeypatch.setitem(distance.KERNELS, key, spy)
    student, teacher = draw(0, 2, 6, 3), draw(1, 2, 6, 4)
    iusp_loss(student, teacher, similarity="cosine")
    matrix = similarity_matrix(teacher)
    iusp_loss(student, teacher_similarity=matrix, form="gram")
    assert asked == [(2, 6, 3, 4, "cosine")]
    assert taken == [("cosine", choice), ("row_l2", "gram")]
    for form in FORMS:
        iusp_loss(student, teacher, form=form)
    assert len(asked) == 1
    assert taken[2:] == [("row_l2", form) for form in FORMS]
