"""What may be given of a teacher: the same similarity in four forms.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import (
    CosineSimilarity,
    SimilarityFactors,
    cosine_similarity,
    iusp_loss,
    similarity_factors,
    similarity_matrix,
    sp_loss,
)
from iusp_plugin.losses.teacher_similarity import (
    Frames,
    Matrix,
    each,
    factor_width,
    given_teacher,
    row_squares,
)

SIMILARITIES = ("row_l2", "cosine")
EPS = 1e-4
NAN = float("nan")


def draw(seed, *shape, dtype=torch.float64):
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def frames_with_silence():
    """Two clips of six frames, one frame zero and one all but."""
    frames = draw(0, 2, 6, 4)
    frames[0, 2] = 0
    frames[1, 3] *= 1e-6
    return frames


KINDS = {
    "frames": lambda frames, similarity: Frames(frames),
    "matrix": lambda frames, similarity: Matrix(
        similarity_matrix(frames, similarity=similarity)
    ),
    "cosine": lambda frames, similarity: cosine_similarity(frames),
    "factors": lambda frames, similarity: similarity_factors(
        frames, similarity=similarity
    ),
}
THIN = ["frames", "factors"]


def inverse(norms):
    """1 / norm, zero where the frame is silent."""
    live = norms > EPS * norms.amax(dim=1, keepdim=True)
    return torch.where(live, 1 / norms, torch.zeros_like(norms))


def matrix_of(rows, similarity):
    """G as ``Rows`` states it."""
    if similarity == "cosine":
        return rows.matrix
    return rows.matrix * inverse(rows.norms).unsqueeze(2)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_form(kind, similarity):
    frames = frames_with_silence()
    teacher = KINDS[kind](frames, similarity)
    rows = teacher.rows(similarity, EPS)
    expected = similarity_matrix(frames, similarity=similarity)
    torch.testing.assert_close(matrix_of(rows, similarity), expected)
    if rows.symmetric:
        torch.testing.assert_close(rows.matrix, rows.matrix.mT)
    live = expected.abs().sum(dim=2) > 0
    assert torch.equal(inverse(rows.norms) > 0, live) or kind != "frames"


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", THIN)
def test_factors_of_every_form(kind, similarity):
    frames = frames_with_silence()
    teacher = KINDS[kind](frames, similarity)
    left, right, norms, squares = teacher.factors(similarity, EPS)
    product = left @ right.mT
    if similarity == "row_l2":
        product = product * inverse(norms).unsqueeze(2)
    expected = similarity_matrix(frames, similarity=similarity)
    torch.testing.assert_close(product, expected)
    if squares is None:
        assert similarity == "row_l2"
        squares = inverse(norms).sign()
    torch.testing.assert_close(squares, expected.square().sum(dim=2))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_any_factors(similarity):
    """Rows of their product, of unit norm where the similarity has it so."""
    left, right = draw(0, 2, 6, 3), draw(1, 2, 6, 3)
    product = left @ right.mT
    squares = product.square().sum(dim=2)
    torch.testing.assert_close(row_squares(left, right), squares)
    if similarity == "row_l2":
        product = product / squares.sqrt().unsqueeze(2)
    for known in (None, squares):
        teacher = SimilarityFactors(left, right, known)
        rows = teacher.rows(similarity, EPS)
        torch.testing.assert_close(matrix_of(rows, similarity), product)
        assert not rows.symmetric
        factors = teacher.factors(similarity, EPS)
        assert factors.left is left and factors.right is right
        if similarity == "cosine":
            torch.testing.assert_close(factors.squares, squares)
        else:
            torch.testing.assert_close(factors.norms, squares.sqrt())


def test_widths():
    frames = frames_with_silence()
    widths = [factor_width(KINDS[kind](frames, "row_l2")) for kind in KINDS]
    assert widths == [4, None, None, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_clips(kind):
    frames = frames_with_silence()
    teacher = KINDS[kind](frames, "row_l2")
    part = teacher.clips(slice(1, 2), 4)
    whole = teacher.clips(slice(0, 2), None)
    assert type(part) is type(teacher)
    assert all(map(torch.equal, whole, teacher))
    uncut = teacher.clips(slice(1, 2), None)
    assert all(
        torch.equal(x, y[1:]) for x, y in zip(uncut, teacher, strict=True)
    )
    for name, tensor in teacher._asdict().items():
        if name == "squares":  # those of rows that are longer
            assert part.squares is None
            continue
        wanted = tensor[1:, :4]
        if name in ("matrix", "cosine"):
            wanted = wanted[..., :4]
        assert torch.equal(getattr(part, name), wanted)
    rows = part.rows("row_l2", EPS)
    alone = similarity_matrix(frames[1:, :4])
    torch.testing.assert_close(matrix_of(rows, "row_l2"), alone)


@pytest.mark.parametrize("kind", KINDS)
def test_masked(kind):
    frames = frames_with_silence()
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    teacher = KINDS[kind](frames, "row_l2")
    spoiled = each(teacher, torch.clone)
    for name, tensor in spoiled._asdict().items():
        tensor[0, 4:] = NAN
        if name in ("matrix", "cosine"):
            tensor[0, :, 4:] = NAN
    masked = spoiled.masked(mask)
    assert type(masked) is type(teacher)
    for name, tensor in masked._asdict().items():
        if name == "squares":  # those of rows that are longer
            assert tensor is None
            continue
        assert (tensor[0, 4:] == 0).all()
        if name in ("matrix", "cosine"):
            assert (tensor[0, :, 4:] == 0).all()
            assert torch.equal(tensor[0, :4, :4], teacher[0][0, :4, :4])
        else:
            assert torch.equal(tensor[0, :4], getattr(teacher, name)[0, :4])
        assert torch.equal(tensor[1], getattr(teacher, name)[1])


def test_each_keeps_what_is_not_there():
    teacher = SimilarityFactors(torch.ones(1, 2, 1), torch.zeros(1, 2, 1))
    doubled = each(teacher, torch.Tensor.double)
    assert doubled.squares is None and doubled.left.dtype == torch.float64
    assert (doubled.right == 0).all()


# Kept in place of features


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_cosines_kept_in_float16(similarity):
    """Rows of G are off by about 2e-4, and the loss by less."""
    student = draw(0, 2, 124, 32, dtype=torch.float32)
    feats = draw(1, 2, 124, 64, dtype=torch.float32).relu()
    record = cosine_similarity(feats)
    small = record._replace(cosine=record.cosine.half())
    exact = similarity_matrix(feats, similarity=similarity)
    rounded = small._replace(cosine=small.cosine.float())
    got = matrix_of(rounded.rows(similarity, EPS), similarity)
    row = exact.norm(dim=2)
    error = ((got - exact).norm(dim=2) / row).max()
    assert 1e-5 < error < 3e-4
    value = iusp_loss(student, feats, similarity=similarity)
    kept = iusp_loss(student, similarity=similarity, teacher_similarity=small)
    assert kept.dtype == torch.float32
    assert kept != value
    torch.testing.assert_close(kept, value, rtol=1e-4, atol=0)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("form", ["gram", "covariance"])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_truncated_factors_are_the_matrix_they_give(similarity, form, rank):
    student, feats = draw(0, 2, 6, 3), draw(1, 2, 6, 5)
    whole = similarity_matrix(feats, similarity=similarity)
    u, s, vh = torch.linalg.svd(whole)
    left, right = u[..., :rank] * s[:, None, :rank], vh[:, :rank].mT
    kept = SimilarityFactors(left, right)
    options = {"similarity": similarity, "reduction": "batch"}
    value = iusp_loss(student, teacher_similarity=kept, form=form, **options)
    expected = iusp_loss(
        student, teacher_similarity=left @ right.mT, form="gram", **options
    )
    torch.testing.assert_close(value, expected)
    close = torch.allclose(
        value, iusp_loss(student, feats, **options), rtol=1e-3
    )
    assert close == (rank == 6)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_sp_takes_the_clips_of_a_batch(similarity):
    student, teacher = draw(0, 5, 3), draw(1, 5, 4)
    value = sp_loss(student, teacher, similarity=similarity)
    rows = teacher.unsqueeze(0)
    for kind in ("matrix", "cosine", "factors"):
        kept = each(KINDS[kind](rows, similarity), lambda x: x.squeeze(0))
        given = kept.matrix if kind == "matrix" else kept
        other = sp_loss(
            student, similarity=similarity, teacher_similarity=given
        )
        torch.testing.assert_close(other, value)
        with pytest.raises(ValueError, match="compares 5 clips and .* holds 4"):
            sp_loss(student[:4], teacher_similarity=given)


# Errors

SQUARE, THIN_ONE = torch.ones(2, 4, 4), torch.ones(2, 4)
TALL = torch.ones(2, 4, 3)
SHAPES = [
    (SQUARE[0], r"\(matrix\) has shape \(4, 4\), expected \(2, 4, 4\)"),
    (SQUARE[..., None], r"\(matrix\) has shape \(2, 4, 4, 1\)"),
    (torch.ones(2), r"\(matrix\) has shape \(2,\), expected \(2, 0, 0\)"),
    (SQUARE[:1], r"\(matrix\) .* \(1, 4, 4\), expected \(2, 4, 4\): 2 clips"),
    (CosineSimilarity(TALL, THIN_ONE), r"\(cosine\) has shape \(2, 4, 3\)"),
    (CosineSimilarity(SQUARE, TALL), r"\(norms\) .*, expected \(2, 4\)"),
    (CosineSimilarity(SQUARE, THIN_ONE[:, :3]), r"\(norms\) .* \(2, 3\)"),
    (CosineSimilarity(THIN_ONE, SQUARE), r"\(cosine\) has shape \(2, 4\)"),
    (SimilarityFactors(TALL, SQUARE), r"\(right\) .* expected \(2, 4, 3\)"),
    (SimilarityFactors(TALL[:1], TALL), r"\(left\) has shape \(1, 4, 3\)"),
    (SimilarityFactors(TALL, TALL, TALL), r"\(squares\) .* \(2, 4\): 2 clips"),
    (SimilarityFactors(THIN_ONE, THIN_ONE), r"\(left\) has shape \(2, 4\)"),
]


@pytest.mark.parametrize("given, match", SHAPES)
def test_shapes_that_do_not_belong_together(given, match):
    with pytest.raises(ValueError, match=f"teacher_similarity {match}"):
        given_teacher(given, 2)


WRONG = [[SQUARE, THIN_ONE], (SQUARE,), Frames(TALL), "cosine", 3.0]


@pytest.mark.parametrize("given", WRONG)
def test_types_that_are_none_of_the_forms(given):
    name = type(given).__name__
    match = f"teacher_similarity is {name}, expected a tensor, CosineSim"
    with pytest.raises(TypeError, match=match):
        given_teacher(given, 2)
    with pytest.raises(TypeError, match=match):
        iusp_loss(TALL, teacher_similarity=given)


@pytest.mark.parametrize("given", [WRONG[0], "cosine", 3.0, {"cosine": SQUARE}])
def test_sp_names_types_that_are_none_of_the_forms(given):
    with pytest.raises(TypeError, match="teacher_similarity is "):
        sp_loss(TALL, teacher_similarity=given)


@pytest.mark.parametrize("builder", [cosine_similarity, similarity_factors])
def test_a_spoiled_record_is_named(builder):
    student, kept = draw(0, 2, 6, 3), builder(draw(1, 2, 6, 4))
    kept[0][1, 2] = NAN
    with pytest.raises(ValueError, match="teacher_similarity"):
        iusp_loss(student, teacher_similarity=kept)


def test_the_teacher_gets_no_gradient():
    record = cosine_similarity(draw(0, 2, 6, 4))
    record = each(record, torch.Tensor.requires_grad_)
    given = given_teacher(record, 2)
    assert type(given) is CosineSimilarity
    assert not any(part.requires_grad for part in given)
    student = draw(1, 2, 6, 3).requires_grad_()
    iusp_loss(student, teacher_similarity=record).backward()
    assert record.norms.grad is None and student.grad is not None
