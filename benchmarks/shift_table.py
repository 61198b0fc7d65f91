"""Table G: how nearly a shifted cache says what the teacher would.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from recipe_runs import Workshop
from report import table
from torch import Tensor

from iusp_plugin.augment import roll_frames
from iusp_plugin.losses.gram import similarity_matrix
from iusp_plugin.losses.teacher_similarity import Frames

STRIDE = 8
BORDER = 3  # frames on either side of a seam


def _similarity(feats: Tensor) -> Tensor:
    """G of each clip, "row_l2"."""
    return similarity_matrix(Frames(feats.flatten(2)).frames)


def _change(one: Tensor, other: Tensor) -> float:
    """Median over clips of the relative Frobenius distance."""
    distance = torch.linalg.matrix_norm(one - other)
    return float((distance / torch.linalg.matrix_norm(one)).median())


def shifts(workshop: Workshop, teacher: dict, n_clips: int) -> dict:
    """Compare live and shifted outputs of a trained teacher.

    Arguments
    ---------
    workshop : Workshop
        Data.
    teacher : dict
        Overrides that name the teacher.
    n_clips : int
        How many clips are heard.

    Returns
    -------
    dict
        As ``report.table``.
    """
    epoch = workshop.brain("iusp", kd_weight=1.0, **teacher)
    network = epoch.brain.modules.teacher
    tap = epoch.brain.hparams.distillation.terms["iusp"].teacher_taps[0]
    batches = [batch.feats.data for batch in epoch.loader]
    feats = torch.cat(batches)[:n_clips]
    n_frames = feats.shape[1] // STRIDE
    turning = torch.full((len(feats),), n_frames)
    rows = []
    with torch.no_grad():
        kept = network(feats)
        for shift in (1, n_frames // 8, n_frames // 4, n_frames // 2):
            steps = torch.full((len(feats),), shift)
            shifted = roll_frames(feats, steps * STRIDE, turning * STRIDE)
            live = network(shifted)
            one = _similarity(live[tap])
            other = _similarity(roll_frames(kept[tap], steps, turning))
            error = torch.linalg.vector_norm(one - other, dim=2).mean(dim=0)
            seam = error[max(0, shift - BORDER) : shift + BORDER].mean()
            tags = (live["logits"].sigmoid() - kept["logits"].sigmoid()).abs()
            rows.append(
                {
                    "name": str(shift),
                    "change": _change(one, other),
                    "seam": float(seam),
                    "tags": float(tags.mean()),
                }
            )
        own = _similarity(kept[tap])
        others = kept["logits"].roll(1, 0).sigmoid()
        tags = (others - kept["logits"].sigmoid()).abs()
    rows.append(
        {
            "name": "another clip instead",
            "change": _change(own, own.roll(1, 0)),
            "tags": float(tags.mean()),
        }
    )
    return table(
        "G. A shifted cache against the live teacher",
        f"{len(feats)} clips, shifts in frames of the teacher's tap (one in "
        f"{STRIDE} frames, {n_frames} a clip). G: relative change, median over "
        "clips; its rows within three frames of the seam: mean distance of "
        "rows of norm 1; probabilities of the tags: mean change.",
        [
            ("shift", "name", "text"),
            ("G", "change", "number"),
            ("rows at the seam", "seam", "number"),
            ("probabilities", "tags", "number"),
        ],
        rows,
    )
