"""Augmentation that teacher and student can share.

``ClipAugment`` changes what is heard (time shift, mixing two clips): teacher
and student must hear the same, so its random choices are drawn once and applied
to each front end's features and to the targets. ``SpecAugment`` hides parts of
the student's input only.

Authors
 * The iusp_plugin authors 2026
"""

import math
from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn

from iusp_plugin.checks import check_range
from iusp_plugin.lengths import frame_mask, num_frames


@dataclass(frozen=True)
class ClipDraw:
    """One batch's random choices; see ``ClipAugment``.

    Arguments
    ---------
    shift : torch.Tensor
        Circular shift as a share of the clip, in [0, 1), (batch,).
    partner : torch.Tensor
        Index of the clip that is mixed in, (batch,).
    gain : torch.Tensor
        Power gain of the partner, nepers, (batch,).
    mixed : torch.Tensor
        bool (batch,): whether the partner is mixed in at all.
    colour : torch.Tensor
        Gains of a random equaliser at its knots, nepers of power,
        (batch, knots).
    """

    shift: Tensor
    partner: Tensor
    gain: Tensor
    mixed: Tensor
    colour: Tensor


# Knots of the random equaliser, evenly spaced over the mel bands.
_KNOTS = 5
_NEPERS_PER_DB = math.log(10.0) / 10.0


def roll_frames(feats: Tensor, steps: Tensor, turning: Tensor) -> Tensor:
    """Shift the first frames of each clip circularly.

    Arguments
    ---------
    feats : torch.Tensor
        (batch, time, ...).
    steps : torch.Tensor
        Frames by which each clip is shifted to later, integer (batch,).
    turning : torch.Tensor
        How many frames turn, integer (batch,); the others stay.

    Returns
    -------
    torch.Tensor
        The same shape.

    Example
    -------
    >>> feats = torch.arange(5).view(1, 5)
    >>> roll_frames(feats, torch.tensor([1]), torch.tensor([4]))
    tensor([[3, 0, 1, 2, 4]])
    """
    frame = torch.arange(feats.shape[1], device=feats.device)
    turning = turning.unsqueeze(1)
    source = (frame - steps.unsqueeze(1)) % turning.clamp(min=1)
    source = torch.where(frame < turning, source, frame)
    # By whole frames: six times faster than gathering single values.
    clip = torch.arange(len(feats), device=feats.device).unsqueeze(1)
    return feats[clip, source]


