"""A weighted sum of distillation terms, each returned by name.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Mapping, Sequence
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
    student_tap, teacher_tap : str or list of str
        Which features to compare: a tap's name, or "logits". Two lists of the
        same length are layer pairs, whose losses are added, as in Tung and
        Mori, equation 4.

    Raises
    ------
    ValueError
        For a negative weight, or lists of different length.

    Example
    -------
    >>> from iusp_plugin.losses import IUSPLoss, SoftTargetLoss
    >>> DistillationTerm(SoftTargetLoss(), weight=0.5).pairs
    [('logits', 'logits')]
    >>> taps = ["block2", "block4"], ["conv_block2", "conv_block4"]
    >>> DistillationTerm(IUSPLoss(), 100.0, *taps).pairs
    [('block2', 'conv_block2'), ('block4', 'conv_block4')]
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float,
        student_tap: str | Sequence[str] = LOGITS,
        teacher_tap: str | Sequence[str] = LOGITS,
    ):
        super().__init__()
        check_range("weight", weight, low=0.0)
        self.loss = loss
        self.weight = float(weight)
        students, teachers = (
            [tap] if isinstance(tap, str) else list(tap)
            for tap in (student_tap, teacher_tap)
        )
        if not students or len(students) != len(teachers):
            raise ValueError(
                f"student_tap={student_tap!r} and teacher_tap={teacher_tap!r} "
                "must name as many taps each: they are compared pair by pair."
            )
        self.pairs = list(zip(students, teachers, strict=True))

    @property
    def student_taps(self) -> list[str]:
        """The student's side of the pairs."""
        return [student for student, _ in self.pairs]

    @property
    def teacher_taps(self) -> list[str]:
        """The teacher's side of the pairs."""
        return [teacher for _, teacher in self.pairs]


class WeightedLosses(nn.Module):
    """Named distillation terms and their weighted sum.

    total = sum over terms of
            weight * sum over pairs of loss(student[tap], teacher[tap])

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
        return self._taps("student_taps")

    @property
    def teacher_taps(self) -> list[str]:
        """Names of the teacher's taps that the active terms compare."""
        return self._taps("teacher_taps")

    def _active(self) -> dict[str, DistillationTerm]:
        """The active terms by name."""
        return cast(dict[str, DistillationTerm], dict(self.terms.items()))

    def _taps(self, side: str) -> list[str]:
        """Sorted tap names of one side, without the logits."""
        terms = self._active().values()
        names = {tap for term in terms for tap in getattr(term, side)}
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
            for side, feats, taps in (
                ("student", student, term.student_taps),
                ("teacher", teacher, term.teacher_taps),
            ):
                for tap in taps:
                    if tap not in feats:
                        raise KeyError(
                            f"Term {name!r} compares the {side}'s {tap!r}, "
                            f"which was not returned. {near_names(tap, feats)}"
                        )
            first, *others = (
                term.loss(student[one], teacher[other], lengths=lengths)
                for one, other in term.pairs
            )
            losses[name] = sum(others, start=first)
        return losses

    def weighted_sum(self, losses: Mapping[str, Tensor]) -> Tensor | float:
        """The total of what ``forward`` returned; 0.0 without terms."""
        terms = self._active()
        total: Tensor | float = 0.0
        for name, value in losses.items():
            total = total + terms[name].weight * value
        return total
