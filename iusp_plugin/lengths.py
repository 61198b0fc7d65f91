"""Relative lengths to frame counts and masks: the one rounding rule.

SpeechBrain describes padding by relative lengths in (0, 1]. A clip of relative
length ``r`` in a map of ``T`` frames has

    num_frames = round(r * T), at least 1, at most T

valid frames, at every time resolution T that a network produces. Rounding up
(the host's own mask) is wrong for about 4 % of pairs, because ``n / T * T`` in
float32 may land just above n.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch import Tensor


def check_lengths(lengths: Tensor, batch_size: int) -> None:
    """Raise unless ``lengths`` is one relative length in (0, 1] per clip.

    Values are looked at only outside compilation and only on the CPU, where
    looking costs nothing.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths, shape (batch,).
    batch_size : int
        Number of clips.

    Raises
    ------
    ValueError
        If shape or range is wrong.
    """
    if not isinstance(lengths, Tensor) or lengths.dtype == torch.bfloat16:
        kind = getattr(lengths, "dtype", type(lengths).__name__)
        raise TypeError(
            f"lengths is {kind}, expected a float32 tensor of one relative "
            "length per clip (the 8 bits of bfloat16 miscount frames)."
        )
    if lengths.dim() != 1 or lengths.shape[0] != batch_size:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)}, expected "
            f"({batch_size},): one relative length per clip."
        )
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        return
    low, high = (bound.item() for bound in lengths.aminmax())
    if not (low > 0 and high <= 1 + 1e-6):  # NaN is neither
        bad = ~((lengths > 0) & (lengths <= 1 + 1e-6))
        raise ValueError(
            f"lengths[{int(bad.nonzero()[0])}]="
            f"{float(lengths[bad][0])} must be in (0, 1]; give lengths "
            "relative to the longest clip of the batch, not frames."
        )


def num_frames(lengths: Tensor, total: int) -> Tensor:
    """Number of valid frames of each clip among ``total`` frames.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths in (0, 1], shape (batch,). No gradient.
    total : int
        Frames in the padded batch, T.

    Returns
    -------
    torch.Tensor
        round(lengths * T) clipped to [1, T], int64, shape (batch,).

    Example
    -------
    >>> num_frames(torch.tensor([1.0, 0.52, 0.001]), total=10)
    tensor([10,  5,  1])
    """
    return torch.round(lengths.float() * total).long().clamp(1, total)


def frame_mask(lengths: Tensor, total: int) -> Tensor:
    """True at the valid frames of each clip.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths in (0, 1], shape (batch,).
    total : int
        Frames in the padded batch, T.

    Returns
    -------
    torch.Tensor
        bool, shape (batch, T).

    Example
    -------
    >>> frame_mask(torch.tensor([1.0, 0.5]), total=4).long()
    tensor([[1, 1, 1, 1],
            [1, 1, 0, 0]])
    """
    return valid_frames(num_frames(lengths, total), total)


def valid_frames(frames: Tensor, total: int) -> Tensor:
    """True at the first ``frames`` of each clip.

    Arguments
    ---------
    frames : torch.Tensor
        Frame counts, as ``num_frames`` gives them, shape (batch,).
    total : int
        Frames in the padded batch, T.

    Returns
    -------
    torch.Tensor
        bool, shape (batch, T).

    Example
    -------
    >>> valid_frames(torch.tensor([3, 1]), total=3).long()
    tensor([[1, 1, 1],
            [1, 0, 0]])
    """
    index = torch.arange(total, device=frames.device)
    return index < frames.unsqueeze(1)
