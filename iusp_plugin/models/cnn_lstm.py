"""The paper's kind of student: one convolution, then an LSTM over time.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from iusp_plugin.models.blocks import (
    ConvBlock,
    Tap,
    check_options,
    pool_time,
    prepare_feats,
)

KERNEL_SIZE = 5
STRIDE = 4


class LSTMSequence(torch.nn.Module):
    """One-layer LSTM that returns its output sequence alone.

    ``torch.nn.LSTM`` returns (output, state); a tap wants one tensor.

    Arguments
    ---------
    input_size : int
        Channels received.
    hidden_size : int
        Channels returned.

    Example
    -------
    >>> LSTMSequence(6, 4)(torch.zeros(2, 10, 6)).shape
    torch.Size([2, 10, 4])
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, time, channel) to the same axes."""
        return self.rnn(x)[0]


class CNNLSTM(torch.nn.Module):
    """A 5x5 convolution with stride 4, a one-layer LSTM, a linear head.

    After the student of Chang et al., "Intra-Utterance Similarity Preserving
    Knowledge Distillation for Audio Tagging", Interspeech 2020 (arXiv
    2009.01759): one convolution layer followed by a one-layer LSTM. Sizes,
    stride, norm and pooling are this project's own. Each LSTM step reads one
    frame: its input vector is that frame's channels and bands. (A reshape
    without the permute before it would scan channels instead of time.)

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
    channels : int
        Channels of the convolution.
    hidden_size : int
        Channels of the LSTM.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Example
    -------
    >>> model = CNNLSTM(n_classes=3, n_mels=20)
    >>> model(torch.zeros(2, 40, 20)).shape
    torch.Size([2, 3])
    >>> model.taps["lstm"].layout
    'time_first'
    """

    default_tap = "lstm"
    early_tap = "conv"

    def __init__(
        self,
        n_classes: int = 31,
        n_mels: int = 64,
        norm: str = "batch",
        dropout: float = 0.2,
        channels: int = 16,
        hidden_size: int = 64,
    ) -> None:
        super().__init__()
        check_options(
            dropout,
            n_mels,
            n_classes=n_classes,
            channels=channels,
            hidden_size=hidden_size,
        )
        self.n_mels = n_mels
        self.conv = ConvBlock(
            1,
            channels,
            kernel_size=KERNEL_SIZE,
            stride=STRIDE,
            norm=norm,
            activation=torch.nn.ReLU(inplace=True),
        )
        bands = -(-n_mels // STRIDE)  # the padded convolution rounds up
        self.lstm = LSTMSequence(channels * bands, hidden_size)
        self.taps = {
            "conv": Tap("conv", channels, STRIDE, "channel_first"),
            "lstm": Tap("lstm", hidden_size, STRIDE, "time_first"),
        }
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(hidden_size, n_classes)
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
        feats = prepare_feats(feats, lengths, self.n_mels)
        x = self.conv(feats.unsqueeze(1))
        x = x.permute(0, 2, 1, 3).flatten(2)  # (batch, time, channel * freq)
        x = self.lstm(x)
        return self.head(self.dropout(pool_time(x, lengths)))
