"""The squared distance of similarities: forms, chunks, and its own backward.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from iusp_plugin.lengths import valid_frames
from iusp_plugin.losses.differentiable import (
    covariance_distance,
    gram_row_distances,
)
from iusp_plugin.losses.gram import autocast_off, peak_of, unit_peak
from iusp_plugin.losses.kernels import KERNELS, Distance
from iusp_plugin.losses.target import Factors, Rows
from iusp_plugin.losses.teacher_similarity import (
    FACTORED,
    CosineSimilarity,
    Frames,
    Teacher,
    each,
    factor_width,
)

# On the CPU, clips go through together while the matrices of a step have no
# more elements than this, so that they stay in a core's cache. Where a single
# clip has as many, it is cut to its own frames.
CHUNK_ELEMENTS = 2**19
# Elsewhere chunks only keep memory bounded, to 512 MB a matrix.
DEVICE_ELEMENTS = 2**27

# Row norms within these bounds can neither overflow nor vanish when squared.
SMALLEST, LARGEST = 1e-12, 1e12


@dataclass(slots=True)
class Comparison:
    """A teacher and the way of comparing a student with it.

    Arguments
    ---------
    teacher : Teacher
        Frames of the teacher, or what follows of them.
    frames : torch.Tensor or None
        Valid frames of each clip, int64 (batch,); None if all are.
    similarity : str
        "row_l2" or "cosine".
    form : str
        "gram" or "covariance".
    eps : float
        Relative floor of a row's norm.
    """

    teacher: Teacher
    frames: Tensor | None
    similarity: str
    form: str
    eps: float

    def run(
        self, student: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Squared distance of each clip, and half the gradient of their sum.

        Arguments
        ---------
        student : torch.Tensor
            (batch, t, D) in the compute dtype.
        need_gradient : bool
            Whether the gradient is wanted.

        Returns
        -------
        per_clip : torch.Tensor
            (batch,).
        gradient : torch.Tensor or None
            (batch, t, D).
        """
        step = self._step(student)
        if step >= student.shape[0]:
            whole = _masked(student, self.teacher, self.frames)
            result = self._kernel(*whole, need_gradient)
            return result.per_clip, result.gradient
        per_clip = []
        gradient = torch.empty_like(student) if need_gradient else None
        for part, rows, teacher in self._chunks(student, step):
            result = self._kernel(rows, teacher, need_gradient)
            per_clip.append(result.per_clip)
            if gradient is not None and result.gradient is not None:
                n = rows.shape[1]
                gradient[part, :n] = result.gradient
                if n < student.shape[1]:
                    gradient[part, n:] = 0.0
        return torch.cat(per_clip), gradient

    def differentiable(self, student: Tensor) -> Tensor:
        """Squared distance of each clip, by autograd.

        Arguments
        ---------
        student : torch.Tensor
            (batch, t, D) in the compute dtype.

        Returns
        -------
        torch.Tensor
            (batch,).
        """
        if self.form == "gram":
            return self.row_distances(student).sum(dim=1)
        student, teacher = self._prepared(student)
        return covariance_distance(
            student, self._factors(teacher), self.similarity, self.eps
        )

    def row_distances(self, student: Tensor) -> Tensor:
        """Squared distance of each row of G, by autograd.

        Arguments
        ---------
        student : torch.Tensor
            (batch, t, D) in the compute dtype.

        Returns
        -------
        torch.Tensor
            (batch, t).
        """
        return self._row_distances(*self._prepared(student))

    def weighted_by_energy(self, student: Tensor) -> Tensor:
        """Squared distance of each clip, its rows weighted, by autograd.

        Each row counts as much as the teacher's frame is strong beside the
        mean of the clip's frames; equally where all are silent.

        Arguments
        ---------
        student : torch.Tensor
            (batch, t, D) in the compute dtype.

        Returns
        -------
        torch.Tensor
            (batch,).
        """
        student, teacher = self._prepared(student)
        rows = self._row_distances(student, teacher)
        assert isinstance(teacher, Frames | CosineSimilarity)
        norms = teacher.frame_norms()
        n = norms.shape[1] if self.frames is None else self.frames.unsqueeze(1)
        mean = norms.sum(dim=1, keepdim=True) / n
        weights = torch.where(mean > 0, norms / mean, torch.ones_like(norms))
        return (rows * weights).sum(dim=1)

    def _row_distances(self, student: Tensor, teacher: Teacher) -> Tensor:
        """Squared distance of each row of G, of what ``_prepared`` gave."""
        target = teacher.rows(self.similarity, self.eps)
        return gram_row_distances(student, target, self.similarity, self.eps)

    def _prepared(self, student: Tensor) -> tuple[Tensor, Teacher]:
        """Both sides as autograd's ways want them, zero in padding."""
        student, teacher = _masked(student, self.teacher, self.frames)
        return student, _rescaled(_cast(teacher, student.dtype))

    def _step(self, student: Tensor) -> int:
        """How many clips to compute at a time."""
        batch, t, width = student.shape
        if torch.compiler.is_compiling():
            return batch
        squares = t * t if self.form == "gram" else 0
        masked = self.form == "covariance" or self.frames is not None
        features = (
            t * (width + (factor_width(self.teacher) or 0)) if masked else 0
        )
        on_cpu = student.device.type == "cpu"
        most = CHUNK_ELEMENTS if on_cpu else DEVICE_ELEMENTS
        return max(1, most // max(squares, features))

    def _chunks(
        self, student: Tensor, step: int
    ) -> Iterator[tuple[slice, Tensor, Teacher]]:
        """Parts of the batch; single clips are cut to their own frames."""
        counts = None
        if step == 1 and self.frames is not None and _may_look(student):
            counts = self.frames.tolist()
        for i in range(0, student.shape[0], step):
            part = slice(i, i + step)
            n = None if counts is None else counts[i]
            rows, teacher = student[part, :n], self.teacher.clips(part, n)
            if counts is None and self.frames is not None:
                rows, teacher = _masked(rows, teacher, self.frames[part])
            yield part, rows, teacher

    def _target(self, teacher: Teacher) -> Rows | Factors:
        """The teacher as the form wants it."""
        if self.form == "gram":
            return teacher.rows(self.similarity, self.eps)
        return self._factors(teacher)

    def _factors(self, teacher: Teacher) -> Factors:
        """The teacher as the covariance form wants it."""
        if self.similarity == "cosine":
            teacher = each(teacher, Tensor.double)
        assert isinstance(teacher, FACTORED)
        return teacher.factors(self.similarity, self.eps)

    def _kernel(
        self, student: Tensor, teacher: Teacher, need_gradient: bool
    ) -> Distance:
        """The kernel, on rescaled features if their size asks for it."""
        kernel = KERNELS[self.similarity, self.form]
        student = student.contiguous()
        teacher = _cast(teacher, student.dtype)
        if _may_look(student):
            target = self._target(teacher)
            result = kernel(student, target, self.eps, need_gradient)
            low, high = torch.aminmax(result.peaks)
            if low.item() > SMALLEST and high.item() < LARGEST:
                return result
        peak = peak_of(student)
        target = self._target(_rescaled(teacher))
        result = kernel(student / peak, target, self.eps, need_gradient)
        if result.gradient is None:
            return result
        gradient = result.gradient / peak
        return Distance(result.per_clip, gradient, result.peaks)


def _masked(
    student: Tensor, teacher: Teacher, frames: Tensor | None
) -> tuple[Tensor, Teacher]:
    """Both sides with zeros in padding."""
    if frames is None:
        return student, teacher
    mask = valid_frames(frames, student.shape[1])
    student = student.masked_fill(~mask.unsqueeze(2), 0.0)
    return student, teacher.masked(mask)


def _may_look(tensor: Tensor) -> bool:
    """Whether Python may depend on values: free on the CPU, else a wait."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _cast(teacher: Teacher, dtype: torch.dtype) -> Teacher:
    """The teacher in the compute dtype."""
    if all(x is None or x.dtype == dtype for x in teacher):
        return teacher
    return each(teacher, lambda x: x.to(dtype))


def _rescaled(teacher: Teacher) -> Teacher:
    """Frames of a size that cannot overflow; G does not depend on it."""
    return each(teacher, unit_peak) if isinstance(teacher, Frames) else teacher


class SquaredDistance(torch.autograd.Function):
    """Weighted squared distances with the gradient in closed form.

    The forward computes the gradient along with the value, while the matrices
    are in cache, and keeps it beside what it was given. The first backward
    hands it out; a further one through the same graph computes it again, from
    a teacher that must not have changed. With ``create_graph=True`` the
    gradient is that of autograd, so that second derivatives are right.
    """

    @staticmethod
    def forward(ctx, student, comparison, weights, total):
        """weights * squared distance; see ``weighted_distance``."""
        need = ctx.needs_input_grad[0]
        per_clip, gradient = comparison.run(student, need)
        if need:
            ctx.save_for_backward(student)
            ctx.gradient = gradient
            # Not by save_for_backward: a teacher may run in inference mode.
            ctx.comparison, ctx.weights, ctx.total = comparison, weights, total
        return _weigh(per_clip, weights, total)

    @staticmethod
    def backward(ctx, grad):
        """The gradient with respect to the student."""
        (student,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            with autocast_off(student):
                per_clip = ctx.comparison.differentiable(student)
                loss = _weigh(per_clip, ctx.weights, ctx.total)
                (gradient,) = torch.autograd.grad(
                    loss, student, grad, create_graph=True
                )
            return gradient, None, None, None
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            with autocast_off(student):
                gradient = ctx.comparison.run(student, True)[1]
        return gradient.mul_(_scale(grad, ctx.weights)), None, None, None


class CompiledDistance(torch.autograd.Function):
    """The same for the compiler, which traces it.

    With a backward of its own, because the compiler would run autograd's
    under the autocast of the surrounding code.
    """

    @staticmethod
    def forward(ctx, student, comparison, weights, total):
        """weights * squared distance; see ``weighted_distance``."""
        per_clip, gradient = comparison.run(student, True)
        ctx.save_for_backward(gradient)
        ctx.weights = weights
        return _weigh(per_clip, weights, total)

    @staticmethod
    def backward(ctx, grad):
        """The gradient with respect to the student."""
        (gradient,) = ctx.saved_tensors
        return gradient * _scale(grad, ctx.weights), None, None, None


def _scale(grad: Tensor, weights: Tensor | float) -> Tensor:
    """What half the gradient of the distances is multiplied with."""
    scale = grad * (2.0 * weights)
    return scale.view(-1, 1, 1) if scale.dim() else scale


def _weigh(per_clip: Tensor, weights: Tensor | float, total: bool) -> Tensor:
    """The weighted vector, or its sum."""
    if not total:
        return per_clip * weights
    if isinstance(weights, float):
        return per_clip.sum() * weights
    return (per_clip * weights).sum()


def weighted_distance(
    student: Tensor,
    comparison: Comparison,
    weights: Tensor | float,
    total: bool,
) -> Tensor:
    """weights[clip] * ||G_teacher - G_student||_F^2, or its sum over clips.

    Arguments
    ---------
    student : torch.Tensor
        (batch, t, D) in the compute dtype. Carries gradient.
    comparison : Comparison
        The teacher and how to compare.
    weights : torch.Tensor or float
        Factor of each clip, (batch,), or of all.
    total : bool
        Whether to sum over the clips.

    Returns
    -------
    torch.Tensor
        Scalar if ``total``, (batch,) otherwise.
    """
    if torch.compiler.is_compiling():
        return CompiledDistance.apply(student, comparison, weights, total)
    if not torch.is_grad_enabled():
        student = student.detach()
    return SquaredDistance.apply(student, comparison, weights, total)
