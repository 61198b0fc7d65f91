"""What the loss and its gradient have to compute and to move.

Counted from the two forms of "row_l2" (``iusp_plugin.losses.kernels``), with
the teacher given as frames. S is (t, D) and T is (t, K), one clip's frames.

Authors
 * The iusp_plugin authors 2026
"""

from settings import Shape

from iusp_plugin.losses import matmul

FLOAT = 4  # bytes


def _counts(products: int, between: int, entries: int) -> dict[str, int]:
    """Operations, and entries read and written as bytes."""
    return {
        "products": products,
        "between": between,
        "cache": FLOAT * entries,
    }


def _gram_product(t: int, d: int) -> int:
    """Operations of Q Q^T, a quarter of which is mirrored where it is large."""
    if (
        t < matmul.MIRROR_ROWS
        or d < matmul.MIRROR_WIDTH
        or t * d < matmul.MIRROR_ELEMENTS
    ):
        return 2 * t * t * d
    half = (t // 2 + 15) // 16 * 16
    return 2 * d * (half * t + (t - half) ** 2)


def gram_work(t: int, d: int, k: int) -> dict[str, int]:
    """One clip's work with t x t matrices.

    Arguments
    ---------
    t : int
        Frames.
    d, k : int
        Entries of a frame of the student and of the teacher.

    Returns
    -------
    dict
        Floating point operations of "products" of matrices and of the steps
        "between", and "cache", bytes that operators read and write.
    """
    # S S^T and, for the gradient, (M + M^T) S; T T^T.
    products = _gram_product(t, d) + _gram_product(t, k) + 2 * t * t * d
    # Norms of both (2 each), their product summed (2), two outer sums (1
    # each), what they multiply (1) and what is added to it (3).
    between = 12 * t * t
    # t x t: S S^T and T T^T written, their norms read (4); product r 2, w 1,
    # its sum r 1 (4); outer sums written (2); multiply r 2, w 1 (3); add
    # r 3, w 1 (4); read for the gradient (1).
    # t x D: S read twice, T once; gradient w 1, into its place r 1, w 1,
    # scaled r 1, w 1.
    entries = 18 * t * t + 7 * t * d + t * k
    return _counts(products, between, entries)


def covariance_work(t: int, d: int, k: int) -> dict[str, int]:
    """One clip's work with D x D matrices; see ``gram_work``."""
    # S (S^T S) and its gradient, 4 products of 2 t D^2; T (T^T S) and its
    # gradient, 4 of 2 t K D; T (T^T T), 2 of 2 t K^2.
    products = 2 * t * (4 * d * d + 4 * k * d + 2 * k * k)
    # Student: two products summed (2 each), four scalings (1 each), three
    # sums (1 each). Teacher: one product summed (2).
    between = 11 * t * d + 2 * t * k
    # The ten products read t x D matrices 8 times and write 3, t x K ones 6
    # and 1; each product summed r 2, w 1, r 1 (8 and 4); three scalings r 1,
    # w 1 (6); three sums r 2, w 1 (9); gradient into its place and scaled,
    # r 1, w 1 each (4). D x D matrices are small beside these.
    entries = 38 * t * d + 11 * t * k
    return _counts(products, between, entries)


FORMS = {"gram": gram_work, "covariance": covariance_work}


def work(shape: Shape, form: str) -> dict[str, int]:
    """A batch's work.

    Arguments
    ---------
    shape : tuple of int
        (batch, frames, D of the student, D of the teacher).
    form : str
        "gram" or "covariance".

    Returns
    -------
    dict
        "flops"; "memory", bytes of both features read and of the gradient
        written, once; "cache", bytes that operators read and write.
    """
    batch, t, d, k = shape
    clip = FORMS[form](t, d, k)
    return {
        "flops": batch * (clip["products"] + clip["between"]),
        "memory": batch * FLOAT * t * (2 * d + k),
        "cache": batch * clip["cache"],
    }
