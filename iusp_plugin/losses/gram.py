"""Similarity matrices of rows of features: what SP and IUSP compare.

Authors
 * The iusp_plugin authors 2026
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from iusp_plugin.checks import check_choice, check_range
from iusp_plugin.lengths import frame_mask

SIMILARITIES = ("row_l2", "cosine")
REDUCTIONS = ("mean", "batch", "batchmean", "sum")
FORMS = ("auto", "gram", "covariance")
FRAME_WEIGHTS = ("equal", "energy")
# What a clip is to SP: all its frames, or their mean.
POOLINGS = ("none", "mean")

# A row this much weaker than the strongest row of its matrix counts as zero:
# its direction is rounding noise, and its gradient would be 1 / EPS too large.
EPS = 1e-4


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where an input has it, float32 for everything else."""
    wide = any(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32


def autocast_off(tensor: Tensor) -> AbstractContextManager:
    """Context without autocast on the tensor's device; free if it is off.

    Arguments
    ---------
    tensor : torch.Tensor
        Any tensor on the device.

    Returns
    -------
    context manager
        To compute in float32 within.

    Example
    -------
    >>> x = torch.eye(2)
    >>> with torch.autocast("cpu", torch.bfloat16), autocast_off(x):
    ...     (x @ x).dtype
    torch.float32
    """
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def check_eps(eps: float) -> None:
    """Raise ValueError unless ``eps`` is a floor relative to a largest norm.

    Arguments
    ---------
    eps : float
        As given to a loss.

    Raises
    ------
    ValueError
        Unless 0 <= eps <= 0.99: from 1 on every row would count as zero.
    """
    check_range("eps", eps, low=0.0, high=0.99)


def check_same_clips(student: Tensor, teacher: Tensor) -> None:
    """Raise unless both sides hold as many clips.

    Arguments
    ---------
    student, teacher : torch.Tensor
        (batch, ...).

    Raises
    ------
    ValueError
        If they differ in their first axis.
    """
    if teacher.shape[0] != student.shape[0]:
        raise ValueError(
            f"student_feats holds {student.shape[0]} clips and teacher_feats "
            f"{teacher.shape[0]}; both must hold the same clips."
        )


def check_floating(argument: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a floating tensor.

    Arguments
    ---------
    argument : str
        Name of the argument, for the message.
    value : object
        What was given.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = (
            value.dtype if isinstance(value, Tensor) else type(value).__name__
        )
        raise TypeError(f"{argument} is {kind}, expected a floating tensor.")


def check_features(argument: str, feats: Tensor, layout: str) -> None:
    """Raise unless ``feats`` is a non-empty floating feature tensor.

    Arguments
    ---------
    argument : str
        Name of the argument, for the message.
    feats : torch.Tensor
        Features.
    layout : str
        "time_first" (batch, time, ...) or "channel_first"
        (batch, channel, time[, freq]).

    Raises
    ------
    TypeError
        If it is not a floating tensor.
    ValueError
        If its rank does not fit the layout, or it is empty.
    """
    check_floating(argument, feats)
    wanted = "(batch, time, ...)"
    fits = feats.dim() >= 2
    if layout == "channel_first":
        wanted = "(batch, channel, time) or (batch, channel, time, freq)"
        fits = feats.dim() in (3, 4)
    if not fits or feats.numel() == 0:
        raise ValueError(
            f"{argument} has shape {tuple(feats.shape)}, expected a non-empty "
            f"{wanted} for layout={layout!r}."
        )


def check_same_shape(**pair: Tensor) -> None:
    """Raise unless two tensors have one shape, (batch[, time], classes).

    Arguments
    ---------
    **pair : torch.Tensor
        Two tensors by the names of their arguments.

    Raises
    ------
    ValueError
        If the shapes differ, or are none of outputs.
    """
    (name_a, a), (name_b, b) = pair.items()
    if a.shape != b.shape or a.dim() not in (2, 3) or a.numel() == 0:
        raise ValueError(
            f"{name_a} has shape {tuple(a.shape)} and {name_b} "
            f"{tuple(b.shape)}; both must be (batch, classes) or "
            "(batch, time, classes), of the same tags in the same order."
        )


def to_frames(feats: Tensor, layout: str = "time_first") -> Tensor:
    """Features as one row a frame, everything after time flattened.

    Arguments
    ---------
    feats : torch.Tensor
        (batch, time, ...) for "time_first"; (batch, channel, time) or
        (batch, channel, time, freq) for "channel_first".
    layout : str
        Which of the two; never guessed.

    Returns
    -------
    torch.Tensor
        (batch, time, D). A view where the memory format allows it, as a
        channels_last map does.

    Example
    -------
    >>> to_frames(torch.zeros(2, 16, 62, 8), layout="channel_first").shape
    torch.Size([2, 62, 128])
    """
    if layout == "channel_first":
        feats = feats.movedim(1, -1)
    if feats.dim() == 3:
        return feats
    return feats.unsqueeze(2) if feats.dim() == 2 else feats.flatten(2)


def unit_peak(rows: Tensor) -> Tensor:
    """Scale each matrix of rows to a largest entry of one.

    The similarities do not depend on the scale, so neither value nor gradient
    changes, but squares of squares can no longer overflow or vanish.

    Arguments
    ---------
    rows : torch.Tensor
        (batch, t, D).

    Returns
    -------
    torch.Tensor
        (batch, t, D); all zero stays all zero.

    Example
    -------
    >>> unit_peak(torch.tensor([[[-4.0, 2.0]]]))
    tensor([[[-1.0000,  0.5000]]])
    """
    return rows / peak_of(rows)


def centred_rows(rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows scaled to a largest entry of one, and the same less their mean.

    Arguments
    ---------
    rows : torch.Tensor
        (batch, t, D). Padding may hold anything.
    mask : torch.Tensor or None
        bool (batch, t), True at valid rows.

    Returns
    -------
    rows, centred : torch.Tensor
        (batch, t, D) each, zero in padding.

    Example
    -------
    >>> centred_rows(torch.tensor([[[1.0], [2.0]]]), None)[1]
    tensor([[[-0.2500],
             [ 0.2500]]])
    """
    if mask is not None:
        rows = rows.masked_fill(~mask.unsqueeze(-1), 0.0)
    rows = unit_peak(rows)
    n = rows.shape[1] if mask is None else mask.sum(dim=1).view(-1, 1, 1)
    centred = rows - rows.sum(dim=1, keepdim=True) / n
    if mask is not None:
        centred = centred.masked_fill(~mask.unsqueeze(-1), 0.0)
    return rows, centred


def peak_of(rows: Tensor) -> Tensor:
    """Largest magnitude of each matrix of rows, and 1 where all is zero.

    Arguments
    ---------
    rows : torch.Tensor
        (batch, t, D).

    Returns
    -------
    torch.Tensor
        (batch, 1, 1), without gradient.

    Example
    -------
    >>> peak_of(torch.tensor([[[-4.0, 2.0]]])).item()
    4.0
    """
    peak = rows.detach().abs().amax(dim=(1, 2), keepdim=True)
    return torch.where(peak == 0, torch.ones_like(peak), peak)


def unit_rows(rows: Tensor, eps: float) -> Tensor:
    """Rows of unit L2 norm; rows below ``eps`` times the largest become zero.

    The zeroed rows get zero gradient, where a plain normalisation would
    multiply theirs by the inverse of its own epsilon. NaN counts as live, so
    that it shows in the result.

    Arguments
    ---------
    rows : torch.Tensor
        (batch, t, D).
    eps : float
        Relative floor of a row's norm.

    Returns
    -------
    torch.Tensor
        (batch, t, D).

    Example
    -------
    >>> unit_rows(torch.tensor([[[3.0, 4.0], [0.0, 1e-5]]]), eps=1e-4)
    tensor([[[0.6000, 0.8000],
             [0.0000, 0.0000]]])
    """
    squares = rows.square().sum(dim=2, keepdim=True)
    floor = squares.detach().amax(dim=1, keepdim=True) * eps**2
    live = ~(squares.detach() <= floor)
    norm = torch.where(live, squares, torch.ones_like(squares)).sqrt()
    return torch.where(live, rows / norm, torch.zeros_like(rows))


def inverse_norms(norms: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """1 / norm of each row, and 0 for a row that counts as zero.

    Arguments
    ---------
    norms : torch.Tensor
        (..., t), norms of the rows of one matrix. No gradient.
    eps : float
        A row whose norm is not above ``eps`` times the largest of its matrix
        counts as zero. NaN counts as live, so that it shows in the result.

    Returns
    -------
    inverse : torch.Tensor
        (..., t).
    peak : torch.Tensor
        (..., 1), the largest norm.

    Example
    -------
    >>> inverse_norms(torch.tensor([[4.0, 2.0, 1e-5]]), eps=1e-4)[0]
    tensor([[0.2500, 0.5000, 0.0000]])
    """
    peak = norms.amax(dim=-1, keepdim=True)
    return norms.reciprocal().masked_fill_(norms <= peak * eps, 0.0), peak


def similarity_matrix(
    rows: Tensor,
    mask: Tensor | None = None,
    *,
    similarity: str = "row_l2",
    eps: float = EPS,
) -> Tensor:
    """Similarity of each row of features to each other row.

    With Q the rows of one matrix:

    * "row_l2": A = Q Q^T, G[i, :] = A[i, :] / ||A[i, :]||_2. Not symmetric.
    * "cosine": C[i, j] = <q_i, q_j> / (||q_i|| ||q_j||). Symmetric.

    A row whose norm (of A for "row_l2", of Q for "cosine") is not above
    ``eps`` times the largest of its matrix counts as zero. Computed in
    float32, or in float64 if the rows are, whatever autocast says.

    Arguments
    ---------
    rows : torch.Tensor
        (batch, t, D), floating.
    mask : torch.Tensor, optional
        bool (batch, t), False where a row is padding: its row and column
        are zero, and what it holds does not matter.
    similarity : str
        "row_l2" or "cosine".
    eps : float
        Relative floor of a row's norm.

    Returns
    -------
    torch.Tensor
        (batch, t, t).

    Example
    -------
    >>> rows = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    >>> similarity_matrix(rows)
    tensor([[[1., 0., 0.],
             [0., 1., 0.],
             [0., 0., 0.]]])
    """
    check_choice("similarity", similarity, SIMILARITIES)
    check_eps(eps)
    with autocast_off(rows):
        rows = rows.to(compute_dtype(rows))
        if rows.dim() != 3:
            raise ValueError(
                f"rows has shape {tuple(rows.shape)}, expected (batch, t, D); "
                "see to_frames."
            )
        if mask is not None:
            rows = rows.masked_fill(~mask.unsqueeze(-1), 0.0)
        rows = unit_peak(rows)
        if similarity == "cosine":
            rows = unit_rows(rows, eps)
            return rows @ rows.mT
        return unit_rows(rows @ rows.mT, eps)


def reduce_losses(per_item: Tensor, reduction: str) -> Tensor:
    """Reduce one loss per clip, shape (batch,), as SpeechBrain names it.

    Arguments
    ---------
    per_item : torch.Tensor
        One loss a clip, shape (batch,).
    reduction : str
        "mean" and "batchmean": sum over clips / batch; "sum": sum over clips;
        "batch": the vector itself.

    Returns
    -------
    torch.Tensor
        Scalar, or (batch,) for "batch".
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if reduction == "batch":
        return per_item
    return per_item.sum() if reduction == "sum" else per_item.mean()


def check_loss_finite(
    loss: Tensor,
    lengths: Tensor | None = None,
    layout: str = "time_first",
    **inputs: Tensor | None,
) -> None:
    """Raise if the loss is not finite, and name the input that is guilty.

    Skipped while compiling. The inputs are scanned only after the loss was
    found wanting, so a healthy step pays for one scalar test.

    Arguments
    ---------
    loss : torch.Tensor
        The loss.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,): what features hold in padding is innocent.
    layout : str
        Where the time axis of features is.
    **inputs : torch.Tensor or None
        The inputs by name; those named "..._feats" have frames.

    Raises
    ------
    ValueError
        If any element of the loss is NaN or infinite.
    """
    if torch.compiler.is_compiling():
        return
    total = loss if loss.dim() == 0 else loss.detach().sum()
    if math.isfinite(total.item()):
        return
    for name, tensor in inputs.items():
        if tensor is None:
            continue
        if lengths is not None and name.endswith("_feats") and tensor.dim() > 2:
            frames = to_frames(tensor, layout)
            mask = frame_mask(lengths, frames.shape[1]).unsqueeze(2)
            tensor = frames.masked_fill(~mask, 0.0)
        count = int((~tensor.isfinite()).sum())
        if count:
            raise ValueError(
                f"{name} holds {count} non-finite values of {tensor.numel()}; "
                "look for a diverged network or a broken file "
                "(check_finite=False switches this test off)."
            )
    raise ValueError(
        "The loss is not finite although its inputs are; their values are too "
        "large for the arithmetic (check_finite=False switches this test off)."
    )
