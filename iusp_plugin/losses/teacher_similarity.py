"""What the losses may be given of a teacher: frames, or what follows of them.

A teacher's similarity depends on the clip alone, so it can be made once and
kept. Three forms are accepted in place of features:

* a tensor (batch, t, t): the similarity matrix G itself;
* ``CosineSimilarity``: the frames' cosine matrix and their norms. Symmetric
  and within [-1, 1], so that one half in float16 is enough to keep; serves
  "row_l2" and "cosine" alike;
* ``SimilarityFactors``: two thin matrices whose product is G, for long clips.

Every form answers the same two questions: which rows (for the t x t form of
the loss), and which factors (for the form without t x t matrices).

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from iusp_plugin.checks import LAYOUTS, check_choice
from iusp_plugin.lengths import check_lengths, frame_mask
from iusp_plugin.losses.gram import (
    EPS,
    SIMILARITIES,
    autocast_off,
    check_eps,
    check_features,
    check_floating,
    compute_dtype,
    inverse_norms,
    peak_of,
    to_frames,
    unit_peak,
)
from iusp_plugin.losses.matmul import gram_matrix, matmul
from iusp_plugin.losses.target import Factors, Rows


def _ones(like: Tensor) -> Tensor:
    """Ones (batch, t) for a tensor (batch, t, ...)."""
    return like.new_ones(like.shape[:2])


def _hide_rows(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows with zeros where the mask says padding."""
    return rows.masked_fill(~mask.unsqueeze(2), 0.0)


def _hide_pairs(matrix: Tensor, mask: Tensor) -> Tensor:
    """A matrix with zeros in the rows and columns of padding."""
    pairs = mask.unsqueeze(1) & mask.unsqueeze(2)
    return matrix.masked_fill(~pairs, 0.0)


class Frames(NamedTuple):
    """The teacher's frames, (batch, t, D)."""

    frames: Tensor

    def clips(self, part: slice, n: int | None) -> "Frames":
        """Some clips, cut to n frames."""
        return Frames(self.frames[part, :n])

    def masked(self, mask: Tensor) -> "Frames":
        """With zeros in padding."""
        return Frames(_hide_rows(self.frames, mask))

    def rows(self, similarity: str, eps: float) -> Rows:
        """The t x t form."""
        if similarity == "cosine":
            unit, norms = self._unit(eps)
            return Rows(gram_matrix(unit), norms)
        matrix = gram_matrix(self.frames)
        return Rows(matrix, torch.linalg.vector_norm(matrix, dim=2))

    def factors(self, similarity: str, eps: float) -> Factors:
        """The form without a t x t matrix."""
        if similarity == "cosine":
            unit, norms = self._unit(eps)
            return Factors(unit, unit, norms, row_squares(unit, unit))
        frames = self.frames
        norms = row_squares(frames, frames).clamp_min_(0.0).sqrt_()
        return Factors(frames, frames, norms)

    def frame_norms(self) -> Tensor:
        """Norm of each frame, (batch, t), up to a factor of each clip."""
        return torch.linalg.vector_norm(unit_peak(self.frames), dim=2)

    def _unit(self, eps: float) -> tuple[Tensor, Tensor]:
        """Frames of unit norm, and their norms."""
        norms = torch.linalg.vector_norm(self.frames, dim=2)
        inverse, _ = inverse_norms(norms, eps)
        return self.frames * inverse.unsqueeze(2), norms


def row_squares(left: Tensor, right: Tensor) -> Tensor:
    """Squared norms of the rows of ``left right^T``, without that matrix.

    Arguments
    ---------
    left, right : torch.Tensor
        (batch, t, K).

    Returns
    -------
    torch.Tensor
        (batch, t).

    Example
    -------
    >>> row_squares(torch.ones(1, 2, 3), torch.ones(1, 2, 3))  # 3^2 + 3^2
    tensor([[18., 18.]])
    """
    through = matmul(left, matmul(right.mT, right))
    return (through * left).sum(dim=2)


