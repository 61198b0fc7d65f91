"""Pieces that every tagger shares: taps, norms, input checks, pooling.

Authors
 * The iusp_plugin authors 2026
"""

from dataclasses import dataclass
from math import gcd

import torch

from iusp_plugin.checks import LAYOUTS, check_choice, check_range
from iusp_plugin.lengths import check_lengths, frame_mask

NORMS = ("batch", "group")


@dataclass(frozen=True)
class Tap:
    """A place in a model whose output may be distilled.

    Arguments
    ---------
    name : str
        Path of the module inside the model, as ``get_submodule`` takes it. It
        is never a batch norm: hooks on one vanish when it is converted to its
        synchronised form.
    channels : int
        Size of the output's channel axis.
    time_stride : int
        Input frames per output frame.
    layout : str
        "channel_first" for (batch, channel, time, freq) or "time_first" for
        (batch, time, channel).

    Raises
    ------
    ValueError
        If the layout is unknown.

    Example
    -------
    >>> Tap("block4", channels=48, time_stride=8, layout="channel_first")
    Tap(name='block4', channels=48, time_stride=8, layout='channel_first')
    """

    name: str
    channels: int
    time_stride: int
    layout: str

    def __post_init__(self) -> None:
        """Refuse an unknown layout."""
        check_choice("layout", self.layout, LAYOUTS)


