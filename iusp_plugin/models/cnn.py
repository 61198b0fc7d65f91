"""Small convolutional students.

Authors
 * The iusp_plugin authors 2026
"""

import torch
import torch.nn.functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from iusp_plugin.models.blocks import (
    ConvBlock,
    Tap,
    check_options,
    pool_time,
    prepare_feats,
)

CHANNEL_RATIOS = (1, 2, 4, 6)


class CNN(torch.nn.Module):
    """Four 3x3 convolutions, average pooling between them, a linear head.

    A plain student in the manner of the CNNs of Kong et al., "PANNs:
    Large-Scale Pretrained Audio Neural Networks for Audio Pattern
    Recognition", 2020 (arXiv 1912.10211), with one convolution a block. The
    2x2 pooling follows the first three blocks only, so that block4 keeps one
    frame in eight.

    Arguments
    ---------
    n_classes : int
        Tags.
    n_mels : int
        Mel bands, at least 8.
    norm : str
        "batch" or "group".
    dropout : float
        Probability before the head.
    base : int
        Channels of block1; the blocks have 1, 2, 4 and 6 times as many. 8, 16
        and 32 give about 20, 80 and 320 thousand parameters.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Example
    -------
    >>> model = CNN(n_classes=3, base=8)
    >>> model(torch.zeros(2, 40, 64)).shape
    torch.Size([2, 3])
    >>> model.taps[model.default_tap].time_stride
    8
    """

    default_tap = "block4"
    early_tap = "block2"

    def __init__(
        self,
        n_classes: int = 31,
        n_mels: int = 64,
        norm: str = "batch",
        dropout: float = 0.2,
        base: int = 16,
    ) -> None:
        super().__init__()
        self.min_frames = 2 ** (len(CHANNEL_RATIOS) - 1)
        check_options(
            dropout, n_mels, self.min_frames, n_classes=n_classes, base=base
        )
        self.n_mels = n_mels
        self.taps: dict[str, Tap] = {}
        previous = 1
        for i, ratio in enumerate(CHANNEL_RATIOS):
            name, channels = f"block{i + 1}", base * ratio
            block = ConvBlock(
                previous,
                channels,
                norm=norm,
                activation=torch.nn.ReLU(inplace=True),
            )
            self.add_module(name, block)
            self.taps[name] = Tap(name, channels, 2**i, "channel_first")
            previous = channels
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(previous, n_classes)
        # The layout in which convolutions of bfloat16 are fast on CPUs.
        convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the logits of each clip.

        Arguments
        ---------
        feats : torch.Tensor
            Log-mel features (batch, time, n_mels), at least 8 frames.
        lengths : torch.Tensor, optional
            Relative lengths (batch,) in (0, 1]; None means that all frames
            are valid. Padded frames are zeroed and not pooled.

        Returns
        -------
        torch.Tensor
            Logits (batch, n_classes).
        """
        feats = prepare_feats(feats, lengths, self.n_mels, self.min_frames)
        x = feats.unsqueeze(1)
        for i, name in enumerate(self.taps):
            if i > 0:
                x = F.avg_pool2d(x, 2)
            x = self.get_submodule(name)(x)
        frames = x.mean(3).transpose(1, 2)
        return self.head(self.dropout(pool_time(frames, lengths)))