class Matrix(NamedTuple):
    """The similarity matrix itself, (batch, t, t).

    Rows of "row_l2" are brought to unit norm, which they no longer have where
    a clip is cut to its frames or the matrix was kept in few bits.
    """

    matrix: Tensor

    def clips(self, part: slice, n: int | None) -> "Matrix":
        """Some clips, cut to n frames."""
        return Matrix(self.matrix[part, :n, :n])

    def masked(self, mask: Tensor) -> "Matrix":
        """With zeros in padding."""
        return Matrix(_hide_pairs(self.matrix, mask))

    def rows(self, similarity: str, eps: float) -> Rows:
        """The t x t form."""
        norms = _ones(self.matrix)
        if similarity == "row_l2":
            norms = torch.linalg.vector_norm(self.matrix, dim=2)
        return Rows(self.matrix, norms, symmetric=False)


class CosineSimilarity(NamedTuple):
    """A teacher's cosine matrix with the norms of its frames.

    One record serves both similarities: row i of the Gram matrix is
    n_i C[i, j] n_j.

    Arguments
    ---------
    cosine : torch.Tensor
        (batch, t, t), the cosines of the frames; any floating dtype.
    norms : torch.Tensor
        (batch, t), L2 norms of the frames; their scale does not matter.
    """

    cosine: Tensor
    norms: Tensor

    def clips(self, part: slice, n: int | None) -> "CosineSimilarity":
        """Some clips, cut to n frames."""
        return CosineSimilarity(self.cosine[part, :n, :n], self.norms[part, :n])

    def masked(self, mask: Tensor) -> "CosineSimilarity":
        """With zeros in padding."""
        cosine = _hide_pairs(self.cosine, mask)
        return CosineSimilarity(cosine, self.norms.masked_fill(~mask, 0.0))

    def frame_norms(self) -> Tensor:
        """Norm of each frame, (batch, t), up to a factor of each clip."""
        return self.norms / self.norms.amax(dim=1, keepdim=True).clamp_min(
            torch.finfo(self.norms.dtype).tiny
        )

    def rows(self, similarity: str, eps: float) -> Rows:
        """The t x t form."""
        norms = self.frame_norms()
        if similarity == "cosine":
            live = (inverse_norms(norms, eps)[0] != 0).to(norms.dtype)
            matrix = self.cosine * live.unsqueeze(2) * live.unsqueeze(1)
            return Rows(matrix, _ones(matrix))
        matrix = self.cosine * norms.unsqueeze(2) * norms.unsqueeze(1)
        return Rows(matrix, torch.linalg.vector_norm(matrix, dim=2))


class SimilarityFactors(NamedTuple):
    """A teacher's similarity matrix as a product of two thin matrices.

    G = left right^T, for "row_l2" with its rows brought to unit norm. Made by
    ``similarity_factors``; any other factorisation, such as a truncated one,
    serves as well.

    Arguments
    ---------
    left, right : torch.Tensor
        (batch, t, K); any floating dtype.
    squares : torch.Tensor, optional
        (batch, t), the squared norms of the rows of left right^T where known;
        computed otherwise, as where a clip is cut to its frames.
    """

    left: Tensor
    right: Tensor
    squares: Tensor | None = None

    def clips(self, part: slice, n: int | None) -> "SimilarityFactors":
        """Some clips, cut to n frames."""
        left, right = self.left[part, :n], self.right[part, :n]
        if self.squares is None or n not in (None, self.left.shape[1]):
            return SimilarityFactors(left, right)
        return SimilarityFactors(left, right, self.squares[part])

    def masked(self, mask: Tensor) -> "SimilarityFactors":
        """With zeros in padding."""
        return SimilarityFactors(
            _hide_rows(self.left, mask), _hide_rows(self.right, mask)
        )

    def rows(self, similarity: str, eps: float) -> Rows:
        """The t x t form."""
        matrix = matmul(self.left, self.right.mT)
        return Matrix(matrix).rows(similarity, eps)

    def factors(self, similarity: str, eps: float) -> Factors:
        """The form without a t x t matrix."""
        squares = self.squares
        if squares is None:
            squares = row_squares(self.left, self.right)
        if similarity == "cosine":
            norms = _ones(self.left)
            return Factors(self.left, self.right, norms, squares)
        norms = squares.clamp_min(0.0).sqrt()
        return Factors(self.left, self.right, norms)


