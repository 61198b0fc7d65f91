"""Which form is chosen: the counts, and what they say of plain cases.

Authors
 * The iusp_plugin authors 2026
"""

import pytest

from iusp_plugin.losses.costs import (
    COVARIANCE_CALL,
    FLOAT64,
    choose_form,
    covariance_cost,
    gram_cost,
)

SIMILARITIES = ("row_l2", "cosine")


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    "batch, t, student, teacher, form",
    [
        (16, 124, 512, 4096, "gram"),  # short and wide
        (1, 1, 1, 1, "gram"),
        (2, 8, 3, 4, "gram"),  # too small to count
        (4, 6000, 64, 128, "covariance"),  # long and narrow
        (1, 60_000, 8, 8, "covariance"),
        (1, 60_000, 512, 512, "covariance"),
        (32, 1000, 16, 16, "covariance"),
    ],
)
def test_plain_cases(batch, t, student, teacher, form, similarity):
    assert choose_form(batch, t, student, teacher, similarity) == form


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("t", [1, 124, 60_000])
def test_a_matrix_leaves_no_choice(t, similarity):
    assert choose_form(4, t, 8, None, similarity) == "gram"


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("widths", [(8, 8), (64, 128), (512, 4096)])
def test_longer_clips_turn_once_to_covariances(widths, similarity):
    """And wider features once to the Gram form."""
    choices = [choose_form(4, 2**i, *widths, similarity) for i in range(20)]
    turn = choices.index("covariance")
    assert 0 < turn < 20
    assert choices == ["gram"] * turn + ["covariance"] * (20 - turn)
    choices = [
        choose_form(4, 2000, 2**i, 2**i, similarity) for i in range(3, 13)
    ]
    turn = choices.index("gram")
    assert choices == ["covariance"] * turn + ["gram"] * (10 - turn)


@pytest.mark.parametrize("argument", range(4))
def test_costs_grow_with_every_size(argument):
    sizes = [4, 100, 16, 32]
    larger = list(sizes)
    larger[argument] *= 2
    assert gram_cost(*larger) > gram_cost(*sizes)
    for similarity in SIMILARITIES:
        costs = [covariance_cost(*s, similarity) for s in (sizes, larger)]
        assert costs[0] < costs[1]


def test_powers_of_the_number_of_frames():
    """t^2 against t, beside what a call costs."""
    assert gram_cost(4, 200, 16, 32) == 4 * gram_cost(4, 100, 16, 32)
    one, two = (
        covariance_cost(4, t, 16, 32) - COVARIANCE_CALL for t in (100, 200)
    )
    assert two == pytest.approx(2 * one)


def test_products_counted_by_hand():
    """Wide enough that nothing else counts."""
    t, s, u = 7, 2e6, 3e6
    assert gram_cost(1, t, s, u) == pytest.approx(
        2 * t * t * (2 * s + u), rel=1e-3
    )
    row_l2, cosine = (
        covariance_cost(1, t, s, u, similarity) for similarity in SIMILARITIES
    )
    products = 2 * t * (4 * s * s + 4 * s * u + 2 * u * u)
    assert row_l2 == pytest.approx(products, rel=1e-3)
    products = 2 * t * (2 * s * s + 4 * s * u + 2 * u * u)
    assert cosine == pytest.approx(FLOAT64 * products, rel=1e-3)


@pytest.mark.parametrize("sizes", [(1, 10, 4, 4), (16, 124, 512, 4096)])
def test_cosine_costs_more_without_frames_by_frames(sizes):
    """Its covariances are in float64."""
    row_l2, cosine = (
        covariance_cost(*sizes, similarity) for similarity in SIMILARITIES
    )
    assert cosine > row_l2
    between = 16, 400, 64, 64
    assert choose_form(*between, "row_l2") == "covariance"
    assert choose_form(*between, "cosine") == "gram"
