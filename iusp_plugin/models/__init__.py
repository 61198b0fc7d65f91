"""Taggers by name: log-mel features in, logits out, taps declared.

Every model maps feats (batch, time, n_mels) and optional relative lengths to
logits (batch, n_classes), and states in ``taps`` which of its maps may be
distilled. ``default_tap`` names one of them, ``early_tap`` one nearer the input.

Authors
 * The iusp_plugin authors 2026
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from iusp_plugin.checks import check_choice, near_names
from iusp_plugin.models.blocks import Tap
from iusp_plugin.models.cnn import CNN
from iusp_plugin.models.cnn_lstm import CNNLSTM
from iusp_plugin.models.macs import count_macs, count_parameters
from iusp_plugin.models.mobilenetv2 import MobileNetV2
from iusp_plugin.models.panns import (
    PANNS_FRONT_END,
    PANNsCNN,
    load_panns_checkpoint,
)

__all__ = [
    "CNN",
    "CNNLSTM",
    "MobileNetV2",
    "PANNS_FRONT_END",
    "PANNsCNN",
    "Tap",
    "count_macs",
    "count_parameters",
    "get_model",
    "list_models",
    "load_panns_checkpoint",
]

# Name -> class and the options that make the name; those are not open.
_MODELS: dict[str, tuple[Callable[..., torch.nn.Module], dict[str, Any]]] = {
    "cnn_20k": (CNN, {"base": 8}),
    "cnn_80k": (CNN, {"base": 16}),
    "cnn_320k": (CNN, {"base": 32}),
    "cnn_lstm_small": (CNNLSTM, {"channels": 16, "hidden_size": 64}),
    "cnn_lstm_large": (CNNLSTM, {"channels": 32, "hidden_size": 128}),
    "mobilenetv2_narrow": (MobileNetV2, {}),
    "cnn_teacher": (PANNsCNN, {"n_blocks": 4, "n_pools": 4}),
    "cnn10": (PANNsCNN, {"width": 64, "n_blocks": 4, "n_pools": 4}),
    "cnn14": (PANNsCNN, {"width": 64, "n_blocks": 6, "n_pools": 5}),
}


def list_models() -> tuple[str, ...]:
    """Names that :func:`get_model` takes.

    Returns
    -------
    tuple of str
        The names, students first.

    Example
    -------
    >>> "cnn_20k" in list_models()
    True
    """
    return tuple(_MODELS)


def get_model(name: str, **options: Any) -> torch.nn.Module:
    """Build a model; in YAML, ``!apply:iusp_plugin.models.get_model``.

    Arguments
    ---------
    name : str
        One of :func:`list_models`.
    **options
        Keywords of the model's class, such as n_classes, n_mels, norm and
        dropout, but for those that the name fixes.

    Returns
    -------
    torch.nn.Module
        The model, with random weights.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If the model has no such option.

    Example
    -------
    >>> get_model("cnn_20k", n_classes=3).default_tap
    'block4'
    >>> get_model("cnn_20k", dropuot=0.1)
    Traceback (most recent call last):
    ...
    TypeError: Model 'cnn_20k' has no option 'dropuot'. Did you mean 'dropout'? Known: n_classes, n_mels, norm, dropout.
    """
    check_choice("name", name, _MODELS)
    build, fixed = _MODELS[name]
    known = [k for k in inspect.signature(build).parameters if k not in fixed]
    for option in options:
        if option not in known:
            raise TypeError(
                f"Model {name!r} has no option {option!r}. "
                f"{near_names(option, known)}"
            )
    return build(**fixed, **options)
