"""What is kept of a teacher's tap for one clip, and how it is packed.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iusp_plugin.augment import roll_frames
from iusp_plugin.lengths import num_frames
from iusp_plugin.losses.teacher_similarity import (
    CosineSimilarity,
    cosine_similarity,
)
from iusp_plugin.losses.weighted import LOGITS, record_name

Array = npt.NDArray[Any]
Record = Mapping[str, Array]


class Part(NamedTuple):
    """What is kept of a tap.

    Arguments
    ---------
    tap : str
        The tap as the losses name it, or "logits".
    own_tap : str
        The network's own name of it.
    record : str
        "features", "cosine" or "mean".
    time_stride : int
        Input frames a frame of the tap.
    """

    tap: str
    own_tap: str
    record: str
    time_stride: int

    @property
    def name(self) -> str:
        """Under which the losses find it."""
        return record_name(self.tap, self.record)

    @property
    def folder(self) -> str:
        """Name of its store."""
        return record_name(self.own_tap, self.record)


def _upper_half(matrix: Tensor) -> Array:
    """Upper triangle of (t, t), column by column, in float16.

    In this order the entries of the first n frames come first, whatever t.
    """
    t = len(matrix)
    column, row = torch.tril_indices(t, t)
    return matrix[row, column].to(torch.float16).numpy()


def _half(feats: Tensor, tap: str) -> Array:
    """Features in float16, which must hold them."""
    half = feats.to(torch.float16)
    if not bool(half.isfinite().all()):
        raise ValueError(
            f"The teacher's {tap!r} has values up to {feats.abs().max():g}, "
            "which float16 cannot hold; use a loss that keeps less of it "
            "(IUSPLoss, SPLoss(pooling='mean')), or a live teacher."
        )
    return half.numpy()


def make_records(
    part: Part, view: Mapping[str, Tensor], lengths: Tensor
) -> list[dict[str, Array]]:
    """What is kept of a batch.

    Arguments
    ---------
    part : Part
        What to keep.
    view : mapping of str to torch.Tensor
        What the teacher returned.
    lengths : torch.Tensor
        Relative lengths, (batch,).

    Returns
    -------
    list of dict
        One record a clip.
    """
    if part.tap == LOGITS:
        return [{"logits": row.float().numpy()} for row in view[LOGITS].cpu()]
    feats = view[part.tap]
    counts = num_frames(lengths, feats.shape[1]).tolist()
    if part.record == "cosine":
        cosine, norms = (x.cpu() for x in cosine_similarity(feats, lengths))
        return [
            {"cosine": _upper_half(c[:n, :n]), "norms": norms_[:n].numpy()}
            for c, norms_, n in zip(cosine, norms, counts, strict=True)
        ]
    clips = feats.float().cpu()
    if part.record == "mean":
        return [
            {"mean": clip[:n].flatten(1).mean(dim=0).numpy()}
            for clip, n in zip(clips, counts, strict=True)
        ]
    return [
        {"features": _half(clip[:n], part.tap)}
        for clip, n in zip(clips, counts, strict=True)
    ]


def record_bytes(record: Mapping[str, Array]) -> int:
    """Bytes that one clip's record takes.

    Example
    -------
    >>> record_bytes({"norms": np.zeros(62, np.float32)})
    248
    """
    return sum(array.nbytes for array in record.values())


def stack(arrays: Sequence[Array]) -> Tensor:
    """Arrays as one batch, zeros behind those with fewer entries.

    Example
    -------
    >>> stack([np.ones(2), np.ones(1)]).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    longest = max(len(array) for array in arrays)
    if all(len(array) == longest for array in arrays):
        return torch.from_numpy(np.stack(arrays))
    batch = np.zeros((len(arrays), longest, *arrays[0].shape[1:]))
    batch = batch.astype(arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(batch)


def unpack(
    records: Sequence[Mapping[str, Array]],
    turn: tuple[Tensor, Tensor] | None,
    device: torch.device | str,
) -> CosineSimilarity:
    """Kept halves as whole cosine matrices, shifted.

    Arguments
    ---------
    records : sequence of mapping
        As ``make_records`` made them for "cosine".
    turn : tuple of torch.Tensor, optional
        Steps and turning frames of each clip, as ``roll_frames`` takes them.
    device : torch.device or str
        Where the tensors go.

    Returns
    -------
    CosineSimilarity
        float32, zeros in the padding.
    """
    half = stack([record["cosine"] for record in records]).to(device)
    norms = stack([record["norms"] for record in records]).to(device)
    batch, t = norms.shape
    frame = torch.arange(t, device=device).expand(batch, t)
    if turn is not None:
        frame = roll_frames(frame, *turn)
        norms = norms.gather(1, frame)
    row, column = frame.unsqueeze(2), frame.unsqueeze(1)
    later, earlier = torch.maximum(row, column), torch.minimum(row, column)
    place = later * (later + 1) // 2 + earlier
    cosine = half.gather(1, place.flatten(1)).view(batch, t, t)
    return CosineSimilarity(cosine.float(), norms)
