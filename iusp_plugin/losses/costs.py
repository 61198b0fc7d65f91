"""Which of the two exact forms is cheaper: a count and measured constants.

Cost is counted in floating point operations of a matrix product, forward and
backward together. An element read or written beside the products counts as
``PASS`` of them, and a product in float64 as ``FLOAT64`` of its own; both
were measured (``benchmarks/losses.py``), on two cores of an AMD EPYC. Errors of a
factor of two in them move the choice only where both forms cost about the
same. ``form=`` of a loss overrules the choice.

Authors
 * The iusp_plugin authors 2026
"""

# Operations of a matrix product in the time of one elementwise pass.
PASS = 40.0
# A float64 product costs this many float32 ones.
FLOAT64 = 3.0


def gram_cost(t: int, student_width: int, teacher_width: int | None) -> float:
    """Operations a clip of the form with t x t matrices.

    2 t^2 (2 D_S + D_T) for S S^T, T T^T and the gradient M S, and about ten
    passes over t x t matrices.

    Arguments
    ---------
    t : int
        Frames of the clip.
    student_width, teacher_width : int
        D_S and D_T; None for a teacher given by its t x t matrix.

    Returns
    -------
    float
        Operations.

    Example
    -------
    >>> gram_cost(100, 8, None) == 2 * 100**2 * 16 + 10 * 100**2 * PASS
    True
    """
    products = 2.0 * t * t * (2 * student_width + (teacher_width or 0))
    return products + 10.0 * t * t * PASS


def covariance_cost(
    t: int, student_width: int, teacher_width: int, similarity: str = "row_l2"
) -> float:
    """Operations a clip of the form without t x t matrices.

    "row_l2": 2 t (4 D_S^2 + 4 D_S D_T + 2 D_T^2) for S^T S, T^T S, T^T T and
    what is multiplied with them; "cosine": 2 t (2 D_S^2 + 4 D_S D_T +
    2 D_T^2) in float64; and about ten passes over the features.

    Arguments
    ---------
    t : int
        Frames of the clip.
    student_width, teacher_width : int
        D_S and D_T.
    similarity : str
        "row_l2" or "cosine".

    Returns
    -------
    float
        Operations.

    Example
    -------
    >>> covariance_cost(100, 8, 8) == 2 * 100 * 640 + 10 * 100 * 16 * PASS
    True
    """
    s, u = student_width, teacher_width
    passes = 10.0 * t * (s + u) * PASS
    if similarity == "cosine":
        products = 2.0 * t * (2 * s * s + 4 * s * u + 2 * u * u)
        return FLOAT64 * (products + passes)
    return 2.0 * t * (4 * s * s + 4 * s * u + 2 * u * u) + passes


def choose_form(
    t: int,
    student_width: int,
    teacher_width: int | None,
    similarity: str = "row_l2",
) -> str:
    """The cheaper form, "gram" or "covariance".

    Arguments
    ---------
    t : int
        Frames of the clip.
    student_width, teacher_width : int
        D_S and D_T; None for a teacher given by its t x t matrix, which
        leaves "gram" alone.
    similarity : str
        "row_l2" or "cosine".

    Returns
    -------
    str
        "gram" or "covariance".

    Example
    -------
    >>> choose_form(124, 512, 4096), choose_form(6000, 64, 128)
    ('gram', 'covariance')
    """
    if teacher_width is None:
        return "gram"
    gram = gram_cost(t, student_width, teacher_width)
    other = covariance_cost(t, student_width, teacher_width, similarity)
    return "gram" if gram <= other else "covariance"
