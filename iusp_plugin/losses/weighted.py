"""A weighted sum of distillation terms, each returned by name.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from iusp_plugin.checks import check_choice, check_range, near_names
from iusp_plugin.losses.teacher_similarity import CosineSimilarity

# The name under which a network's output stands beside its taps.
LOGITS = "logits"

# What becomes of a term's weight as the share of training done grows from 0.
_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "decay": lambda progress: 1.0 - progress,
    "first_half": lambda progress: 1.0 if progress < 0.5 else 0.0,
}
SCHEDULES = tuple(_SCHEDULES)


def record_name(tap: str, record: str) -> str:
    """Name of what is kept of a tap, among a teacher's outputs.

    Arguments
    ---------
    tap : str
        A tap, or "logits".
    record : str
        A loss's ``teacher_record``.

    Returns
    -------
    str

    Example
    -------
    >>> record_name("block4", "cosine"), record_name("block4", "features")
    ('block4.cosine', 'block4')
    """
    return tap if record == "features" else f"{tap}.{record}"


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
    schedule : str
        What becomes of the weight as training goes on: "constant", "decay"
        (linearly to 0 at the end) or "first_half" (then 0).

    Raises
    ------
    ValueError
        For a negative weight, an unknown schedule, or lists of different
        length.

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
        schedule: str = "constant",
    ):
        super().__init__()
        check_range("weight", weight, low=0.0)
        check_choice("schedule", schedule, SCHEDULES)
        self.loss = loss
        self.weight = float(weight)
        self.schedule = schedule
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

    def weight_at(self, progress: float) -> float:
        """The weight when this share of training is done.

        Arguments
        ---------
        progress : float
            In [0, 1]: 0 at the start.

        Returns
        -------
        float

        Example
        -------
        >>> from iusp_plugin.losses import IUSPLoss
        >>> term = DistillationTerm(IUSPLoss(), 100.0, schedule="decay")
        >>> term.weight_at(0.0), term.weight_at(0.75)
        (100.0, 25.0)
        """
        check_range("progress", progress, low=0.0, high=1.0)
        return self.weight * _SCHEDULES[self.schedule](progress)

    @property
    def teacher_record(self) -> str:
        """What the loss needs of a teacher's tap; of a user's own, all."""
        return getattr(self.loss, "teacher_record", "features")

    @property
    def student_taps(self) -> list[str]:
        """The student's side of the pairs."""
        return [student for student, _ in self.pairs]

    @property
    def teacher_taps(self) -> list[str]:
        """The teacher's side of the pairs."""
        return [teacher for _, teacher in self.pairs]


def _check_known(
    name: str, side: str, tap: str, feats: Mapping[str, object]
) -> None:
    """Raise if a term compares what was not returned."""
    if tap not in feats:
        raise KeyError(
            f"Term {name!r} compares the {side}'s {tap!r}, which was not "
            f"returned. {near_names(tap, feats)}"
        )


def _value(
    loss: nn.Module,
    student: Tensor,
    teacher: Tensor | CosineSimilarity,
    lengths: Tensor | None,
) -> Tensor:
    """The loss of one pair, from the teacher's features or their record."""
    if isinstance(teacher, CosineSimilarity):
        return loss(student, lengths=lengths, teacher_similarity=teacher)
    return loss(student, teacher, lengths=lengths)


class WeightedLosses(nn.Module):
    """Named distillation terms and their weighted sum.

    total = sum over terms of
            weight(progress) * sum over pairs of loss(student[tap], teacher[tap])

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

    @property
    def teacher_records(self) -> list[tuple[str, str]]:
        """Taps, or "logits", and what a cache has to keep of them."""
        terms = self._active().values()
        return sorted(
            {(tap, t.teacher_record) for t in terms for tap in t.teacher_taps}
        )

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
        teacher: Mapping[str, Tensor | CosineSimilarity],
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each active term by name, before its weight.

        Arguments
        ---------
        student : mapping of str to torch.Tensor
            Features by tap, and "logits".
        teacher : mapping of str to torch.Tensor or CosineSimilarity
            The same of the teacher; or, where its outputs are cached, what
            was kept of a tap, by ``record_name``.
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
            pairs = []
            for tap, teacher_tap in term.pairs:
                kept = record_name(teacher_tap, term.teacher_record)
                kept = kept if kept in teacher else teacher_tap
                _check_known(name, "student", tap, student)
                _check_known(name, "teacher", kept, teacher)
                pairs.append((student[tap], teacher[kept]))
            values = [_value(term.loss, *pair, lengths) for pair in pairs]
            losses[name] = sum(values[1:], start=values[0])
        return losses

    def weighted_sum(
        self, losses: Mapping[str, Tensor], progress: float = 0.0
    ) -> Tensor | float:
        """The total of what ``forward`` returned.

        Arguments
        ---------
        losses : mapping of str to torch.Tensor
            The terms by name.
        progress : float
            Share of training done, in [0, 1], for terms with a schedule.

        Returns
        -------
        torch.Tensor or float
            A scalar; 0.0 without terms.
        """
        weights = self.weights_at(progress)
        total: Tensor | float = 0.0
        for name, value in losses.items():
            total = total + weights[name] * value
        return total

    def weights_at(self, progress: float = 0.0) -> dict[str, float]:
        """Each active term's weight.

        Arguments
        ---------
        progress : float
            Share of training done, in [0, 1], for terms with a schedule.

        Returns
        -------
        dict of str to float
            By the term's name.
        """
        terms = self._active()
        return {name: term.weight_at(progress) for name, term in terms.items()}
