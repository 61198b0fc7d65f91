"""Products by either library: right on both sides of every threshold.

Authors
 * The iusp_plugin authors 2026
"""

from types import SimpleNamespace

import pytest
import torch

from iusp_plugin.losses import matmul as products

# Rounding of a sum of |a b|. A product rounded to bfloat16 is off by 1e-4.
ROUNDING = {torch.float32: 4e-6, torch.float64: 1e-14}


def draw(seed, *shape, dtype=torch.float32):
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def assert_product(got, a, b):
    """``got`` is a @ b as float64 computes it, within rounding."""
    assert got.dtype == a.dtype
    a, b = a.double(), b.double()
    exact = a @ b
    assert got.shape == exact.shape
    allowed = ROUNDING[got.dtype] * (a.abs() @ b.abs())
    assert ((got.double() - exact).abs() <= allowed).all()


@pytest.fixture
def calls(monkeypatch):
    """(n, m) of each product that oneDNN is asked for, without gaps.

    With gaps in memory it is right as well, and a hundred times slower.
    """
    linear = products._ONEDNN_LINEAR
    if linear is None:
        pytest.skip("this torch has no oneDNN")
    seen = []

    def spy(a, b, *options):
        for x in (a, b):
            assert x.is_contiguous() or x.mT.is_contiguous()
        seen.append((a.shape[0], b.shape[0]))
        return linear(a, b, *options)

    monkeypatch.setattr(products, "_ONEDNN_LINEAR", spy)
    return seen


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "n, k, m, by_onednn",
    [
        (1, 1, 1, False),
        (3, 5, 7, False),
        (64, 488, 128, False),  # below 8e6 operations
        (64, 489, 128, True),
        (90, 500, 91, False),  # below 8192 results
        (91, 500, 91, True),
        (8191, 600, 1, False),
        (1, 600, 8192, True),
        (512, 7, 512, False),
        (512, 16, 512, True),
    ],
)
def test_both_sides_of_the_thresholds(batch, n, k, m, by_onednn, calls):
    a, b = draw(0, batch, n, k), draw(1, batch, k, m)
    assert_product(products.matmul(a, b), a, b)
    assert calls == [(n, m)] * (batch if by_onednn else 0)


def transposed(seed, *shape):
    """The inner axes swapped in memory."""
    return draw(seed, shape[0], shape[2], shape[1]).mT


def every_other(seed, *shape):
    """Every other number along each axis, and an odd offset."""
    whole = draw(seed, *(2 * size + 1 for size in shape))
    return whole[1::2, 1::2, 1::2]


def one_for_all(seed, *shape):
    """The same matrix for each of the batch, in memory once."""
    return draw(seed, 1, *shape[1:]).expand(shape)


OPERANDS = [draw, transposed, every_other, one_for_all]


@pytest.mark.parametrize("left", OPERANDS)
@pytest.mark.parametrize("right", OPERANDS)
@pytest.mark.parametrize("size", [(5, 6, 7), (130, 260, 131)])
def test_any_strides(left, right, size, calls):
    n, k, m = size
    a, b = left(0, 2, n, k), right(1, 2, k, m)
    assert_product(products.matmul(a, b), a, b)
    assert len(calls) == (2 if n > 100 else 0)


def test_float64_stays_float64(calls):
    a, b = (draw(i, 2, 130, 130, dtype=torch.float64) for i in (0, 1))
    wide = draw(2, 1, 300, 420, dtype=torch.float64)
    assert_product(products.matmul(a, b), a, b)
    assert_product(products.gram_matrix(wide), wide, wide.mT)
    assert not calls


def test_without_onednn(monkeypatch):
    monkeypatch.setattr(products, "_ONEDNN_LINEAR", None)
    a, b = draw(0, 2, 130, 260), draw(1, 2, 260, 131)
    assert torch.equal(products.matmul(a, b), torch.bmm(a, b))
    rows = draw(2, 1, 300, 420)
    assert torch.equal(products.gram_matrix(rows), torch.bmm(rows, rows.mT))


def test_a_torch_that_lacks_onednn(monkeypatch):
    """The operator is no public one: it may go."""

    class Refusing:
        def __getattr__(self, name):
            raise RuntimeError(name)

    lacking = SimpleNamespace(mkldnn=SimpleNamespace())
    for operators in (lacking, SimpleNamespace(mkldnn=Refusing())):
        fake = SimpleNamespace(ops=operators)
        monkeypatch.setattr(products, "torch", fake)
        assert products._onednn_linear() is None


def test_the_compiler_gets_what_it_can_trace(calls, monkeypatch):
    rows = draw(0, 1, 300, 420)
    assert_product(products.gram_matrix(rows), rows, rows.mT)
    assert len(calls) == 2
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_product(products.gram_matrix(rows), rows, rows.mT)
    assert len(calls) == 2


def assert_gram(rows):
    """rows @ rows.mT, symmetric to the last bit."""
    gram = products.gram_matrix(rows)
    assert_product(gram, rows, rows.mT)
    assert torch.equal(gram, gram.mT)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "t, width, mirrored",
    [
        (1, 1, False),
        (9, 4, False),
        (129, 300, False),
        (255, 480, False),  # too few rows
        (256, 468, False),  # too few elements
        (256, 469, True),
        (257, 480, True),
        (271, 450, True),
        (640, 191, False),  # too narrow
        (641, 192, True),
    ],
)
def test_gram_matrix(batch, t, width, mirrored, calls):
    assert_gram(draw(0, batch, t, width))
    half = (t // 2 + 15) // 16 * 16
    parts = [(half, t), (t - half, t - half)]
    whole = [(t, t)] if t > 100 else []
    assert calls == batch * (parts if mirrored else whole)


@pytest.mark.parametrize("rows", [transposed, every_other, one_for_all])
def test_gram_matrix_of_any_strides(rows):
    assert_gram(rows(0, 2, 259, 470))
    assert_gram(rows(0, 2, 9, 4))


def test_onednn_is_given_dense_matrices(monkeypatch):
    """With gaps it takes its reference kernel, a hundred times slower."""
    seen = []

    def spy(a, b, *rest):
        seen.extend((a, b))
        return a @ b.mT

    monkeypatch.setattr(products, "_ONEDNN_LINEAR", spy)
    batch_second = torch.randn(400, 3, 256).transpose(0, 1)
    channel_first = torch.randn(2, 256, 400).mT
    sliced = torch.randn(2, 400, 300)[..., :256]
    for rows in (batch_second, channel_first, sliced):
        products.gram_matrix(rows)
        products.matmul(rows, rows.mT)
        products.matmul(rows.mT, rows)
    assert len(seen) > 20
    for matrix in seen:
        n, m = matrix.shape
        assert matrix.stride() in ((m, 1), (1, n))
