"""What a frozen teacher says of each clip, computed once and read by clip id.

Of each tap a loss needs less than the features (``teacher_record``), and only
that is kept, one store of ``iusp_plugin.dataio.shards`` a record:

    <folder>/logits                 float32 (classes,)
    <folder>/<tap>.cosine           upper half of the frames' cosine matrix,
                                    float16 (t (t + 1) / 2,), and their norms,
                                    float32 (t,): all that IUSP needs
    <folder>/<tap>.mean             mean over the valid frames, float32
    <folder>/<tap>                  the features, float16 (t, ...)

Taps stand under their own names, not as "default". Each store is
fingerprinted by the teacher's weights, its front end, the tap, the precision,
the version of this code and the clips, and refused if any of them differs.

Authors
 * The iusp_plugin authors 2026
"""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iusp_plugin.augment import ClipAugment, roll_frames
from iusp_plugin.dataio.shards import ShardStore, ShardWriter, check_identity
from iusp_plugin.losses.teacher_similarity import CosineSimilarity
from iusp_plugin.losses.weighted import LOGITS
from iusp_plugin.run_folder import file_digest
from iusp_plugin.teacher_records import Part, stack, unpack
from iusp_plugin.teachers import FrozenTeacher

# Raise when what is kept of the same teacher and clips would change.
CACHE_VERSION = 1


def cache_parts(
    teacher: FrozenTeacher, records: Iterable[tuple[str, str]]
) -> list[Part]:
    """What to keep of a teacher.

    Arguments
    ---------
    teacher : FrozenTeacher
        The teacher.
    records : iterable of tuple
        Taps and records, as ``WeightedLosses.teacher_records`` says.

    Returns
    -------
    list of Part
    """
    parts = []
    for tap, record in records:
        own, stride = tap, 1
        if tap != LOGITS:
            own, stride = teacher.tap_facts(tap)
        parts.append(Part(tap, own, record, stride))
    return parts


def cache_identity(
    teacher: FrozenTeacher,
    source: str,
    precision: str,
    clip_duration_s: float,
) -> dict[str, Any]:
    """What a cache is made from, but for the tap.

    Arguments
    ---------
    teacher : FrozenTeacher
        Its checkpoint is read.
    source : str
        Fingerprint of the clips and their audio.
    precision : str
        In which the teacher computes: "fp32", "fp16" or "bf16".
    clip_duration_s : float
        Longest duration of a clip, seconds.

    Returns
    -------
    dict
        Of JSON types.
    """
    return {
        "format": CACHE_VERSION,
        "code": importlib.metadata.version("iusp-plugin"),
        "teacher": file_digest(teacher.checkpoint),
        **{f"front_end.{k}": v for k, v in teacher.front_end.config.items()},
        "precision": precision,
        "clip_duration_s": float(clip_duration_s),
        "clips": source,
    }


def _part_identity(identity: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """What one store is made from."""
    dtype = "float32" if part.tap == LOGITS or part.record == "mean" else ""
    return {
        **identity,
        "tap": part.own_tap,
        "record": part.record,
        "dtype": dtype or "float16",
    }


def part_writer(
    folder: str | Path,
    part: Part,
    identity: Mapping[str, Any],
    clips: Sequence[str],
) -> ShardWriter:
    """Where the records of one part go.

    Arguments
    ---------
    folder : str or Path
        The cache.
    part : Part
        What is kept.
    identity : mapping
        What ``cache_identity`` returned.
    clips : sequence of str
        Clip ids.

    Raises
    ------
    ValueError
        If the folder holds another teacher's records, or other clips'.
    """
    store = Path(folder) / part.folder
    try:
        return ShardWriter(store, _part_identity(identity, part), clips)
    except ValueError as error:
        raise ValueError(
            f"{error}\nDelete that folder, or choose another "
            "--teacher_cache=..."
        ) from error


class TeacherCache:
    """A teacher's outputs by clip id, in place of the teacher.

    Arguments
    ---------
    folder : str or Path
        The cache.
    parts : sequence of Part
        What the losses need; see ``cache_parts``.
    identity : mapping
        What the cache has to be made from; see ``cache_identity``.
    how_to_make : str
        Command that makes the cache, for errors.

    Raises
    ------
    FileNotFoundError
        If a part has not been made.
    ValueError
        If a part is not finished, damaged, or made from something else; names
        what differs.
    """

    def __init__(
        self,
        folder: str | Path,
        parts: Sequence[Part],
        identity: Mapping[str, Any],
        how_to_make: str = "python cache_teacher.py hparams/iusp.yaml",
    ):
        self.parts = list(parts)
        self.stores: dict[str, ShardStore] = {}
        for part in self.parts:
            store = Path(folder) / part.folder
            remedy = "Make it with:"
            try:
                if not store.is_dir():
                    raise FileNotFoundError(f"No teacher cache at {store}.")
                self.stores[part.name] = ShardStore(store)
                remedy = "Delete that folder, and make it again with:"
                check_identity(store, _part_identity(identity, part))
            except (FileNotFoundError, ValueError) as error:
                raise type(error)(
                    f"{error}\n{remedy}\n    {how_to_make}\nor train with "
                    "--use_teacher_cache=False."
                ) from error

    def batch(
        self,
        clips: Sequence[str],
        shift: tuple[Tensor, Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor | CosineSimilarity]:
        """The teacher's view of a batch, as a live teacher would give it.

        Arguments
        ---------
        clips : sequence of str
            Ids of the batch's clips.
        shift : tuple of torch.Tensor, optional
            What ``ClipAugment.shift_frames`` returned: the clips' circular
            shift, in which the kept frames follow.
        device : torch.device or str
            Where the tensors go.

        Returns
        -------
        dict
            Of each part by name: logits (batch, classes), means (batch, D),
            features (batch, t, ...), or a ``CosineSimilarity``.

        Raises
        ------
        KeyError
            If a clip is not in the cache; names it.
        """
        view: dict[str, Tensor | CosineSimilarity] = {}
        for part in self.parts:
            store = self.stores[part.name]
            records = [store[clip] for clip in clips]
            turn = None
            if shift is not None:
                steps, turning = (
                    x.to(device) // part.time_stride for x in shift
                )
                turn = steps, turning
            if part.record == "cosine":
                view[part.name] = unpack(records, turn, device)
                continue
            (field,) = records[0]
            feats = stack([record[field] for record in records]).to(device)
            if part.record == "features" and part.tap != LOGITS and turn:
                feats = roll_frames(feats, *turn)
            view[part.name] = feats
        return view


def check_augmentation(augment: ClipAugment, parts: Iterable[Part]) -> None:
    """Refuse augmentation that changes what a cached teacher has heard.

    Arguments
    ---------
    augment : ClipAugment
        What teacher and student hear.
    parts : iterable of Part
        What is cached.

    Raises
    ------
    ValueError
        Names the option, its value and the remedy.
    """
    remedy = "or train with --use_teacher_cache=False"
    for name in ("mix_probability", "colour_db"):
        value = getattr(augment, name)
        if value > 0:
            raise ValueError(
                f"{name}={value:g} changes what the teacher hears, and its "
                f"cached outputs are of the clips as they are; set {name}=0, "
                f"{remedy}."
            )
    for part in parts:
        if augment.time_shift and augment.shift_multiple % part.time_stride:
            raise ValueError(
                f"shift_multiple={augment.shift_multiple} is not a multiple "
                f"of {part.time_stride}, the time stride of the teacher's "
                f"{part.own_tap!r}, so its cached frames cannot follow a shift; "
                f"set shift_multiple={part.time_stride}, time_shift=False, "
                f"{remedy}."
            )