Teacher = Frames | Matrix | CosineSimilarity | SimilarityFactors
Kind = TypeVar("Kind", bound=Teacher)

# What a loss may be given ready-made, and what has factors.
READY_MADE = (Matrix, CosineSimilarity, SimilarityFactors)
FACTORED = (Frames, SimilarityFactors)


def factor_width(teacher: Teacher) -> int | None:
    """Width of the factors of G, None where only G itself is known.

    Arguments
    ---------
    teacher : Teacher
        The teacher.

    Returns
    -------
    int or None
        D or K.

    Example
    -------
    >>> factor_width(Frames(torch.ones(1, 2, 3)))
    3
    """
    return teacher[0].shape[2] if isinstance(teacher, FACTORED) else None


def each(teacher: Kind, change: Callable[[Tensor], Tensor]) -> Kind:
    """The same kind of teacher with each of its tensors changed.

    Arguments
    ---------
    teacher : Frames, Matrix, CosineSimilarity or SimilarityFactors
        The teacher.
    change : callable
        Tensor -> tensor.

    Returns
    -------
    the same kind
        Of the changed tensors.

    Example
    -------
    >>> each(Frames(torch.ones(1, 2, 3)), torch.Tensor.double).frames.dtype
    torch.float64
    """
    parts: Any = (None if x is None else change(x) for x in teacher)
    return type(teacher)(*parts)


def _frames(feats: Tensor, lengths: Tensor | None, layout: str) -> Tensor:
    """Checked features as rows, zero in padding."""
    check_choice("layout", layout, LAYOUTS)
    check_features("feats", feats, layout)
    frames = to_frames(feats.detach(), layout).to(compute_dtype(feats))
    if lengths is not None:
        check_lengths(lengths, len(frames))
        frames = _hide_rows(frames, frame_mask(lengths, frames.shape[1]))
    return frames


def cosine_similarity(
    feats: Tensor, lengths: Tensor | None = None, *, layout: str = "time_first"
) -> CosineSimilarity:
    """A teacher's features as the record that serves both similarities.

    C[i, j] = <q_i, q_j> / (||q_i|| ||q_j||), zero where a frame is all zero,
    and the norms ||q_i||. Give it to a loss as ``teacher_similarity``.

    Arguments
    ---------
    feats : torch.Tensor
        Teacher features, layout as below, any floating dtype. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,): padded rows and columns are zero.
    layout : str
        "time_first" or "channel_first".

    Returns
    -------
    CosineSimilarity
        cosine (batch, t, t) and norms (batch, t), float32, or float64 if the
        features are.

    Example
    -------
    >>> record = cosine_similarity(torch.tensor([[[3.0, 4.0], [0.0, 2.0]]]))
    >>> record.cosine
    tensor([[[1.0000, 0.8000],
             [0.8000, 1.0000]]])
    >>> record.norms
    tensor([[5., 2.]])
    """
    check_floating("feats", feats)
    with autocast_off(feats), torch.no_grad():
        frames = _frames(feats, lengths, layout)
        peak = peak_of(frames)
        unit = frames / peak
        norms = torch.linalg.vector_norm(unit, dim=2)
        unit = unit * inverse_norms(norms, 0.0)[0].unsqueeze(2)
        return CosineSimilarity(gram_matrix(unit), norms * peak.squeeze(2))


