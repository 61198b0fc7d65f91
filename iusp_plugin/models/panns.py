"""PANNs' convolutional networks, published sizes and a narrower teacher.

Authors
 * The iusp_plugin authors 2026
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from iusp_plugin.checks import check_range
from iusp_plugin.models.blocks import (
    Tap,
    check_options,
    make_norm,
    mask_frames,
    pool_time,
    prepare_feats,
)

#: Options of ``iusp_plugin.features.LogMel`` that give the features which the
#: published checkpoints were trained on.
PANNS_FRONT_END = {
    "sample_rate": 32000,
    "n_fft": 1024,
    "win_length": 1024,
    "hop_length": 320,
    "n_mels": 64,
    "fmin": 50.0,
    "fmax": 14000.0,
    "offset": 1e-10,
    "scale": "db",
    "pad_mode": "reflect",
}

#: What a published checkpoint holds beside the network: its front end.
FRONT_END_KEYS = (
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
)
HEAD_KEYS = ("fc_audioset.weight", "fc_audioset.bias")


class PANNsBlock(torch.nn.Module):
    """Two 3x3 convolutions, each with norm and ReLU, without the pooling.

    The pooling is left to the network, so that the output is the full map.

    Arguments
    ---------
    in_channels : int
        Channels received.
    out_channels : int
        Channels returned.
    norm : str
        "batch" or "group".

    Example
    -------
    >>> PANNsBlock(1, 8)(torch.zeros(2, 1, 10, 64)).shape
    torch.Size([2, 8, 10, 64])
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(
            in_channels, out_channels, 3, padding=1, bias=False
        )
        self.conv2 = torch.nn.Conv2d(
            out_channels, out_channels, 3, padding=1, bias=False
        )
        self.bn1 = make_norm(norm, out_channels)
        self.bn2 = make_norm(norm, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, channel, time, freq) to the same axes."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class PANNsCNN(torch.nn.Module):
    """Cnn10, Cnn14 and their like, by the names of the published weights.

    Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for
    Audio Pattern Recognition", 2020 (arXiv 1912.10211), table I. Width 64 with
    4 blocks and 4 poolings is Cnn10; with 6 blocks and 5 poolings, Cnn14.
    Departures: logits are returned, not probabilities; dropout precedes the
    head as well as fc1; padded frames are zeroed before and after bn0.

    Arguments
    ---------
    n_classes : int
        Tags.
    n_mels : int
        Mel bands, at least ``2 ** n_pools``.
    norm : str
        "batch", or "group" under the same attribute names.
    dropout : float
        Probability after each block.
    head_dropout : float
        Probability before ``fc1`` and before ``fc_audioset``.
    width : int
        Channels of the first block; they double from block to block, and the
        embedding is as wide as the last.
    n_blocks : int
        Convolution blocks.
    n_pools : int
        How many of the blocks, from the first, are followed by 2x2 pooling.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Example
    -------
    >>> model = PANNsCNN(n_classes=3, width=4)
    >>> model(torch.zeros(2, 40, 64)).shape
    torch.Size([2, 3])
    >>> model.taps[model.default_tap].channels
    32
    """

    def __init__(
        self,
        n_classes: int = 31,
        n_mels: int = 64,
        norm: str = "batch",
        dropout: float = 0.2,
        head_dropout: float = 0.5,
        width: int = 64,
        n_blocks: int = 4,
        n_pools: int = 4,
    ) -> None:
        super().__init__()
        check_options(
            dropout,
            n_mels,
            min_mels=2**n_pools,
            n_classes=n_classes,
            width=width,
            n_blocks=n_blocks,
        )
        check_range("head_dropout", head_dropout, low=0.0, high=1.0)
        check_range("n_pools", n_pools, low=n_blocks - 1, high=n_blocks)
        self.n_mels, self.n_pools = n_mels, n_pools
        self.bn0 = make_norm(norm, n_mels)
        self.taps: dict[str, Tap] = {}
        for i in range(n_blocks):
            self._add_block(i, width, norm)
        # Eight input frames a frame where there are that many blocks.
        self.default_tap = f"conv_block{min(n_blocks, 4)}"
        self.early_tap = f"conv_block{min(n_blocks, 2)}"
        embedding = width * 2 ** (n_blocks - 1)
        self.fc1 = torch.nn.Linear(embedding, embedding)
        self.fc_audioset = torch.nn.Linear(embedding, n_classes)
        self.dropout = torch.nn.Dropout(dropout)
        self.head_dropout = torch.nn.Dropout(head_dropout)
        self.apply(_init_weights)
        # The layout in which convolutions of bfloat16 are fast on CPUs.
        convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the logits of each clip.

        Arguments
        ---------
        feats : torch.Tensor
            Log-mel features (batch, time, n_mels), at least ``2 ** n_pools``
            frames.
        lengths : torch.Tensor, optional
            Relative lengths (batch,) in (0, 1]; None means that all frames
            are valid. Padded frames are zeroed and not pooled.

        Returns
        -------
        torch.Tensor
            Logits (batch, n_classes).
        """
        feats = prepare_feats(feats, lengths, self.n_mels, 2**self.n_pools)
        x = self.bn0(feats.transpose(1, 2).unsqueeze(3))
        # Zero is an ordinary value before bn0 and the mean after it.
        feats = mask_frames(x.squeeze(3).transpose(1, 2), lengths)
        x = feats.unsqueeze(1)
        for i, name in enumerate(self.taps):
            x = self.get_submodule(name)(x)
            if i < self.n_pools:
                x = F.avg_pool2d(x, 2)
            x = self.dropout(x)
        x = pool_time(x.mean(3).transpose(1, 2), lengths)
        x = F.relu(self.fc1(self.head_dropout(x)))
        return self.fc_audioset(self.head_dropout(x))

    def _add_block(self, i: int, width: int, norm: str) -> None:
        """Register block ``i``, counted from 0, and its tap."""
        name, channels = f"conv_block{i + 1}", width * 2**i
        previous = channels // 2 if i else 1
        self.add_module(name, PANNsBlock(previous, channels, norm))
        self.taps[name] = Tap(name, channels, 2**i, "channel_first")


def _init_weights(module: torch.nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as the published code has."""
    if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
        torch.nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)