def make_norm(norm: str, channels: int) -> torch.nn.Module:
    """Normalisation layer over the channel axis of (batch, channel, ...).

    Group norm (Wu and He, ECCV 2018) does not depend on the batch. Here it has
    at most eight groups, of at least four channels where it can.

    Arguments
    ---------
    norm : str
        "batch" or "group".
    channels : int
        Size of the channel axis.

    Returns
    -------
    torch.nn.Module
        The layer.

    Raises
    ------
    ValueError
        If the norm is unknown.

    Example
    -------
    >>> make_norm("group", 48)
    GroupNorm(4, 48, eps=1e-05, affine=True)
    """
    check_choice("norm", norm, NORMS)
    if norm == "batch":
        return torch.nn.BatchNorm2d(channels)
    return torch.nn.GroupNorm(gcd(8, max(channels // 4, 1)), channels)


class ConvBlock(torch.nn.Module):
    """Convolution without bias, norm, activation.

    Arguments
    ---------
    in_channels : int
        Channels received.
    out_channels : int
        Channels returned.
    kernel_size : int
        Odd size of the square kernel; the map is padded by its half.
    stride : int
        Stride in time and in frequency.
    groups : int
        Groups of the convolution; ``in_channels`` for a depthwise one.
    norm : str
        "batch" or "group".
    activation : torch.nn.Module, optional
        Module applied last; None for a linear block.

    Example
    -------
    >>> block = ConvBlock(1, 8, stride=2, activation=torch.nn.ReLU())
    >>> block(torch.zeros(3, 1, 10, 64)).shape
    torch.Size([3, 8, 5, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.norm = make_norm(norm, out_channels)
        self.activation = activation or torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, time, freq) to the same axes."""
        return self.activation(self.norm(self.conv(x)))


def mask_frames(
    feats: torch.Tensor, lengths: torch.Tensor | None
) -> torch.Tensor:
    """Zero the padded frames of (batch, time, freq).

    Arguments
    ---------
    feats : torch.Tensor
        Shape (batch, time, freq), floating. Gradient flows to valid frames.
    lengths : torch.Tensor, optional
        Relative lengths (batch,) in (0, 1]; None means that all are valid.

    Returns
    -------
    torch.Tensor
        Same shape. A padded frame is zero even where it was not finite.

    Example
    -------
    >>> feats = torch.ones(2, 4, 1)
    >>> mask_frames(feats, torch.tensor([1.0, 0.5])).sum((1, 2))
    tensor([4., 2.])
    """
    if lengths is None:
        return feats
    mask = frame_mask(lengths, feats.shape[1]).to(feats.device)
    return feats.masked_fill(~mask.unsqueeze(-1), 0.0)


def prepare_feats(
    feats: torch.Tensor,
    lengths: torch.Tensor | None,
    n_mels: int,
    min_frames: int = 1,
) -> torch.Tensor:
    """Check a model's input and zero its padded frames.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (batch, time, n_mels), floating.
    lengths : torch.Tensor, optional
        Relative lengths (batch,) in (0, 1]; None means that all are valid.
    n_mels : int
        Mel bands the model was built for.
    min_frames : int
        Fewest frames that the model's strides leave something of.

    Returns
    -------
    torch.Tensor
        Shape (batch, time, n_mels).

    Raises
    ------
    ValueError
        If the rank, the number of bands or of frames, or a length is wrong.

    Example
    -------
    >>> prepare_feats(torch.zeros(2, 5, 64), None, 64, min_frames=8)
    Traceback (most recent call last):
    ...
    ValueError: feats has 5 frames and the model needs at least 8: pad the clips or shorten the hop.
    """
    shape = tuple(feats.shape)
    if feats.dim() != 3:
        raise ValueError(
            f"feats has shape {shape} and must be (batch, time, n_mels): "
            "give the log-mel features without a channel axis."
        )
    if shape[2] != n_mels:
        raise ValueError(
            f"feats has {shape[2]} mel bands (shape {shape}) and the model "
            f"was built for n_mels={n_mels}: change one of the two."
        )
    if shape[1] < min_frames:
        raise ValueError(
            f"feats has {shape[1]} frames and the model needs at least "
            f"{min_frames}: pad the clips or shorten the hop."
        )
    if lengths is not None:
        check_lengths(lengths, shape[0])
    return mask_frames(feats, lengths)


def check_options(
    dropout: float, n_mels: int, min_mels: int = 1, **sizes: int
) -> None:
    """Raise unless a constructor's options are in their ranges.

    Arguments
    ---------
    dropout : float
        A probability.
    n_mels : int
        Mel bands of the input.
    min_mels : int
        Fewest bands that the model's pooling leaves something of.
    **sizes
        Further options that are at least one, by name.

    Raises
    ------
    ValueError
        If an option is outside.

    Example
    -------
    >>> check_options(0.2, n_mels=20, min_mels=32)
    Traceback (most recent call last):
    ...
    ValueError: n_mels=20 must be >= 32.
    """
    check_range("dropout", dropout, low=0.0, high=1.0)
    check_range("n_mels", n_mels, low=min_mels)
    for name, value in sizes.items():
        check_range(name, value, low=1)


def pool_time(
    frames: torch.Tensor, lengths: torch.Tensor | None
) -> torch.Tensor:
    """Sum of the mean and the maximum over the valid frames.

    As Kong et al., "PANNs", 2020, but masked at the resolution of ``frames``.

    Arguments
    ---------
    frames : torch.Tensor
        Shape (batch, time, channel). Gradient flows to valid frames.
    lengths : torch.Tensor, optional
        Relative lengths (batch,) in (0, 1]; None means that all are valid.

    Returns
    -------
    torch.Tensor
        Shape (batch, channel).

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [3.0], [9.0], [9.0]]])
    >>> pool_time(frames, torch.tensor([0.5]))  # 2 + 3
    tensor([[5.]])
    """
    if lengths is None:
        # One path for both cases, so that all-ones lengths change no bit.
        lengths = torch.ones(frames.shape[0], device=frames.device)
    mask = frame_mask(lengths, frames.shape[1]).to(frames.device)
    padded = ~mask.unsqueeze(-1)
    count = mask.sum(1, keepdim=True).to(frames.dtype)
    mean = frames.masked_fill(padded, 0.0).sum(1) / count
    peak = frames.masked_fill(padded, float("-inf")).amax(1)
    return mean + peak