class ClipAugment:
    """Circular time shift, random colouring, and mixing of two clips.

    Mixing adds the powers of two clips, as two sounds in one street would:
    log(exp(a) + exp(b + gain)), and its tags are the union of both clips' tags,
    1 - (1 - y_a)(1 - y_b). Colouring adds a smooth curve over the mel bands, as
    another microphone would (compare FilterAugment, Nam et al., ICASSP 2022).

    Arguments
    ---------
    time_shift : bool
        Shift each clip circularly by a random share of its length.
    shift_multiple : int
        Shifts are whole multiples of this many frames. At a multiple of a
        teacher's time stride its kept outputs can be shifted along.
    mix_probability : float
        Share of the clips that get a partner.
    mix_gain_db : float
        The partner's gain is uniform in +- this.
    colour_db : float
        The equaliser's gain at each of its knots is uniform in +- this; linear
        in between.

    Example
    -------
    >>> augment = ClipAugment(time_shift=False, mix_probability=1.0)
    >>> draw = augment.draw(batch_size=2)
    >>> augment.mix_targets(torch.eye(2), draw).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        time_shift: bool = True,
        shift_multiple: int = 1,
        mix_probability: float = 0.0,
        mix_gain_db: float = 6.0,
        colour_db: float = 0.0,
    ):
        check_range("mix_probability", mix_probability, low=0.0, high=1.0)
        check_range("mix_gain_db", mix_gain_db, low=0.0)
        check_range("shift_multiple", shift_multiple, low=1)
        self.time_shift = time_shift
        self.shift_multiple = int(shift_multiple)
        self.mix_probability = float(mix_probability)
        check_range("colour_db", colour_db, low=0.0)
        self.mix_gain_db = float(mix_gain_db)
        self.colour_db = float(colour_db)

    def draw(
        self, batch_size: int, device: torch.device | str = "cpu"
    ) -> ClipDraw:
        """Draw the random choices for one batch."""
        uniform = torch.rand(4 + _KNOTS, batch_size, device=device)
        symmetric = (2 * uniform - 1) * _NEPERS_PER_DB
        return ClipDraw(
            shift=uniform[0],
            partner=uniform[1].argsort(),
            gain=symmetric[2] * self.mix_gain_db,
            mixed=uniform[3] < self.mix_probability,
            colour=symmetric[4:].T * self.colour_db,
        )

    def apply(
        self,
        feats: Tensor,
        draw: ClipDraw,
        lengths: Tensor | None = None,
        log_unit: float = 1.0,
    ) -> Tensor:
        """Augment un-normalised log-mels.

        Arguments
        ---------
        feats : torch.Tensor
            (batch, time, n_mels), log power.
        draw : ClipDraw
            What ``draw`` returned; the same for every front end.
        lengths : torch.Tensor, optional
            Relative lengths, (batch,); a shift turns within the valid frames,
            and a mixture counts padding as silence.
        log_unit : float
            ``LogMel.log_unit``: 1 for natural logarithm.

        Returns
        -------
        torch.Tensor
            The same shape.
        """
        if self.time_shift:
            feats = self._roll(feats, draw, lengths)
        if self.mix_probability > 0:
            feats = self._mix(feats, draw, lengths, log_unit)
        if self.colour_db > 0:
            curve = nn.functional.interpolate(
                draw.colour.unsqueeze(1),
                size=feats.shape[2],
                mode="linear",
                align_corners=True,
            )
            feats = feats + curve * log_unit
        return feats

    def _mix(
        self,
        feats: Tensor,
        draw: ClipDraw,
        lengths: Tensor | None,
        log_unit: float,
    ) -> Tensor:
        """Sum of the powers of each mixed clip and its partner."""
        own = feats / log_unit
        if lengths is not None:
            # Padding may hold anything; to a mixture it is silence.
            mask = frame_mask(lengths, feats.shape[1]).unsqueeze(-1)
            own = own.masked_fill(~mask, -math.inf)
        other = own[draw.partner] + draw.gain[:, None, None]
        mix = torch.logaddexp(own, other) * log_unit
        sounds = draw.mixed[:, None, None] & (mix != -math.inf)
        return torch.where(sounds, mix, feats)

    def shift_frames(
        self, draw: ClipDraw, n_frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How far each clip turns, and how many of its frames do.

        A clip of n frames turns within its first
        n // shift_multiple * shift_multiple frames, so that a map of that
        stride turns in whole frames; what is left of the last multiple stays.

        Arguments
        ---------
        draw : ClipDraw
            What ``draw`` returned.
        n_frames : torch.Tensor
            Frames of each clip, integer (batch,).

        Returns
        -------
        tuple of torch.Tensor
            Frames by which each clip is shifted to later, a multiple of
            ``shift_multiple``, and frames that turn, both (batch,).
        """
        multiple = self.shift_multiple
        blocks = n_frames // multiple
        steps = (draw.shift * blocks).floor().long() * self.time_shift
        return steps * multiple, blocks * multiple

    def _roll(
        self, feats: Tensor, draw: ClipDraw, lengths: Tensor | None
    ) -> Tensor:
        """Circular shift of each clip within its own valid frames."""
        total = feats.shape[1]
        if lengths is None:
            lengths = torch.ones(len(feats), device=feats.device)
        steps, turning = self.shift_frames(draw, num_frames(lengths, total))
        return roll_frames(feats, steps, turning)

    def mix_targets(self, targets: Tensor, draw: ClipDraw) -> Tensor:
        """Union of the tags of mixed clips.

        Arguments
        ---------
        targets : torch.Tensor
            (batch, tags) in [0, 1].
        draw : ClipDraw
            What was applied to the features.

        Returns
        -------
        torch.Tensor
            The same shape.
        """
        if self.mix_probability == 0:
            return targets
        union = 1 - (1 - targets) * (1 - targets[draw.partner])
        return torch.where(draw.mixed[:, None], union, targets)

    def mix_lengths(self, lengths: Tensor | None, draw: ClipDraw):
        """A mixed clip is as long as the longer of the two."""
        if lengths is None or self.mix_probability == 0:
            return lengths
        longer = torch.maximum(lengths, lengths[draw.partner])
        return torch.where(draw.mixed, longer, lengths)


class SpecAugment(nn.Module):
    """Masks of random time spans and mel bands, on normalised features.

    Source: Park et al., "SpecAugment", Interspeech 2019, without warping. Masked
    values become 0, the mean of normalised features. Active in train mode only.

    Arguments
    ---------
    n_time_masks, n_freq_masks : int
        Masks a clip.
    time_width, freq_width : int
        Widest mask, frames and bands.

    Example
    -------
    >>> augment = SpecAugment(n_time_masks=1, time_width=10).eval()
    >>> augment(torch.ones(1, 20, 8)).mean()
    tensor(1.)
    """

    def __init__(
        self,
        n_time_masks: int = 2,
        time_width: int = 50,
        n_freq_masks: int = 2,
        freq_width: int = 8,
    ):
        super().__init__()
        check_range("n_time_masks", n_time_masks, low=0)
        check_range("n_freq_masks", n_freq_masks, low=0)
        self.n_time_masks = n_time_masks
        self.n_freq_masks = n_freq_masks
        self.time_mask = torchaudio.transforms.TimeMasking(
            time_width, iid_masks=True
        )
        self.freq_mask = torchaudio.transforms.FrequencyMasking(
            freq_width, iid_masks=True
        )

    def forward(self, feats: Tensor) -> Tensor:
        """Mask (batch, time, n_mels); never in place."""
        if not self.training:
            return feats
        image = feats.transpose(1, 2).unsqueeze(1)
        for _ in range(self.n_time_masks):
            image = self.time_mask(image)
        for _ in range(self.n_freq_masks):
            image = self.freq_mask(image)
        return image.squeeze(1).transpose(1, 2)
