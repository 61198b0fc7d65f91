"""Cross-entropy with labels and with a teacher's sigmoid outputs.

Authors
 * The iusp_plugin authors 2026
"""

from torch import Tensor
from torch.nn import functional as F

from iusp_plugin.checks import check_choice, check_range
from iusp_plugin.lengths import check_lengths, frame_mask
from iusp_plugin.losses.gram import (
    REDUCTIONS,
    autocast_off,
    check_floating,
    check_loss_finite,
    check_same_shape,
    compute_dtype,
    reduce_losses,
)
from iusp_plugin.losses.module import LossModule


def masked_bce_loss(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Multi-label binary cross-entropy in which some elements do not count.

    loss = 1 / (b * classes) * sum mask * BCE(sigmoid(logits), targets)

    A masked element contributes nothing and stays in the divisor, as in the
    task's official loss, which is a sum: a clip with fewer usable tags weighs
    less, and no clip's weight depends on another's mask.

    Arguments
    ---------
    logits : torch.Tensor
        (batch, classes). Carries gradient.
    targets : torch.Tensor
        (batch, classes) in [0, 1]; soft targets are fine.
    mask : torch.Tensor, optional
        (batch, classes) in [0, 1]; 0 takes an element out.
    reduction : str
        "mean" or "batchmean": as above; "sum": sum over clips of the mean
        over classes; "batch": one value a clip.

    Returns
    -------
    torch.Tensor
        Scalar, or (batch,) for "batch"; float32 or float64.

    Example
    -------
    >>> import torch
    >>> logits = torch.zeros(1, 2)
    >>> masked_bce_loss(logits, torch.ones(1, 2))  # log(2)
    tensor(0.6931)
    >>> masked_bce_loss(logits, torch.ones(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor(0.3466)
    """
    check_same_shape(logits=logits, targets=targets)
    if mask is not None:
        check_same_shape(logits=logits, mask=mask)
        # What a masked element holds must not matter: 0 * NaN is NaN.
        logits = logits.masked_fill(mask == 0, 0.0)
        targets = targets.masked_fill(mask == 0, 0)
    with autocast_off(logits):
        dtype = compute_dtype(logits)
        loss = F.binary_cross_entropy_with_logits(
            logits.to(dtype), targets.to(dtype), reduction="none"
        )
        if mask is not None:
            loss = loss * mask.to(dtype)
        return reduce_losses(loss.flatten(1).mean(dim=1), reduction)


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    lengths: Tensor | None = None,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    check_finite: bool = True,
) -> Tensor:
    """Multi-label distillation with sigmoid soft targets.

    With temperature T on both sides,

        loss = T^2 / (b * classes)
               * sum BCE(sigmoid(student / T), sigmoid(teacher / T))

    T^2 keeps the gradient's size comparable across temperatures. The smallest
    value is the teacher's entropy, not zero.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network",
    arXiv 1503.02531, section 2, with independent sigmoids in place of the
    softmax because tags are not exclusive.

    Arguments
    ---------
    student_logits : torch.Tensor
        (batch, classes), or (batch, time, classes) for frame-wise outputs.
        Carries gradient.
    teacher_logits : torch.Tensor
        The same shape. No gradient.
    lengths : torch.Tensor, optional
        Relative lengths, (batch,). Masks the time axis of frame-wise outputs;
        clip-wise outputs have none, so they ignore it.
    reduction : str
        "mean" or "batchmean": mean over clips of each clip's mean; "sum": sum
        over clips of the same; "batch": one value a clip.
    temperature : float
        T > 0.
    check_finite : bool
        Raise on a non-finite loss and name the guilty input.

    Returns
    -------
    torch.Tensor
        Scalar, or (batch,) for "batch"; float32 or float64.

    Raises
    ------
    ValueError
        For differing shapes, T <= 0, unknown reduction, non-finite values.

    Example
    -------
    >>> import torch
    >>> soft_target_loss(torch.zeros(1, 3), torch.zeros(1, 3))  # log(2)
    tensor(0.6931)
    >>> soft_target_loss(torch.zeros(1, 3), torch.zeros(1, 3), temperature=2.0)
    tensor(2.7726)
    """
    check_range("temperature", temperature, low=0.0, low_open=True)
    check_choice("reduction", reduction, REDUCTIONS)
    check_floating("student_logits", student_logits)
    check_floating("teacher_logits", teacher_logits)
    check_same_shape(
        student_logits=student_logits, teacher_logits=teacher_logits
    )
    with autocast_off(student_logits):
        dtype = compute_dtype(student_logits, teacher_logits)
        student = student_logits.to(dtype) / temperature
        teacher = (teacher_logits.detach().to(dtype) / temperature).sigmoid()
        mask = None
        if lengths is not None and student.dim() == 3:
            check_lengths(lengths, len(student))
            mask = frame_mask(lengths, student.shape[1])
            # Before the cross-entropy: a masked NaN has a gradient of NaN.
            student = student.masked_fill(~mask.unsqueeze(-1), 0.0)
            teacher = teacher.masked_fill(~mask.unsqueeze(-1), 0.0)
        loss = F.binary_cross_entropy_with_logits(
            student, teacher, reduction="none"
        )
        loss = loss.mean(dim=-1) * temperature**2
        if mask is not None:
            loss = loss.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)
        loss = loss.flatten(1).mean(dim=1) if loss.dim() > 1 else loss
        loss = reduce_losses(loss, reduction)
    if check_finite:
        check_loss_finite(
            loss, student_logits=student_logits, teacher_logits=teacher_logits
        )
    return loss


class SoftTargetLoss(LossModule):
    """Module form of ``soft_target_loss``; its options are the function's.

    Arguments
    ---------
    temperature : float
        T > 0, on both sides.
    reduction : str
        "mean", "batchmean", "sum" or "batch".
    check_finite : bool
        Raise on a non-finite loss.

    Example
    -------
    >>> import torch
    >>> SoftTargetLoss(temperature=2.0)(torch.zeros(1, 3), torch.zeros(1, 3))
    tensor(2.7726)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        reduction: str = "mean",
        check_finite: bool = True,
    ):
        super().__init__(
            soft_target_loss,
            temperature=temperature,
            reduction=reduction,
            check_finite=check_finite,
        )
