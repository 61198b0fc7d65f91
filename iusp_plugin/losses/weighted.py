"""A weighted sum of distillation terms, each returned by name.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from iusp_plugin.checks import check_range, near_names

# The name under which a network's output stands beside its taps.
LOGITS = "logits"


class DistillationTerm(nn.Module):
    """One distillation loss, its weight, and the features it compares.

    Arguments
    ---------
    loss : callable
        ``loss(student, teacher, lengths=...) -> scalar``; any module of this
        package, or your own.
    weight : float
        Factor in the total, >= 0. At 0 the term costs nothing: neither loss
        nor tap nor teacher is computed for it.
    student_tap, teacher_tap : str
        Which features to compare: a tap's name, or "logits".

    Example
    -------
    >>> from iusp_plugin.losses import SoftTargetLoss
    >>> term = DistillationTerm(SoftTargetLoss(), weight=0.5)
    >>> term.student_tap
    'logits'
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float,
        student_tap: str = LOGITS,
        teacher_tap: str = LOGITS,
    ):
        super().__init__()
        check_range("weight", weight, low=0.0)
        self.loss = loss
        self.weight = float(weight)
        self.student_tap = student_tap
        self.teacher_tap = teacher_tap


class WeightedLosses(nn.Module):
    """Named distillation terms and their weighted sum.

    total = sum over terms of weight * loss(student[tap], teacher[tap])

    Terms of weight 0 are left out altogether. An empty sum is allowed: that is
    plain training.

    Arguments
    ---------
    terms : mapping of str to DistillationTerm
        The terms by the name under which they are logged.

    Example
    -------
    >>> import torch
    >>> from iusp_plugin.losses import SoftTargetLoss
    >>> terms = {"kd": DistillationTerm(SoftTargetLoss(), weight=0.5)}
    >>> losses = WeightedLosses(terms)
    >>> out = {"logits": torch.zeros(1, 3)}
    >>> losses.weighted_sum(losses(out, out))
    tensor(0.3466)
    >>> losses.needs_teacher, losses.student_taps
    (True, [])
    """

    def __init__(self, terms: Mapping[str, DistillationTerm] | None = None):
        super().__init__()
        active = {k: v for k, v in (terms or {}).items() if v.weight > 0}
        self.terms = nn.ModuleDict(active)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term is active."""
        return len(self.terms) > 0

    @property
    def student_taps(self) -> list[str]:
        """Names of the student's taps that the active terms compare."""
        return self._taps("student_tap")

    @property
    def teacher_taps(self) -> list[str]:
        """Names of the teacher's taps that the active terms compare."""
        return self._taps("teacher_tap")

    def _active(self) -> dict[str, DistillationTerm]:
        """The active terms by name."""
        return cast(dict[str, DistillationTerm], dict(self.terms.items()))

    def _taps(self, side: str) -> list[str]:
        """Sorted tap names of one side, without the logits."""
        names = {getattr(term, side) for term in self._active().values()}
        return sorted(names - {LOGITS})

    def forward(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each active term by name, before its weight.

        Arguments
        ---------
        student, teacher : mapping of str to torch.Tensor
            Features by tap, and "logits".
        lengths : torch.Tensor, optional
            Relative lengths, (batch,).

        Returns
        -------
        dict of str to torch.Tensor
            One scalar a term.

        Raises
        ------
        KeyError
            If a tap is not among the features given.
        """
        losses = {}
        for name, term in self._active().items():
            for side, feats, tap in (
                ("student", student, term.student_tap),
                ("teacher", teacher, term.teacher_tap),
            ):
                if tap not in feats:
                    raise KeyError(
                        f"Term {name!r} compares the {side}'s {tap!r}, which "
                        f"was not returned. {near_names(tap, feats)}"
                    )
            losses[name] = term.loss(
                student[term.student_tap],
                teacher[term.teacher_tap],
                lengths=lengths,
            )
        return losses

    def weighted_sum(self, losses: Mapping[str, Tensor]) -> Tensor | float:
        """The total of what ``forward`` returned; 0.0 without terms."""
        terms = self._active()
        total: Tensor | float = 0.0
        for name, value in losses.items():
            total = total + terms[name].weight * value
        return total
