"""Distillation losses: functions, thin modules, a registry.

Each loss is a function first (``iusp_loss``) and a module after (``IUSPLoss``),
callable as ``loss(student, teacher, lengths=None)`` and buildable from YAML,
``!new:iusp_plugin.losses.IUSPLoss``.

Authors
 * The iusp_plugin authors 2026
"""

from torch import nn

from iusp_plugin.checks import check_choice
from iusp_plugin.losses.cka import CKALoss, cka_loss
from iusp_plugin.losses.dist import DISTIntraLoss, dist_intra_loss
from iusp_plugin.losses.gram import similarity_matrix
from iusp_plugin.losses.iusp import IUSPLoss, iusp_loss
from iusp_plugin.losses.rkd import RKDDistanceLoss, rkd_distance_loss
from iusp_plugin.losses.soft_targets import (
    SoftTargetLoss,
    masked_bce_loss,
    soft_target_loss,
)
from iusp_plugin.losses.sp import SPLoss, sp_loss
from iusp_plugin.losses.teacher_similarity import (
    CosineSimilarity,
    SimilarityFactors,
    cosine_similarity,
    similarity_factors,
)
from iusp_plugin.losses.weighted import DistillationTerm, WeightedLosses

__all__ = [
    "CKALoss",
    "CosineSimilarity",
    "DISTIntraLoss",
    "DistillationTerm",
    "IUSPLoss",
    "RKDDistanceLoss",
    "SPLoss",
    "SimilarityFactors",
    "SoftTargetLoss",
    "WeightedLosses",
    "cka_loss",
    "cosine_similarity",
    "dist_intra_loss",
    "get_loss",
    "iusp_loss",
    "list_losses",
    "masked_bce_loss",
    "rkd_distance_loss",
    "similarity_factors",
    "similarity_matrix",
    "soft_target_loss",
    "sp_loss",
]

_LOSSES: dict[str, type[nn.Module]] = {
    "cka": CKALoss,
    "dist_intra": DISTIntraLoss,
    "iusp": IUSPLoss,
    "rkd_distance": RKDDistanceLoss,
    "soft_target": SoftTargetLoss,
    "sp": SPLoss,
}


def list_losses() -> tuple[str, ...]:
    """Names that ``get_loss`` knows.

    Example
    -------
    >>> list_losses()
    ('cka', 'dist_intra', 'iusp', 'rkd_distance', 'soft_target', 'sp')
    """
    return tuple(_LOSSES)


def get_loss(name: str, **options) -> nn.Module:
    """Build a loss by name.

    Arguments
    ---------
    name : str
        One of ``list_losses()``.
    **options
        Options of the module; an unknown one is a TypeError.

    Returns
    -------
    torch.nn.Module
        The loss.

    Example
    -------
    >>> get_loss("iusp", scaled=True).scaled
    True
    """
    check_choice("name", name, _LOSSES)
    return _LOSSES[name](**options)
