"""Collects a model's outputs over an epoch and scores them once.

Authors
 * The iusp_plugin authors 2026
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from iusp_plugin.checks import check_choice, near_names
from iusp_plugin.dataio.taxonomy import COARSE_TAGS, FINE_TAGS
from iusp_plugin.metrics.auprc import TIES
from iusp_plugin.metrics.dcase2019_task5 import LEVELS, evaluate_arrays

_Array = npt.NDArray[np.float64]

# A weighted mean of probabilities may pass 1 by one unit of bfloat16.
_ROUNDING = 2.0**-7


class TaggingStats:
    """Clip-level outputs of a validation stage and their official scores.

    Follows ``speechbrain.utils.metric_stats.MetricStats``: ``append`` a
    batch at a time, then ``summarize``. A clip that comes twice, as where
    several processes pad their shares, counts once: the first is kept.

    Arguments
    ---------
    level : str
        "both", "coarse" or "fine": what ``summarize`` computes.
    ties : str
        "official" or "stable", see ``evaluate_arrays``.

    Raises
    ------
    ValueError
        If a choice is unknown.

    Example
    -------
    >>> coarse, fine = torch.eye(8), torch.eye(29)[:8]
    >>> stats = TaggingStats()
    >>> stats.append(list("abcdefgh"), coarse, fine, coarse, fine)
    >>> stats.summarize("coarse.micro_auprc")
    1.0
    """

    def __init__(self, level: str = "both", ties: str = "official") -> None:
        check_choice("level", level, LEVELS)
        check_choice("ties", ties, TIES)
        self.level = level
        self.ties = ties
        self.clear()

    def clear(self) -> None:
        """Forget all clips."""
        self._clips: dict[str, tuple[_Array, ...]] = {}
        self._losses: dict[str, float] = {}
        self.summary: dict[str, dict[str, Any]] = {}

    @property
    def ids(self) -> list[str]:
        """The distinct clip ids, in order of arrival."""
        return list(self._clips)

    def append(
        self,
        ids: Sequence[str],
        coarse_pred: torch.Tensor,
        fine_pred: torch.Tensor,
        coarse_true: torch.Tensor,
        fine_true: torch.Tensor,
        losses: torch.Tensor | None = None,
    ) -> None:
        """Store one batch.

        Arguments
        ---------
        ids : sequence of str
            Clip ids, length batch.
        coarse_pred, fine_pred : torch.Tensor
            Probabilities (not logits), shapes (batch, 8) and (batch, 29),
            any device and dtype; detached. What rounding puts outside
            [0, 1], up to 2 ** -7, is clipped.
        coarse_true, fine_true : torch.Tensor
            Labels 0 or 1 of the same shapes.
        losses : torch.Tensor, optional
            Loss of each clip, (batch,), for ``mean_loss``.

        Raises
        ------
        ValueError
            If a shape does not fit, or a prediction is no probability.
        """
        n_coarse, n_fine = len(COARSE_TAGS), len(FINE_TAGS)
        arrays = (
            _probabilities("coarse_pred", coarse_pred, ids, n_coarse),
            _probabilities("fine_pred", fine_pred, ids, n_fine),
            _as_numpy("coarse_true", coarse_true, ids, n_coarse),
            _as_numpy("fine_true", fine_true, ids, n_fine),
        )
        for clip_id, *rows in zip(ids, *arrays, strict=True):
            self._clips.setdefault(clip_id, tuple(rows))
        if losses is not None:
            for clip_id, loss in zip(ids, losses.tolist(), strict=True):
                self._losses.setdefault(clip_id, loss)

    def gather(self) -> None:
        """Join the clips of all processes, each once; all have to call it.

        Nothing changes where there is one process.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        shares: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (self._clips, self._losses))
        for clips, losses in reversed(shares):
            self._clips = {**self._clips, **clips}
            self._losses = {**self._losses, **losses}

    def mean_loss(self) -> float:
        """Mean of the clips' losses; 0.0 if none was given."""
        return math.fsum(self._losses.values()) / max(len(self._losses), 1)

    def summarize(self, field: str | None = None) -> Any:
        """Score what was appended, in whatever order.

        Arguments
        ---------
        field : str, optional
            Path of one number or part, such as "coarse.micro_auprc" or
            "fine.classwise_auprc.3".

        Returns
        -------
        dict or float
            As ``evaluate_arrays``, or what the path leads to. Every number
            is finite.

        Raises
        ------
        ValueError
            If nothing was appended, the field is unknown, or a target is
            not 0 or 1.
        """
        coarse_pred, fine_pred, coarse_true, fine_true = self._columns(
            sorted(self.ids)
        )
        self.summary = evaluate_arrays(
            coarse_true,
            fine_true,
            coarse_pred,
            fine_pred,
            self.level,
            self.ties,
        )
        found: Any = self.summary
        for key in field.split(".") if field is not None else ():
            if not isinstance(found, dict) or key not in found:
                known = found if isinstance(found, dict) else ()
                raise ValueError(
                    f"field={field!r}: {key!r} is unknown. "
                    f"{near_names(key, known)}"
                )
            found = found[key]
        return found

    def predictions(self) -> tuple[list[str], _Array, _Array]:
        """What a submission file holds.

        Returns
        -------
        tuple
            Sorted clip ids, fine predictions (clips, 29), coarse
            predictions (clips, 8).

        Raises
        ------
        ValueError
            If nothing was appended.
        """
        ids = sorted(self._clips)
        coarse_pred, fine_pred, _, _ = self._columns(ids)
        return ids, fine_pred, coarse_pred

    def _columns(self, ids: Sequence[str]) -> tuple[_Array, ...]:
        """The four arrays with one row for each of the ids."""
        if not ids:
            raise ValueError(
                "TaggingStats holds 0 clips; append a batch before asking."
            )
        rows = zip(*(self._clips[clip_id] for clip_id in ids), strict=True)
        return tuple(np.stack(column) for column in rows)


def _as_numpy(
    name: str, values: torch.Tensor, ids: Sequence[str], width: int
) -> _Array:
    """A float64 copy of an (ids, width) tensor."""
    if values.shape != (len(ids), width):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}; give one row for each "
            f"of the {len(ids)} ids and {width} columns."
        )
    # First to the processor: not every accelerator knows float64.
    return values.detach().cpu().to(torch.float64).numpy().copy()


def _probabilities(
    name: str, values: torch.Tensor, ids: Sequence[str], width: int
) -> _Array:
    """The same, checked to be probabilities and clipped to [0, 1]."""
    array = _as_numpy(name, values, ids, width)
    bad = ~((array >= -_ROUNDING) & (array <= 1 + _ROUNDING))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name} of {ids[row]!r} holds {array[row, column]:g}; give "
            "probabilities from 0 to 1 (apply the sigmoid; NaN means that "
            "the model diverged)."
        )
    return array.clip(0.0, 1.0)
