"""Between the annotation's 8 + 29 tags and a network's outputs.

A network tags the 8 coarse categories, the 23 complete fine tags, or both in
one output, coarse first.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor

from iusp_plugin.checks import check_choice
from iusp_plugin.dataio.taxonomy import (
    COARSE_TAGS,
    COMPLETE_FINE_TAGS,
    FINE_TAGS,
    coarse_id_of,
    fine_tags_of,
    incomplete_tag_of,
)

LEVELS = ("both", "coarse", "fine")

_COMPLETE = [FINE_TAGS.index(tag) for tag in COMPLETE_FINE_TAGS]
# For each complete tag, the column of its category's X tag; -1 without one.
_X_OF = [
    FINE_TAGS.index(x) if (x := incomplete_tag_of(coarse_id_of(tag))) else -1
    for tag in COMPLETE_FINE_TAGS
]


def output_tags(level: str) -> tuple[str, ...]:
    """Names of a network's outputs, in order.

    Example
    -------
    >>> len(output_tags("both")), output_tags("coarse")[0]
    (31, '1_engine')
    """
    check_choice("level", level, LEVELS)
    if level == "coarse":
        return COARSE_TAGS
    return (
        COMPLETE_FINE_TAGS
        if level == "fine"
        else COARSE_TAGS + COMPLETE_FINE_TAGS
    )


def count_outputs(level: str) -> int:
    """Number of a network's outputs.

    Example
    -------
    >>> count_outputs("fine")
    23
    """
    return len(output_tags(level))


def fine_mask(fine: Tensor) -> Tensor:
    """Weight of each complete fine tag in the loss: 1 - target(X).

    Where a category's X tag is on, its complete tags say nothing about the
    clip and the official fine loss leaves them out.

    Arguments
    ---------
    fine : torch.Tensor
        Targets of the 29 fine tags in taxonomy order, (batch, 29).

    Returns
    -------
    torch.Tensor
        (batch, 23).

    Example
    -------
    >>> fine = torch.zeros(1, 29)
    >>> fine[0, 3] = 1.0  # 1-X
    >>> fine_mask(fine)[0, :5]
    tensor([0., 0., 0., 1., 1.])
    """
    padded = torch.nn.functional.pad(fine, (0, 1))  # column -1 is zero
    return 1 - padded[:, _X_OF]


def output_targets(
    coarse: Tensor, fine: Tensor, level: str
) -> tuple[Tensor, Tensor]:
    """Targets and loss weights of a network's outputs.

    Each level weighs its mean: with "both", an output's weight is such that
    the mean over all 31 outputs is the mean of the two levels' means.

    Arguments
    ---------
    coarse : torch.Tensor
        (batch, 8).
    fine : torch.Tensor
        (batch, 29), taxonomy order, X tags included.
    level : str
        "both", "coarse" or "fine".

    Returns
    -------
    tuple of torch.Tensor
        Targets and weights, both (batch, outputs).

    Example
    -------
    >>> targets, weights = output_targets(
    ...     torch.zeros(1, 8), torch.zeros(1, 29), "both"
    ... )
    >>> targets.shape, weights.mean()
    (torch.Size([1, 31]), tensor(1.))
    """
    check_choice("level", level, LEVELS)
    if level == "coarse":
        return coarse, torch.ones_like(coarse)
    targets, weights = fine[:, _COMPLETE], fine_mask(fine)
    if level == "fine":
        return targets, weights
    n_coarse, n_fine = coarse.shape[1], targets.shape[1]
    half = (n_coarse + n_fine) / 2
    weights = torch.cat(
        [
            torch.ones_like(coarse) * (half / n_coarse),
            weights * (half / n_fine),
        ],
        dim=1,
    )
    return torch.cat([coarse, targets], dim=1), weights


def to_submission(outputs: Tensor, level: str) -> tuple[Tensor, Tensor]:
    """Probabilities of the outputs as the 8 coarse and 29 fine columns.

    X tags are never predicted. A coarse network leaves the fine columns zero;
    a fine network's coarse column is the largest of the category's complete
    tags, as the official baseline writes it.

    Arguments
    ---------
    outputs : torch.Tensor
        (batch, outputs), probabilities.
    level : str
        "both", "coarse" or "fine".

    Returns
    -------
    tuple of torch.Tensor
        Coarse (batch, 8) and fine (batch, 29).

    Example
    -------
    >>> coarse, fine = to_submission(torch.full((1, 23), 0.25), "fine")
    >>> coarse.shape, fine.sum()
    (torch.Size([1, 8]), tensor(5.7500))
    """
    wanted = len(output_tags(level))
    if outputs.dim() != 2 or outputs.shape[1] != wanted:
        raise ValueError(
            f"outputs has shape {tuple(outputs.shape)}, expected "
            f"(batch, {wanted}) for level={level!r}."
        )
    fine = outputs.new_zeros(len(outputs), len(FINE_TAGS))
    if level == "coarse":
        return outputs, fine
    complete = outputs[:, -len(COMPLETE_FINE_TAGS) :]
    fine[:, _COMPLETE] = complete
    if level == "both":
        return outputs[:, : len(COARSE_TAGS)], fine
    columns, start = [], 0
    for coarse_id in range(1, len(COARSE_TAGS) + 1):
        stop = start + len(fine_tags_of(coarse_id))
        columns.append(complete[:, start:stop].amax(dim=1))
        start = stop
    return torch.stack(columns, dim=1), fine
