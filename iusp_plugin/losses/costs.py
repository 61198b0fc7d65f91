"""Which of the two exact forms is cheaper: a count and measured constants.

Cost is counted in floating point operations of a float32 matrix product,
forward and backward together. The constants are those with which the choice
among 90 drawn shapes loses least (``benchmarks/forms.py``, two cores of an AMD
EPYC): 0.2 % of the time on average, 15 % at worst. A factor of two in them
moves the choice only where both forms cost about the same; ``form=`` of a loss
overrules it.

Authors
 * The iusp_plugin authors 2026
"""

# What is not a product, per element: of a t x t matrix in the Gram form,
GRAM_ELEMENT = 300.0
# of both sides' features in the covariance form,
COVARIANCE_ELEMENT = 600.0
# and per call of the covariance form, whose steps are more.
COVARIANCE_CALL = 2e7
# A float64 product costs this many float32 ones.
FLOAT64 = 3.0


def gram_cost(
    batch: int, t: int, student_width: int, teacher_width: int
) -> float:
    """Operations of the form with t x t matrices.

    2 t^2 (2 D_S + D_T) a clip, for S S^T, T T^T and the gradient M S, and what
    is done to the elements of t x t matrices.

    Arguments
    ---------
    batch : int
        Number of clips.
    t : int
        Frames of a clip.
    student_width, teacher_width : int
        D_S and D_T.

    Returns
    -------
    float
        Operations.

    Example
    -------
    >>> gram_cost(1, 100, 8, 16) == 100**2 * (2 * 32 + GRAM_ELEMENT)
    True
    """
    products = 2.0 * (2 * student_width + teacher_width)
    return batch * t * t * (products + GRAM_ELEMENT)


def covariance_cost(
    batch: int,
    t: int,
    student_width: int,
    teacher_width: int,
    similarity: str = "row_l2",
) -> float:
    """Operations of the form without t x t matrices.

    "row_l2": 2 t (4 D_S^2 + 4 D_S D_T + 2 D_T^2) a clip, for S^T S, T^T S,
    T^T T and what is multiplied with them; "cosine": 2 t (2 D_S^2 +
    4 D_S D_T + 2 D_T^2), in float64; and what is done to the features.

    Arguments
    ---------
    batch : int
        Number of clips.
    t : int
        Frames of a clip.
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
    >>> cost = covariance_cost(1, 100, 8, 8) - COVARIANCE_CALL
    >>> cost == 100 * (2 * 640 + 16 * COVARIANCE_ELEMENT)
    True
    """
    s, u = student_width, teacher_width
    cosine = similarity == "cosine"
    products = 2.0 * ((2 if cosine else 4) * s * s + 4 * s * u + 2 * u * u)
    clip = t * (products + (s + u) * COVARIANCE_ELEMENT)
    return batch * clip * (FLOAT64 if cosine else 1.0) + COVARIANCE_CALL


def choose_form(
    batch: int,
    t: int,
    student_width: int,
    teacher_width: int | None,
    similarity: str = "row_l2",
) -> str:
    """The cheaper form, "gram" or "covariance".

    Arguments
    ---------
    batch : int
        Number of clips.
    t : int
        Frames of a clip.
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
    >>> choose_form(16, 124, 512, 4096), choose_form(4, 6000, 64, 128)
    ('gram', 'covariance')
    """
    if teacher_width is None:
        return "gram"
    sizes = batch, t, student_width, teacher_width
    gram = gram_cost(*sizes)
    if gram <= COVARIANCE_CALL:  # small: do not even count
        return "gram"
    other = covariance_cost(*sizes, similarity)
    return "gram" if gram <= other else "covariance"