def similarity_factors(
    feats: Tensor,
    lengths: Tensor | None = None,
    *,
    similarity: str = "row_l2",
    layout: str = "time_first",
    eps: float = EPS,
) -> SimilarityFactors:
    """A teacher's features as two thin matrices whose product is G.

    With Q the frames, "row_l2": left row i is q_i / ||Q q_i||, right is Q;
    "cosine": both are the frames over their norms. Worth keeping for clips so
    long that a t x t matrix is not. Give it to a loss as
    ``teacher_similarity``, with the same ``similarity``.

    Arguments
    ---------
    feats : torch.Tensor
        Teacher features, layout as below, any floating dtype. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,): padded rows are zero.
    similarity : str
        "row_l2" or "cosine".
    layout : str
        "time_first" or "channel_first".
    eps : float
        Relative floor of a row's norm.

    Returns
    -------
    SimilarityFactors
        left and right (batch, t, D), squares (batch, t), float32, or float64
        if the features are.

    Example
    -------
    >>> left, right, _ = similarity_factors(torch.tensor([[[1.0], [2.0]]]))
    >>> left @ right.mT
    tensor([[[0.4472, 0.8944],
             [0.4472, 0.8944]]])
    """
    check_choice("similarity", similarity, SIMILARITIES)
    check_eps(eps)
    check_floating("feats", feats)
    with autocast_off(feats), torch.no_grad():
        frames = unit_peak(_frames(feats, lengths, layout))
        left, right, norms, squares = Frames(frames).factors(similarity, eps)
        if squares is None:
            inverse, _ = inverse_norms(norms, eps)
            left, squares = left * inverse.unsqueeze(2), inverse.sign()
        return SimilarityFactors(left, right, squares)


def _part_names(given: Teacher) -> tuple[str, ...]:
    """Names of the tensors; ``_fields`` is beyond older tracers."""
    if isinstance(given, CosineSimilarity):
        return ("cosine", "norms")
    if isinstance(given, SimilarityFactors):
        return ("left", "right", "squares")
    return ("matrix",)


def given_teacher(
    similarity: Tensor | CosineSimilarity | SimilarityFactors, batch: int
) -> Teacher:
    """A ready-made similarity, checked.

    Arguments
    ---------
    similarity : torch.Tensor, CosineSimilarity or SimilarityFactors
        As given to a loss.
    batch : int
        Number of clips.

    Returns
    -------
    Teacher
        The same, without gradient.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the shapes of its tensors do not belong together.
    """
    given = Matrix(similarity) if isinstance(similarity, Tensor) else similarity
    if not isinstance(given, READY_MADE):
        raise TypeError(
            f"teacher_similarity is {type(similarity).__name__}, expected a "
            "tensor, CosineSimilarity or SimilarityFactors."
        )
    first = given[0]
    t = first.shape[1] if first.dim() > 1 else 0
    factored = isinstance(given, FACTORED) and first.dim() > 2
    wide = (batch, t, first.shape[2] if factored else t)
    for name, part in zip(_part_names(given), given, strict=True):
        wanted = (batch, t) if name in ("norms", "squares") else wide
        if part is not None:
            check_floating(f"teacher_similarity ({name})", part)
        if part is not None and tuple(part.shape) != wanted:
            raise ValueError(
                f"teacher_similarity ({name}) has shape {tuple(part.shape)}, "
                f"expected {wanted}: {batch} clips of as many frames each."
            )
    return each(given, Tensor.detach)


def named_parts(
    similarity: Tensor | CosineSimilarity | SimilarityFactors | None,
) -> dict[str, Tensor | None]:
    """The tensors of a ready-made similarity by name, for messages.

    Arguments
    ---------
    similarity : torch.Tensor, CosineSimilarity, SimilarityFactors or None
        As given to a loss.

    Returns
    -------
    dict
        "teacher_similarity", or one entry a part.

    Example
    -------
    >>> list(named_parts(CosineSimilarity(torch.eye(2), torch.ones(2))))
    ['teacher_similarity.cosine', 'teacher_similarity.norms']
    """
    name = "teacher_similarity"
    if similarity is None or isinstance(similarity, Tensor):
        return {name: similarity}
    parts = zip(_part_names(similarity), similarity, strict=True)
    return {f"{name}.{part}": value for part, value in parts}
