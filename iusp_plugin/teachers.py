"""A teacher that cannot be trained.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iusp_plugin.checks import check_choice
from iusp_plugin.features import LogMel
from iusp_plugin.losses.weighted import LOGITS
from iusp_plugin.taps import FeatureTaps, own_tap
from iusp_plugin.weights import load_tagger


class FrozenTeacher(nn.Module):
    """A trained tagger in eval mode, without gradient, by construction.

    It may stand in a Brain's ``modules``: ``train()`` keeps it in eval mode,
    its parameters never require gradient, and its forward runs under
    ``torch.no_grad``. Weights are read by ``load``, not by the constructor, so
    that a YAML which declares a teacher can be opened where none is needed.

    Arguments
    ---------
    model : torch.nn.Module
        The network, of the same options as in its training.
    front_end : LogMel
        Its front end; its statistics come with the weights.
    checkpoint : str or Path
        ``model.ckpt`` of the teacher's run.
    how_to_make : str
        Command that makes the checkpoint, for the error where it is missing.

    Example
    -------
    >>> from iusp_plugin.features import LogMel
    >>> from iusp_plugin.models import get_model
    >>> teacher = FrozenTeacher(get_model("cnn_20k"), LogMel(), "none.ckpt")
    >>> teacher.train().training
    False
    """

    front_end: LogMel

    def __init__(
        self,
        model: nn.Module,
        front_end: LogMel,
        checkpoint: str | Path,
        how_to_make: str = "python train.py hparams/teacher.yaml",
    ):
        super().__init__()
        self.front_end = front_end
        self.tagger: FeatureTaps = FeatureTaps(model)
        self.checkpoint = Path(checkpoint)
        self.how_to_make = how_to_make
        self.loaded = False
        super().train(False)
        self.requires_grad_(False)

    def load(self, taps: Sequence[str] = ()) -> "FrozenTeacher":
        """Read the weights and set the taps.

        Arguments
        ---------
        taps : sequence of str
            Names from the network's ``taps``.

        Returns
        -------
        FrozenTeacher
            Itself.

        Raises
        ------
        FileNotFoundError
            If there is no checkpoint; says which command makes one.
        ValueError
            If the checkpoint is of another network or front end.
        """
        if not self.checkpoint.is_file():
            raise FileNotFoundError(
                f"No teacher at {self.checkpoint}. Make one first:\n"
                f"    {self.how_to_make}\n"
                "or name another with --teacher_folder=..."
            )
        self.loaded = False
        self.tagger.remove()
        self.tagger = FeatureTaps(self.tagger.model, taps)
        load_tagger(self.checkpoint, self.tagger.model, self.front_end)
        self.loaded = True
        super().train(False)
        self.requires_grad_(False)
        return self

    def tap_facts(self, tap: str) -> tuple[str, int]:
        """Own name of a tap, and how many input frames a frame of it has.

        Arguments
        ---------
        tap : str
            From the network's ``taps``, "default" or "early".

        Returns
        -------
        tuple
            Name and time stride.
        """
        model: Any = self.tagger.model
        name = own_tap(model, tap)
        check_choice("teacher_tap", name, model.taps)
        return name, model.taps[name].time_stride

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = False) -> "FrozenTeacher":
        """Stays without gradient whatever is asked."""
        return super().requires_grad_(False)

    @torch.no_grad()
    def forward(
        self, feats: Tensor, lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The teacher's view of a batch.

        Arguments
        ---------
        feats : torch.Tensor
            Un-normalised log-mel of the teacher's own front end,
            (batch, time, n_mels).
        lengths : torch.Tensor, optional
            Relative lengths, (batch,).

        Returns
        -------
        dict of str to torch.Tensor
            "logits" (batch, classes), and each tap's feature
            (batch, time, ...). None carries gradient.
        """
        if not self.loaded:
            raise RuntimeError(
                "The teacher has no weights yet; call load() first."
            )
        logits, taps = self.tagger(self.front_end.normalise(feats), lengths)
        return {LOGITS: logits, **taps}
