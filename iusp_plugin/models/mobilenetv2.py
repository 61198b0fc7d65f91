"""A narrow MobileNetV2.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from iusp_plugin.checks import check_range
from iusp_plugin.models.blocks import (
    ConvBlock,
    Tap,
    check_options,
    pool_time,
    prepare_feats,
)

#: Expansion, channels at width 1, blocks and first stride of each stage
#: (Sandler et al., table 2).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


def scale_channels(channels: int, width_mult: float) -> int:
    """Multiply and round to the nearest multiple of four, at least four.

    Arguments
    ---------
    channels : int
        Channels at width 1.
    width_mult : float
        Factor.

    Returns
    -------
    int
        Scaled channels.

    Example
    -------
    >>> scale_channels(96, 0.25), scale_channels(16, 0.1)
    (24, 4)
    """
    return max(4, int(channels * width_mult / 4 + 0.5) * 4)


class InvertedResidual(torch.nn.Module):
    """Expand, convolve each channel alone, project, add the input if it fits.

    Arguments
    ---------
    in_channels : int
        Channels received.
    out_channels : int
        Channels returned; the projection has no activation.
    stride : int
        Stride in time and in frequency.
    expansion : int
        How many times ``in_channels`` the inner map has.
    norm : str
        "batch" or "group".

    Example
    -------
    >>> block = InvertedResidual(8, 8, stride=1, expansion=6)
    >>> block(torch.zeros(2, 8, 10, 64)).shape
    torch.Size([2, 8, 10, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expansion: int,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        layers = []
        if expansion != 1:
            layers.append(_relu6(in_channels, inner, 1, norm=norm))
        layers.append(
            _relu6(inner, inner, 3, stride=stride, groups=inner, norm=norm)
        )
        layers.append(ConvBlock(inner, out_channels, 1, norm=norm))
        self.layers = torch.nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, time, freq) to the same axes."""
        y = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(torch.nn.Module):
    """MobileNetV2 over log-mel features, narrow by default.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    CVPR 2018 (arXiv 1801.04381). Departures: channels are multiples of four;
    the last convolution is scaled by the width as well; time is pooled by
    mean plus maximum. The strides are the published ones: 2 after the stem,
    8 at stage3 (the default tap), 32 at the end.

    Arguments
    ---------
    n_classes : int
        Tags.
    n_mels : int
        Mel bands.
    norm : str
        "batch" or "group".
    dropout : float
        Probability before the head.
    width_mult : float
        Factor of the channels, > 0. The default has about 114 thousand
        parameters.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Example
    -------
    >>> model = MobileNetV2(n_classes=3)
    >>> model(torch.zeros(2, 40, 64)).shape
    torch.Size([2, 3])
    >>> model.taps[model.default_tap].time_stride
    8
    """

    default_tap = "stage3"
    early_tap = "stage1"

    def __init__(
        self,
        n_classes: int = 31,
        n_mels: int = 64,
        norm: str = "batch",
        dropout: float = 0.2,
        width_mult: float = 0.2,
    ) -> None:
        super().__init__()
        check_options(dropout, n_mels, n_classes=n_classes)
        check_range("width_mult", width_mult, low=0.0, low_open=True)
        self.n_mels = n_mels
        self.taps: dict[str, Tap] = {}
        channels, stride = scale_channels(STEM_CHANNELS, width_mult), 2
        self._add("stem", _relu6(1, channels, 3, stride=2, norm=norm), stride)
        for i, (expansion, out, repeats, first) in enumerate(STAGES):
            out, stride = scale_channels(out, width_mult), stride * first
            stage = _stage(channels, out, repeats, first, expansion, norm)
            self._add(f"stage{i + 1}", stage, stride)
            channels = out
        last = scale_channels(LAST_CHANNELS, width_mult)
        self._add("last", _relu6(channels, last, 1, norm=norm), stride)
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(last, n_classes)
        # The layout in which convolutions of bfloat16 are fast on CPUs.
        convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the logits of each clip.

        Arguments
        ---------
        feats : torch.Tensor
            Log-mel features (batch, time, n_mels).
        lengths : torch.Tensor, optional
            Relative lengths (batch,) in (0, 1]; None means that all frames
            are valid. Padded frames are zeroed and not pooled.

        Returns
        -------
        torch.Tensor
            Logits (batch, n_classes).
        """
        x = prepare_feats(feats, lengths, self.n_mels).unsqueeze(1)
        for name in self.taps:
            x = self.get_submodule(name)(x)
        frames = x.mean(3).transpose(1, 2)
        return self.head(self.dropout(pool_time(frames, lengths)))

    def _add(self, name: str, module: torch.nn.Module, stride: int) -> None:
        """Register a stage and its tap."""
        self.add_module(name, module)
        projections = [
            m for m in module.modules() if isinstance(m, torch.nn.Conv2d)
        ]
        channels = projections[-1].out_channels
        self.taps[name] = Tap(name, channels, stride, "channel_first")


def _relu6(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    norm: str = "batch",
) -> ConvBlock:
    """Convolution, norm and ReLU6."""
    return ConvBlock(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        groups=groups,
        norm=norm,
        activation=torch.nn.ReLU6(inplace=True),
    )


def _stage(
    in_channels: int,
    out_channels: int,
    repeats: int,
    stride: int,
    expansion: int,
    norm: str,
) -> torch.nn.Sequential:
    """Inverted residuals of one width; the first one has the stride."""
    return torch.nn.Sequential(
        *(
            InvertedResidual(
                in_channels if i == 0 else out_channels,
                out_channels,
                stride if i == 0 else 1,
                expansion,
                norm,
            )
            for i in range(repeats)
        )
    )