def load_panns_checkpoint(model: PANNsCNN, path: str | Path) -> tuple[str, ...]:
    """Load a published PANNs checkpoint, strictly but for the head.

    The front end's tensors are dropped: ``PANNS_FRONT_END`` replaces them. A
    head of another shape (AudioSet has 527 classes) is left as the model has
    it. Nothing else may be missing, left over or of another shape, and the
    model is not touched when something is.

    Arguments
    ---------
    model : PANNsCNN
        The network that receives the weights.
    path : str or Path
        File of ``{"model": state_dict}``, read without executing code.

    Returns
    -------
    tuple of str
        Names left at the model's own values: the head's, or none.

    Raises
    ------
    ValueError
        If the file is no such checkpoint or does not fit the model.
    pickle.UnpicklingError
        If the file holds code.

    Example
    -------
    >>> import os, tempfile
    >>> model, path = PANNsCNN(width=4), os.path.join(tempfile.mkdtemp(), "a")
    >>> torch.save(
    ...     {"model": PANNsCNN(width=4, n_classes=527).state_dict()}, path
    ... )
    >>> load_panns_checkpoint(model, path)
    ('fc_audioset.weight', 'fc_audioset.bias')
    """
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict):
        raise ValueError(
            f"path={str(path)!r} must hold a dict whose 'model' is a state "
            "dict: give a PANNs checkpoint as published."
        )
    state = {k: v for k, v in saved["model"].items() if k not in FRONT_END_KEYS}
    own = model.state_dict()
    kept: tuple[str, ...] = ()
    if all(k in state for k in HEAD_KEYS) and any(
        state[k].shape != own[k].shape for k in HEAD_KEYS
    ):
        kept = HEAD_KEYS
        state.update({k: own[k] for k in HEAD_KEYS})
    _check_fit(state, own, path)
    model.load_state_dict(state, strict=True)
    return kept


def _check_fit(
    state: dict[str, torch.Tensor],
    own: dict[str, torch.Tensor],
    path: str | Path,
) -> None:
    """Raise ValueError naming every key that does not fit."""
    problems = {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "mismatched": [
            f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
    }
    found = [f"{word}: {', '.join(k)}" for word, k in problems.items() if k]
    if found:
        raise ValueError(
            f"path={str(path)!r} does not fit the model; {'; '.join(found)}. "
            "Build the model of the checkpoint's name, with norm='batch' and "
            "its n_mels."
        )
